//! Whether a PostgreSQL ledger is still where it was last written: in the same cluster, the same tables and the same
//! timeline, or in a timeline that the operator has declared safe. Pure; asks no database.

use std::fmt;
use std::str::FromStr;

/// The operator's statement about promoted standbys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failover {
    /// The operator states nothing: the standby may lack rows, and `new-ledger-id` is needed.
    #[default]
    Manual,
    /// The standby lacks nothing, because replication is synchronous.
    Synchronous,
}

impl FromStr for Failover {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "manual" => Ok(Self::Manual),
            "synchronous" => Ok(Self::Synchronous),
            _ => Err(format!("\"{text}\" is neither manual nor synchronous")),
        }
    }
}

/// The place of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Id of the cluster, drawn by `initdb`: physical copies keep it, a dump that is restored elsewhere does not.
    pub system_identifier: String,
    /// Timeline, which grows with each promotion.
    pub timeline: i64,
    /// Identity of the table of rows: it changes when a dump is restored.
    pub table: i64,
}

/// Whether charges may be executed at the current place of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Charges are executed.
    Serve,
    /// Charges are executed once this place is stored.
    Remember,
    /// Nothing is executed.
    NotServing(Moved),
}

/// Why nothing is executed: rows may be missing, and a charge whose row is missing would be executed again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Moved {
    /// The ledger was restored by a dump, or replicated row by row, into another cluster.
    #[error("it was written in the database cluster {written}, and is in {current} now")]
    OtherCluster {
        /// The stored system identifier.
        written: String,
        /// The current system identifier.
        current: String,
    },
    /// The ledger was restored by a dump into the same cluster.
    #[error("its tables were restored from a dump")]
    OtherTable,
    /// A standby was promoted.
    #[error("a standby was promoted: it was written on timeline {written}, and is on {current} now")]
    Promoted {
        /// The stored timeline.
        written: i64,
        /// The current timeline.
        current: i64,
    },
    /// An old primary, or an older backup of the cluster, has come back.
    #[error("the server went back: it was on timeline {written}, and is on {current} now")]
    Back {
        /// The stored timeline.
        written: i64,
        /// The current timeline.
        current: i64,
    },
    /// The ledger's row of names has no place, although the ledger had one.
    #[error("the place where it was written is forgotten")]
    Forgotten,
}

/// Whether this is an old primary after a promotion. It may continue to run, for long if nothing fences it, and its
/// ledger still has the same id. Nothing that is stored there counts.
#[must_use]
pub fn is_left_behind(seen: Option<&Place>, current: &Place) -> Option<Moved> {
    let seen = seen.filter(|seen| seen.system_identifier == current.system_identifier)?;
    let (written, current) = (seen.timeline, current.timeline);
    (current < written).then_some(Moved::Back { written, current })
}

/// Judges the current place of the ledger. `seen` is the place where this process has executed before, if any; `stored`
/// is the place that the ledger has recorded, if any.
#[must_use]
pub fn judge_place(
    seen: Option<&Place>,
    stored: Option<&Place>,
    current: &Place,
    failover: Failover,
) -> Verdict {
    let Some(stored) = stored else {
        return if seen.is_none() { Verdict::Remember } else { Verdict::NotServing(Moved::Forgotten) };
    };
    if stored.system_identifier != current.system_identifier {
        return Verdict::NotServing(Moved::OtherCluster {
            written: stored.system_identifier.clone(),
            current: current.system_identifier.clone(),
        });
    }
    if stored.table != current.table {
        return Verdict::NotServing(Moved::OtherTable);
    }
    let written = seen.map_or(stored.timeline, |seen| seen.timeline.max(stored.timeline));
    let current = current.timeline;
    if current < written {
        return Verdict::NotServing(Moved::Back { written, current });
    }
    match (current == stored.timeline, failover) {
        (true, _) => Verdict::Serve,
        (false, Failover::Synchronous) => Verdict::Remember,
        (false, Failover::Manual) => {
            Verdict::NotServing(Moved::Promoted { written: stored.timeline, current })
        }
    }
}

