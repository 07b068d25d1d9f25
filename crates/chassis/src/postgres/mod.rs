//! PostgreSQL behind two small pools: transactions that are retried when that is safe, statements without names or
//! session state (any pooler may be used), errors by what a caller can do. Knows no table of any service: statements
//! and migrations are parameters. Time is the database's.

mod begin;
mod connect;
mod error;
mod health;
mod hosts;
mod migrate;
mod settings;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError, TimeoutType};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::types::FromSql;

use self::begin::Begin;
use self::connect::{Connection, Connector};
use self::health::Health;
use crate::admin::Unmet;
use crate::clock::{Clock, Random};
use crate::presence::Presence;
use crate::schema::Migration;
use crate::tls::{Mistakes, TlsConnect, TlsMetrics};

pub use error::{PgError, Result, Source};
pub use settings::{
    ACQUIRE_TIMEOUT, CONNECT_TIMEOUT, CONNECTIONS_LEAST, CONNECTIONS_LIMIT, CONNECTIONS_MAX,
    PostgresSettings, STATEMENT_TIMEOUT,
};
pub use tokio_postgres::Row;
pub use tokio_postgres::types::{ToSql, Type};
pub use transaction::Tx;

/// Maximum number of tries of one transaction.
pub const TRIES_MAX: u32 = 5;
/// The longest pause before the first further try; it doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// A try that waits for a connection ends later than the pool's own limit by this time, since the pool gives a better
/// reason.
const ACQUIRE_SLACK: Duration = Duration::from_millis(250);
/// SQL for the current time in milliseconds since the Unix epoch: the time of the statement, not of its transaction's
/// begin.
pub const NOW_MS: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// One parameter, with the type that the statement sees.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The pool that a statement uses, so that statements that may wait do not delay statements that must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolClass {
    /// Statements that may wait for locks or read long: claims, lists, checks.
    Claim,
    /// Short writes by key that others wait for.
    Record,
}

/// The schema that a service needs.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Name of the service, and of its table of versions, so that two services may share a database.
    pub service: &'static str,
    /// The steps of the schema, in order.
    pub steps: &'static [Migration],
}

/// A database. Clones share everything.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    shown: String,
    schema: Schema,
    random: Random,
    acquire_timeout: Duration,
    statement_timeout: Duration,
    begin: Begin,
    claim: Pool<Connector>,
    record: Pool<Connector>,
    health: Health,
    trouble: Notify,
}

