//! The provider's state as this process knows it, for an operator: the breaker, the last problem, latency and declines.
//! Held in memory only, so each replica reports its own.

use tokio::time::Instant;

use super::breaker::Admission;
use super::{Engine, Problem};
use crate::invoice::DeclineClass;

/// Health of one process since it started.
#[derive(Clone, Debug)]
pub struct ProviderHealth {
    /// Whether calls are admitted: `closed`, `half-open`, `open` or `latched`.
    pub breaker: &'static str,
    pub last_problem: Option<Problem>,
    /// The number of requests sent.
    pub requests: u64,
    /// The mean duration of these requests in microseconds.
    pub mean_us: Option<u64>,
    /// Declines by class, in the order of [`DeclineClass::ALL`].
    pub declines: Vec<(DeclineClass, u64)>,
}

impl Engine {
    #[must_use]
    pub fn provider_health(&self) -> ProviderHealth {
        let now = Instant::now();
        let breaker = match self.0.breaker.admission(now) {
            Admission::Clear => "closed",
            Admission::ProbeAt(at) if at > now => "open",
            Admission::ProbeAt(_) | Admission::Probing => "half-open",
            Admission::Latched => "latched",
        };
        let (requests, mean_us) = self.0.metrics.provider_requests();
        let declines = self.0.metrics.declines_by_class();
        ProviderHealth { breaker, last_problem: self.latest_problem(), requests, mean_us, declines }
    }

    /// Completes when the service begins to drain: long-lived responses end then.
    pub async fn draining(&self) {
        self.0.shutdown.draining().await;
    }
}
