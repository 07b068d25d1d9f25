//! The operator's halt of all charging, as this process knows it. The store's claims enforce it. Knows no route.

use std::sync::PoisonError;

use super::Engine;
use super::engine::EngineContext;
use crate::store::StoreError;
use crate::store::control::{Halt, OperatorNote};

impl Engine {
    /// Stops all charging, on all replicas; returns whether charging was on before. Open attempts still settle.
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

    /// Allows charging again, from the next run on; returns whether it was stopped.
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

    /// The halt as last read, at most a few seconds ago.
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
