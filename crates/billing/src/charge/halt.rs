//! The end of all charging by an operator's decision, as this process shows it. The store's claims enforce it.
//! Knows no route.

use std::sync::PoisonError;

use super::Engine;
use super::engine::EngineContext;
use crate::store::StoreError;
use crate::store::control::{Halt, OperatorNote};

impl Engine {
    /// Stops all charging, on all replicas; answers whether it was not stopped before. Open attempts still settle.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn stop_charging(&self, note: &OperatorNote) -> Result<bool, StoreError> {
        let changed = self.0.store.stop_charging(note).await?;
        if changed {
            tracing::warn!(actor = note.actor, reason = note.reason, "an operator stopped all charging");
        }
        self.0.read_halt().await?;
        Ok(changed)
    }

    /// Lets charging go on, from the next run on; answers whether it was stopped.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn start_charging(&self, note: &OperatorNote) -> Result<bool, StoreError> {
        let changed = self.0.store.start_charging(note).await?;
        if changed {
            tracing::warn!(actor = note.actor, reason = note.reason, "an operator started charging again");
        }
        self.0.read_halt().await?;
        Ok(changed)
    }

    /// The halt as it was read last, a few seconds ago at most.
    #[must_use]
    pub fn last_halt(&self) -> Option<Halt> {
        self.0.halt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl EngineContext {
    pub(super) async fn read_halt(&self) -> Result<(), StoreError> {
        let halt = self.store.halt().await?;
        self.metrics.stopped.set(i64::from(halt.is_some()));
        *self.halt.lock().unwrap_or_else(PoisonError::into_inner) = halt;
        Ok(())
    }
}
