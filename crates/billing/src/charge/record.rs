//! Records outcomes: many settlements in one durable step; none is lost while the process lives. Makes no call and
//! claims nothing.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chassis::crash_point;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::deliver::AttemptResult;
use super::engine::EngineContext;
use super::run::Progress;
use super::trace::AttemptTraces;
use crate::invoice::{DeclineClass, RunId};
use crate::protocol::transition::{Idempotency, Outcome, Settlement};
use crate::store::{self, Settled, StoreError};

/// The most settlements in one step.
pub(super) const RECORD_MAX: usize = 512;
/// With keys, a step waits for this many settlements, so that commits are few.
const RECORD_AT_LEAST: usize = 256;
/// The longest wait for a full step. After a crash in this time the attempts are resent under their keys.
const LINGER: Duration = Duration::from_millis(20);

/// Collects results and records them in batches.
pub(super) struct Recorder {
    pub(super) shared: Arc<EngineContext>,
    pub(super) run: Option<RunId>,
    pub(super) progress: Arc<Progress>,
    /// The number of claimed attempts whose results have not been received.
    pub(super) out: Arc<AtomicUsize>,
}

impl Recorder {
    /// Settles until every worker is gone.
    pub(super) async fn record(self, mut results: Receiver<AttemptResult>) {
        let mut batch = Vec::with_capacity(RECORD_MAX);
        while self.gather(&mut results, &mut batch).await {
            let mut traces = AttemptTraces::new();
            let (settlements, places): (Vec<_>, Vec<_>) = batch
                .drain(..)
                .map(|result| {
                    traces.extend(result.trace.map(|trace| (result.settlement.key.clone(), trace)));
                    (result.settlement, result.place)
                })
                .unzip();
            if !self.shared.settle_traced(self.run, &settlements, &self.progress, traces).await {
                return;
            }
            drop(places);
        }
    }

    /// Fills the batch; `false` when the channel is closed.
    async fn gather(&self, results: &mut Receiver<AttemptResult>, batch: &mut Vec<AttemptResult>) -> bool {
        let come = results.recv_many(batch, RECORD_MAX).await;
        let mut still_out = self.back(come);
        let enough = Instant::now() + LINGER;
        let lingers = self.shared.provider.idempotency() == Idempotency::Keys;
        while lingers && still_out > 0 && batch.len() < RECORD_AT_LEAST {
            let more = results.recv_many(batch, RECORD_MAX - batch.len());
            match tokio::time::timeout_at(enough, more).await {
                Ok(0) | Err(_) => break,
                Ok(come) => still_out = self.back(come),
            }
        }
        !batch.is_empty()
    }

    /// Subtracts returned attempts; returns the number still in flight.
    fn back(&self, come: usize) -> usize {
        self.out.fetch_sub(come, Ordering::AcqRel).saturating_sub(come)
    }
}

impl EngineContext {
    /// Like [`Self::settle_traced`], for attempts that this process did not send.
    pub(super) async fn settle(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
        progress: &Progress,
    ) -> bool {
        self.settle_traced(run, settlements, progress, AttemptTraces::new()).await
    }

    /// Settles attempts. `false` when the hard stop came first; a restart then gets the outcomes again by their keys.
    async fn settle_traced(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
        progress: &Progress,
        mut traces: AttemptTraces,
    ) -> bool {
        let tried = AtomicBool::new(false);
        let settled = self.retry_until_stopped("settle", || async {
            // A failed try may have committed. Subtracting a send twice would hide another send, which may have been
            // executed. All other settlements may be recorded again.
            let now = if tried.swap(true, Ordering::Relaxed) {
                let again = settlements.iter().filter(|one| one.outcome != Outcome::NotSent);
                Cow::Owned(again.cloned().collect::<Vec<_>>())
            } else {
                Cow::Borrowed(settlements)
            };
            let seen = self.ledger.unkept();
            let settled = match self.store.settle_and_see(run, &now, seen.as_ref()).await {
                // One corrupt row must not block the others.
                Err(StoreError::Corrupt(_)) => self.one_by_one(run, &now).await,
                Ok(settled) => {
                    seen.iter().for_each(|seen| self.ledger.kept(seen));
                    Ok(settled)
                }
                failed => failed,
            };
            settled.map(|settled| (now, settled))
        });
        let Some((recorded, settled)) = settled.await else { return false };
        crash_point!("K9");
        for (settlement, settled) in recorded.iter().zip(settled) {
            self.count(run, settlement, &settled, progress);
            // Only once: an attempt that was settled before has its trace already.
            if let (Settled::Applied, Some(trace)) = (settled, traces.remove(&settlement.key)) {
                trace.settled(settlement);
            }
        }
        true
    }

    async fn one_by_one(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
    ) -> store::Result<Vec<Settled>> {
        let mut all = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            match self.store.settle(run, std::slice::from_ref(settlement)).await {
                Ok(settled) => all.extend(settled),
                Err(StoreError::Corrupt(what)) => {
                    let outcome = settlement.outcome;
                    let key = settlement.key.as_str();
                    tracing::error!(attempt.key = key, ?outcome, what, "recording an outcome failed");
                    all.push(Settled::Unknown);
                }
                Err(unavailable) => return Err(unavailable),
            }
        }
        Ok(all)
    }

    fn count(&self, run: Option<RunId>, settlement: &Settlement, settled: &Settled, progress: &Progress) {
        let key = settlement.key.as_str();
        match settled {
            Settled::Applied => {
                self.metrics.attempt(settlement.outcome);
                if settlement.outcome == Outcome::Refused {
                    let class = settlement.decline.as_ref().map(|decline| decline.class);
                    self.metrics.declined(class.unwrap_or(DeclineClass::Unknown));
                }
                let definite = !matches!(settlement.outcome, Outcome::InDoubt(_) | Outcome::NotSent);
                if definite {
                    progress.record_progress();
                }
            }
            Settled::Same => {}
            Settled::Conflict(conflict) => {
                self.metrics.conflicts.inc();
                tracing::error!(
                    attempt.key = key,
                    run.id = run.map(|run| run.0),
                    outcome = ?settlement.outcome,
                    conflict = ?conflict,
                    "a response contradicts the recorded outcome, manual resolution is required"
                );
            }
            Settled::Unknown => {
                tracing::error!(attempt.key = key, "no attempt has the key of a response");
            }
        }
    }
}
