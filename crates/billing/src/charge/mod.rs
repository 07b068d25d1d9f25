//! The charge engine: claim and journal, call, settle; never the other way round.
//! Imports no HTTP and no SQL crate: provider and store are behind their own modules.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::clock::{Clock, Random};
use chassis::crash_point;
use chassis::presence::Presence;
use chassis::shutdown::Shutdown;
use chassis::telemetry::Metrics;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::invoice::{AttemptState, RunId, RunProblem};
use crate::protocol::transition::Idempotency;
use crate::provider::{self, answer::Reason};
use crate::run_order::RunOrder;
use crate::store::{LedgerAcceptance, LedgerFact, Repaired, Resolution, Store, StoreError};
use breaker::Breaker;
use budget::Budget;
use engine::EngineContext;
use ledger::Ledger;
use metrics::ChargeMetrics;
use run::Runs;
use suspects::Suspects;
use window::Window;

pub mod backoff;
pub mod breaker;
pub mod budget;
mod deliver;
mod driver;
mod engine;
mod halt;
mod health;
mod ledger;
mod metrics;
mod problem;
mod record;
mod repair;
mod resolve;
mod run;
mod supervisor;
pub mod suspects;
mod trace;
pub mod window;

pub use engine::ChargeSettings;
pub use health::ProviderHealth;
pub use problem::Problem;
pub use resolve::REQUEST_LIFE_MAX;
pub use run::Waited;
pub use supervisor::RUN_LEASE;

/// Lease of a claimed attempt, as long as several deadlines of a call.
pub const LEASE: Duration = crate::store::lease::LONGEST;

/// The longest `Retry-After` that is respected: an answer that asks for days must not stop a run.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Poll interval for a run that another process drives.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// How long a run of all invoices waits for a narrower run to end before it tries again.
const BUSY_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A run that a pay call started, or the unfinished one that it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub run: RunId,
    /// Whether an unfinished run was joined.
    pub joined: bool,
}

/// Result of starting a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedRun {
    Started(Started),
    /// This run is unfinished, and claims less than the caller asked for.
    Busy(RunId),
}

/// The result of an operator's decision on an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveOutcome {
    /// Recorded, with its audit row.
    Applied,
    /// The attempt is final already, in this state; nothing changed.
    Final(AttemptState),
    /// No attempt has this key.
    Unknown,
}

/// Why a repair was rejected.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This store has settled with another ledger: neither the rows nor the gaps of this one prove anything.
    #[error("this store settles with ledger {0}")]
    OtherLedger(String),
}

/// Why an operator's decision was rejected.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// "Not charged" needs a typed reason where the key cannot be voided.
    #[error("where the key cannot be voided, \"not charged\" needs a reason")]
    ReasonMissing,
    /// A request for this attempt may still be in flight; retry after this time.
    #[error("a request may still be alive for {} s; ask again then", .0.as_secs())]
    TooEarly(Duration),
    /// The provider reports this key as charged: the decision is wrong.
    #[error("the provider has charged this key")]
    ChargedThere,
    /// Another attempt of the same invoice is charged already: a second charge is paid back, not recorded.
    #[error("another attempt of this invoice is charged already; pay this one back, then say not charged")]
    OtherCharged,
    /// The provider could not be asked to void the key, or its answer is not reliable.
    #[error("the provider did not void this key: {0}")]
    NotVoided(String),
}

/// Dependencies of an engine.
pub struct EngineParts {
    pub store: Arc<dyn Store>,
    pub provider: provider::Client,
    pub settings: ChargeSettings,
    /// The clock by which the age of a request is measured.
    pub clock: Clock,
    /// The source of jitter.
    pub random: Random,
    /// The registry for the engine's metrics.
    pub metrics: Metrics,
    pub shutdown: Shutdown,
}

/// A handle of the engine; clones share the engine.
#[derive(Clone)]
pub struct Engine(Arc<EngineContext>);

impl Engine {
    /// Recovers what a crash left open, adopts an unfinished run, and keeps settling until the shutdown.
    pub async fn start(parts: EngineParts) -> Result<Self, StoreError> {
        let EngineParts { store, provider, settings, clock, random, metrics, shutdown } = parts;
        let open = store.recover().await?;
        crash_point!("K10");
        if open > 0 {
            tracing::info!(attempts = open, "found open attempts, each is settled under its own key");
        }
        let ledger = Ledger::new(store.ledger_seen().await?);
        let deployment = store.deployment().await?;
        let without_keys = provider.idempotency() == Idempotency::None;
        let window = without_keys.then(|| Window::new(settings.in_flight_max));
        let shared = Arc::new(EngineContext {
            metrics: ChargeMetrics::new(&metrics),
            breaker: Breaker::unproven(random.clone(), window),
            suspects: Suspects::default(),
            problem: Mutex::default(),
            budget: Budget::full(Instant::now()),
            in_flight: Semaphore::new(settings.in_flight_max.get()),
            runs: Runs::default(),
            halt: Mutex::default(),
            wake: Notify::new(),
            ledger,
            deployment,
            store,
            provider,
            settings,
            clock,
            random,
            shutdown,
        });
        if without_keys {
            shared.park_open_attempts().await?;
        }
        shared.shutdown.spawn("supervisor", Arc::clone(&shared).run_recovery_loop());
        shared.shutdown.spawn("metrics", Arc::clone(&shared).run_refresh_loop());
        Ok(Self(shared))
    }

