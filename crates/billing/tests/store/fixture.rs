//! Where stores under test come from, and builders of what they are given.
//! A PostgreSQL fixture stands beside the SQLite one and runs the same suite.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use billing::invoice::{Attempt, CustomerId, InvoiceId, Reference, Run};
use billing::money::{Currency, Money};
use billing::protocol::key::{DeploymentId, Key};
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::sqlite::SqliteStore;
use billing::store::{ImportMode, ImportRow, Imported, Settled, Store};
use chassis::clock::{Clock, Random};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const LEASE_MS: i64 = 15_000;
pub(crate) const LEASE: Duration = Duration::from_millis(LEASE_MS.unsigned_abs());
pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId(Uuid::from_u128(8213));

/// One kind of store on one fresh database.
pub(crate) trait Fixture {
    /// Opens the database; the store opened before has been dropped.
    fn open(&self) -> impl Future<Output = Arc<dyn Store>>;
    /// Lets time pass for the store.
    fn pass(&self, time: Duration) -> impl Future<Output = ()>;
    /// The store's time, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// SQLite in a temporary folder, on simulated time. Needs a runtime whose time is paused.
pub(crate) struct SqliteFixture {
    folder: TempDir,
    clock: Clock,
}

impl SqliteFixture {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), clock: Clock::simulated(1_700_000_000_000) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("billing.db")
    }
}

impl Fixture for SqliteFixture {
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
}

pub(crate) fn reference(text: &str) -> Reference {
    Reference::new(text).unwrap()
}

/// `row("I1", 12_15)`: customer 1, EUR, unpaid.
pub(crate) fn row(name: &str, amount_minor: i64) -> ImportRow {
    ImportRow {
        reference: reference(name),
        customer_id: CustomerId(1),
        money: Money { amount_minor, currency: Currency::Eur },
        paid: false,
    }
}

pub(crate) const PLAIN: ImportMode = ImportMode { dry_run: false, update: false };
pub(crate) const UPDATE: ImportMode = ImportMode { dry_run: false, update: true };
pub(crate) const DRY: ImportMode = ImportMode { dry_run: true, update: false };

/// I1, I2, … of 12.15 EUR each.
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
    let attempts = store.claim_pending(run.id, InvoiceId(0), count, LEASE).await.unwrap();
    assert_eq!(attempts.len(), count);
    attempts
}

/// Settles one attempt, claimable again at once if it stays open.
pub(crate) async fn settle(store: &dyn Store, run: Option<&Run>, key: &Key, outcome: Outcome) -> Settled {
    let settlement = Settlement { key: key.clone(), outcome, again_in: Duration::ZERO };
    let mut answers = store.settle(run.map(|run| run.id), &[settlement]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}
