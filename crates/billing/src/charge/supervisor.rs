//! The supervisor: drives runs to their end, adopts orphaned runs, settles attempts in doubt outside runs,
//! refreshes the metrics. Knows no response and no caller.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chassis::crash_point;
use chassis::telemetry::Kind;
use chassis::test_overrides::scaled;
use tokio::time::Instant;

use super::breaker::Admission;
use super::deliver::log_parked;
use super::driver::{Ended, drive};
use super::engine::EngineContext;
use super::run::Progress;
use super::{Started, StartedRun};
use crate::invoice::{Run, RunId, RunState};
use crate::protocol::transition::{Idempotency, Outcome, Sent, Settlement, may_send};
use crate::run_order::RunOrder;
use crate::store::{self, BATCH_MAX, OpenedRun};

/// Lease of a run; renewals prolong it.
pub const RUN_LEASE: Duration = Duration::from_secs(15);
/// Interval of the renewal.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Maximum time between two recovery passes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same on a shared store: short enough to share a run that another process has started.
const LOOK_AT_SHARED_EVERY: Duration = Duration::from_secs(1);
/// How long a process that cannot reach the provider waits for progress by others before it finishes their run.
const OTHERS_WITHIN: Duration = Duration::from_secs(1);
/// Minimum time between two recovery passes.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// Interval of counting the invoices for the metrics and of reading the accepted ledger, which another process may have
/// changed.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// Releases a run however its driver ends, also after a panic: waiting callers return, and the supervisor may adopt the
/// run.
struct RunGuard<'a> {
    shared: &'a EngineContext,
    progress: &'a Progress,
    finished: bool,
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.progress.end(self.finished);
        self.shared.wake.notify_one();
    }
}

impl EngineContext {
    /// Starts a run, or joins the unfinished one, which then claims once more before it ends. This process then also
    /// drives a joined run of another process, if the store is shared.
    pub(super) async fn start_or_join(self: &Arc<Self>, order: &RunOrder) -> store::Result<StartedRun> {
        let (run, joined) = match self.store.open_ordered_run(order, scaled(RUN_LEASE)).await? {
            OpenedRun::Started(run) => (run, false),
            OpenedRun::Joined(run) => (run, true),
            OpenedRun::Busy(run) => return Ok(StartedRun::Busy(run)),
        };
        match self.runs.find(run.id).filter(|progress| progress.is_driven()) {
            Some(progress) => progress.request_claim(),
            None if !joined || self.store.is_shared() => {
                self.breaker.rearm(Instant::now());
                self.begin(run.id);
            }
            None => {}
        }
        self.wake.notify_one();
        Ok(StartedRun::Started(Started { run: run.id, joined }))
    }

    /// Drives a run in its own task, unless this process drives it already.
    pub(super) fn begin(self: &Arc<Self>, run: RunId) {
        let Some(progress) = self.runs.begin(run) else { return };
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let shared = Arc::clone(self);
        self.shutdown.spawn("run", async move {
            let (context, mut span) = shared.provider.tracer().begin_here(Kind::Internal, "run").unzip();
            if let Some(span) = &mut span {
                span.set_attribute("run.id", run.0);
            }
            let supervised = shared.supervise_run(run, progress);
            match context {
                Some(context) => context.scope(supervised).await,
                None => supervised.await,
            }
        });
    }

    async fn supervise_run(self: Arc<Self>, run: RunId, progress: Arc<Progress>) {
        let mut guard = RunGuard { shared: &self, progress: &progress, finished: false };
        tracing::info!(run.id = run.0, "run started");
        guard.finished = tokio::select! {
            biased;
            finished = self.drive_until_finished(run, &progress) => finished,
            () = self.renew(run) => false,
        };
        self.refresh_metrics_and_ledger().await;
        self.log_run_end(run, guard.finished).await;
    }

    /// Drives a run until all invoices that existed at the last join are settled, and finishes it. `false` when the run
    /// is left to other processes or to a later start.
    async fn drive_until_finished(self: &Arc<Self>, run: RunId, progress: &Arc<Progress>) -> bool {
        loop {
            let Some(before) = self.retry_until_draining("read the run", || self.store.run(run)).await else {
                return false;
            };
            if !before.as_ref().is_some_and(|run| run.state == RunState::Running) {
                return true;
            }
            if drive(self, Some(run), progress).await == Ended::Interrupted {
                return false;
            }
            if let Some(problem) = progress.problem() {
                let problem = problem.stored();
                self.retry_until_stopped("note the problem", || self.store.note_problem(run, &problem)).await;
            }
            let gave_up = progress.gave_up();
            if gave_up && self.others_make_progress(run).await {
                return false;
            }
            // A process that cannot reach the provider does not start over, even if callers have joined.
            let seen = match before {
                Some(before) if !gave_up => before.joins,
                _ => match self.retry_until_stopped("read the run", || self.store.run(run)).await {
                    Some(Some(now)) => now.joins,
                    _ => return false,
                },
            };
            match self.retry_until_stopped("finish the run", || self.store.finish_run(run, seen)).await {
                Some(true) => return true,
                // Another caller has joined meanwhile, or another process has finished the run.
                Some(false) => {}
                None => return false,
            }
        }
    }

    /// Whether other processes make progress with the run although this one cannot.
    async fn others_make_progress(&self, run: RunId) -> bool {
        if !self.store.is_shared() {
            return false;
        }
        let settled = async || match self.store.run(run).await {
            Ok(Some(Run { counters, .. })) => Some(counters.paid + counters.refused + counters.rejected),
            _ => None,
        };
        let before = settled().await;
        tokio::select! {
            biased;
            () = tokio::time::sleep(OTHERS_WITHIN) => {}
            () = self.shutdown.draining() => {}
        }
        // A read that fails says nothing of others.
        before.zip(settled().await).is_some_and(|(before, after)| after != before)
    }