    /// Starts a run of all invoices, or joins the unfinished one, which then also claims every invoice that is PENDING
    /// now. Waits first for an unfinished run of some invoices. The run is a separate task: a caller that hangs up
    /// cancels nothing.
    pub async fn pay(&self) -> Result<Started, StoreError> {
        loop {
            match self.begin_run(RunOrder::default()).await? {
                StartedRun::Started(started) => return Ok(started),
                StartedRun::Busy(_) if self.0.shutdown.is_draining() => {
                    return Err(StoreError::Unavailable("the service drains".into()));
                }
                // This wait belongs to the caller's task: it ends when the caller hangs up.
                StartedRun::Busy(run) => self.wait(run, BUSY_LOOK_EVERY).await.map(drop)?,
            }
        }
    }

    /// Starts a run with this order, or joins the unfinished one if that claims all that the order asks for. The start
    /// is a separate task too, so that no run is opened without a driver.
    pub async fn begin_run(&self, order: RunOrder) -> Result<StartedRun, StoreError> {
        let shared = Arc::clone(&self.0);
        let start = Presence::of_this_task().scope(async move { shared.start_or_join(&order).await });
        self.0.shutdown.spawn("pay", start).await.expect("starting a run does not panic")
    }

    /// Waits until the run has ended or `at_most` has passed.
    pub async fn wait(&self, run: RunId, at_most: Duration) -> Result<Waited, StoreError> {
        let late = Instant::now() + at_most;
        if let Some(progress) = self.0.runs.find(run) {
            let waited = progress.wait(at_most).await;
            if waited.finished || !self.0.store.is_shared() {
                return Ok(waited);
            }
        }
        loop {
            let Some(run) = self.0.store.run(run).await? else {
                return Ok(Waited { finished: true, reached: true });
            };
            let (finished, counters) = (run.finished_at.is_some(), run.counters);
            let sent = counters.paid + counters.refused + counters.rejected + counters.in_doubt > 0;
            let not_connected = |problem: &RunProblem| problem.reason == Reason::NotConnected.as_str();
            let reached = sent || !run.problem.as_ref().is_some_and(not_connected);
            if finished || Instant::now() + WATCH_EVERY > late {
                return Ok(Waited { finished, reached });
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    /// The problem that keeps this run from charging, if this process drives the run or has driven it lately.
    #[must_use]
    pub fn last_problem(&self, run: RunId) -> Option<Problem> {
        self.0.runs.find(run)?.problem()
    }

    /// The last problem that a call of this process had, inside or outside a run, since the process began to drive its
    /// last run.
    #[must_use]
    pub fn latest_problem(&self) -> Option<Problem> {
        *self.0.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an operator's decision on an attempt. "Not charged" of an open attempt is accepted once the provider has
    /// voided the key. Without keys it needs a reason, and no request may be alive. It also needs a reason for a second
    /// charge of the invoice, which can only be refunded. A decision on a final attempt may end its invoice's need of
    /// manual resolution.
    pub async fn resolve(&self, resolution: Resolution) -> Result<ResolveOutcome, ResolveError> {
        self.0.resolve(&resolution).await
    }

    /// Accepts this ledger from now on, by an operator's decision; returns the previous ledger. The new ledger may have
    /// fewer keys.
    pub async fn accept_ledger(&self, acceptance: &LedgerAcceptance) -> Result<Option<String>, StoreError> {
        self.0.accept_ledger(acceptance).await
    }

    /// The ledger that the provider names now; `None` when it names no ledger.
    ///
    /// # Errors
    /// The reason why the provider did not respond.
    pub async fn provider_ledger(&self) -> Result<Option<String>, String> {
        self.0.provider.named_ledger().await
    }

    /// Repairs the store from rows of the provider's ledger: settles attempts that are open here, and writes attempts
    /// that a store restored from a backup lacks. Sends nothing. A store without a remembered ledger remembers this
    /// one.
    pub async fn repair(&self, ledger_id: &str, facts: &[LedgerFact]) -> Result<Vec<Repaired>, RepairError> {
        self.0.repair(ledger_id, facts).await
    }
}