impl Postgres {
    /// Prepares the pools, and starts to check the database's state in the background. Makes no connection itself, so
    /// that a service can start before its database. With `metrics`, the CA bundle is reloaded when it changes. Needs a
    /// tokio runtime around it.
    ///
    /// # Errors
    /// When the CA bundle is invalid.
    pub fn open(
        settings: &PostgresSettings,
        schema: Schema,
        metrics: Option<&TlsMetrics>,
        random: Random,
    ) -> std::result::Result<Self, Mistakes> {
        let tls = settings.tls.clone().map(|files| match metrics {
            Some(metrics) => TlsConnect::open(files, Clock::system(), metrics),
            None => TlsConnect::once(files, Clock::system()),
        });
        let tls = tls.transpose()?;
        let claims = (settings.connections_max / 4).max(1);
        let pool = |size| {
            let dialler = Connector::new(&settings.config, tls.clone(), random.clone());
            Pool::builder(dialler)
                .max_size(size)
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(settings.acquire_timeout))
                .create_timeout(Some(settings.acquire_timeout))
                .recycle_timeout(Some(settings.acquire_timeout))
                .build()
                .expect("a pool with timeouts has a runtime")
        };
        let record = pool(settings.connections_max.saturating_sub(claims).max(1));
        let inner = Inner {
            shown: settings.shown.clone(),
            schema,
            acquire_timeout: settings.acquire_timeout,
            statement_timeout: settings.statement_timeout,
            begin: Begin::new(settings.statement_timeout),
            claim: pool(claims),
            record,
            random,
            health: Health::new(),
            trouble: Notify::new(),
        };
        let inner = Arc::new(inner);
        tokio::spawn(health::run_health_loop(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// A random id for a transaction that marks what it writes, so that the rows can be found when its commit is in
    /// doubt.
    #[must_use]
    pub fn random_id(&self) -> String {
        self.0.random.uuid().simple().to_string()
    }

    /// Whether the database was usable at the last check, from memory: for a readiness check. A database below the
    /// schema that this program needs is not usable.
    pub fn is_usable(&self) -> impl Fn() -> std::result::Result<(), Unmet> + Send + Sync + use<> {
        let states = self.0.health.states();
        move || health::verdict(&states.borrow())
    }

    /// Waits until the database is usable, however long that takes.
    pub async fn wait_until_usable(&self) {
        let mut states = self.0.health.states();
        // The sender is closed only when this database is dropped, and the database is borrowed here.
        let _usable = states.wait_for(|state| health::verdict(state).is_ok()).await;
    }

    /// Runs a job inside one transaction (READ COMMITTED) and commits it: `Ok` means that the commit is on the server's
    /// disk, under any settings of role, database and server; where that is impossible, nothing is begun. The
    /// transaction is begun anew, up to [`TRIES_MAX`] times, when the connection broke before the commit was sent or
    /// other transactions wrote the same rows: the job must change nothing outside of it. The transaction ends with the
    /// job, also for the job's clone of it.
    ///
    /// # Errors
    /// The job's own error, and everything was undone; or [`PgError::InDoubt`].
    pub async fn transaction<T, F, Fut>(&self, class: PoolClass, job: F) -> Result<T>
    where
        T: Send,
        F: Fn(Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        self.run_transaction(&self.0.begin.write, class, true, job).await
    }

    /// As [`Self::transaction`], for a lock that every replica takes: a process that is stopped in the middle releases
    /// the lock within a second.
    ///
    /// # Errors
    /// As [`Self::transaction`].
    pub async fn brief_transaction<T, F, Fut>(&self, class: PoolClass, job: F) -> Result<T>
    where
        T: Send,
        F: Fn(Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        self.run_transaction(&self.0.begin.brief, class, true, job).await
    }

    /// Runs a job in a transaction that begins with this text.
    async fn run_transaction<T, F, Fut>(
        &self,
        begin: &str,
        class: PoolClass,
        writes: bool,
        job: F,
    ) -> Result<T>
    where
        T: Send,
        F: Fn(Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        let job = &job;
        let transaction = self.retry_transient(|begin_by| async move {
            let connection = self.acquire(class, begin_by).await?;
            if writes {
                ensure_wanted()?;
            }
            let tx = Tx::begin(connection, begin, self.0.statement_timeout).await?;
            let done = job(tx.clone()).await;
            tx.end(done).await
        });
        let done = transaction.await;
        if writes {
            self.note_denied(&done);
        }
        done
    }

    /// Runs one statement that changes nothing, and retries it when the connection broke.
    ///
    /// # Errors
    /// The server's error.
    pub async fn read(&self, class: PoolClass, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.retry_transient(|begin_by| async move {
            let connection = self.acquire(class, begin_by).await?;
            transaction::read(connection, sql, params, self.0.statement_timeout).await
        })
        .await
    }

    /// Runs one statement that changes nothing and reads a page of a long list. Its rows are found by index: the
    /// planner would read all rows after the page to sort them, and for a join all rows before. Retried as by
    /// [`Self::read`].
    ///
    /// # Errors
    /// The server's error.
    pub async fn page(&self, class: PoolClass, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.run_transaction(&self.0.begin.read, class, false, |tx| async move {
            // There is no commit, so that none can be in doubt.
            tx.undo();
            tx.find_by_index().await?;
            tx.query(sql, params).await
        })
        .await
    }

    /// Runs one statement that is a transaction of its own, in one round trip: `Ok` means that the commit is on the
    /// server's disk, as for [`Self::transaction`].
    ///
    /// # Errors
    /// The server's error; [`PgError::InDoubt`] without a response: the statement may have been committed.
    pub async fn write(&self, class: PoolClass, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let statement = self.retry_transient(|begin_by| async move {
            let connection = self.acquire(class, begin_by).await?;
            ensure_wanted()?;
            transaction::write(connection, &self.0.begin.brief, sql, params, self.0.statement_timeout).await
        });
        let done = statement.await;
        self.note_denied(&done);
        done
    }

    /// Makes the next look compare rights. Only for what writes: a service may ask for what an ordinary role must not
    /// read, such as the server's identity, and does without the answer.
    fn note_denied<T>(&self, done: &Result<T>) {
        if matches!(done, Err(PgError::Denied(_))) {
            self.0.health.deny();
            self.0.trouble.notify_one();
        }
    }

    /// Brings the schema up to date; several processes may do so at once. Returns the version that the database has
    /// then.
    ///
    /// # Errors
    /// When the database cannot be used, or has the schema of another service or an incompatible later one.
    pub async fn migrate(&self) -> Result<usize> {
        migrate::apply(self).await
    }

    /// Retries after transient errors. All tries begin within the time limit for waiting for a connection. Then the
    /// caller gets its error, and nothing is done later for a caller that has left.
    async fn retry_transient<T, Fut>(&self, attempt: impl Fn(Instant) -> Fut + Send) -> Result<T>
    where
        Fut: Future<Output = Result<T>> + Send,
    {
        let begin_by = Instant::now() + self.0.acquire_timeout + ACQUIRE_SLACK;
        let mut tries = 1;
        loop {
            let error = match attempt(begin_by).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if error.spoils_connection() || matches!(error, PgError::NotDurable) {
                self.0.trouble.notify_one();
            }
            if !error.is_passing() || tries == TRIES_MAX || Instant::now() >= begin_by {
                return Err(error);
            }
            tracing::debug!(error = &error as &dyn std::error::Error, tries, "retried a transaction");
            tokio::time::sleep(self.0.random.jitter(PAUSE_FIRST * 2_u32.pow(tries))).await;
            tries += 1;
        }
    }

    async fn acquire(&self, class: PoolClass, begin_by: Instant) -> Result<Object<Connector>> {
        let pool = match class {
            PoolClass::Claim => &self.0.claim,
            PoolClass::Record => &self.0.record,
        };
        let slow = || PgError::too_slow(false, "a connection", self.0.acquire_timeout);
        let acquired = tokio::time::timeout_at(begin_by, pool.get()).await.map_err(|_| slow())?;
        acquired.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => PgError::Busy,
            PoolError::Timeout(_) => slow(),
            other => PgError::Unavailable(other.into()),
        })
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.0.shown).finish()
    }
}

/// Checks that the caller is still connected, just before something that writes begins.
fn ensure_wanted() -> Result<()> {
    if Presence::of_this_task().may_begin() { Ok(()) } else { Err(PgError::CallerGone) }
}

/// A column's value.
///
/// # Errors
/// [`PgError::Corrupt`] when the value is not of this type.
pub fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| {
        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        PgError::Corrupt(format!("{error} {reason}"))
    })
}

/// Removes a connection from the pool, which makes a new one when needed.
fn discard(connection: Object<Connector>) -> Connection {
    Object::take(connection)
}
