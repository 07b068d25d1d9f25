//! Judges the provider's ledger row by row: no attempt before its day, none above the limits of a card network. Written
//! a second time from the published rules, so that a mistake in billing's own check shows. Must not know billing's
//! code.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::plan::{AtMs, Plan};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Days between a soft decline and the next attempt of the invoice: after the first decline, the second, and so on.
const CARD_WAITS: &[i64] = &[1, 2, 2, 2];
const SEPA_WAITS: &[i64] = &[5, 5];

/// Maximum declines in each time window; an attempt after them is wrong.
const VISA: &[(usize, i64)] = &[(20, 30 * DAY_MS)];
const MASTERCARD: &[(usize, i64)] = &[(10, DAY_MS), (35, 30 * DAY_MS)];
const LOOK_BACK_MS: i64 = 30 * DAY_MS;

/// Maximum number of wrong rows of a month that are named; all are counted.
const NAMED_MAX: usize = 20;

/// A row of the ledger's list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) reference: Option<String>,
    pub(super) customer_id: u64,
    pub(super) state: String,
    pub(super) decline_class: Option<String>,
    pub(super) created_at: AtMs,
}

/// Counts of a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) paid: u64,
    pub(super) soft: u64,
    pub(super) hard: u64,
    pub(super) early: u64,
    pub(super) over_limit: u64,
}

/// A customer's change to another card. Earlier declines delay nothing after it, but still count in the windows of its
/// network.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewInstrument {
    pub(super) customer: u64,
    pub(super) from: AtMs,
}

/// The declines of one invoice so far.
#[derive(Debug, Default)]
struct Declined {
    soft: usize,
    at_ms: i64,
    is_final: bool,
}

/// State from the rows so far.
#[derive(Debug, Default)]
pub(super) struct Judge {
    invoices: HashMap<String, Declined>,
    declines: HashMap<u64, VecDeque<i64>>,
    /// The last hard decline of each customer.
    hard: HashMap<u64, i64>,
    new_instruments: HashMap<u64, i64>,
    /// Descriptions of the first wrong rows, until they are taken.
    pub(super) named: Vec<String>,
}

impl Judge {
    /// Records a change of card, before the rows of that time; once per customer.
    pub(super) fn instrument_changed(&mut self, change: NewInstrument) {
        self.new_instruments.insert(change.customer, change.from.0);
    }

    /// Whether the decline at `declined_ms` was of the instrument that the customer has at `at_ms`.
    fn is_of_this_instrument(&self, customer: u64, declined_ms: i64, at_ms: i64) -> bool {
        let changed_ms = self.new_instruments.get(&customer);
        changed_ms.is_none_or(|changed_ms| at_ms < *changed_ms || declined_ms > *changed_ms)
    }

    /// Judges the next row, in the order of the ledger.
    pub(super) fn row(&mut self, row: &Row, plan: &Plan, counted: &mut Counted) {
        let Some(reference) = &row.reference else { return };
        let at_ms = row.created_at.0;
        let network = Plan::network(row.customer_id);
        let is_of_this = |at| self.is_of_this_instrument(row.customer_id, at, at_ms);
        let declined = self.invoices.get(reference).filter(|declined| is_of_this(declined.at_ms));
        let is_early = is_early(plan.due_ms(reference), declined, at_ms, network);
        let is_final = declined.is_some_and(|declined| declined.is_final);
        let is_over = is_final || self.is_over(row.customer_id, at_ms, network);
        counted.early += u64::from(is_early);
        counted.over_limit += u64::from(is_over);
        if (is_early || is_over) && self.named.len() < NAMED_MAX {
            let wrong = if is_early { "early" } else { "over a limit" };
            self.named.push(format!("{wrong}: row {} of the ledger, {reference}, at {at_ms}", row.seq));
        }
        if row.state == "CHARGED" {
            counted.paid += 1;
            self.invoices.remove(reference);
            return;
        }
        if row.state == "REFUSED" {
            self.decline(row, at_ms, network, counted);
        }
    }

