//! The shared part of both legacy pay calls: start or join a run, wait for it, report whether all is paid. Knows no
//! format of the response, and not how a run works.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::AppState;
use crate::charge::StartedRun;
use crate::run_order::RunOrder;
use crate::store::{self, StoreError};

/// How long Antaeus' pay call waits for the run: its clients time out after 5 s.
pub(super) const ANTAEUS_WAIT: Duration = Duration::from_secs(4);

/// How long the invoice-app's pay call waits for the run.
pub(super) const INVOICE_APP_WAIT: Duration = Duration::from_secs(30);

/// The time that the store gets in addition before it counts as unusable.
const STORE_GRACE: Duration = Duration::from_millis(750);

/// The most pay calls that wait for a run. Each holds one of the calls in flight, which all routes share.
const WAITING_MAX: usize = 256;

/// Permits of pay calls that wait; clones share them.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Semaphore>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WAITING_MAX)))
    }
}

/// The result when the call stopped waiting. The run continues.
pub(super) struct Paid {
    /// Whether every invoice in the store is PAID or CANCELLED.
    pub(super) all: bool,
    /// Whether the provider could be reached in this run.
    pub(super) reached: bool,
}

/// Starts or joins a run and waits for its end, at most `at_most`; does not wait if too many calls wait already.
pub(super) async fn pay(state: &AppState, waiting: &Waiting, at_most: Duration) -> store::Result<Paid> {
    let began = Instant::now();
    let work = async {
        let started = match state.engine.begin_run(RunOrder::default()).await? {
            StartedRun::Started(started) => started,
            // A run of some invoices has to end first. A caller for which that takes too long gets `false` and asks
            // again.
            StartedRun::Busy(_) => match timeout_at(began + at_most, state.engine.pay()).await {
                Ok(started) => started?,
                Err(_late) => return Ok(Paid { all: false, reached: true }),
            },
        };
        // A caller that does not wait cannot know whether the provider is reachable.
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
