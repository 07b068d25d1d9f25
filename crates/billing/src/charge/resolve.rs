//! Preconditions of an operator's decision on an attempt in doubt.
//! Knows no route and no operator; the store keeps the audit row.

use std::time::Duration;

use chassis::crash_point;

use super::engine::EngineContext;
use super::{ResolveError, ResolveOutcome};
use crate::invoice::{Attempt, AttemptState, InvoiceState};
use crate::protocol::transition::Idempotency;
use crate::provider::VoidOutcome;
use crate::store::changeset::LEASE_NEVER;
use crate::store::{BATCH_MAX, Resolution, Resolved, StoreError};

/// How long after the last moment at which it can have been sent a request may still be executed somewhere: as long
/// as TCP keeps resending unacknowledged bytes, which on Linux is about 15 minutes.
pub const REQUEST_LIFE_MAX: Duration = Duration::from_secs(16 * 60);

impl EngineContext {
    pub(super) async fn resolve(&self, resolution: &Resolution) -> Result<ResolveOutcome, ResolveError> {
        let Some(attempt) = self.store.attempt(&resolution.key).await? else {
            return Ok(ResolveOutcome::Unknown);
        };
        // For a final attempt only its invoice can still need manual resolution; the store checks that.
        if attempt.state.is_open() && !resolution.charged {
            self.ensure_not_charged(&attempt, resolution).await?;
        }
        match self.store.resolve(resolution).await? {
            Resolved::Applied => {
                if attempt.state.is_open() {
                    self.breaker.resolved();
                }
                Ok(ResolveOutcome::Applied)
            }
            Resolved::Final(state) => Ok(ResolveOutcome::Final(state)),
            Resolved::Unknown => Ok(ResolveOutcome::Unknown),
            Resolved::OtherCharged => Err(ResolveError::OtherCharged),
        }
    }

    async fn ensure_not_charged(
        &self,
        attempt: &Attempt,
        resolution: &Resolution,
    ) -> Result<(), ResolveError> {
        if self.provider.idempotency() == Idempotency::Keys {
            let said = {
                let ledger = self.ledger.known();
                self.provider.void(&attempt.key, self.terms(ledger.as_deref())).await
            };
            crash_point!("K11");
            return match said {
                VoidOutcome::NotCharged => Ok(()),
                // A second charge cannot be voided, only refunded; the ledger keeps it.
                VoidOutcome::Charged if self.is_other_charged(attempt).await? => has_reason(resolution),
                VoidOutcome::Charged => Err(ResolveError::ChargedThere),
                VoidOutcome::Unknown(why) => Err(ResolveError::NotVoided(why)),
            };
        }
        has_reason(resolution)?;
        let invoice = self.store.invoice(attempt.invoice_id).await?;
        // An attempt that does not need manual resolution could be claimed and sent between this check and the decision.
        let parked = invoice.filter(|invoice| invoice.state == InvoiceState::Attention);
        let Some(invoice) = parked else { return Err(ResolveError::TooEarly(REQUEST_LIFE_MAX)) };
        match lease_ends_in(attempt, invoice.updated_at, self.clock.now_ms()) {
            Duration::ZERO => Ok(()),
            wait => Err(ResolveError::TooEarly(wait)),
        }
    }

    /// Whether another attempt of the same invoice is CHARGED.
    async fn is_other_charged(&self, attempt: &Attempt) -> Result<bool, StoreError> {
        let mut after = (attempt.invoice_id, 0);
        loop {
            let page = self.store.attempts(after, BATCH_MAX).await?;
            let of_invoice = page.iter().take_while(|other| other.invoice_id == attempt.invoice_id);
            if of_invoice
                .clone()
                .any(|other| other.state == AttemptState::Charged && other.key != attempt.key)
            {
                return Ok(true);
            }
            match page.last() {
                Some(last) if last.invoice_id == attempt.invoice_id => after = (last.invoice_id, last.number),
                _ => return Ok(false),
            }
        }
    }
}

fn has_reason(resolution: &Resolution) -> Result<(), ResolveError> {
    if resolution.reason.trim().is_empty() { Err(ResolveError::ReasonMissing) } else { Ok(()) }
}

/// How long until no request for this attempt can be alive. Its lease was set or ended at or after its last send;
/// one that needs manual resolution has a lease without end, and was parked after its last send.
fn lease_ends_in(attempt: &Attempt, parked_at: i64, now_ms: i64) -> Duration {
    let life_ms = i64::try_from(REQUEST_LIFE_MAX.as_millis()).unwrap_or(i64::MAX);
    let lease_until = if attempt.lease_until >= LEASE_NEVER { i64::MIN } else { attempt.lease_until };
    let sent_before = attempt.created_at.max(parked_at).max(lease_until);
    let left_ms = sent_before.saturating_add(life_ms).saturating_sub(now_ms);
    Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))
}