    /// Renews the run's lease while it is polled; never completes.
    async fn renew(&self, run: RunId) {
        loop {
            tokio::time::sleep(scaled(RENEW_EVERY)).await;
            crash_point!("K12");
            match self.store.renew_run(run, scaled(RUN_LEASE)).await {
                Ok(true) => {}
                // Attempts have leases and keys of their own, so it is safe to continue.
                Ok(false) => tracing::warn!(run.id = run.0, "the run was finished by another process"),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(run.id = run.0, error, "renewing the lease of the run failed");
                }
            }
        }
    }

    async fn log_run_end(&self, run: RunId, finished: bool) {
        let counters = match self.store.run(run).await {
            Ok(Some(Run { counters, .. })) => counters,
            _ => return,
        };
        tracing::info!(
            run.id = run.0,
            finished,
            attempted = counters.attempted,
            paid = counters.paid,
            refused = counters.refused,
            rejected = counters.rejected,
            in_doubt = counters.in_doubt,
            not_sent = counters.not_sent,
            "run ended"
        );
    }

    /// Runs until the service drains: adopts the unfinished run when its driver has died, or on a shared store drives
    /// it together with its driver. With keys, also settles open attempts outside runs.
    pub(super) async fn run_recovery_loop(self: Arc<Self>) {
        while !self.shutdown.is_draining() {
            let shares = self.store.is_shared() && !self.breaker.has_given_up();
            let unfinished = match shares {
                true => self.store.unfinished_run().await,
                false => self.store.adopt_run(scaled(RUN_LEASE)).await,
            };
            match unfinished {
                Ok(Some(run)) => self.begin(run.id),
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "looking for an unfinished run failed");
                }
            }
            let next_in = self.settle_orphaned_attempts().await;
            let look_every = if self.store.is_shared() { LOOK_AT_SHARED_EVERY } else { LOOK_EVERY };
            tokio::select! {
                biased;
                () = tokio::time::sleep(next_in.clamp(scaled(LOOK_AT_MOST_EVERY), scaled(look_every))) => {}
                () = self.wake.notified() => {}
                () = self.shutdown.draining() => {}
            }
        }
    }

    /// Parks open attempts at the start, without keys. Those that may have been sent are not sent again, and need
    /// manual resolution now rather than from the next run on. Needs no provider.
    pub(super) async fn park_open_attempts(&self) -> store::Result<()> {
        let mut unsent = Vec::new();
        loop {
            let open = self.store.claim_open(None, BATCH_MAX, self.settings.lease).await?;
            if open.is_empty() {
                break;
            }
            let mut parked = Vec::new();
            for attempt in open {
                let sent = Sent { state: attempt.state, sends: attempt.sends };
                let held = may_send(Idempotency::None, sent);
                if let Err(outcome) = held {
                    log_parked(&attempt, outcome);
                }
                let (list, outcome) = match held {
                    Ok(()) => (&mut unsent, Outcome::NotSent),
                    Err(outcome) => (&mut parked, outcome),
                };
                list.push(Settlement::of(&attempt, outcome, Duration::ZERO, None));
            }
            self.settle(None, &parked, &Progress::new()).await;
        }
        for unsent in unsent.chunks(BATCH_MAX) {
            self.settle(None, unsent, &Progress::new()).await;
        }
        Ok(())
    }

    /// Sends due attempts that belong to no run; returns the time until the next pass.
    async fn settle_orphaned_attempts(self: &Arc<Self>) -> Duration {
        if self.provider.idempotency() == Idempotency::None || self.runs.is_any() {
            return scaled(LOOK_EVERY);
        }
        let probe_in = match self.breaker.admission(Instant::now()) {
            Admission::Clear => Duration::ZERO,
            Admission::ProbeAt(at) => at.saturating_duration_since(Instant::now()),
            Admission::Probing | Admission::Latched => scaled(LOOK_EVERY),
        };
        if !probe_in.is_zero() {
            return probe_in;
        }
        match self.store.next_open_in().await {
            Ok(Some(Duration::ZERO)) => {}
            Ok(next_in) => return next_in.unwrap_or(scaled(LOOK_EVERY)),
            Err(_) => return scaled(LOOK_EVERY),
        }
        drive(self, None, &Arc::new(Progress::new())).await;
        Duration::ZERO
    }

    /// Refreshes metrics and the accepted ledger until the service drains.
    pub(super) async fn run_refresh_loop(self: Arc<Self>) {
        loop {
            self.refresh_metrics_and_ledger().await;
            tokio::select! {
                biased;
                () = tokio::time::sleep(REFRESH_EVERY) => {}
                () = self.shutdown.draining() => return,
            }
        }
    }

    async fn refresh_metrics_and_ledger(&self) {
        // Updated here too, because the breaker becomes half-open with time and without a call.
        self.metrics.breaker_open.set(i64::from(self.breaker.is_open(Instant::now())));
        if let Ok(counts) = self.store.counts().await {
            self.metrics.invoices(counts);
        }
        if let Ok(ages) = self.store.ages().await {
            self.metrics.ages(ages, self.clock.now_ms());
        }
        if let Err(error) = self.read_halt().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "reading whether charging is stopped failed");
        }
        self.read_ledger().await;
    }
}