impl Moved {
    /// The reason, and what the operator can do.
    #[must_use]
    pub fn advice(&self) -> String {
        let setting = match self {
            Self::Promoted { .. } => {
                ". Only if a promotion cannot lose a commit here (synchronous replication): set --ledger-failover \
                 synchronous (LEDGER_FAILOVER). Otherwise"
            }
            _ => ". Therefore",
        };
        format!(
            "the ledger does not execute charges: {self}. Rows may be missing, and a charge whose row is missing would \
             be executed again{setting} run `payments new-ledger-id` and go on as docs/how-to/runbook.md says"
        )
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {}, timeline {}", self.system_identifier, self.timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Failover::{Manual, Synchronous};

    fn at(timeline: i64) -> Place {
        Place { system_identifier: "7713200503105642953".to_owned(), timeline, table: 16400 }
    }

    fn is_not_serving(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::NotServing(_))
    }

    #[test]
    fn a_ledger_where_it_was_serves_and_a_new_one_is_remembered() {
        for failover in [Manual, Synchronous] {
            assert_eq!(judge_place(None, None, &at(3), failover), Verdict::Remember);
            assert_eq!(judge_place(None, Some(&at(3)), &at(3), failover), Verdict::Serve);
            assert_eq!(judge_place(Some(&at(3)), Some(&at(3)), &at(3), failover), Verdict::Serve);
        }
    }

    #[test]
    fn a_promoted_standby_serves_only_where_the_operator_has_stated_that_it_lost_nothing() {
        for seen in [None, Some(&at(1))] {
            let verdict = judge_place(seen, Some(&at(1)), &at(2), Manual);
            assert_eq!(verdict, Verdict::NotServing(Moved::Promoted { written: 1, current: 2 }));
            assert_eq!(judge_place(seen, Some(&at(1)), &at(2), Synchronous), Verdict::Remember);
        }
        // Another process has stored it.
        assert_eq!(judge_place(Some(&at(1)), Some(&at(2)), &at(2), Synchronous), Verdict::Serve);
    }

    #[test]
    fn no_statement_covers_a_dump_or_a_server_that_went_back() {
        for failover in [Manual, Synchronous] {
            let elsewhere = Place { system_identifier: "1".to_owned(), ..at(2) };
            assert!(is_not_serving(&judge_place(None, Some(&at(2)), &elsewhere, failover)));
            let restored = Place { table: 16500, ..at(2) };
            assert!(is_not_serving(&judge_place(None, Some(&at(2)), &restored, failover)));
            assert!(is_not_serving(&judge_place(None, Some(&at(2)), &at(1), failover)));
            assert!(
                is_not_serving(&judge_place(Some(&at(2)), Some(&at(1)), &at(1), failover)),
                "an old primary"
            );
            assert!(
                is_not_serving(&judge_place(Some(&at(2)), None, &at(2), failover)),
                "a dump of an old version"
            );
        }
    }

    #[test]
    fn a_server_that_a_promotion_has_left_behind_is_known_by_its_timeline() {
        let back = Some(Moved::Back { written: 3, current: 2 });
        assert_eq!(is_left_behind(Some(&at(3)), &at(2)), back);
        // A dump was restored into it: the id of the table is no evidence.
        assert_eq!(is_left_behind(Some(&at(3)), &Place { table: 1, ..at(2) }), back);
        assert_eq!(is_left_behind(None, &at(2)), None, "this process has seen no other");
        assert_eq!(is_left_behind(Some(&at(2)), &at(3)), None);
        let elsewhere = Place { system_identifier: "1".to_owned(), ..at(1) };
        assert_eq!(
            is_left_behind(Some(&at(3)), &elsewhere),
            None,
            "another cluster counts its own promotions"
        );
    }

    #[test]
    fn each_reason_names_the_command_that_helps_and_only_a_promotion_the_setting() {
        let promoted = Moved::Promoted { written: 1, current: 2 };
        let others = [
            Moved::OtherTable,
            Moved::Forgotten,
            Moved::Back { written: 2, current: 1 },
            Moved::OtherCluster { written: String::new(), current: String::new() },
        ];
        for moved in others.iter().chain([&promoted]) {
            assert!(moved.advice().contains("`payments new-ledger-id`"), "{}", moved.advice());
        }
        assert!(promoted.advice().contains("--ledger-failover synchronous"));
        assert!(others.iter().all(|moved| !moved.advice().contains("--ledger-failover")));
    }
}
