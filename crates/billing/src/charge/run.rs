//! The runs that this process drives or has driven: their progress and their waiting callers.
//! Knows no store and no provider.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use crate::invoice::RunId;

/// Number of ended runs that are remembered for waiting callers.
const REMEMBERED_MAX: usize = 16;

/// State of a run when a caller stopped waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Whether the run has ended.
    pub finished: bool,
    /// False only when calls of this run found no connection to the provider, and no request left.
    pub reached: bool,
}

/// Progress of one run in this process.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    reached: AtomicBool,
    not_connected: AtomicBool,
    gave_up: AtomicBool,
    finished: AtomicBool,
    over: CancellationToken,
    /// Milliseconds from `began` to the last progress.
    forward_ms: AtomicU64,
    /// Whether a caller has joined: there may be invoices that the driver has not seen.
    joined: AtomicBool,
    joining: Notify,
    problem: Mutex<Option<Problem>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            reached: AtomicBool::new(false),
            not_connected: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            over: CancellationToken::new(),
            forward_ms: AtomicU64::new(0),
            joined: AtomicBool::new(false),
            joining: Notify::new(),
            problem: Mutex::default(),
        }
    }

    /// Requests another claim of fresh invoices now. The run's `joins` in the store ensure that none is missed.
    pub(super) fn request_claim(&self) {
        self.joined.store(true, Ordering::Relaxed);
        self.joining.notify_one();
    }

    /// Whether a caller has joined since the last check.
    pub(super) fn take_claim_request(&self) -> bool {
        self.joined.swap(false, Ordering::Relaxed)
    }

    /// Returns when a caller joins; may return spuriously.
    pub(super) async fn claim_requested(&self) {
        self.joining.notified().await;
    }

    /// Records that a request left, whether or not a response arrived.
    pub(super) fn record_reached(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Records that a call found no connection.
    pub(super) fn record_not_connected(&self) {
        self.not_connected.store(true, Ordering::Relaxed);
    }

    /// Records that a call got no answer about its invoice.
    pub(super) fn record_problem(&self, problem: Problem) {
        let mut last = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Problem::after(*last, problem));
    }

    /// The last problem of a call.
    pub(super) fn problem(&self) -> Option<Problem> {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the breaker has given up although attempts are left.
    pub(super) fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    /// Whether the breaker has given up.
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// Records that an outcome became definite, or that an invoice was attempted for the first time.
    pub(super) fn record_progress(&self) {
        let passed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.forward_ms.fetch_max(passed_ms, Ordering::Relaxed);
    }

    /// Time of the last progress.
    pub(super) fn last_progress_at(&self) -> Instant {
        self.began + Duration::from_millis(self.forward_ms.load(Ordering::Relaxed))
    }

    /// Whether this process drives the run.
    pub(super) fn is_driven(&self) -> bool {
        !self.over.is_cancelled()
    }

    /// Records that the driver has ended: finished or interrupted.
    pub(super) fn end(&self, finished: bool) {
        self.finished.store(finished, Ordering::Relaxed);
        self.over.cancel();
    }

    fn waited(&self) -> Waited {
        let finished = self.over.is_cancelled() && self.finished.load(Ordering::Relaxed);
        // The provider is unreachable only if calls found no connection. A slow provider is reachable, and so is one
        // that asked for a pause.
        let not_connected = self.not_connected.load(Ordering::Relaxed);
        Waited { finished, reached: self.reached.load(Ordering::Relaxed) || !not_connected }
    }

    pub(super) async fn wait(&self, at_most: Duration) -> Waited {
        let _late = tokio::time::timeout(at_most, self.over.cancelled()).await;
        self.waited()
    }
}

/// The runs of this process, oldest first.
#[derive(Debug, Default)]
pub(super) struct Runs {
    known: Mutex<VecDeque<(RunId, Arc<Progress>)>>,
}

impl Runs {
    /// Registers a run in this process; `None` if this process drives it already.
    pub(super) fn begin(&self, run: RunId) -> Option<Arc<Progress>> {
        let mut known = self.lock();
        if known.iter().any(|(id, progress)| *id == run && progress.is_driven()) {
            return None;
        }
        let progress = Arc::new(Progress::new());
        known.retain(|(id, _)| *id != run);
        known.push_back((run, Arc::clone(&progress)));
        if known.len() > REMEMBERED_MAX {
            known.pop_front();
        }
        Some(progress)
    }

    pub(super) fn find(&self, run: RunId) -> Option<Arc<Progress>> {
        self.lock().iter().find(|(id, _)| *id == run).map(|(_, progress)| Arc::clone(progress))
    }

    /// Whether this process drives any run now.
    pub(super) fn is_any(&self) -> bool {
        self.lock().iter().any(|(_, progress)| progress.is_driven())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(RunId, Arc<Progress>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_call_without_a_connection_makes_a_provider_unreachable() {
        let idle = Progress::new();
        idle.end(true);
        assert_eq!(idle.wait(Duration::ZERO).await, Waited { finished: true, reached: true });
        let left_alone = Progress::new();
        left_alone.give_up();
        left_alone.end(true);
        assert_eq!(left_alone.wait(Duration::ZERO).await, Waited { finished: true, reached: true });
        let unreachable = Progress::new();
        unreachable.record_not_connected();
        unreachable.give_up();
        unreachable.end(true);
        assert_eq!(unreachable.wait(Duration::ZERO).await, Waited { finished: true, reached: false });
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_released_at_the_end_or_in_time() {
        let progress = Arc::new(Progress::new());
        let slow = progress.wait(Duration::from_secs(4)).await;
        assert_eq!(slow, Waited { finished: false, reached: true }, "no call has ended yet");
        progress.record_not_connected();
        let early = progress.wait(Duration::from_secs(4)).await;
        assert_eq!(early, Waited { finished: false, reached: false });
        let waiting = tokio::spawn({
            let progress = Arc::clone(&progress);
            async move { progress.wait(Duration::from_secs(3600)).await }
        });
        progress.record_reached();
        progress.end(true);
        assert_eq!(waiting.await.unwrap(), Waited { finished: true, reached: true });
    }

    #[test]
    fn who_joins_is_seen_once() {
        let progress = Progress::new();
        assert!(!progress.take_claim_request());
        progress.request_claim();
        assert!(progress.take_claim_request() && !progress.take_claim_request());
    }

    #[tokio::test]
    async fn a_run_is_driven_once_at_a_time_and_may_be_taken_up_again() {
        let runs = Runs::default();
        let first = runs.begin(RunId(1)).unwrap();
        assert!(runs.begin(RunId(1)).is_none());
        assert!(runs.is_any());
        first.end(false);
        assert!(!runs.is_any());
        assert!(runs.begin(RunId(1)).is_some());
    }

    #[tokio::test]
    async fn only_the_last_runs_are_remembered() {
        let runs = Runs::default();
        for id in 0..100 {
            runs.begin(RunId(id)).unwrap().end(true);
        }
        assert!(runs.find(RunId(99)).is_some());
        assert!(runs.find(RunId(1)).is_none());
        assert!(runs.lock().len() <= REMEMBERED_MAX);
    }
}
