//! The context that all tasks of an engine share, and retries of store operations.
//! Decides nothing about attempts and runs.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::clock::{Clock, Random};
use chassis::shutdown::Shutdown;
use tokio::sync::{Notify, Semaphore};

use super::breaker::Breaker;
use super::budget::Budget;
use super::ledger::Ledger;
use super::metrics::ChargeMetrics;
use super::problem::Problem;
use super::run::Runs;
use super::suspects::Suspects;
use crate::protocol::key::DeploymentId;
use crate::provider;
use crate::store::control::Halt;
use crate::store::{self, Store};

/// The first pause after the store has failed.
const STORE_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause after the store has failed.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Settings of the engine; those of the provider are in [`crate::provider::ProviderConfig`].
#[derive(Clone, Copy, Debug)]
pub struct ChargeSettings {
    /// The maximum number of calls under way.
    pub in_flight_max: NonZeroUsize,
    /// Lease of a claimed attempt; must be longer than a call and its wait in the queue.
    pub lease: Duration,
}

/// The state that all tasks of one engine share.
pub(super) struct EngineContext {
    pub(super) store: Arc<dyn Store>,
    pub(super) provider: provider::Client,
    pub(super) settings: ChargeSettings,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) shutdown: Shutdown,
    pub(super) metrics: ChargeMetrics,
    pub(super) breaker: Breaker,
    pub(super) suspects: Suspects,
    /// The last result of a call that was no answer about an invoice, since this process last began to drive a run.
    pub(super) problem: Mutex<Option<Problem>>,
    pub(super) budget: Budget,
    /// One permit for each call that may be under way.
    pub(super) in_flight: Semaphore,
    pub(super) ledger: Ledger,
    /// The store's deployment id: keys are derived from it, and the provider may reject an unknown one.
    pub(super) deployment: DeploymentId,
    pub(super) runs: Runs,
    /// The halt as last read, because readiness must not wait for the store.
    pub(super) halt: Mutex<Option<Halt>>,
    /// Wakes the supervisor when a run has ended or is to be adopted.
    pub(super) wake: Notify,
}

impl EngineContext {
    /// Records that a call got no answer about its invoice.
    pub(super) fn record_problem(&self, problem: Problem) {
        let mut last = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Problem::after(*last, problem));
    }

    /// Repeats a step of the store until it succeeds; `None` when the hard stop came first.
    pub(super) async fn retry_until_stopped<T, F>(&self, what: &str, step: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = store::Result<T>>,
    {
        self.repeat(what, step, || self.shutdown.hard()).await
    }

    /// Like [`Self::retry_until_stopped`], but not repeated once the service drains: for steps that begin something.
    pub(super) async fn retry_until_draining<T, F>(&self, what: &str, step: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = store::Result<T>>,
    {
        self.repeat(what, step, || self.shutdown.draining()).await
    }

    /// Never cancels a step that has begun, because its result must be known.
    async fn repeat<T, F, S>(&self, what: &str, step: impl Fn() -> F, stop: impl Fn() -> S) -> Option<T>
    where
        F: Future<Output = store::Result<T>>,
        S: Future<Output = ()>,
    {
        let mut pause = STORE_PAUSE;
        loop {
            match step().await {
                Ok(done) => return Some(done),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(step = what, error, "store operation failed, retrying");
                }
            }
            tokio::select! {
                biased;
                () = stop() => return None,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(STORE_PAUSE_MAX);
        }
    }
}
