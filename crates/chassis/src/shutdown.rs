//! Ends a service gracefully, then hard: not ready, stop accepting, finish the tracked tasks, give up. Must not know
//! the tasks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::telemetry::TraceContext;

/// Grace period of tracked tasks before the hard stop.
pub const GRACE: Duration = Duration::from_secs(25);

/// Time for a task to notice the hard stop before it is abandoned.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// The shutdown of one service, in stages. Clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<Stages>);

#[derive(Debug)]
struct Stages {
    draining: CancellationToken,
    stop_accepting: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    notice: Duration,
    grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A shutdown without drain notice (loopback has no load balancer) and with the usual grace period.
    #[must_use]
    pub fn new() -> Self {
        Self::with_timings(Duration::ZERO, GRACE)
    }

    /// A shutdown with these times. `notice` is from "not ready" to "stop accepting", for load balancers to follow.
    /// `grace` is from there to the hard stop.
    #[must_use]
    pub fn with_timings(notice: Duration, grace: Duration) -> Self {
        Self(Arc::new(Stages {
            draining: CancellationToken::new(),
            stop_accepting: CancellationToken::new(),
            hard: CancellationToken::new(),
            tracker: TaskTracker::new(),
            notice,
            grace,
        }))
    }

    /// The first SIGINT, SIGTERM or SIGHUP triggers, a second SIGINT or SIGTERM is the hard stop. Listens from this
    /// call on.
    ///
    /// # Panics
    /// Outside a tokio runtime with signals.
    pub fn on_signals(&self) {
        let listen = |kind| signal(kind).expect("the runtime of a service handles signals");
        let (mut interrupt, mut terminate, mut hangup) =
            (listen(SignalKind::interrupt()), listen(SignalKind::terminate()), listen(SignalKind::hangup()));
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                    // A closing terminal sends it twice, once itself and once by the shell: a second one does not mean
                    // the hard stop.
                    _ = hangup.recv() => {
                        if !shutdown.is_draining() {
                            tracing::info!(signal = "SIGHUP", "draining");
                            shutdown.trigger();
                        }
                        continue;
                    }
                    () = shutdown.hard() => return,
                };
                if shutdown.is_draining() {
                    tracing::warn!(signal = name, "received a second signal, stopping immediately");
                    shutdown.0.stop_accepting.cancel();
                    shutdown.0.hard.cancel();
                } else {
                    tracing::info!(signal = name, "draining");
                    shutdown.trigger();
                }
            }
        });
    }

    /// Begins the shutdown, once; later calls change nothing. Needs a tokio runtime around it.
    pub fn trigger(&self) {
        if self.0.draining.is_cancelled() {
            return;
        }
        self.0.draining.cancel();
        let stages = Arc::clone(&self.0);
        let noticed = tokio::time::Instant::now() + stages.notice;
        tokio::spawn(async move {
            tokio::time::sleep_until(noticed).await;
            stages.stop_accepting.cancel();
            stages.tracker.close();
            let _over_time = tokio::time::timeout(stages.grace, stages.tracker.wait()).await;
            stages.hard.cancel();
        });
    }

    /// Resolves when the service is no longer ready and must claim nothing new.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Resolves when no connection is to be accepted any more.
    pub async fn stop_accepting(&self) {
        self.0.stop_accepting.cancelled().await;
    }

    /// Resolves when every tracked task has ended or the grace period is over.
    pub async fn hard(&self) {
        self.0.hard.cancelled().await;
    }

    /// True from the trigger on.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Counts the tasks that must finish before the process ends.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    /// Runs a task that must finish before the process ends; its log lines carry its name and the current trace.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let span = tracing::info_span!("task", task = name);
        self.0.tracker.spawn(TraceContext::inherit(task).instrument(span))
    }

    /// Waits for the end of the shutdown. Returns how many tracked tasks were left.
    pub async fn finished(&self) -> usize {
        self.hard().await;
        let _over_time = tokio::time::timeout(HARD_GRACE, self.0.tracker.wait()).await;
        self.0.tracker.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_tasks_the_end_comes_after_the_notice() {
        let shutdown = Shutdown::with_timings(Duration::from_secs(5), GRACE);
        let began = Instant::now();
        assert!(!shutdown.is_draining());
        shutdown.trigger();
        assert!(shutdown.is_draining());
        shutdown.draining().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        shutdown.stop_accepting().await;
        assert_eq!(began.elapsed().as_secs(), 5);
        assert_eq!(shutdown.finished().await, 0);
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tracked_task_holds_the_end_back_until_it_is_done() {
        let shutdown = Shutdown::new();
        let began = Instant::now();
        let work = shutdown.clone();
        let task = shutdown.spawn("work", async move {
            work.draining().await;
            tokio::time::sleep(Duration::from_secs(7)).await;
            "committed"
        });
        shutdown.trigger();
        assert_eq!(shutdown.finished().await, 0);
        assert_eq!(began.elapsed().as_secs(), 7);
        assert_eq!(task.await.unwrap(), "committed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_left_behind_after_the_grace() {
        let shutdown = Shutdown::new();
        let began = Instant::now();
        shutdown.spawn("stuck", std::future::pending::<()>());
        shutdown.trigger();
        shutdown.hard().await;
        assert_eq!(began.elapsed().as_secs(), GRACE.as_secs());
        assert_eq!(shutdown.finished().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_trigger_changes_nothing() {
        let shutdown = Shutdown::with_timings(Duration::from_secs(5), GRACE);
        let began = Instant::now();
        shutdown.trigger();
        tokio::time::advance(Duration::from_secs(3)).await;
        shutdown.trigger();
        shutdown.stop_accepting().await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_only_a_second_int_or_term_stops_at_once() {
        let shutdown = Shutdown::with_timings(GRACE, GRACE);
        shutdown.on_signals();
        shutdown.spawn("stuck", std::future::pending::<()>());
        let own = rustix::process::getpid();
        for _ in 0..2 {
            rustix::process::kill_process(own, rustix::process::Signal::HUP).unwrap();
            shutdown.draining().await;
        }
        tokio::task::yield_now().await;
        assert!(!shutdown.0.hard.is_cancelled(), "a second SIGHUP must not cut the drain short");
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        shutdown.hard().await;
    }
}