    fn is_over(&self, customer: u64, at_ms: i64, network: Option<&str>) -> bool {
        let limits = match network {
            Some("visa") => VISA,
            Some("mastercard") => MASTERCARD,
            _ => &[],
        };
        let declines = self.declines.get(&customer);
        let within = |since: i64| declines.map_or(0, |at| at.iter().filter(|at| **at > since).count());
        let is_hard = |hard_ms: &&i64| self.is_of_this_instrument(customer, **hard_ms, at_ms);
        let is_blocked = network.is_some() && self.hard.get(&customer).filter(is_hard).is_some();
        is_blocked || limits.iter().any(|(most, within_ms)| within(at_ms - within_ms) >= *most)
    }

    fn decline(&mut self, row: &Row, at_ms: i64, network: Option<&str>, counted: &mut Counted) {
        let Some(reference) = &row.reference else { return };
        let before = self.invoices.remove(reference);
        let is_of_this =
            |declined: &Declined| self.is_of_this_instrument(row.customer_id, declined.at_ms, at_ms);
        let mut declined = before.filter(is_of_this).unwrap_or_default();
        declined.at_ms = at_ms;
        match row.decline_class.as_deref() {
            Some("soft") => {
                counted.soft += 1;
                declined.soft += 1;
                declined.is_final = declined.soft > waits(network).len();
            }
            Some("hard") => {
                counted.hard += 1;
                declined.is_final = true;
                self.hard.insert(row.customer_id, at_ms);
            }
            _ => declined.is_final = true,
        }
        self.invoices.insert(reference.clone(), declined);
        if network.is_some() {
            let declines = self.declines.entry(row.customer_id).or_default();
            while declines.front().is_some_and(|first| *first <= at_ms - LOOK_BACK_MS) {
                declines.pop_front();
            }
            declines.push_back(at_ms);
        }
    }
}

fn waits(network: Option<&str>) -> &'static [i64] {
    if network == Some("sepa") { SEPA_WAITS } else { CARD_WAITS }
}

