//! The provider's ledger told to the store, after a restore or when a run left something in doubt.
//! Knows no route and no key's making; the store decides what a row of the ledger changes.

use super::RepairError;
use super::engine::Shared;
use crate::store::{LedgerAcceptance, LedgerFact, Repaired, StoreError};

impl Shared {
    pub(super) async fn accept_ledger(
        &self,
        acceptance: &LedgerAcceptance,
    ) -> Result<Option<String>, StoreError> {
        let former = self.store.accept_ledger(acceptance).await?;
        self.ledger.remember(&acceptance.ledger_id);
        self.read_ledger().await;
        tracing::warn!(
            ledger.former = former.as_deref(),
            ledger.id = acceptance.ledger_id,
            actor = acceptance.actor,
            "A person accepted another ledger"
        );
        Ok(former)
    }

    pub(super) async fn repair(
        &self,
        ledger_id: &str,
        facts: &[LedgerFact],
    ) -> Result<Vec<Repaired>, RepairError> {
        let remembered = self.store.remember_ledger(ledger_id).await?;
        self.ledger.remember(&remembered);
        if remembered != ledger_id {
            return Err(RepairError::OtherLedger(remembered));
        }
        let repaired = self.store.repair(facts).await?;
        for (fact, _) in facts.iter().zip(&repaired).filter(|(_, became)| **became == Repaired::Conflict) {
            tracing::warn!(
                attempt.key = fact.key.as_str(),
                "The ledger contradicts what stands here: the invoice waits for a person"
            );
        }
        Ok(repaired)
    }

    /// What the store remembers: another process may have been the first that was answered, or was told of another
    /// ledger by a person.
    pub(super) async fn read_ledger(&self) {
        if let Ok(stored) = self.store.ledger_seen().await {
            self.ledger.take_in(stored);
        }
    }
}
