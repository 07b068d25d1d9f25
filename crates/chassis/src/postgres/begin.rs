//! The settings that each transaction makes as it begins, in one round trip: a commit that waits for the disk, and
//! limits that the server enforces when this process no longer can. It relies on no default: a role, database or server
//! may be set otherwise at any time, and a pooler's sessions are shared with other clients. Knows no statement's
//! meaning.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::error::PgError;

/// How long a statement may wait for a lock; then it fails, and its transaction is begun anew.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server waits for the next statement of an open transaction: after this a process that was stopped or
/// cut off no longer holds its locks.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// The same limit for transactions whose statements follow each other at once.
pub(super) const BRIEF_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How much later than this process the server gives up on a statement. A COMMIT that waits for a standby and is cut
/// short by the server is answered as if it had succeeded: this process must stop waiting before that.
const SERVER_GRACE: Duration = Duration::from_secs(5);

/// PostgreSQL's own default: on the disk here, and on that of a synchronous standby where there is one. `local` would
/// be answered before the standby has it, and a failover would lose it.
const AT_LEAST: &str = "on";

/// The server compiles a statement whose estimated cost is high, for some 30 ms each time. Estimates are high where tables
/// were just filled, and where rows must be found by index; batches are planned anew, and end within few milliseconds.
const NEVER_COMPILED: &str = "set_config('jit', 'off', true)";

/// Not a valid value of the setting, so that the server refuses it.
const NOT_DURABLE: &str = "cannot be durable";

/// The texts that begin a transaction.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    /// Begins a transaction that writes: its commit is durable, or the server refuses to begin.
    pub(super) write: String,
    /// Begins a writing transaction whose statements follow at once, or that holds a lock that others wait for.
    pub(super) brief: String,
    /// Begins a writing transaction without time limits for its statements and locks.
    pub(super) migrate: String,
    /// Begins a transaction that only reads.
    pub(super) read: String,
}

impl Begin {
    /// The texts for this time limit, `statement_timeout`, within which this process waits for one statement.
    pub(super) fn new(statement_timeout: Duration) -> Self {
        let statement = statement_timeout + SERVER_GRACE;
        let of = |mode: &str, settings: &str| {
            format!("BEGIN ISOLATION LEVEL READ COMMITTED{mode}; SELECT {settings}, {NEVER_COMPILED}")
        };
        let limits = |lock, statement, idle| {
            [("lock_timeout", lock), ("statement_timeout", statement)]
                .into_iter()
                .chain([("idle_in_transaction_session_timeout", idle)])
                .map(|(name, limit): (&str, Duration)| {
                    format!("set_config('{name}', '{}ms', true)", limit.as_millis())
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        let usual = limits(LOCK_TIMEOUT, statement, IDLE_TIMEOUT);
        let brief = limits(LOCK_TIMEOUT, statement, BRIEF_IDLE_TIMEOUT);
        let patient = limits(Duration::ZERO, Duration::ZERO, IDLE_TIMEOUT);
        let durable = durable();
        Self {
            write: of("", &format!("{durable}, {usual}")),
            brief: of("", &format!("{durable}, {brief}")),
            migrate: of("", &format!("{durable}, {patient}")),
            read: of(" READ ONLY", &usual),
        }
    }
}

/// The setting that makes commits durable. A stricter value than [`AT_LEAST`] stays, and so does a weaker one that
/// still waits for this server's disk. No session can set `fsync` and `full_page_writes`: with either off, no commit is
/// durable, and none is tried.
fn durable() -> String {
    format!(
        "set_config('synchronous_commit', CASE \
           WHEN current_setting('fsync') = 'off' OR current_setting('full_page_writes') = 'off' THEN '{NOT_DURABLE}' \
           WHEN current_setting('synchronous_commit') = 'off' THEN '{AT_LEAST}' \
           ELSE current_setting('synchronous_commit') END, true)"
    )
}

/// Converts the error of one of these texts.
pub(super) fn to_pg_error(error: tokio_postgres::Error) -> PgError {
    match error.code() {
        Some(code) if *code == SqlState::INVALID_PARAMETER_VALUE => PgError::NotDurable,
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_sets_its_limits_and_this_process_gives_up_before_the_server_does() {
        let begin = Begin::new(Duration::from_secs(15));
        assert!(begin.write.contains("set_config('statement_timeout', '20000ms', true)"), "{}", begin.write);
        assert!(begin.migrate.contains("set_config('statement_timeout', '0ms', true)"), "{}", begin.migrate);
        for text in [&begin.write, &begin.brief, &begin.migrate, &begin.read] {
            assert!(text.contains("'jit', 'off'"), "{text}");
        }
        for text in [&begin.write, &begin.migrate] {
            assert!(text.contains("set_config('synchronous_commit'"), "{text}");
            assert!(
                text.contains("set_config('idle_in_transaction_session_timeout', '3000ms', true)"),
                "{text}"
            );
        }
        assert!(!begin.read.contains("synchronous_commit"), "a reader needs no durable commit");
    }
}
