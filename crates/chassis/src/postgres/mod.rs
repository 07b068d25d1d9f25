//! PostgreSQL behind two small pools: transactions that are tried again when that is safe, statements without names
//! or session state (any pooler may stand between), errors by what a caller can do. Knows no table of any service:
//! statements and migrations are parameters. Time is the database's.

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
/// The longest pause before the first further try; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// How much later than a pool's own limit a try ends that waits for a connection: the pool says better why.
const ACQUIRE_SLACK: Duration = Duration::from_millis(250);
/// SQL for now, in milliseconds since the Unix epoch: the moment of the statement, not of its transaction's begin.
pub const NOW_MS: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// One parameter, with the type that the statement sees.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The pool that a statement uses, so that statements that may wait do not delay those that must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolClass {
    /// May wait for locks or read long: claims, lists, checks.
    Claim,
    /// Short writes by key that others wait for.
    Record,
}

/// The schema that a service needs.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Names the table of versions, so that two services may share a database.
    pub service: &'static str,
    /// Its steps, in order.
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
    /// Gets ready to connect, and looks after the database's state from then on; connects to nothing yet, so that a
    /// service starts before its database. With `metrics`, the CA bundle is reloaded when it changes.
    /// Needs a tokio runtime around it.
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
        tokio::spawn(health::watch(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// For a transaction that marks what it writes, so that it can be read back when its commit is in doubt.
    #[must_use]
    pub fn random_id(&self) -> String {
        self.0.random.uuid().simple().to_string()
    }

    /// Whether the database was usable at the last look, from memory: for a readiness check. It is not below the
    /// schema that this program needs.
    pub fn is_usable(&self) -> impl Fn() -> std::result::Result<(), Unmet> + Send + Sync + use<> {
        let states = self.0.health.states();
        move || health::verdict(&states.borrow())
    }

    /// Waits until the database is usable, however long that takes.
    pub async fn wait_until_usable(&self) {
        let mut states = self.0.health.states();
        // Closed only when this database is dropped, and it is borrowed here.
        let _usable = states.wait_for(|state| health::verdict(state).is_ok()).await;
    }

    /// Runs a job inside one transaction (READ COMMITTED) and commits it: `Ok` means that it is on the server's disk,
    /// whatever the role, the database and the server are set to; where that cannot be, nothing is begun. It is begun anew, up to [`TRIES_MAX`] times, when the connection broke before the commit was sent or others
    /// wrote the same rows: the job must change nothing outside. Its clone of the transaction ends with it.
    ///
    /// # Errors
    /// The job's own, and everything was undone; or [`PgError::InDoubt`].
    pub async fn transaction<T, F, Fut>(&self, class: PoolClass, job: F) -> Result<T>
    where
        T: Send,
        F: Fn(Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        self.within(&self.0.begin.write, class, true, job).await
    }

    /// As [`Self::transaction`], for a lock that every replica takes: a process that is stopped in the middle gives it
    /// back within a second.
    ///
    /// # Errors
    /// As [`Self::transaction`].
    pub async fn brief_transaction<T, F, Fut>(&self, class: PoolClass, job: F) -> Result<T>
    where
        T: Send,
        F: Fn(Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        self.within(&self.0.begin.brief, class, true, job).await
    }

    /// A transaction that is begun by this text.
    async fn within<T, F, Fut>(&self, begin: &str, class: PoolClass, writes: bool, job: F) -> Result<T>
    where
        T: Send,
        F: Fn(Tx) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        let job = &job;
        self.retry_transient(|begin_by| async move {
            let connection = self.acquire(class, begin_by).await?;
            if writes {
                ensure_wanted()?;
            }
            let tx = Tx::begin(connection, begin, self.0.statement_timeout).await?;
            let done = job(tx.clone()).await;
            tx.end(done).await
        })
        .await
    }

    /// One statement that changes nothing, tried again when the connection broke.
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

    /// One statement that changes nothing and reads a page of a long list, found by index: the planner would read all
    /// that comes after the page to sort it, and for a join all that comes before. Tried again as [`Self::read`].
    ///
    /// # Errors
    /// The server's error.
    pub async fn page(&self, class: PoolClass, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.within(&self.0.begin.read, class, false, |tx| async move {
            // No commit, so none that could be in doubt.
            tx.undo();
            tx.find_by_index().await?;
            tx.query(sql, params).await
        })
        .await
    }

    /// One statement that is a transaction of its own, in one round trip: `Ok` means that it is on the server's disk, as
    /// [`Self::transaction`] says.
    ///
    /// # Errors
    /// The server's error; [`PgError::InDoubt`] without a response: the statement may have been committed.
    pub async fn write(&self, class: PoolClass, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.retry_transient(|begin_by| async move {
            let connection = self.acquire(class, begin_by).await?;
            ensure_wanted()?;
            transaction::write(connection, &self.0.begin.brief, sql, params, self.0.statement_timeout).await
        })
        .await
    }

    /// Brings the schema up to date; several may at once. Answers the version that the database has then.
    ///
    /// # Errors
    /// When the database cannot be used, or holds another service's or an incompatible later schema.
    pub async fn migrate(&self) -> Result<usize> {
        migrate::apply(self).await
    }

    /// All tries begin within the time that one may wait for a connection. The caller gets its error then, and nothing is
    /// done later for a caller that has left.
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
            if matches!(error, PgError::Denied(_)) {
                self.0.health.deny();
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

/// Just before something that writes begins.
fn ensure_wanted() -> Result<()> {
    if Presence::of_this_task().may_begin() { Ok(()) } else { Err(PgError::CallerGone) }
}

/// A column's value.
///
/// # Errors
/// [`PgError::Corrupt`] when it is none of this type.
pub fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| {
        let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        PgError::Corrupt(format!("{error} {reason}"))
    })
}

/// Gives up a connection: the pool makes a new one when it needs it.
fn discard(connection: Object<Connector>) -> Connection {
    Object::take(connection)
}
