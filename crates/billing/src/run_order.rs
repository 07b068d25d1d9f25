//! Which invoices a run claims, how many of them and for how much, and why it was started. Pure: one rule for both
//! databases and for dry runs; must not know how a run claims.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::invoice::{CustomerId, Dunning};
use crate::money::{Currency, Money};

/// The order with which a run was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOrder {
    pub filter: RunFilter,
    pub limits: RunLimits,
    /// Why an operator started the run.
    pub reason: Option<String>,
}

impl RunOrder {
    /// The order of the schedule: invoices of subscriptions that are due for their next attempt.
    #[must_use]
    pub fn scheduled() -> Self {
        let filter = RunFilter { scheduled: true, ..RunFilter::default() };
        Self { filter, ..Self::default() }
    }

    /// Whether an unfinished run with the `other` order claims all that this order asks for, or will once it is joined.
    #[must_use]
    pub fn may_join(&self, other: &Self) -> bool {
        let fits = self.may_join_keeping_days() && other.filter == RunFilter::keeping_days();
        self.limits.is_unlimited()
            && other.limits.is_unlimited()
            && (other.filter.is_all() || other.filter == self.filter || fits)
    }

    /// Whether this order may join a run of all invoices that keeps days: by keeping days too, or as a legacy pay call,
    /// after which that run no longer keeps days.
    #[must_use]
    pub fn may_join_keeping_days(&self) -> bool {
        self.filter.is_all() || self.filter.keeps_days || self.filter.scheduled
    }
}

/// Which invoices a run claims; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFilter {
    /// Whether only invoices of subscriptions whose `next_attempt_at` has come are claimed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub scheduled: bool,
    /// Whether declined invoices are claimed only on the days of their ladder. The legacy pay calls ignore these days.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keeps_days: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_prefix: Option<String>,
    /// Only invoices due before this time, in milliseconds since the Unix epoch. An invoice without a due date is not
    /// claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_before: Option<i64>,
}

/// The data of an invoice that a filter checks.
#[derive(Clone, Copy, Debug)]
pub struct InvoiceFacts<'a> {
    pub reference: &'a str,
    pub customer_id: CustomerId,
    pub due_at: Option<i64>,
    pub next_attempt_at: Option<i64>,
    pub dunning: Option<Dunning>,
}

impl RunFilter {
    /// The filter for all invoices, with declined ones only on their days.
    #[must_use]
    pub fn keeping_days() -> Self {
        Self { keeps_days: true, ..Self::default() }
    }

    /// Whether the filter admits every invoice.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The filter in its stored form; `None` for all invoices.
    #[must_use]
    pub fn stored(&self) -> Option<String> {
        let text = || serde_json::to_string(self).expect("plain fields are always JSON");
        (!self.is_all()).then(text)
    }

    /// Whether a run with this filter claims the invoice.
    #[must_use]
    pub fn admits(&self, invoice: &InvoiceFacts<'_>, now_ms: i64) -> bool {
        let is_due = invoice.next_attempt_at.is_some_and(|at| at <= now_ms);
        let keeps_days = self.keeps_days || self.scheduled;
        let is_free = match invoice.dunning {
            None => true,
            Some(Dunning::Waiting) => is_due || !keeps_days,
            Some(Dunning::Exhausted) => !keeps_days,
            Some(Dunning::Hard | Dunning::Fix) => false,
        };
        is_free
            && (!self.scheduled || is_due && invoice.due_at.is_some())
            && self.customer_id.is_none_or(|customer| customer == invoice.customer_id.0)
            && self.reference_prefix.as_ref().is_none_or(|prefix| invoice.reference.starts_with(&**prefix))
            && self.due_before.is_none_or(|before| invoice.due_at.is_some_and(|due| due < before))
    }
}

/// What a run may still claim; the default is anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// The number of invoices.
    pub count: Option<i64>,
    /// Minor units by currency. A currency that is not listed is not claimed.
    pub amounts: Option<BTreeMap<Currency, i64>>,
}

impl RunLimits {
    /// Whether there are no limits.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// The amounts in their stored form.
    #[must_use]
    pub fn amounts_stored(&self) -> Option<String> {
        let text = |amounts| serde_json::to_string(amounts).expect("currencies and numbers are always JSON");
        self.amounts.as_ref().map(text)
    }

