//! The inputs of a simulation: subscriptions, periods, networks of cards, the provider's faults, and operators'
//! changes. All follow from sizes and seed alone. Starts nothing. Due dates are computed here a second time, so that a
//! mistake in billing's own calendar shows.

use std::fmt::Write;

use anyhow::Context;
use chassis::clock::Random;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

/// A simulation starts in mid-month, at noon UTC. The twelve months from this date have a leap day and both clock
/// changes.
const START_ON: Date = date(2028, 1, 15);
const START_HOUR: i8 = 12;

/// Periods are due at 06:00 in the zone, an hour that no clock change skips or repeats.
const HOUR: i8 = 6;
const ZONES: [&str; 2] = ["Europe/Copenhagen", "America/New_York"];
const ANCHORS: [u64; 7] = [1, 8, 15, 22, 29, 30, 31];
/// Prices with two, no and three decimals.
const PRICES: [(&str, &str); 3] = [("EUR", "9.90"), ("JPY", "1290"), ("KWD", "2.750")];

/// Number of subscriptions of each of two customers whose card is always declined, so that their networks' limits are
/// reached.
const FLEET: u64 = 30;
/// Subscriptions of a customer whose card is lost. Two at a time are due on the same day, and the second must not be
/// tried after the first.
const LOST_CARD: u64 = 10;
/// Number of customers with one subscription and a card of a known network.
const CARDS: u64 = 200;
/// Number of subscriptions whose customer has another number than the subscription.
const GROUPED: u64 = 2 * FLEET + LOST_CARD;
const NETWORKS: [&str; 3] = ["visa", "mastercard", "sepa"];

/// The subscription whose price rises, and the subscription that is paused.
const DEARER: u64 = GROUPED + 1;
const PAUSED: u64 = GROUPED + 2;
const DEARER_FROM: Date = date(2028, 3, 1);
const PAUSED_ON: Date = date(2028, 2, 5);
const RESUMED_FROM: Date = date(2028, 4, 1);
const RESUMED_ON: Date = date(2028, 3, 25);
/// The Visa customer gets another card while the network's limit is reached. The customer with the lost card gets one
/// in the middle of a month.
const NEW_FLEET_CARD_ON: Date = date(2028, 2, 24);
const FOUND_CARD_ON: Date = date(2028, 3, 5);
/// Both services are stopped for two days, in which periods fall due.
const AWAY_FROM: Date = date(2028, 3, 7);
const AWAY_UNTIL: Date = date(2028, 3, 9);

pub(super) const SUBSCRIPTIONS_MIN: u64 = PAUSED;

/// Milliseconds since 1970, read from RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(super) struct AtMs(pub(super) i64);

impl TryFrom<String> for AtMs {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        text.parse().map(|at: Timestamp| Self(at.as_millisecond()))
    }
}

/// One operator's change, or the downtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A change of a subscription: its reference, the last part of the route, and the body's fields.
    Change { reference: String, change: &'static str, fields: serde_json::Value },
    /// The customer pays with another card from now on.
    NewInstrument { customer: u64 },
    /// Both services are stopped until this time, in milliseconds since 1970.
    Away { until_ms: i64 },
}

/// The plan of one simulation, the same for each run with its seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) subscriptions: u64,
    pub(super) months: u64,
    zones: [TimeZone; 2],
}

fn nth<T: Copy, const N: usize>(of: [T; N], number: u64) -> T {
    of[usize::try_from(number % N as u64).unwrap_or(0)]
}

fn utc_ms(on: Date, hour: i8) -> i64 {
    let midnight = TimeZone::UTC.to_timestamp(on.at(hour, 0, 0, 0));
    midnight.map_or(0, Timestamp::as_millisecond)
}

impl Plan {
    pub(super) fn new(seed: u64, subscriptions: u64, months: u64) -> anyhow::Result<Self> {
        let zone = |name| TimeZone::get(name).with_context(|| format!("no rules of the zone {name}"));
        Ok(Self { seed, subscriptions, months, zones: [zone(ZONES[0])?, zone(ZONES[1])?] })
    }

    /// The date on which a month of the simulation begins, counted from 0; also the end of the month before.
    pub(super) fn month_on(&self, month: u64) -> Date {
        START_ON.saturating_add(Span::new().months(i64::try_from(month).unwrap_or(i64::MAX)))
    }

