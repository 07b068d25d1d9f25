//! Dunning as pure functions: when a declined invoice is tried again, and whether the network of a customer's
//! instrument allows another attempt now. Both databases, the claims and the simulation use this one rule. Must not
//! know a store, a run or a clock: times are parameters, in milliseconds since the Unix epoch.

use std::time::Duration;

use crate::invoice::{DeclineClass, Dunning, Network};

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Days after the first soft decline on which an invoice is tried again.
///
/// Card: the default of this project, as of 2026-11; five attempts in a week stay far below each limit of
/// [`limits`].
const CARD_DAYS: &[u32] = &[1, 3, 5, 7];

/// SEPA direct debit, as of 2026-11. Two retries: the most that Adyen makes of a SEPA direct debit that was returned
/// for AM04 or MS03 (docs.adyen.com/online-payments/auto-rescue/sepa). Five days apart: the longer of the two shortest
/// delays that Worldline's SEPA Payment Suite allows before it reissues a rejected collection (its documentation,
/// "Automatic representation of rejected SDDs").
const SEPA_DAYS: &[u32] = &[5, 10];

/// A limit on the declined attempts of one instrument in any period of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub attempts: usize,
    pub within_ms: i64,
}

/// Visa, as of 2025-05-25: 20 in 30 days (docs.cielo.com.br, "New limit for Visa retries starting May 25, 2025";
/// developers.tabapay.com/docs/excessive-retry-rules).
const VISA: &[Limit] = &[Limit { attempts: 20, within_ms: 30 * DAY_MS }];

/// Mastercard, as of 2026-11: 10 in 24 hours and 35 in 30 days (developers.tabapay.com/docs/excessive-retry-rules).
const MASTERCARD: &[Limit] =
    &[Limit { attempts: 10, within_ms: 24 * HOUR_MS }, Limit { attempts: 35, within_ms: 30 * DAY_MS }];

/// The most declines of one instrument that any limit counts, and the longest period of any limit.
pub const DECLINES_MAX: usize = 35;
pub const LOOK_BACK_MS: i64 = 30 * DAY_MS;

#[must_use]
pub fn limits(network: Network) -> &'static [Limit] {
    match network {
        Network::Visa => VISA,
        Network::Mastercard => MASTERCARD,
        // No source gives a limit for SEPA direct debit.
        Network::Sepa | Network::None => &[],
    }
}

fn ladder(network: Network) -> &'static [u32] {
    match network {
        Network::Sepa => SEPA_DAYS,
        Network::Visa | Network::Mastercard | Network::None => CARD_DAYS,
    }
}

/// When a declined invoice may be tried again, by its own attempts alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The next run that admits the invoice may try it.
    AtOnce,
    After(Duration),
    /// No run may try it before an operator records that the instrument has changed.
    Never(Dunning),
}

impl Retry {
    /// The flag that the invoice gets, if any.
    #[must_use]
    pub fn flag(self) -> Option<Dunning> {
        match self {
            Self::AtOnce => None,
            Self::After(_) => Some(Dunning::Waiting),
            Self::Never(why) => Some(why),
        }
    }
}

/// Decides after a decline. `soft_declines` counts the soft declines of the invoice since its instrument changed,
/// including this one. The position in the ladder follows from the number of attempts, and each wait begins at the last
/// decline. So a late attempt, a restart or a restore never leads to two attempts in quick succession.
#[must_use]
pub fn after_decline(class: DeclineClass, soft_declines: u32, network: Network) -> Retry {
    let position = usize::try_from(soft_declines.max(1)).unwrap_or(usize::MAX);
    match class {
        DeclineClass::Unknown => Retry::AtOnce,
        DeclineClass::Hard => Retry::Never(Dunning::Hard),
        DeclineClass::Fix => Retry::Never(Dunning::Fix),
        DeclineClass::Soft => {
            let days = ladder(network);
            let Some(day) = days.get(position - 1) else { return Retry::Never(Dunning::Exhausted) };
            let before = position.checked_sub(2).map_or(0, |before| days[before]);
            Retry::After(Duration::from_secs(u64::from(day - before) * 24 * 60 * 60))
        }
    }
}

