//! Whether a SQLite ledger is the file that was served last, or a copy of it: decided from the database and the sidecar
//! file beside it. Pure; opens nothing and knows no SQL.

use std::fmt;

use uuid::Uuid;

/// One start of one ledger. The id changes only with `new-ledger-id`; the number grows with each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Id that is drawn at the migration that introduced incarnations, and by `new-ledger-id`.
    pub id: Uuid,
    /// Number of starts under this id, from 1.
    pub start: i64,
}

impl Incarnation {
    /// The incarnation of the first start under a fresh id.
    #[must_use]
    pub fn first(id: Uuid) -> Self {
        Self { id, start: 1 }
    }

    fn next(self) -> Self {
        Self { start: self.start + 1, ..self }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "start {} of {}", self.start, self.id)
    }
}

/// The last completed step of writing an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A start wrote the sidecar; the database may be one start behind.
    Pending,
    /// `new-ledger-id` wrote the sidecar; until the database is written, the ledger still has its old id.
    Renewing,
    /// Sidecar and database agree.
    Confirmed,
}

impl Stage {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Renewing, Self::Confirmed];

    /// The stage's name in the sidecar file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Renewing => "renewing",
            Self::Confirmed => "confirmed",
        }
    }
}

/// The contents of the sidecar file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The start that wrote the file.
    pub incarnation: Incarnation,
    /// The last completed step of that start.
    pub stage: Stage,
    /// A position that the ledger has reached: rows up to it were durable.
    pub last_seq: i64,
}

/// Why a ledger must not execute: it may lack rows, and a charge whose row is missing would be executed again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Copied {
    /// The database has an incarnation, and there is no sidecar beside it.
    #[error(
        "the database is at {0}, and its sidecar file is missing: it was moved or restored from a backup"
    )]
    SidecarMissing(Incarnation),
    /// The sidecar has no valid contents.
    #[error("its sidecar file cannot be read: {0}")]
    SidecarUnreadable(String),
    /// Sidecar and database have the incarnations of two different files.
    #[error("the database is at {}, and its sidecar file at {sidecar}: the database is a copy, or was restored from \
             one", reply(.database.as_ref()))]
    Differs {
        /// The incarnation in the database, if any.
        database: Option<Incarnation>,
        /// The incarnation in the sidecar.
        sidecar: Incarnation,
    },
    /// The database lacks rows that it had during this same incarnation.
    #[error("the database ends at row {database}, and had row {sidecar} before: it was restored from a copy")]
    RowsMissing {
        /// The last position in the database.
        database: i64,
        /// The last position in the sidecar.
        sidecar: i64,
    },
    /// `new-ledger-id` was interrupted before the database got the new id.
    #[error("`payments new-ledger-id` was interrupted: run it again")]
    RenewalInterrupted,
}

fn reply(incarnation: Option<&Incarnation>) -> String {
    incarnation.map_or_else(|| "no incarnation".to_owned(), ToString::to_string)
}

/// The incarnation that this start must write, if the database is the one that was served last. `fresh` is the id for a
/// ledger without an incarnation.
///
/// # Errors
/// Why the database is not that one.
pub fn next(
    database: Option<Incarnation>,
    last_seq: i64,
    sidecar: Option<Sidecar>,
    fresh: Uuid,
) -> Result<Incarnation, Copied> {
    let Some(sidecar) = sidecar else {
        return match database {
            None => Ok(Incarnation::first(fresh)),
            Some(known) => Err(Copied::SidecarMissing(known)),
        };
    };
    let written = sidecar.incarnation;
    let next = match (database, sidecar.stage) {
        // A start was interrupted before the database was written. The number is used again, so that the database is at
        // most one behind, after any number of interrupted starts.
        (None, Stage::Pending) if written.start == 1 => written,
        (Some(known), Stage::Pending) if known.next() == written => written,
        (Some(known), _) if known == written => written.next(),
        (_, Stage::Renewing) => return Err(Copied::RenewalInterrupted),
        (database, Stage::Pending | Stage::Confirmed) => {
            return Err(Copied::Differs { database, sidecar: written });
        }
    };
    if last_seq < sidecar.last_seq {
        return Err(Copied::RowsMissing { database: last_seq, sidecar: sidecar.last_seq });
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const FRESH: Uuid = Uuid::from_u128(3);

    fn at(start: i64) -> Incarnation {
        Incarnation { id: ID, start }
    }

    fn beside(start: i64, stage: Stage, last_seq: i64) -> Option<Sidecar> {
        Some(Sidecar { incarnation: at(start), stage, last_seq })
    }

    #[test]
    fn a_ledger_without_incarnation_and_sidecar_gets_its_first() {
        assert_eq!(next(None, 9, None, FRESH), Ok(Incarnation::first(FRESH)));
    }

    #[test]
    fn a_start_that_was_interrupted_at_any_step_is_followed_by_another() {
        use Stage::{Confirmed, Pending, Renewing};
        assert_eq!(next(None, 0, beside(1, Pending, 0), FRESH), Ok(at(1)), "the sidecar alone, at the first");
        assert_eq!(next(Some(at(4)), 0, beside(5, Pending, 0), FRESH), Ok(at(5)), "the sidecar alone");
        assert_eq!(next(Some(at(5)), 0, beside(5, Pending, 0), FRESH), Ok(at(6)), "the database too");
        assert_eq!(next(Some(at(5)), 0, beside(5, Confirmed, 0), FRESH), Ok(at(6)), "all");
        assert_eq!(
            next(Some(at(1)), 0, beside(1, Renewing, 0), FRESH),
            Ok(at(2)),
            "a renewal in the database"
        );
    }

    #[test]
    fn a_copy_serves_beside_no_sidecar_of_another_start_or_ledger() {
        use Stage::{Confirmed, Pending, Renewing};
        assert_eq!(next(Some(at(4)), 0, None, FRESH), Err(Copied::SidecarMissing(at(4))));
        let refused = [
            (Some(at(4)), beside(5, Confirmed, 0)),
            (Some(at(3)), beside(5, Pending, 0)),
            (Some(at(5)), beside(4, Confirmed, 0)),
            (Some(at(5)), beside(4, Pending, 0)),
            (Some(Incarnation { id: OTHER, start: 5 }), beside(5, Confirmed, 0)),
            (None, beside(1, Confirmed, 0)),
            (None, beside(2, Pending, 0)),
        ];
        for (database, sidecar) in refused {
            let verdict = next(database, 0, sidecar, FRESH);
            assert!(matches!(verdict, Err(Copied::Differs { .. })), "{database:?} {sidecar:?}: {verdict:?}");
        }
        for database in [None, Some(at(4)), Some(Incarnation { id: OTHER, start: 1 })] {
            let verdict = next(database, 0, beside(1, Renewing, 0), FRESH);
            assert_eq!(verdict, Err(Copied::RenewalInterrupted), "{database:?}");
        }
    }

    #[test]
    fn a_copy_of_the_same_start_is_known_by_the_rows_that_it_lacks() {
        let missing = Err(Copied::RowsMissing { database: 7, sidecar: 8 });
        assert_eq!(next(Some(at(5)), 7, beside(5, Stage::Confirmed, 8), FRESH), missing);
        assert_eq!(next(Some(at(4)), 7, beside(5, Stage::Pending, 8), FRESH), missing);
        assert_eq!(next(Some(at(5)), 8, beside(5, Stage::Confirmed, 8), FRESH), Ok(at(6)));
    }
}