    pub(super) fn month_ms(&self, month: u64) -> i64 {
        utc_ms(self.month_on(month), START_HOUR)
    }

    /// A fixed deployment id: keys are derived from it, and the provider draws by keys, so that a seed repeats its
    /// declines.
    pub(super) fn deployment_id(&self) -> Uuid {
        Random::seeded(self.seed).uuid()
    }

    fn reference(number: u64) -> String {
        format!("S-{number:07}")
    }

    fn customer(number: u64) -> u64 {
        match number {
            1..=FLEET => 1,
            _ if number <= 2 * FLEET => 2,
            _ if number <= GROUPED => 3,
            _ => number,
        }
    }

    fn anchor(number: u64) -> u64 {
        match Self::customer(number) {
            1 | 2 => 22,
            3 => (number - 2 * FLEET).div_ceil(2),
            _ => nth(ANCHORS, number),
        }
    }

    fn zone(number: u64) -> u64 {
        number / ANCHORS.len() as u64 % 2
    }

    /// A page of subscriptions in billing's import format, one per line.
    pub(super) fn rows(&self, from: u64, to: u64) -> String {
        let starts_on = START_ON.saturating_add(Span::new().days(1)).to_string();
        (from..=to.min(self.subscriptions)).fold(String::new(), |mut rows, number| {
            let is_grouped = number <= GROUPED;
            let (currency, amount) = nth(PRICES, if is_grouped { 0 } else { number / 14 });
            let row = json!({
                "reference": Self::reference(number), "customer_id": Self::customer(number),
                "currency": currency, "amount": amount, "anchor_day": Self::anchor(number),
                "zone": nth(ZONES, Self::zone(number)), "at": format!("{HOUR:02}:00"), "starts_on": starts_on,
            });
            let _ = writeln!(rows, "{row}");
            rows
        })
    }

    /// Customers whose network is known: the fleets, the one with the lost card, and some with one subscription.
    pub(super) fn networks(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let last = (GROUPED + CARDS).min(self.subscriptions);
        (1..=3)
            .chain(GROUPED + 1..=last)
            .map(|customer| (customer, Self::network(customer).unwrap_or("none")))
    }

    /// The network of a customer's card; `None` where billing does not know it.
    pub(super) fn network(customer: u64) -> Option<&'static str> {
        match customer {
            1 | 3 => Some("visa"),
            2 => Some("mastercard"),
            _ if (GROUPED + 1..=GROUPED + CARDS).contains(&customer) => Some(nth(NETWORKS, customer)),
            _ => None,
        }
    }

    /// The script of the provider's faults.
    pub(super) fn faults(&self) -> String {
        let refuse = |customer: u64, decline: &str, until: Option<Date>| {
            let until = until.map(|on| format!("until = {on}T00:00:00Z\n")).unwrap_or_default();
            format!(
                "\n[[rule]]\nfault = \"refuse\"\ncustomer_id = {customer}\ndecline = \"{decline}\"\n{until}"
            )
        };
        let rules = [
            refuse(1, "insufficient_funds", Some(NEW_FLEET_CARD_ON)),
            refuse(2, "insufficient_funds", None),
            refuse(3, "stolen_card", Some(FOUND_CARD_ON)),
        ];
        let rules = rules.concat();
        format!("seed = {}\n{rules}\n[[rule]]\nfault = \"reply-lost\"\nshare = 0.02\n", self.seed)
    }

    /// Operators' changes and the downtime, each with its time.
    pub(super) fn events(&self) -> Vec<(i64, Event)> {
        let change =
            |number, change, fields| Event::Change { reference: Self::reference(number), change, fields };
        let from = |on: Date| json!({ "from": on.to_string() });
        let mut dearer = from(DEARER_FROM);
        dearer["amount"] = "12.90".into();
        let away = Event::Away { until_ms: utc_ms(AWAY_UNTIL, 0) };
        let end = self.month_ms(self.months);
        let events = [
            (utc_ms(PAUSED_ON, 0), change(PAUSED, "pause", json!({}))),
            (utc_ms(PAUSED_ON, 1), change(DEARER, "change-price", dearer)),
            (utc_ms(NEW_FLEET_CARD_ON, 0), Event::NewInstrument { customer: 1 }),
            (utc_ms(FOUND_CARD_ON, 0), Event::NewInstrument { customer: 3 }),
            (utc_ms(AWAY_FROM, 0), away),
            (utc_ms(RESUMED_ON, 0), change(PAUSED, "resume", from(RESUMED_FROM))),
        ];
        events.into_iter().filter(|(at, _)| *at < end).collect()
    }

    /// The times of kills, ascending: one at random in each equal part of the simulation.
    pub(super) fn kills(&self, kills: u64) -> Vec<i64> {
        let (random, start) = (Random::seeded(self.seed), self.month_ms(0));
        let whole = u64::try_from(self.month_ms(self.months) - start).unwrap_or(0);
        let part = whole / kills.max(1);
        let at = |kill: u64| start + i64::try_from(kill * part + random.below(part)).unwrap_or(0);
        (0..kills).map(at).collect()
    }

    /// The due time of the invoice's period; `None` for a reference of another form.
    pub(super) fn due_ms(&self, invoice: &str) -> Option<i64> {
        let (subscription, on) = invoice.split_once('@')?;
        let number: u64 = subscription.strip_prefix("S-")?.parse().ok()?;
        Some(self.instant(Self::zone(number), on.parse().ok()?))
    }

    fn instant(&self, zone: u64, on: Date) -> i64 {
        let zone = &self.zones[usize::try_from(zone).unwrap_or(0)];
        let at: Option<Timestamp> = zone.to_ambiguous_timestamp(on.at(HOUR, 0, 0, 0)).compatible().ok();
        at.map_or(i64::MAX, Timestamp::as_millisecond)
    }

    /// Number of periods that fall due in a month of the simulation: on the anchor day of each calendar month that it
    /// touches, or the last day where that month is too short.
    pub(super) fn due_in(&self, month: u64) -> u64 {
        let (from, to) = (self.month_on(month), self.month_on(month + 1));
        (1..=self.subscriptions)
            .map(|number| {
                let anchor = Self::anchor(number);
                let due = [from, to].map(|of| on_anchor(of, anchor));
                let is_paused = |on: Date| number == PAUSED && on >= PAUSED_ON && on < RESUMED_FROM;
                due.iter().filter(|on| **on > from && **on <= to && !is_paused(**on)).count() as u64
            })
            .sum()
    }
}

