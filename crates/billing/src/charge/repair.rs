//! Repairs the store from the provider's ledger, after a restore or when a run left attempts in doubt. Must not know a
//! route or how a key is derived; the store decides what a row of the ledger changes.

use super::RepairError;
use super::engine::EngineContext;
use crate::store::{LedgerAcceptance, LedgerFact, Repaired, StoreError};

impl EngineContext {
    pub(super) async fn accept_ledger(
        &self,
        acceptance: &LedgerAcceptance,
    ) -> Result<Option<String>, StoreError> {
        let former = self.store.accept_ledger(acceptance).await?;
        self.ledger.accept(&acceptance.ledger_id);
        self.read_ledger().await;
        tracing::warn!(
            ledger.former = former.as_deref(),
            ledger.id = acceptance.ledger_id,
            actor = acceptance.actor,
            "an operator accepted another ledger"
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
                "the ledger contradicts the journal, the invoice needs manual resolution"
            );
        }
        Ok(repaired)
    }

    /// Reads the accepted ledger from the store: another process may have got the first response, or an operator may
    /// have accepted another ledger through another replica.
    pub(super) async fn read_ledger(&self) {
        if let Ok(stored) = self.store.ledger_seen().await {
            self.ledger.take_in(stored);
        }
    }
}
