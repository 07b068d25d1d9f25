//! Preconditions of an operator's decision on an attempt in doubt. Knows no route and no operator; the store writes the
//! audit row.

use std::time::Duration;

use chassis::crash_point;

use super::engine::EngineContext;
use super::{ResolveError, ResolveOutcome};
use crate::invoice::{Attempt, AttemptState};
use crate::protocol::transition::Idempotency;
use crate::provider::VoidOutcome;
use crate::store::{BATCH_MAX, Evidence, Resolution, Resolved, StoreError};

/// How long a request may still be executed after the last moment at which it can have been sent: as long as TCP
/// resends unacknowledged bytes, which on Linux is about 15 minutes.
pub const REQUEST_LIFE_MAX: Duration = Duration::from_secs(16 * 60);

impl EngineContext {
    pub(super) async fn resolve(&self, resolution: &Resolution) -> Result<ResolveOutcome, ResolveError> {
        let Some(attempt) = self.store.attempt(&resolution.key).await? else {
            return Ok(ResolveOutcome::Unknown);
        };
        // For a final attempt only its invoice can still need manual resolution; the store checks that.
        let evidence = if !attempt.state.is_open() || resolution.charged {
            Evidence::Voided
        } else if self.provider.idempotency() == Idempotency::Keys {
            self.ensure_void(&attempt, resolution).await?
        } else {
            has_reason(resolution)?;
            Evidence::Quiet(REQUEST_LIFE_MAX)
        };
        match self.store.resolve_by(resolution, &evidence).await? {
            Resolved::Applied => {
                if attempt.state.is_open() {
                    self.breaker.resolved();
                }
                Ok(ResolveOutcome::Applied)
            }
            Resolved::Final(state) => Ok(ResolveOutcome::Final(state)),
            Resolved::Unknown => Ok(ResolveOutcome::Unknown),
            Resolved::TooEarly(left) => Err(ResolveError::TooEarly(left)),
            Resolved::OtherCharged => Err(ResolveError::OtherCharged),
        }
    }

    async fn ensure_void(
        &self,
        attempt: &Attempt,
        resolution: &Resolution,
    ) -> Result<Evidence, ResolveError> {
        let said = {
            let ledger = self.ledger.known();
            self.provider.void(&attempt.key, self.preconditions(ledger.as_deref())).await
        };
        crash_point!("K11");
        match said {
            VoidOutcome::Voided => Ok(Evidence::Voided),
            VoidOutcome::Refused(decline) => Ok(Evidence::Refused(decline)),
            // A second charge cannot be voided, only refunded; the ledger keeps it.
            VoidOutcome::Charged if self.is_other_charged(attempt).await? => {
                has_reason(resolution)?;
                Ok(Evidence::Voided)
            }
            VoidOutcome::Charged => Err(ResolveError::ChargedThere),
            VoidOutcome::Unknown(why) => Err(ResolveError::NotVoided(why)),
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