fn on_anchor(of: Date, anchor: u64) -> Date {
    let day = i8::try_from(anchor).unwrap_or(i8::MAX).min(of.days_in_month());
    of.with().day(day).build().unwrap_or(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(1, 1000, 12).unwrap()
    }

    #[test]
    fn each_subscription_is_due_once_a_month_and_one_is_paused_for_two() {
        let due: Vec<u64> = (0..12).map(|month| plan().due_in(month)).collect();
        assert_eq!(due.iter().sum::<u64>(), 12 * 1000 - 2, "{due:?}");
    }

    #[test]
    fn a_lost_card_is_declined_with_another_invoice_due_at_the_same_instant() {
        let due_ms = |number| plan().due_ms(&format!("{}@2028-02-01", Plan::reference(number)));
        assert_eq!((Plan::anchor(61), Plan::anchor(62), Plan::anchor(63)), (1, 1, 2));
        assert_eq!(due_ms(61), due_ms(62));
    }

    #[test]
    fn periods_are_due_at_six_in_their_zone_also_after_the_clocks_have_changed() {
        let utc =
            |reference| Timestamp::from_millisecond(plan().due_ms(reference).unwrap()).unwrap().to_string();
        assert_eq!(utc("S-0000001@2028-03-22"), "2028-03-22T05:00:00Z");
        assert_eq!(utc("S-0000001@2028-03-29"), "2028-03-29T04:00:00Z");
        assert_eq!(utc("S-0000007@2028-03-08"), "2028-03-08T11:00:00Z");
        assert_eq!(utc("S-0000007@2028-03-22"), "2028-03-22T10:00:00Z");
        assert_eq!(plan().due_ms("X-1"), None);
    }

    #[test]
    fn a_seed_gives_the_same_kills_in_order_and_within_the_simulation() {
        let kills = plan().kills(20);
        assert_eq!(kills, plan().kills(20));
        assert!(kills.is_sorted() && kills[0] >= plan().month_ms(0) && kills[19] < plan().month_ms(12));
        assert_ne!(kills, Plan { seed: 2, ..plan() }.kills(20));
    }

    #[test]
    fn events_after_the_end_do_not_happen() {
        assert_eq!(plan().events().len(), 6);
        assert!(Plan { months: 1, ..plan() }.events().len() < 6);
    }
}