/// The known declines and open attempts of one customer's instrument, whose network is not `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstrumentHistory {
    pub network: Network,
    pub changed_at: Option<i64>,
    /// The time when the last hard decline was recorded.
    pub hard_declined_at: Option<i64>,
    /// The times when the declines of the last [`LOOK_BACK_MS`] were recorded, the latest first; at most
    /// [`DECLINES_MAX`].
    pub declined_at: Vec<i64>,
    /// The open attempt of the customer, if there is one; of several, the one that lasts longest.
    pub open: Option<OpenAttempt>,
}

/// What an attempt with an unknown outcome waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenAttempt {
    /// Its response, perhaps after further sends.
    UnderWay,
    /// An operator's decision.
    NeedsOperator,
}

impl OpenAttempt {
    #[must_use]
    pub fn of(needs_operator: bool) -> Self {
        if needs_operator { Self::NeedsOperator } else { Self::UnderWay }
    }
}

/// Whether another attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// No attempt until the open one is settled.
    Occupied(OpenAttempt),
    /// No attempt before this time.
    Closed {
        until: i64,
    },
    /// No attempt until the instrument has changed.
    Blocked,
}

impl InstrumentHistory {
    /// Records another attempt without an outcome.
    pub fn occupy(&mut self, open: OpenAttempt) {
        self.open = self.open.max(Some(open));
    }

    /// Decides whether another attempt may be made. An open attempt may be declined hard, or be the last decline that a
    /// limit allows. So at most one attempt is open at a time, and none is under way when a hard decline is recorded.
    ///
    /// A declined attempt counts from the time when its decline was recorded, which is never before the attempt was
    /// made: an attempt that was resent while in doubt counts for longer, not for shorter. A change of the instrument
    /// does not end a period of a limit, because an operator could then exceed the limit.
    #[must_use]
    pub fn gate(&self, now_ms: i64) -> Gate {
        let changed_at = self.changed_at.unwrap_or(i64::MIN);
        if self.hard_declined_at.is_some_and(|at| at > changed_at) {
            return Gate::Blocked;
        }
        if let Some(open) = self.open {
            return Gate::Occupied(open);
        }
        let closed = limits(self.network).iter().filter_map(|limit| self.closed_until(*limit, now_ms)).max();
        closed.map_or(Gate::Open, |until| Gate::Closed { until })
    }

    /// Whether a limit or a hard decline forbids an attempt now, whatever attempts are open.
    #[must_use]
    pub fn refuses(&self, now_ms: i64) -> bool {
        Self { open: None, ..self.clone() }.gate(now_ms) != Gate::Open
    }

