//! The runs that this process drives or has driven: who waits for them, and how they came along.
//! Knows no store and no provider.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Waited;
use crate::invoice::RunId;

/// How many runs are remembered for those who still wait.
const REMEMBERED_MAX: usize = 16;

/// How one run comes along in this process.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    calls: AtomicU64,
    answered: AtomicBool,
    gave_up: AtomicBool,
    finished: AtomicBool,
    over: CancellationToken,
    /// Milliseconds from `began` to the last step forward.
    forward_ms: AtomicU64,
    joined: Mutex<Joined>,
    joining: Notify,
}

/// Whether somebody joined who may know of invoices that the driver has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    /// Nobody since the driver looked.
    No,
    /// The driver is to look once more.
    Yes,
    /// Too late: the run is being finished.
    Closed,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            calls: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            over: CancellationToken::new(),
            forward_ms: AtomicU64::new(0),
            joined: Mutex::new(Joined::No),
            joining: Notify::new(),
        }
    }

    /// Asks for another look at fresh invoices; `false` when the run is being finished already.
    pub(super) fn join(&self) -> bool {
        let mut joined = self.lock();
        if *joined == Joined::Closed {
            return false;
        }
        *joined = Joined::Yes;
        self.joining.notify_one();
        true
    }

    /// Whether somebody has joined since this was asked last.
    pub(super) fn was_joined(&self) -> bool {
        let mut joined = self.lock();
        let was = *joined == Joined::Yes;
        if was {
            *joined = Joined::No;
        }
        was
    }

    /// Nobody can join any more; `false` when somebody has since this or [`Self::was_joined`] was asked last.
    pub(super) fn close(&self) -> bool {
        let mut joined = self.lock();
        let closes = *joined != Joined::Yes;
        *joined = if closes { Joined::Closed } else { Joined::No };
        closes
    }

    /// Returns when somebody joins; now and then without a reason.
    pub(super) async fn joining(&self) {
        self.joining.notified().await;
    }

    /// Returns when the driver has let go of it: whether it is finished.
    pub(super) async fn over(&self) -> bool {
        self.over.cancelled().await;
        self.finished.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// The provider is left alone, though there is something to call it for.
    pub(super) fn give_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
    }

    /// Something became definite, or was tried for the first time.
    pub(super) fn forward(&self) {
        let passed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.forward_ms.fetch_max(passed_ms, Ordering::Relaxed);
    }

    /// When it last went forward.
    pub(super) fn went_forward_at(&self) -> Instant {
        self.began + Duration::from_millis(self.forward_ms.load(Ordering::Relaxed))
    }

    /// The driver has let go of it: finished, or only interrupted.
    pub(super) fn end(&self, finished: bool) {
        self.finished.store(finished, Ordering::Relaxed);
        self.over.cancel();
    }

    fn waited(&self) -> Waited {
        let finished = self.over.is_cancelled() && self.finished.load(Ordering::Relaxed);
        let nothing_to_call =
            finished && self.calls.load(Ordering::Relaxed) == 0 && !self.gave_up.load(Ordering::Relaxed);
        Waited { finished, reached: self.answered.load(Ordering::Relaxed) || nothing_to_call }
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
    /// Takes a run into this process; `None` if it is driven here already.
    pub(super) fn begin(&self, run: RunId) -> Option<Arc<Progress>> {
        let mut known = self.lock();
        if known.iter().any(|(id, progress)| *id == run && !progress.over.is_cancelled()) {
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

    /// Whether a run is driven here now.
    pub(super) fn is_any(&self) -> bool {
        self.lock().iter().any(|(_, progress)| !progress.over.is_cancelled())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(RunId, Arc<Progress>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_that_called_nobody_is_reached_only_if_nothing_was_to_be_called() {
        let idle = Progress::new();
        idle.end(true);
        assert_eq!(idle.wait(Duration::ZERO).await, Waited { finished: true, reached: true });
        let blocked = Progress::new();
        blocked.give_up();
        blocked.end(true);
        assert_eq!(blocked.wait(Duration::ZERO).await, Waited { finished: true, reached: false });
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_released_at_the_end_or_in_time() {
        let progress = Arc::new(Progress::new());
        progress.called();
        let early = progress.wait(Duration::from_secs(4)).await;
        assert_eq!(early, Waited { finished: false, reached: false });
        let waiting = tokio::spawn({
            let progress = Arc::clone(&progress);
            async move { progress.wait(Duration::from_secs(3600)).await }
        });
        progress.answered();
        progress.end(true);
        assert_eq!(waiting.await.unwrap(), Waited { finished: true, reached: true });
    }

    #[test]
    fn who_joins_is_seen_or_comes_too_late() {
        let progress = Progress::new();
        assert!(!progress.was_joined());
        assert!(progress.join());
        assert!(progress.was_joined() && !progress.was_joined());
        assert!(progress.join());
        assert!(!progress.close());
        assert!(progress.close());
        assert!(!progress.join());
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
