//! Sources of stores under test, and builders of test data. SQLite and PostgreSQL run the same suite.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use billing::invoice::{Attempt, CustomerId, InvoiceId, Reference, Run};
use billing::money::{Currency, Money};
use billing::protocol::key::{DeploymentId, Key};
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::postgres::{PostgresStore, SCHEMA};
use billing::store::sqlite::SqliteStore;
use billing::store::{ImportMode, ImportRow, Imported, Settled, Store};
use chassis::clock::{Clock, Random};
use chassis::postgres::{Postgres, PostgresSettings};
use tempfile::TempDir;
use testkit::Database;
use testkit::postgres::Pooler;
use uuid::Uuid;

pub(crate) const LEASE_MS: i64 = 15_000;
pub(crate) const LEASE: Duration = Duration::from_millis(LEASE_MS.unsigned_abs());
/// The initial time of every store.
pub(crate) const START_MS: i64 = 1_700_000_000_000;
pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId(Uuid::from_u128(8213));

/// One kind of store on one fresh database.
pub(crate) trait Fixture {
    /// Whether several processes use such a store, so that no process recovers attempts that another holds.
    const SHARED: bool;
    /// Opens the database; the store opened before has been dropped.
    fn open(&self) -> impl Future<Output = Arc<dyn Store>>;
    /// Lets time pass for the store.
    fn pass(&self, time: Duration) -> impl Future<Output = ()>;
    /// The store's time, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
    /// Runs statements that both kinds of database understand, as an operator may.
    fn by_hand(&self, sql: &str);
}

/// SQLite in a temporary folder, on simulated time. Needs a runtime with paused time.
pub(crate) struct SqliteFixture {
    folder: TempDir,
    clock: Clock,
}

impl SqliteFixture {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), clock: Clock::simulated(START_MS) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("billing.db")
    }
}

impl Fixture for SqliteFixture {
    const SHARED: bool = false;

    async fn open(&self) -> Arc<dyn Store> {
        let random = Random::seeded(8213);
        let opened = SqliteStore::open(&self.path(), Some(DEPLOYMENT), self.clock.clone(), &random).await;
        Arc::new(opened.unwrap())
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn by_hand(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

/// PostgreSQL, in its own database whose clock only the test moves.
pub(crate) struct PostgresFixture {
    pub(crate) database: Database,
    settings: PostgresSettings,
    now_ms: AtomicI64,
    _pooler: Option<Pooler>,
}

/// The name of the tests that are skipped without PostgreSQL.
const PART: &str = "billing's store on PostgreSQL";

/// A server kept for tests that use one database after another; `None`, with a loud notice, without PostgreSQL.
pub(crate) fn postgres_kept() -> Option<Database> {
    Database::fresh(PART)
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings::parse(url, None, 4, "billing").unwrap()
}

/// Replaces the store's only clock by one that the test controls.
const CLOCK: &str = "
    CREATE TABLE test_clock (ms bigint NOT NULL);
    INSERT INTO test_clock VALUES (1700000000000);
    CREATE OR REPLACE FUNCTION billing_now_ms() RETURNS bigint LANGUAGE sql VOLATILE
        AS $$ SELECT ms FROM test_clock $$";

impl PostgresFixture {
    /// `None`, with a loud notice, without PostgreSQL.
    pub(crate) async fn new() -> Option<Self> {
        let database = Database::fresh(PART)?;
        let settings = settings(database.url());
        let fixture = Self { database, settings, now_ms: AtomicI64::new(START_MS), _pooler: None };
        fixture.connect().migrate().await.unwrap();
        fixture.database.run(CLOCK);
        Some(fixture)
    }

    /// A fixture behind a pgbouncer in transaction mode that has fewer connections than its clients.
    pub(crate) async fn pooled() -> Option<Self> {
        const BEHIND: usize = 2;
        let fixture = Self::new().await?;
        let pooler = Pooler::start("billing's store behind pgbouncer", fixture.database.url(), BEHIND)?;
        let through = pooler.before(fixture.database.url());
        Some(Self { _pooler: Some(pooler), ..fixture.through(&through) })
    }

    /// The same database by another URL, for stores that are opened from now on.
    pub(crate) fn through(self, url: &str) -> Self {
        Self { settings: settings(url), ..self }
    }

    /// Connects as the store does.
    pub(crate) fn connect(&self) -> Postgres {
        Postgres::open(&self.settings, SCHEMA, None, Random::system()).unwrap()
    }
}

impl Fixture for PostgresFixture {
    const SHARED: bool = true;

    async fn open(&self) -> Arc<dyn Store> {
        let opened =
            PostgresStore::open(self.connect(), Some(DEPLOYMENT), Uuid::nil(), &Clock::system()).await;
        Arc::new(opened.unwrap())
    }

    async fn pass(&self, time: Duration) {
        let passed = i64::try_from(time.as_millis()).unwrap();
        self.now_ms.fetch_add(passed, Ordering::SeqCst);
        self.database.run(&format!("UPDATE test_clock SET ms = ms + {passed}"));
    }

    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn by_hand(&self, sql: &str) {
        self.database.run(sql);
    }
}

pub(crate) fn reference(text: &str) -> Reference {
    Reference::new(text).unwrap()
}

/// A row like `row("I1", 12_15)`: customer 1, EUR, unpaid.
pub(crate) fn row(name: &str, amount_minor: i64) -> ImportRow {
    ImportRow {
        reference: reference(name),
        customer_id: CustomerId(1),
        money: Money { amount_minor, currency: Currency::EUR },
        paid: false,
    }
}

pub(crate) const PLAIN: ImportMode = ImportMode { dry_run: false, update: false };
pub(crate) const UPDATE: ImportMode = ImportMode { dry_run: false, update: true };
pub(crate) const DRY: ImportMode = ImportMode { dry_run: true, update: false };

/// Imports I1, I2, … of 12.15 EUR each.
pub(crate) async fn imported(store: &dyn Store, count: usize) {
    let rows: Vec<_> = (1..=count).map(|number| row(&format!("I{number}"), 1215)).collect();
    for batch in rows.chunks(1000) {
        let answers = store.import(batch, PLAIN).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == Imported::Created), "{answers:?}");
    }
}

pub(crate) async fn run(store: &dyn Store) -> Run {
    store.open_run(LEASE).await.unwrap().0
}

/// Claims the first PENDING invoices of a run.
pub(crate) async fn claimed(store: &dyn Store, run: &Run, count: usize) -> Vec<Attempt> {
    let attempts = store.claim_in_turn(run.id, InvoiceId(0), count, LEASE).await.unwrap().attempts;
    assert_eq!(attempts.len(), count);
    attempts
}

/// A settlement of the attempt with this key. If there is none, it names the row of another attempt, which must not be
/// settled.
pub(crate) async fn settlement(
    store: &dyn Store,
    key: &Key,
    outcome: Outcome,
    again_in: Duration,
) -> Settlement {
    let (invoice, number) = match store.attempt(key).await.unwrap() {
        Some(attempt) => (attempt.invoice_id, attempt.number),
        None => (InvoiceId(1), 1),
    };
    Settlement { key: key.clone(), invoice, number, outcome, again_in, decline: None }
}

/// Settles one attempt, claimable again at once if it stays open.
pub(crate) async fn settle(store: &dyn Store, run: Option<&Run>, key: &Key, outcome: Outcome) -> Settled {
    let settlement = settlement(store, key, outcome, Duration::ZERO).await;
    let mut answers = store.settle(run.map(|run| run.id), &[settlement]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}
