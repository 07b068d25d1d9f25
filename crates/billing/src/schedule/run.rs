//! Schedule runs, one for each date on which subscriptions have periods, and the decision whether a run may proceed.
//! Pure; must not know a store, a clock or how invoices are made.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::invoice::UnknownValue;
use crate::money::Currency;

/// The only schedule.
pub const SCHEDULE: &str = "subscriptions";

/// The delay after which a period without an invoice counts as missed; then an operator or the setting decides about
/// it. Longer than a night, shorter than a weekend.
pub const LATE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What the schedule does with periods that were missed for longer than [`LATE_AFTER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// The periods wait until an operator runs the schedule.
    #[default]
    Ask,
    /// Every period is invoiced, oldest first.
    Each,
    /// The latest period of each subscription is invoiced; earlier ones are skipped.
    Latest,
}

impl CatchUp {
    /// The spelling in settings and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Each => "each",
            Self::Latest => "latest",
        }
    }
}

impl FromStr for CatchUp {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        [Self::Ask, Self::Each, Self::Latest]
            .into_iter()
            .find(|catch_up| catch_up.as_str() == text)
            .ok_or(UnknownValue)
    }
}

/// State of a schedule run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleRunState {
    /// Waits for an operator.
    Waiting,
    /// The run's invoices are being made.
    Running,
    /// Each due period of the run's date has its invoice. A subscription that is added later opens the run again.
    Finished,
}

impl ScheduleRunState {
    /// The value in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finished => "finished",
        }
    }
}

impl FromStr for ScheduleRunState {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        [Self::Waiting, Self::Running, Self::Finished]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(UnknownValue)
    }
}

/// Why a run waits for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// A period was missed for longer than [`LATE_AFTER`].
    Late,
    /// The invoices exceed the cap.
    Cap,
}

impl WaitReason {
    /// The value in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Cap => "cap",
        }
    }
}

impl FromStr for WaitReason {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        [Self::Late, Self::Cap].into_iter().find(|reason| reason.as_str() == text).ok_or(UnknownValue)
    }
}

/// Invoices in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub count: i64,
    /// The sum of their amounts, in minor units.
    pub amount_minor: i64,
}

/// Invoices by currency.
pub type Sums = BTreeMap<Currency, Sum>;

/// The most that one run may invoice without an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    /// The number of invoices in all currencies; `None` for any number.
    pub count: Option<i64>,
    /// The amounts in minor units by currency. A currency that is not listed has no cap.
    pub amounts: BTreeMap<Currency, i64>,
}

impl Cap {
    /// Whether these invoices exceed the cap, so that an operator must confirm.
    #[must_use]
    pub fn is_exceeded(&self, sums: &Sums) -> bool {
        let count: i64 = sums.values().map(|sum| sum.count).sum();
        let over = |(currency, most): (&Currency, &i64)| {
            sums.get(currency).is_some_and(|sum| sum.amount_minor > *most)
        };
        self.count.is_some_and(|most| count > most) || self.amounts.iter().any(over)
    }
}

/// A row of `schedule_runs`. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRun {
    /// The due date of the run's periods.
    pub period_on: Date,
    pub state: ScheduleRunState,
    /// Why the run waits.
    pub reason: Option<WaitReason>,
    /// What was left to be invoiced at the last decision.
    pub planned: Sums,
    /// The number of invoices that the run made.
    pub invoices: i64,
    /// The number of periods that the run skipped.
    pub skipped: i64,
    /// The delay of the latest of these periods.
    pub late_ms: i64,
    /// The version of the zone data from which its instants were computed.
    pub zone_data: String,
    /// The operator who confirmed it.
    pub confirmed_by: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// Whether the run of a date may proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The due periods are invoiced. With `latest_only` a period is skipped if another due period of the same
    /// subscription follows it.
    Run { latest_only: bool },
    /// The run waits for an operator.
    Wait(WaitReason),
}

/// The facts that decide about a date.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The time of the date's first charge that is due and has no invoice.
    pub first_at: i64,
    /// The present time, in the unit of `first_at`.
    pub now_ms: i64,
    pub catch_up: CatchUp,
    pub cap: &'a Cap,
    /// What is left to be invoiced on the date.
    pub left: &'a Sums,
    /// What was left when an operator confirmed the date; other zones may add invoices later on the same day.
    pub confirmed: Option<&'a Sums>,
}

/// Decides about a date. Lateness comes first: an operator who confirms a cap says nothing about missed periods.
#[must_use]
pub fn decide(question: &Question<'_>) -> Decision {
    let late_ms = question.now_ms.saturating_sub(question.first_at);
    let is_late = u128::try_from(late_ms).is_ok_and(|late_ms| late_ms > LATE_AFTER.as_millis());
    if is_late && question.catch_up == CatchUp::Ask {
        return Decision::Wait(WaitReason::Late);
    }
    let is_confirmed = question.confirmed.is_some_and(|confirmed| is_within(question.left, confirmed));
    if !is_confirmed && question.cap.is_exceeded(question.left) {
        return Decision::Wait(WaitReason::Cap);
    }
    Decision::Run { latest_only: is_late && question.catch_up == CatchUp::Latest }
}

fn is_within(left: &Sums, most: &Sums) -> bool {
    left.iter().all(|(currency, left)| {
        most.get(currency)
            .is_some_and(|most| left.count <= most.count && left.amount_minor <= most.amount_minor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    fn decided(late_ms: i64, catch_up: CatchUp, most: Option<i64>) -> Decision {
        let cap = Cap { count: None, amounts: most.map(|most| (Currency::EUR, most)).into_iter().collect() };
        let left = Sums::from([(Currency::EUR, Sum { count: 2, amount_minor: 1980 })]);
        let now_ms = 1_800_000_000_000;
        decide(&Question {
            first_at: now_ms - late_ms,
            now_ms,
            catch_up,
            cap: &cap,
            left: &left,
            confirmed: None,
        })
    }

    #[test]
    fn missed_periods_wait_unless_the_setting_says_which_are_made() {
        assert_eq!(decided(DAY_MS, CatchUp::Ask, None), Decision::Run { latest_only: false });
        assert_eq!(decided(DAY_MS + 1, CatchUp::Ask, None), Decision::Wait(WaitReason::Late));
        assert_eq!(decided(DAY_MS + 1, CatchUp::Each, None), Decision::Run { latest_only: false });
        assert_eq!(decided(DAY_MS + 1, CatchUp::Latest, None), Decision::Run { latest_only: true });
        assert_eq!(decided(0, CatchUp::Latest, None), Decision::Run { latest_only: false });
    }

    #[test]
    fn a_date_that_an_operator_let_run_goes_on_up_to_what_was_left_then() {
        let cap = Cap { count: Some(1), ..Cap::default() };
        let sums = |count, amount_minor| Sums::from([(Currency::EUR, Sum { count, amount_minor })]);
        let decided = |left: &Sums, confirmed: &Sums| {
            let (now_ms, catch_up) = (1_800_000_000_000, CatchUp::Ask);
            let confirmed = Some(confirmed);
            decide(&Question { first_at: now_ms, now_ms, catch_up, cap: &cap, left, confirmed })
        };
        let confirmed = sums(3, 2970);
        assert_eq!(decided(&sums(2, 2970), &confirmed), Decision::Run { latest_only: false });
        for more in [sums(4, 2970), sums(2, 2971)] {
            assert_eq!(decided(&more, &confirmed), Decision::Wait(WaitReason::Cap));
        }
        let other = Sums::from([(Currency::USD, Sum { count: 2, amount_minor: 1 })]);
        assert_eq!(decided(&other, &confirmed), Decision::Wait(WaitReason::Cap));
    }

    #[test]
    fn a_sum_over_the_cap_waits_and_one_at_the_cap_does_not() {
        assert_eq!(decided(0, CatchUp::Ask, Some(1980)), Decision::Run { latest_only: false });
        assert_eq!(decided(0, CatchUp::Ask, Some(1979)), Decision::Wait(WaitReason::Cap));
        assert_eq!(decided(2 * DAY_MS, CatchUp::Each, Some(1979)), Decision::Wait(WaitReason::Cap));
        let sums = Sums::from([(Currency::EUR, Sum { count: 2, amount_minor: 0 })]);
        for (most, exceeded) in [(1, true), (2, false)] {
            let cap = Cap { count: Some(most), ..Cap::default() };
            assert_eq!(cap.is_exceeded(&sums), exceeded);
        }
    }
}