    fn closed_until(&self, limit: Limit, now_ms: i64) -> Option<i64> {
        // The decline that must leave the limit's period before another attempt is allowed.
        let oldest = self.declined_at.get(limit.attempts.checked_sub(1)?)?;
        let until = oldest.saturating_add(limit.within_ms);
        (until > now_ms).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn days(days: u64) -> Retry {
        Retry::After(Duration::from_secs(days * 24 * 60 * 60))
    }

    fn history(network: Network, declined_at: Vec<i64>) -> InstrumentHistory {
        InstrumentHistory { network, changed_at: None, hard_declined_at: None, declined_at, open: None }
    }

    #[test]
    fn a_soft_decline_is_tried_again_on_the_days_of_its_ladder_and_then_not_by_itself() {
        let waits =
            |network| (1..=6).map(|n| after_decline(DeclineClass::Soft, n, network)).collect::<Vec<_>>();
        let end = Retry::Never(Dunning::Exhausted);
        for network in [Network::None, Network::Visa, Network::Mastercard] {
            // Days 1, 3, 5 and 7.
            assert_eq!(waits(network), [days(1), days(2), days(2), days(2), end, end], "{network}");
        }
        assert_eq!(waits(Network::Sepa), [days(5), days(5), end, end, end, end]);
    }

    #[test]
    fn an_unknown_decline_has_no_ladder_and_is_never_exhausted() {
        for &network in Network::ALL {
            for soft in [0, 1, 101] {
                assert_eq!(after_decline(DeclineClass::Unknown, soft, network), Retry::AtOnce);
                assert_eq!(after_decline(DeclineClass::Hard, soft, network), Retry::Never(Dunning::Hard));
                assert_eq!(after_decline(DeclineClass::Fix, soft, network), Retry::Never(Dunning::Fix));
            }
        }
    }

    #[test]
    fn each_limit_closes_when_it_is_reached_and_opens_when_the_oldest_decline_leaves() {
        let latest_first = |count: i64, apart: i64| (0..count).map(|n| NOW - n * apart).collect::<Vec<_>>();
        for (network, count, apart, within) in [
            (Network::Visa, 20, HOUR_MS, 30 * DAY_MS),
            (Network::Mastercard, 10, HOUR_MS, 24 * HOUR_MS),
            (Network::Mastercard, 35, 12 * HOUR_MS, 30 * DAY_MS),
        ] {
            let full = history(network, latest_first(count, apart));
            let until = NOW - (count - 1) * apart + within;
            assert_eq!(full.gate(NOW), Gate::Closed { until }, "{network} {count}");
            assert_eq!(full.gate(until - 1), Gate::Closed { until });
            assert_eq!(full.gate(until), Gate::Open);
            assert_eq!(history(network, latest_first(count - 1, apart)).gate(NOW), Gate::Open);
        }
    }

    #[test]
    fn more_declines_than_the_limit_keep_it_closed_until_enough_have_left() {
        let full = history(Network::Visa, (0..30).map(|n| NOW - n * HOUR_MS).collect());
        assert_eq!(full.gate(NOW), Gate::Closed { until: NOW - 19 * HOUR_MS + 30 * DAY_MS });
    }

    #[test]
    fn one_attempt_is_open_at_a_time_whatever_its_network_allows() {
        use OpenAttempt::{NeedsOperator, UnderWay};
        for network in [Network::Visa, Network::Mastercard, Network::Sepa] {
            let mut instrument = history(network, Vec::new());
            assert_eq!(instrument.gate(NOW), Gate::Open);
            instrument.occupy(UnderWay);
            assert_eq!(instrument.gate(NOW), Gate::Occupied(UnderWay), "{network}");
            instrument.occupy(NeedsOperator);
            instrument.occupy(UnderWay);
            assert_eq!(instrument.gate(NOW), Gate::Occupied(NeedsOperator), "nothing else frees it");
            instrument.hard_declined_at = Some(NOW);
            assert_eq!(instrument.gate(NOW), Gate::Blocked);
        }
    }

    #[test]
    fn a_hard_decline_blocks_until_the_instrument_changes_which_ends_no_window() {
        let mut card = history(Network::Visa, vec![NOW; 20]);
        card.hard_declined_at = Some(NOW);
        assert_eq!(card.gate(NOW + 365 * DAY_MS), Gate::Blocked);
        card.changed_at = Some(NOW - 1);
        assert_eq!(card.gate(NOW), Gate::Blocked, "it is of the new instrument");
        card.changed_at = Some(NOW);
        assert_eq!(card.gate(NOW), Gate::Closed { until: NOW + 30 * DAY_MS });
    }

    #[test]
    fn histories_are_long_enough_for_every_limit() {
        for limit in Network::ALL.iter().flat_map(|&network| limits(network)) {
            assert!(limit.attempts <= DECLINES_MAX && limit.within_ms <= LOOK_BACK_MS);
        }
    }
}
