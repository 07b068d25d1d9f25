//! An engine over a store in its own folder, and helpers that tests use on both.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use billing::charge::{ChargeSettings, Engine, EngineParts, LEASE, Waited};
use billing::invoice::{
    Attempt, AttemptState, CustomerId, Invoice, InvoiceId, InvoiceState, Reference, RunCounters, RunId,
};
use billing::money::{Currency, Money};
use billing::protocol::transition::Idempotency;
use billing::provider::{Client, Dialect, ProviderConfig};
use billing::store::sqlite::SqliteStore;
use billing::store::{ImportMode, ImportRow, Store};
use chassis::caller::Tokens;
use chassis::clock::{Clock, Random};
use chassis::shutdown::Shutdown;
use chassis::telemetry::Telemetry;
use tempfile::TempDir;

/// Longer than any test here takes, and shorter than an attempt's lease, whose end no test here waits for.
pub(crate) const LONG: Duration = Duration::from_secs(45);

/// A folder with a store.
pub(crate) struct EngineFixture {
    pub(crate) folder: TempDir,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
}

/// The configuration of an engine.
pub(crate) struct Plan {
    pub(crate) idempotency: Idempotency,
    pub(crate) in_flight_max: usize,
    pub(crate) lease: Duration,
    pub(crate) tokens: Option<Tokens>,
}

impl Plan {
    pub(crate) fn keys() -> Self {
        Self { idempotency: Idempotency::Keys, in_flight_max: 8, lease: LEASE, tokens: None }
    }

    pub(crate) fn none() -> Self {
        Self { idempotency: Idempotency::None, ..Self::keys() }
    }

    pub(crate) fn in_flight_max(self, in_flight_max: usize) -> Self {
        Self { in_flight_max, ..self }
    }
}

/// A running engine.
pub(crate) struct Billing {
    pub(crate) engine: Engine,
    pub(crate) shutdown: Shutdown,
    telemetry: Telemetry,
}

impl EngineFixture {
    /// Creates a store with this many PENDING invoices of 12.15 EUR, named I1, I2 …
    pub(crate) async fn with(invoices: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let path = folder.path().join("billing.db");
        let store = SqliteStore::open(&path, None, clock.clone(), &Random::seeded(1)).await.unwrap();
        let fixture = Self { folder, store: Arc::new(store), clock };
        let names: Vec<String> = (1..=invoices).map(|n| format!("I{n}")).collect();
        for names in names.chunks(500) {
            fixture.import(names).await;
        }
        fixture
    }

    /// Adds invoices of 12.15 EUR.
    pub(crate) async fn import(&self, names: &[String]) {
        let row = |name: &String| ImportRow {
            reference: Reference::new(name).unwrap(),
            customer_id: CustomerId(1),
            money: Money { amount_minor: 1215, currency: Currency::EUR },
            paid: false,
        };
        let rows: Vec<ImportRow> = names.iter().map(row).collect();
        self.store.import(&rows, ImportMode::default()).await.unwrap();
    }

    /// Runs a statement without the service's knowledge.
    pub(crate) fn spoil(&self, sql: &str) {
        rusqlite::Connection::open(self.folder.path().join("billing.db"))
            .unwrap()
            .execute_batch(sql)
            .unwrap();
    }

    /// A client of this provider, without an engine.
    pub(crate) fn client(url: &str, plan: &Plan) -> Client {
        let provider = ProviderConfig {
            endpoint: url.parse().unwrap(),
            idempotency: plan.idempotency,
            dialect: Dialect::Default,
            tokens: plan.tokens.clone(),
            bearer: None,
            deadline: Duration::from_secs(5),
        };
        let calls = ProviderConfig::connections(plan.idempotency, provider.deadline);
        Client::new(chassis::client::Client::new(calls), provider)
    }

    /// Starts an engine that charges at this URL.
    pub(crate) async fn open(&self, url: &str, plan: Plan) -> Billing {
        let (shutdown, telemetry) = (Shutdown::new(), Telemetry::new("billing", "0", "test"));
        let parts = EngineParts {
            store: Arc::clone(&self.store),
            provider: Self::client(url, &plan),
            settings: ChargeSettings {
                in_flight_max: NonZeroUsize::new(plan.in_flight_max).unwrap(),
                lease: plan.lease,
            },
            clock: self.clock.clone(),
            random: Random::system(),
            metrics: telemetry.metrics.clone(),
            shutdown: shutdown.clone(),
        };
        Billing { engine: Engine::start(parts).await.unwrap(), shutdown, telemetry }
    }

    pub(crate) async fn attempts(&self) -> Vec<Attempt> {
        self.store.attempts((InvoiceId(0), 0), 1000).await.unwrap()
    }

    pub(crate) async fn states(&self) -> Vec<AttemptState> {
        self.attempts().await.iter().map(|attempt| attempt.state).collect()
    }

    pub(crate) async fn invoice(&self, id: i64) -> Invoice {
        self.store.invoice(InvoiceId(id)).await.unwrap().unwrap()
    }

    pub(crate) async fn count(&self, state: InvoiceState) -> i64 {
        let counts = self.store.counts().await.unwrap();
        match state {
            InvoiceState::Pending => counts.pending,
            InvoiceState::Charging => counts.charging,
            InvoiceState::Paid => counts.paid,
            InvoiceState::Attention => counts.attention,
            InvoiceState::Cancelled => counts.cancelled,
        }
    }

    pub(crate) async fn counters(&self, run: RunId) -> RunCounters {
        self.store.run(run).await.unwrap().unwrap().counters
    }

    /// Leaves the store in the state after a process was killed that had claimed this many.
    pub(crate) async fn crash_after_claim(&self, claimed: usize) -> Vec<Attempt> {
        let (run, _) = self.store.open_run(LEASE).await.unwrap();
        self.store.claim_in_turn(run.id, InvoiceId(0), claimed, LEASE).await.unwrap().attempts
    }
}

impl Billing {
    /// Pays once and waits for the run's end.
    pub(crate) async fn pay(&self) -> (RunId, Waited) {
        let started = self.engine.pay().await.unwrap();
        let waited = self.engine.wait(started.run, LONG).await.unwrap();
        assert!(waited.finished, "the run has not ended");
        (started.run, waited)
    }

    /// Drains to the end, as after SIGTERM.
    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        assert_eq!(self.shutdown.finished().await, 0, "tasks were left behind");
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> i64 {
        let text = String::from_utf8(self.telemetry.metrics.render()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    }
}

/// Waits until the condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let look = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, look).await.unwrap_or_else(|_| panic!("waited without success until {what}"));
}
