//! What both old pay calls share: start or join a run, wait for it a while, say whether all is paid.
//! Knows no wire form of the answer, and nothing of how a run works.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::AppState;
use crate::store::{self, StoreError};

/// How long Antaeus' pay call waits for the run: its clients give up after 5 s.
pub(super) const ANTAEUS_WAIT: Duration = Duration::from_secs(4);

/// How long the invoice-app's pay call waits for the run.
pub(super) const INVOICE_APP_WAIT: Duration = Duration::from_secs(30);

/// What the store may take on top of the wait before it counts as unusable.
const STORE_GRACE: Duration = Duration::from_millis(750);

/// Pay calls that wait for a run at once. Each holds one of the places of calls in flight, which are for all routes.
const WAITING_MAX: usize = 256;

/// The places of pay calls that wait; clones share them.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Semaphore>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WAITING_MAX)))
    }
}

/// How things stood when the call stopped waiting. The run goes on regardless.
pub(super) struct Paid {
    /// Whether no invoice in the store is other than PAID.
    pub(super) all: bool,
    /// Whether the provider could be reached in this run.
    pub(super) reached: bool,
}

/// Starts or joins a run and waits for its end, at most this long; with too many waiting already, not at all.
pub(super) async fn pay(state: &AppState, waiting: &Waiting, at_most: Duration) -> store::Result<Paid> {
    let began = Instant::now();
    let work = async {
        let started = state.engine.pay().await?;
        // Who does not wait cannot say that nobody is to be reached.
        let mut reached = true;
        if let Ok(_place) = waiting.0.try_acquire() {
            let left = at_most.saturating_sub(began.elapsed());
            reached = state.engine.wait(started.run, left).await?.reached;
        }
        let all = state.store.counts().await?.all_paid();
        Ok(Paid { all, reached })
    };
    timeout_at(began + at_most + STORE_GRACE, work)
        .await
        .unwrap_or_else(|late| Err(StoreError::Unavailable(Box::new(late))))
}
