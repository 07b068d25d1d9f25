//! PostgreSQL errors by what a caller can do about them. Knows no table and no service.

use std::error::Error;

use tokio_postgres::error::{DbError, SqlState};

/// A database error. Unless the variant says otherwise, the statement or transaction was rolled back.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The database is not reachable, shutting down, read-only or too slow.
    #[error("the database cannot be used")]
    Unavailable(#[source] Source),
    /// Every connection stayed in use for the whole waiting time.
    #[error("no connection to the database was free in time")]
    Busy,
    /// The caller left while the call waited; nothing was begun.
    #[error("the caller has left, so nothing was begun")]
    CallerGone,
    /// No commit would be durable, so that nothing was begun.
    #[error(
        "the database runs with fsync = off or full_page_writes = off, so that a crash would lose what it commits; \
         nothing is written until both are on"
    )]
    NotDurable,
    /// The commit was sent and its response was lost: the outcome is unknown. Read the rows back by key.
    #[error("the database's answer to a commit was lost")]
    InDoubt(#[source] Source),
    /// Other transactions wrote the same rows at every try.
    #[error("others were faster at the same rows, each time")]
    Conflict(#[source] Source),
    /// A constraint of the schema refused it.
    #[error("the constraint {name} refused it")]
    Constraint {
        /// The constraint's name; empty when the server does not send it.
        name: String,
        /// The server's message.
        source: Source,
    },
    /// The schema is not one that this program may use.
    #[error("{0}")]
    Schema(String),
    /// Our role may not do what the statement asks for.
    #[error("the role of this service lacks a right")]
    Denied(#[source] Source),
    /// The server refused the statement: it or its types are wrong.
    #[error("the database refused a statement")]
    Refused(#[source] Source),
    /// A row, or the server's storage, holds invalid data.
    #[error("the database holds what it must not: {0}")]
    Corrupt(String),
}

/// The source of an error.
pub type Source = Box<dyn Error + Send + Sync>;

/// The result of a database call.
pub type Result<T> = std::result::Result<T, PgError>;

impl PgError {
    /// Whether a retry from the start may succeed and is safe.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_))
    }

    /// Whether the connection must not be used again.
    pub(super) fn spoils_connection(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::InDoubt(_) | Self::Corrupt(_))
    }

    /// The error of a statement that may have committed: without the server's response the outcome is unknown.
    pub(super) fn of_commit(error: tokio_postgres::Error) -> Self {
        match error.as_db_error().map(is_definite) {
            Some(true) => error.into(),
            _ => Self::InDoubt(error.into()),
        }
    }

    /// The error of a wait that was given up.
    pub(super) fn too_slow(may_have_committed: bool, what: &str, limit: std::time::Duration) -> Self {
        let source = format!("{what} took longer than {limit:?}").into();
        if may_have_committed { Self::InDoubt(source) } else { Self::Unavailable(source) }
    }
}

/// Whether this error means that the server rolled back. A server that is shutting down may send an error after the
/// commit.
fn is_definite(error: &DbError) -> bool {
    error.severity() == "ERROR" && !matches!(class(error.code()), "57" | "08")
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            // No response from the server: the connection broke, or was never established.
            return Self::Unavailable(error.into());
        };
        let code = said.code();
        match class(code) {
            "23" => Self::Constraint {
                name: said.constraint().unwrap_or_default().to_owned(),
                source: error.into(),
            },
            "XX" => Self::Corrupt(error.to_string()),
            // Classes of connection, login, resources, operator and system.
            "08" | "28" | "53" | "57" | "58" => Self::Unavailable(error.into()),
            _ if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) => {
                Self::Conflict(error.into())
            }
            // The last code: the server gave up waiting for the next statement of an open transaction.
            _ if [
                SqlState::READ_ONLY_SQL_TRANSACTION,
                SqlState::LOCK_NOT_AVAILABLE,
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            ]
            .contains(code) =>
            {
                Self::Unavailable(error.into())
            }
            _ if code == &SqlState::INSUFFICIENT_PRIVILEGE => Self::Denied(error.into()),
            // Such as a database that is not there yet.
            "3D" => Self::Unavailable(error.into()),
            _ => Self::Refused(error.into()),
        }
    }
}

fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}