fn is_early(due_ms: Option<i64>, declined: Option<&Declined>, at_ms: i64, network: Option<&str>) -> bool {
    let wait = declined.and_then(|declined| {
        let days = declined.soft.checked_sub(1).and_then(|place| waits(network).get(place))?;
        Some(declined.at_ms + days * DAY_MS)
    });
    // An invoice of no subscription is never due.
    due_ms.is_none_or(|due| at_ms < due) || wait.is_some_and(|wait| at_ms < wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Due time of the first fleet, on Visa: 22 January 2028 at 05:00 UTC.
    const DUE: i64 = 1_832_130_000_000;

    fn judged(rows: &[(&str, u64, &str, i64)]) -> Counted {
        judged_with(&[], rows)
    }

    fn judged_with(changes: &[(u64, i64)], rows: &[(&str, u64, &str, i64)]) -> Counted {
        let (plan, mut judge, mut counted) =
            (Plan::new(1, 1000, 12).unwrap(), Judge::default(), Counted::default());
        for (customer, from_ms) in changes {
            judge.instrument_changed(NewInstrument { customer: *customer, from: AtMs(*from_ms) });
        }
        for (reference, customer_id, outcome, at_ms) in rows {
            let row = Row {
                seq: 1,
                reference: Some(format!("{reference}@2028-01-22")),
                customer_id: *customer_id,
                state: if *outcome == "charged" { "CHARGED" } else { "REFUSED" }.to_owned(),
                decline_class: Some((*outcome).to_owned()),
                created_at: AtMs(*at_ms),
            };
            judge.row(&row, &plan, &mut counted);
        }
        counted
    }

    #[test]
    fn a_charge_before_its_time_is_early_and_one_at_its_time_is_not() {
        assert_eq!(judged(&[("S-0000001", 900, "charged", DUE)]).early, 0);
        assert_eq!(judged(&[("S-0000001", 900, "charged", DUE - 1)]).early, 1);
        assert_eq!(judged(&[("X", 900, "charged", DUE)]).early, 1, "no subscription has it");
    }

    #[test]
    fn a_retry_before_its_day_is_early_and_one_after_the_last_day_too_many() {
        let soft = |days: &[i64]| -> Counted {
            let rows: Vec<_> =
                days.iter().map(|day| ("S-0000001", 900, "soft", DUE + day * DAY_MS)).collect();
            judged(&rows)
        };
        assert_eq!((soft(&[0, 1, 3, 5, 7]).early, soft(&[0, 1, 3, 5, 7]).over_limit), (0, 0));
        assert_eq!((soft(&[0, 1, 2]).early, soft(&[0, 0]).early), (1, 1));
        assert_eq!(soft(&[0, 1, 3, 5, 7, 9]).over_limit, 1);
    }

    #[test]
    fn the_twenty_first_visa_decline_in_thirty_days_is_too_many_and_the_eleventh_mastercard_one_in_a_day() {
        let names: Vec<String> = (1..=21).map(|number| format!("S-{number:07}")).collect();
        let over = |count: usize, customer, apart: i64| {
            let rows: Vec<_> = (0..)
                .zip(&names[..count])
                .map(|(place, name)| (name.as_str(), customer, "soft", DUE + 12 * HOUR_MS + place * apart))
                .collect();
            judged(&rows).over_limit
        };
        assert_eq!((over(20, 1, 1), over(21, 1, 1), over(21, 1, 2 * DAY_MS)), (0, 1, 0));
        assert_eq!((over(10, 2, 1), over(11, 2, 1), over(21, 2, 3 * HOUR_MS)), (0, 1, 0));
        assert_eq!(over(21, 900, 1), 0, "no network is known");
    }

    #[test]
    fn nothing_may_follow_a_hard_decline_with_the_same_card() {
        let after = |second: &'static str, customer| {
            judged(&[("S-0000061", customer, "hard", DUE), (second, customer, "charged", DUE + DAY_MS)])
                .over_limit
        };
        assert_eq!((after("S-0000062", 3), after("S-0000061", 3)), (1, 1));
        assert_eq!(
            (after("S-0000062", 900), after("S-0000061", 900)),
            (0, 1),
            "the card is not known, the invoice is"
        );
        let at_once = |second| judged(&[("S-0000061", 3, "hard", DUE), (second, 3, "soft", DUE)]).over_limit;
        assert_eq!((at_once("S-0000062"), at_once("S-0000061")), (1, 1), "none may be under way beside it");
    }

    #[test]
    fn another_card_ends_the_block_and_begins_ladders_again_and_opens_no_window() {
        let rows = [("S-0000061", 3, "hard", DUE), ("S-0000061", 3, "charged", DUE + DAY_MS)];
        assert_eq!(judged_with(&[(3, DUE + 1)], &rows).over_limit, 0);
        assert_eq!(judged_with(&[(3, DUE + DAY_MS + 1)], &rows).over_limit, 1, "it came after the charge");
        assert_eq!(judged_with(&[(2, DUE + 1)], &rows).over_limit, 1, "it is another customer's");

        let soft = |days: &[i64]| -> Counted {
            let rows: Vec<_> =
                days.iter().map(|day| ("S-0000001", 900, "soft", DUE + day * DAY_MS)).collect();
            judged_with(&[(900, DUE + 7 * DAY_MS + 1)], &rows)
        };
        assert_eq!(soft(&[0, 1, 3, 5, 7, 8, 9, 11, 13, 15]), Counted { soft: 10, ..Counted::default() });
        assert_eq!(soft(&[0, 1, 3, 5, 7, 8, 9, 11, 13, 15, 17]).over_limit, 1);
        assert_eq!(soft(&[0, 1, 3, 5, 7, 8, 8]).early, 1);

        let names: Vec<String> = (1..=21).map(|number| format!("S-{number:07}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), 1, "soft", DUE + 12 * HOUR_MS)).collect();
        assert_eq!(judged_with(&[(1, DUE + 12 * HOUR_MS - 1)], &many).over_limit, 1);
        let mut rows = many[..20].to_vec();
        rows.push((&names[20], 1, "charged", DUE + DAY_MS));
        assert_eq!(judged_with(&[(1, DUE + 13 * HOUR_MS)], &rows).over_limit, 1);
    }
}
