//! The last answer that was not about an invoice and so kept a run from charging, as shown to an operator. Knows no
//! store and no HTTP.

use crate::invoice::RunProblem;
use crate::provider::answer::Reason;

/// A kind of answer, and the number of such answers in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind.
    pub reason: Reason,
    /// The status, if there was a response.
    pub status: Option<u16>,
    /// The number of calls in a row with this kind of answer.
    pub count: u64,
}

impl Problem {
    /// Combines the former problem with the next one.
    #[must_use]
    pub fn after(former: Option<Self>, next: Self) -> Self {
        match former {
            Some(former) if (former.reason, former.status) == (next.reason, next.status) => {
                Self { count: former.count.saturating_add(next.count), ..next }
            }
            _ => next,
        }
    }

    /// The problem as the store holds it with its run.
    #[must_use]
    pub fn stored(self) -> RunProblem {
        RunProblem {
            reason: self.reason.as_str().to_owned(),
            status: self.status.map(i64::from),
            count: i64::try_from(self.count).unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_problem_is_counted_and_another_one_begins_anew() {
        let problem = |reason, status| Problem { reason, status, count: 1 };
        let behind = problem(Reason::LedgerBehind, Some(412));
        let twice = Problem::after(Some(Problem::after(None, behind)), behind);
        assert_eq!(twice, Problem { count: 2, ..behind });
        let lost = problem(Reason::NoAnswer, None);
        assert_eq!(Problem::after(Some(twice), lost), lost);
    }
}
