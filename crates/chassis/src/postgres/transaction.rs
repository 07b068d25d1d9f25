//! A transaction on a pooled connection, and a statement that is a transaction by itself: unnamed statements only, each
//! with a time limit. Knows no statement's meaning; a transaction that is dropped half-way takes its connection with
//! it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::Object;
use futures_util::future::join3;
use tokio::time::timeout;
use tokio_postgres::{Client, Row};

use super::begin;
use super::connect::Connector;
use super::error::{PgError, Result};
use super::{Param, discard};

/// Makes the planner use indexes. This is no session state: it ends with the transaction.
const BY_INDEX: &str = "
    SELECT set_config(name, 'off', true)
    FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin']) AS name";

/// An open transaction, for the job that was given to [`super::Postgres::transaction`].
#[derive(Clone)]
pub struct Tx(Arc<Session>);

struct Session {
    /// `None` only while the session is dropped.
    connection: Option<Object<Connector>>,
    /// Time limit of each statement.
    limit: Duration,
    /// True until the server has confirmed the end of the transaction.
    is_open: AtomicBool,
    /// A statement failed: PostgreSQL would answer a COMMIT without an error, and undo everything.
    has_failed: AtomicBool,
    is_undone: AtomicBool,
}

impl Tx {
    /// Begins a transaction by `begin`, one of the texts of [`super::begin::Begin`].
    pub(super) async fn begin(connection: Object<Connector>, begin: &str, limit: Duration) -> Result<Self> {
        let session = Session {
            connection: Some(connection),
            limit,
            is_open: AtomicBool::new(true),
            has_failed: AtomicBool::new(false),
            is_undone: AtomicBool::new(false),
        };
        let tx = Self(Arc::new(session));
        let begun = tx.0.connection()?.client.batch_execute(begin);
        match tx.limited(begun, false, begin::to_pg_error).await {
            Ok(()) => Ok(tx),
            Err(error) => tx.end(Err(error)).await,
        }
    }

    /// Runs one statement; parameters are `$1`, `$2` and so on.
    ///
    /// # Errors
    /// The server's error; the transaction can only be rolled back then.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let client = &self.0.connection()?.client;
        self.limited(client.query_typed(sql, params), false, PgError::from).await
    }

    /// Runs one statement that returns no rows, as [`Self::query`] does. Returns how many rows it changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let client = &self.0.connection()?.client;
        self.limited(client.execute_typed(sql, params), false, PgError::from).await
    }

    /// Makes the planner find rows by index until the transaction ends. It has no statistics of tables that were just
    /// filled: it would expect few waiting rows, and read all of them for each batch.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn find_by_index(&self) -> Result<()> {
        self.query(BY_INDEX, &[]).await.map(drop)
    }

    /// Rolls the transaction back even if the job succeeds.
    pub fn undo(&self) {
        self.0.is_undone.store(true, Ordering::Relaxed);
    }

    /// Runs statements without parameters, separated by semicolons, without a time limit.
    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        let done = self.0.connection()?.client.batch_execute(sql).await;
        done.inspect_err(|_| self.0.fail()).map_err(PgError::from)
    }

    /// Commits after success, else rolls back.
    pub(super) async fn end<T>(self, done: Result<T>) -> Result<T> {
        let has_failed = self.0.has_failed.load(Ordering::Relaxed);
        match done {
            Ok(_) if has_failed => {
                self.roll_back().await;
                Err(PgError::Refused("a statement failed, and its transaction went on".into()))
            }
            Ok(value) if self.0.is_undone.load(Ordering::Relaxed) => {
                self.roll_back().await;
                Ok(value)
            }
            Ok(value) => {
                self.command("COMMIT", true).await?;
                self.0.is_open.store(false, Ordering::Relaxed);
                Ok(value)
            }
            Err(error) => {
                if !error.spoils_connection() {
                    self.roll_back().await;
                }
                Err(error)
            }
        }
    }

    /// Rolls back. If this fails, the connection is discarded, so that the server rolls back too.
    async fn roll_back(&self) {
        if self.command("ROLLBACK", false).await.is_ok() {
            self.0.is_open.store(false, Ordering::Relaxed);
        }
    }

    async fn command(&self, sql: &str, commits: bool) -> Result<()> {
        let client = &self.0.connection()?.client;
        self.limited(client.batch_execute(sql), commits, PgError::from).await
    }

    async fn limited<T>(
        &self,
        statement: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
        commits: bool,
        failed: impl Fn(tokio_postgres::Error) -> PgError,
    ) -> Result<T> {
        let done = match timeout(self.0.limit, statement).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if commits => PgError::of_commit(error),
            Ok(Err(error)) => failed(error),
            Err(_) => {
                self.0.connection()?.cancel();
                PgError::too_slow(commits, "a statement", self.0.limit)
            }
        };
        self.0.fail();
        Err(done)
    }
}

impl Session {
    fn connection(&self) -> Result<&Object<Connector>> {
        self.connection.as_ref().ok_or_else(|| PgError::Unavailable("the transaction has ended".into()))
    }

    fn fail(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_open.load(Ordering::Relaxed)
            && let Some(connection) = self.connection.take()
        {
            drop(discard(connection));
        }
    }
}

/// Discards a connection unless it was marked as reusable: the statement may still be running.
struct ConnectionGuard(Option<Object<Connector>>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(discard(connection));
        }
    }
}

/// Runs one statement that changes nothing, outside of any transaction.
pub(super) async fn read(
    connection: Object<Connector>,
    sql: &str,
    params: &[Param<'_>],
    limit: Duration,
) -> Result<Vec<Row>> {
    lend(connection, limit, false, async |client| Ok(client.query_typed(sql, params).await?)).await
}

/// Runs one statement in a transaction of its own. All three parts are sent at once: a statement alone would be
/// committed under the settings of the role, the database or the server, not those of `begin`.
pub(super) async fn write(
    connection: Object<Connector>,
    begin: &str,
    sql: &str,
    params: &[Param<'_>],
    limit: Duration,
) -> Result<Vec<Row>> {
    lend(connection, limit, true, async |client| {
        // These are sent in this order: each is sent when it is polled first.
        let (begun, done, committed) = join3(
            client.batch_execute(begin),
            client.query_typed(sql, params),
            client.batch_execute("COMMIT"),
        )
        .await;
        match (begun, done, committed) {
            (Ok(()), Ok(rows), Ok(())) => Ok(rows),
            // After the server has reported an error the transaction cannot be committed: the result of the COMMIT does
            // not matter.
            (Err(error), _, _) if error.as_db_error().is_some() => Err(begin::to_pg_error(error)),
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => Err(PgError::of_commit(error)),
        }
    })
    .await
}

/// Runs a job on a connection, which is discarded unless it is usable afterwards.
async fn lend<T>(
    connection: Object<Connector>,
    limit: Duration,
    writes: bool,
    job: impl AsyncFnOnce(&Client) -> Result<T>,
) -> Result<T> {
    let mut lent = ConnectionGuard(Some(connection));
    let Some(connection) = &lent.0 else { return Err(PgError::Busy) };
    let done = match timeout(limit, job(&connection.client)).await {
        Ok(done) => done,
        Err(_) => {
            connection.cancel();
            Err(PgError::too_slow(writes, "a statement", limit))
        }
    };
    if !done.as_ref().is_err_and(PgError::spoils_connection) {
        drop(lent.0.take());
    }
    done
}