    /// Whether nothing more may be claimed.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.count.is_some_and(|left| left <= 0)
    }

    /// Subtracts an invoice from what is left; `false`, and nothing subtracted, when it exceeds that. A smaller later
    /// one may fit.
    pub fn take(&mut self, money: Money) -> bool {
        if self.is_used_up() {
            return false;
        }
        if let Some(amounts) = &mut self.amounts {
            let Some(left) = amounts.get_mut(&money.currency) else { return false };
            if money.amount_minor > *left {
                return false;
            }
            *left -= money.amount_minor;
        }
        if let Some(left) = &mut self.count {
            *left -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount_minor: i64, currency: Currency) -> Money {
        Money { amount_minor, currency }
    }

    #[test]
    fn a_filter_leaves_out_what_it_does_not_name() {
        let invoice = InvoiceFacts {
            reference: "S1@2026-01-31",
            customer_id: CustomerId(7),
            due_at: Some(5),
            next_attempt_at: Some(10),
            dunning: None,
        };
        let imported = InvoiceFacts { due_at: None, next_attempt_at: None, ..invoice };
        let all = RunFilter::default();
        assert!(all.is_all() && all.admits(&invoice, 0) && all.admits(&imported, 0));
        let scheduled = RunOrder::scheduled().filter;
        assert!(scheduled.admits(&invoice, 10) && !scheduled.admits(&invoice, 9));
        assert!(!scheduled.admits(&imported, i64::MAX));
        let filter = |filter: RunFilter| (filter.admits(&invoice, 0), filter.admits(&imported, 0));
        assert_eq!(filter(RunFilter { customer_id: Some(8), ..all.clone() }), (false, false));
        assert_eq!(filter(RunFilter { reference_prefix: Some("S1@".into()), ..all.clone() }), (true, true));
        assert_eq!(filter(RunFilter { reference_prefix: Some("s".into()), ..all.clone() }), (false, false));
        assert_eq!(filter(RunFilter { due_before: Some(6), ..all.clone() }), (true, false));
        assert_eq!(filter(RunFilter { due_before: Some(5), ..all }), (false, false));
    }

    #[test]
    fn a_declined_invoice_is_claimed_on_its_day_or_by_a_legacy_call_and_never_after_a_hard_decline() {
        let (legacy, run) = (RunFilter::default(), RunFilter::keeping_days());
        let scheduled = RunOrder::scheduled().filter;
        let invoice = |dunning, next_attempt_at| InvoiceFacts {
            reference: "S1@2026-01-31",
            customer_id: CustomerId(7),
            due_at: Some(5),
            next_attempt_at,
            dunning: Some(dunning),
        };
        let admits = |invoice| [&legacy, &run, &scheduled].map(|filter| filter.admits(&invoice, 10));
        assert_eq!(admits(invoice(Dunning::Waiting, Some(11))), [true, false, false]);
        assert_eq!(admits(invoice(Dunning::Waiting, Some(10))), [true, true, true]);
        assert_eq!(admits(invoice(Dunning::Exhausted, None)), [true, false, false]);
        assert_eq!(admits(invoice(Dunning::Hard, None)), [false; 3]);
        assert_eq!(admits(invoice(Dunning::Fix, None)), [false; 3]);
        let imported = InvoiceFacts { due_at: None, ..invoice(Dunning::Waiting, Some(10)) };
        assert_eq!(admits(imported), [true, true, false], "the schedule charges what it has invoiced");
        assert!(legacy.is_all() && !run.is_all());
    }

    #[test]
    fn limits_are_never_passed_and_a_smaller_invoice_may_still_fit() {
        let mut limits = RunLimits { count: Some(2), amounts: Some([(Currency::EUR, 1000)].into()) };
        assert!(!limits.take(money(1001, Currency::EUR)));
        assert!(limits.take(money(700, Currency::EUR)));
        assert!(!limits.take(money(301, Currency::EUR)));
        assert!(!limits.take(money(1, Currency::USD)), "a currency that is not named");
        assert!(limits.take(money(300, Currency::EUR)));
        assert!(limits.is_used_up() && !limits.take(money(0, Currency::EUR)));
        assert!(RunLimits::default().take(money(i64::MAX, Currency::USD)));
    }
}
