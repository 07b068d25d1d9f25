//! The invoices that the schedule will make, decided by the generator's own functions without a store, so that a
//! preview cannot differ. Pure; must not know a store or the present time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jiff::civil::Date;

use crate::schedule::calendar::periods;
use crate::schedule::{Holidays, Period};
use crate::store::changeset::generation::{BadSubscription, DueInvoice, plan};
use crate::subscription::{NextPeriod, Subscription, SubscriptionState};

/// One future invoice.
#[derive(Debug)]
pub struct Previewed<'a> {
    /// The subscription as it is now.
    pub subscription: &'a Subscription,
    /// The period that is invoiced.
    pub period: Period,
    /// The invoice that the generator makes.
    pub invoice: DueInvoice,
}

/// The position of one subscription in the range.
struct Cursor<'a> {
    subscription: &'a Subscription,
    advanced: Subscription,
}

/// The invoices of due dates within `from` to `through`, ordered by instant, then by the order of the subscriptions.
/// Periods that were invoiced already are included; periods that a pause skipped are not. Holds one period of each
/// subscription in memory, however long the range is.
pub fn preview<'a>(
    subscriptions: &'a [Subscription],
    holidays: &'a Holidays,
    (from, through): (Date, Date),
) -> impl Iterator<Item = Result<Previewed<'a>, BadSubscription>> + 'a {
    let mut cursors: Vec<Cursor<'a>> =
        subscriptions.iter().map(|subscription| Cursor::new(subscription, holidays, from)).collect();
    let mut coming = BinaryHeap::new();
    let mut found: Vec<Option<Previewed<'a>>> = Vec::with_capacity(cursors.len());
    let mut failed = Vec::new();
    for (at, cursor) in cursors.iter_mut().enumerate() {
        let next = cursor.step(holidays, through);
        found.push(next.unwrap_or_else(|error| {
            failed.push(error);
            None
        }));
        coming.extend(found[at].as_ref().map(|next| Reverse((next.invoice.due_at, at))));
    }
    std::iter::from_fn(move || {
        if let Some(error) = failed.pop() {
            return Some(Err(error));
        }
        let Reverse((_, at)) = coming.pop()?;
        let due = found[at].take();
        match cursors[at].step(holidays, through) {
            Ok(next) => {
                coming.extend(next.as_ref().map(|next| Reverse((next.invoice.due_at, at))));
                found[at] = next;
            }
            Err(error) => failed.push(error),
        }
        due.map(Ok)
    })
}

impl<'a> Cursor<'a> {
    fn new(subscription: &'a Subscription, holidays: &Holidays, from: Date) -> Self {
        let next = NextPeriod::from(&subscription.terms, holidays, from);
        Self { subscription, advanced: Subscription { next, ..subscription.clone() } }
    }

    fn step(&mut self, holidays: &Holidays, through: Date) -> Result<Option<Previewed<'a>>, BadSubscription> {
        while let Some(next) = self.advanced.next.filter(|next| next.on <= through) {
            let mut generation =
                plan(std::slice::from_ref(&self.advanced), next.on, i64::MAX, None, holidays)?;
            if let Some(advanced) = generation.advanced.pop() {
                self.advanced = advanced;
            }
            let period = periods(&self.subscription.terms, holidays, next.on, next.on).next();
            if let (Some(invoice), Some(period), true) =
                (generation.invoices.pop(), period, self.is_invoiced(next.on))
            {
                return Ok(Some(Previewed { subscription: self.subscription, period, invoice }));
            }
        }
        Ok(None)
    }

    /// Whether the period has an invoice or will get one.
    fn is_invoiced(&self, on: Date) -> bool {
        let Subscription { state, next, last_on, .. } = self.subscription;
        last_on.is_some_and(|last| on <= last)
            || (*state == SubscriptionState::Active && next.is_some_and(|next| on >= next.on))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::subscription::{NewSubscription, RawFields};

    fn subscription(reference: &str, zone: &str) -> Subscription {
        let fields = RawFields {
            reference: Some(reference),
            customer_id: Some("7"),
            currency: Some("EUR"),
            prices: Some(vec![("2026-01-01", "9.90"), ("2026-03-01", "12.00")]),
            anchor_day: Some("31"),
            zone: Some(zone),
            starts_on: Some("2026-01-31"),
            ..RawFields::default()
        };
        let NewSubscription { reference, currency, prices, terms, next, .. } =
            NewSubscription::read(&fields, &Holidays::target()).expect("a subscription");
        let (state, last_on) = (SubscriptionState::Active, None);
        Subscription {
            id: 1,
            reference,
            customer_id: crate::invoice::CustomerId(7),
            customer_reference: None,
            currency,
            prices,
            terms,
            state,
            next,
            last_on,
            created_at: 0,
            updated_at: 0,
        }
    }

    fn shown(subscriptions: &[Subscription], from: Date, through: Date) -> Vec<String> {
        preview(subscriptions, &Holidays::target(), (from, through))
            .map(|previewed| {
                let Previewed { period, invoice, .. } = previewed.expect("good subscriptions");
                let (reference, amount) = (invoice.reference.as_str(), invoice.amount_minor);
                format!("{reference} {} {amount} {}", period.instant, period.notes).trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn invoices_of_all_subscriptions_come_in_the_order_of_their_instants() {
        let both = [subscription("A", "America/Sao_Paulo"), subscription("B", "Asia/Tokyo")];
        assert_eq!(
            shown(&both, date(2026, 2, 1), date(2026, 3, 31)),
            [
                "B@2026-02-28 2026-02-28T06:00:00+09:00 990 clamped",
                "A@2026-02-28 2026-02-28T06:00:00-03:00 990 clamped",
                "B@2026-03-31 2026-03-31T06:00:00+09:00 1200",
                "A@2026-03-31 2026-03-31T06:00:00-03:00 1200",
            ]
        );
    }

    #[test]
    fn what_was_invoiced_is_shown_and_what_a_pause_left_out_is_not() {
        let mut resumed = subscription("A", "UTC");
        resumed.last_on = Some(date(2026, 2, 28));
        resumed.next = Some(NextPeriod { on: date(2026, 5, 31), charge_at: 0 });
        let months = |subscription: &Subscription| -> Vec<String> {
            let range = (date(2026, 1, 1), date(2026, 6, 30));
            preview(std::slice::from_ref(subscription), &Holidays::target(), range)
                .map(|previewed| previewed.expect("good").period.on.to_string())
                .collect()
        };
        assert_eq!(months(&resumed), ["2026-01-31", "2026-02-28", "2026-05-31", "2026-06-30"]);
        let paused = Subscription { state: SubscriptionState::Paused, ..resumed };
        assert_eq!(months(&paused), ["2026-01-31", "2026-02-28"]);
    }
}
