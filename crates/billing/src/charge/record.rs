//! Records what was learnt: many settlements in one durable step, none ever lost while the process lives.
//! Makes no call and claims nothing.

use std::sync::Arc;

use chassis::crash_point;
use tokio::sync::mpsc::Receiver;

use super::deliver::Learnt;
use super::engine::Shared;
use super::run::Progress;
use super::transition::{Outcome, Settlement};
use crate::invoice::RunId;
use crate::store::{self, Settled, StoreError};

/// The most settlements of one step.
pub(super) const RECORD_MAX: usize = 512;

/// Settles until every worker is gone.
pub(super) async fn record(
    shared: Arc<Shared>,
    run: Option<RunId>,
    progress: Arc<Progress>,
    mut learnt: Receiver<Learnt>,
) {
    let mut batch = Vec::with_capacity(RECORD_MAX);
    while learnt.recv_many(&mut batch, RECORD_MAX).await > 0 {
        let (settlements, places): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|learnt| (learnt.settlement, learnt.place)).unzip();
        if !shared.settle(run, &settlements, &progress).await {
            return;
        }
        drop(places);
    }
}

impl Shared {
    /// `false` when the hard stop came first; a restart then learns the outcome again, by its key.
    async fn settle(&self, run: Option<RunId>, settlements: &[Settlement], progress: &Progress) -> bool {
        let settled = self.insist("settle", || async {
            match self.store.settle(run, settlements).await {
                // One bad row must not hold back the others.
                Err(StoreError::Corrupt(_)) => self.one_by_one(run, settlements).await,
                other => other,
            }
        });
        let Some(settled) = settled.await else { return false };
        crash_point!("K9");
        for (settlement, settled) in settlements.iter().zip(settled) {
            self.count(run, settlement, &settled, progress);
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
                    tracing::error!(attempt.key = key, ?outcome, what, "An outcome cannot be recorded");
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
                self.figures.attempt(settlement.outcome);
                let definite = !matches!(settlement.outcome, Outcome::InDoubt(_) | Outcome::NotSent);
                if definite {
                    progress.forward();
                }
            }
            Settled::Same => {}
            Settled::Conflict(conflict) => {
                self.figures.conflicts.inc();
                tracing::error!(
                    attempt.key = key,
                    run.id = run.map(|run| run.0),
                    outcome = ?settlement.outcome,
                    conflict = ?conflict,
                    "An answer contradicts what was recorded: a person must look"
                );
            }
            Settled::Unknown => {
                tracing::error!(attempt.key = key, "No attempt has the key of an answer");
            }
        }
    }
}
