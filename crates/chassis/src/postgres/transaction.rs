//! A transaction on a pooled connection, and a statement that is one by itself: unnamed statements only, each with a
//! time limit. Knows no statement's meaning; a transaction that is dropped half-way takes its connection with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::Object;
use tokio::time::timeout;
use tokio_postgres::Row;

use super::connect::Dialler;
use super::error::{PgError, Result};
use super::{Param, discard};

/// No session state: it ends with the transaction.
const BY_INDEX: &str = "
    SELECT set_config(name, 'off', true)
    FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin']) AS name";

/// An open transaction, for the job that was given to [`super::Postgres::transaction`].
#[derive(Clone)]
pub struct Tx(Arc<Session>);

struct Session {
    /// `None` only while it is dropped.
    connection: Option<Object<Dialler>>,
    /// Of each statement.
    limit: Duration,
    /// Until the server has said that it ended.
    is_open: AtomicBool,
    /// A statement failed: PostgreSQL would answer a COMMIT kindly, and undo everything.
    has_failed: AtomicBool,
    is_undone: AtomicBool,
}

impl Tx {
    pub(super) async fn begin(connection: Object<Dialler>, limit: Duration) -> Result<Self> {
        let session = Session {
            connection: Some(connection),
            limit,
            is_open: AtomicBool::new(true),
            has_failed: AtomicBool::new(false),
            is_undone: AtomicBool::new(false),
        };
        let tx = Self(Arc::new(session));
        tx.command("BEGIN ISOLATION LEVEL READ COMMITTED", false).await?;
        Ok(tx)
    }

    /// Runs one statement; parameters are `$1`, `$2` and so on.
    ///
    /// # Errors
    /// As the server says; the transaction can only be undone then.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let client = &self.0.connection()?.client;
        self.limited(client.query_typed(sql, params), false).await
    }

    /// As [`Self::query`], for one that answers no rows: how many it changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let client = &self.0.connection()?.client;
        self.limited(client.execute_typed(sql, params), false).await
    }

    /// From now until the transaction ends, rows are found by index. The planner would guess: of tables that were just
    /// filled it knows nothing, takes what waits for a few rows, and reads all of it for each batch.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn find_by_index(&self) -> Result<()> {
        self.query(BY_INDEX, &[]).await.map(drop)
    }

    /// Whatever the job answers, nothing of the transaction is kept.
    pub fn undo(&self) {
        self.0.is_undone.store(true, Ordering::Relaxed);
    }

    /// Statements without parameters, separated by semicolons, for as long as they take.
    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        let done = self.0.connection()?.client.batch_execute(sql).await;
        done.inspect_err(|_| self.0.fail()).map_err(PgError::from)
    }

    /// Commits after success, else undoes.
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

    /// Undone too when this fails: the connection goes.
    async fn roll_back(&self) {
        if self.command("ROLLBACK", false).await.is_ok() {
            self.0.is_open.store(false, Ordering::Relaxed);
        }
    }

    async fn command(&self, sql: &str, commits: bool) -> Result<()> {
        let client = &self.0.connection()?.client;
        self.limited(client.batch_execute(sql), commits).await
    }

    async fn limited<T>(
        &self,
        statement: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
        commits: bool,
    ) -> Result<T> {
        let done = match timeout(self.0.limit, statement).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if commits => PgError::of_commit(error),
            Ok(Err(error)) => error.into(),
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
    fn connection(&self) -> Result<&Object<Dialler>> {
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

/// Gives its connection up unless it was said to be sound: the statement on it may still be under way.
struct Lent(Option<Object<Dialler>>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(discard(connection));
        }
    }
}

/// One statement outside of any transaction.
pub(super) async fn alone(
    connection: Object<Dialler>,
    sql: &str,
    params: &[Param<'_>],
    writes: bool,
    limit: Duration,
) -> Result<Vec<Row>> {
    let mut lent = Lent(Some(connection));
    let Some(connection) = &lent.0 else { return Err(PgError::Busy) };
    let done = match timeout(limit, connection.client.query_typed(sql, params)).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) if writes => Err(PgError::of_commit(error)),
        Ok(Err(error)) => Err(error.into()),
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
