//! What goes on without anybody asking: runs to their end, unfinished ones adopted, doubt outside runs settled,
//! figures kept fresh. Knows no answer and no caller.

use std::sync::Arc;
use std::time::Duration;

use chassis::crash_point;
use chassis::trial::paced;
use tokio::time::Instant;

use super::Started;
use super::breaker::Outlook;
use super::deliver::tell_parked;
use super::driver::{Ended, drive};
use super::engine::Shared;
use super::run::Progress;
use crate::invoice::{Run, RunId, RunState};
use crate::protocol::transition::{Idempotency, Outcome, Sent, Settlement, may_send};
use crate::store::{self, BATCH_MAX};

/// How long a run stays this process's own without a renewal.
pub const RUN_LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often the keeper looks for work at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// And at a store that others use too: soon enough to share a run that one of them has started.
const LOOK_AT_OTHERS_EVERY: Duration = Duration::from_secs(1);
/// How long a process that cannot reach the provider looks whether another one can, before it finishes their run.
const OTHERS_WITHIN: Duration = Duration::from_secs(1);
/// How often it looks at most.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// How often the invoices are counted for the metrics, and the ledger is read that another process may have accepted.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(2);

/// Lets go of a run however its driver ends, also by a panic: who waits is released, and the keeper may take it up.
struct LettingGo<'a> {
    shared: &'a Shared,
    progress: &'a Progress,
    finished: bool,
}

impl Drop for LettingGo<'_> {
    fn drop(&mut self) {
        self.progress.end(self.finished);
        self.shared.wake.notify_one();
    }
}

impl Shared {
    /// Starts a run, or joins the unfinished one, which then looks once more before it ends. One that another process
    /// drives is shared from now on.
    pub(super) async fn start_or_join(self: &Arc<Self>) -> store::Result<Started> {
        let (run, joined) = self.store.open_run(paced(RUN_LEASE)).await?;
        match self.runs.find(run.id).filter(|progress| progress.is_driven()) {
            Some(progress) => progress.join(),
            None if !joined || self.store.is_shared() => {
                self.breaker.rearm(Instant::now());
                self.begin(run.id);
            }
            None => {}
        }
        self.wake.notify_one();
        Ok(Started { run: run.id, joined })
    }

    /// Drives a run as a task of its own, unless this process does already.
    pub(super) fn begin(self: &Arc<Self>, run: RunId) {
        let Some(progress) = self.runs.begin(run) else { return };
        let shared = Arc::clone(self);
        self.shutdown.spawn("run", async move { shared.see_through(run, progress).await });
    }

    async fn see_through(self: Arc<Self>, run: RunId, progress: Arc<Progress>) {
        let mut letting_go = LettingGo { shared: &self, progress: &progress, finished: false };
        tracing::info!(run.id = run.0, "Run started");
        letting_go.finished = tokio::select! {
            biased;
            finished = self.drive_to_the_end(run, &progress) => finished,
            () = self.renew(run) => false,
        };
        self.look_around().await;
        self.tell_end(run, letting_go.finished).await;
    }

    /// Drives until there is nothing left of what was there when somebody joined last, then finishes; `false` when the
    /// run is left to others, or to a later start.
    async fn drive_to_the_end(self: &Arc<Self>, run: RunId, progress: &Arc<Progress>) -> bool {
        loop {
            let Some(before) = self.insist_until_drain("read the run", || self.store.run(run)).await else {
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
                self.insist("note the problem", || self.store.note_problem(run, &problem)).await;
            }
            let gave_up = progress.gave_up();
            if gave_up && self.others_go_on(run).await {
                return false;
            }
            // Who cannot reach the provider does not look again, whoever has joined.
            let seen = match before {
                Some(before) if !gave_up => before.joins,
                _ => match self.insist("read the run", || self.store.run(run)).await {
                    Some(Some(now)) => now.joins,
                    _ => return false,
                },
            };
            match self.insist("finish the run", || self.store.finish_run(run, seen)).await {
                Some(true) => return true,
                // Somebody has joined meanwhile, or another process was first.
                Some(false) => {}
                None => return false,
            }
        }
    }

    /// Whether other processes get on with the run, though this one cannot.
    async fn others_go_on(&self, run: RunId) -> bool {
        if !self.store.is_shared() {
            return false;
        }
        let settled = async || match self.store.run(run).await {
            Ok(Some(Run { counters, .. })) => counters.paid + counters.refused + counters.rejected,
            _ => 0,
        };
        let before = settled().await;
        tokio::select! {
            biased;
            () = tokio::time::sleep(OTHERS_WITHIN) => {}
            () = self.shutdown.draining() => {}
        }
        settled().await != before
    }

    /// Prolongs the lease for as long as it is polled; does not end by itself.
    async fn renew(&self, run: RunId) {
        loop {
            tokio::time::sleep(paced(RENEW_EVERY)).await;
            crash_point!("K12");
            match self.store.renew_run(run, paced(RUN_LEASE)).await {
                Ok(true) => {}
                // Attempts have leases and keys of their own: going on harms nobody.
                Ok(false) => tracing::warn!(run.id = run.0, "The run was finished by another process"),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(run.id = run.0, error, "The lease of the run could not be renewed");
                }
            }
        }
    }

    async fn tell_end(&self, run: RunId, finished: bool) {
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
            "Run ended"
        );
    }

    /// Until the service drains: adopts the unfinished run when its driver is gone, or shares it with who drives it;
    /// with keys, settles what is left open outside runs.
    pub(super) async fn keep(self: Arc<Self>) {
        while !self.shutdown.is_draining() {
            let shares = self.store.is_shared() && !self.breaker.gives_up();
            let unfinished = match shares {
                true => self.store.unfinished_run().await,
                false => self.store.adopt_run(paced(RUN_LEASE)).await,
            };
            match unfinished {
                Ok(Some(run)) => self.begin(run.id),
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "Looking for an unfinished run failed");
                }
            }
            let next_in = self.settle_leftovers().await;
            let look_every = if self.store.is_shared() { LOOK_AT_OTHERS_EVERY } else { LOOK_EVERY };
            tokio::select! {
                biased;
                () = tokio::time::sleep(next_in.clamp(paced(LOOK_AT_MOST_EVERY), paced(look_every))) => {}
                () = self.wake.notified() => {}
                () = self.shutdown.draining() => {}
            }
        }
    }

    /// Without keys, at start: what may have been sent is not sent again and waits for a person, from now on rather than
    /// from the next run. Needs no provider.
    pub(super) async fn park_leftovers(&self) -> store::Result<()> {
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
                    tell_parked(&attempt, outcome);
                }
                let (list, outcome) = match held {
                    Ok(()) => (&mut unsent, Outcome::NotSent),
                    Err(outcome) => (&mut parked, outcome),
                };
                list.push(Settlement { key: attempt.key, outcome, again_in: Duration::ZERO });
            }
            self.settle(None, &parked, &Progress::new()).await;
        }
        for unsent in unsent.chunks(BATCH_MAX) {
            self.settle(None, unsent, &Progress::new()).await;
        }
        Ok(())
    }

    /// Sends what is due and belongs to nobody; answers when to look again.
    async fn settle_leftovers(self: &Arc<Self>) -> Duration {
        if self.provider.idempotency() == Idempotency::None || self.runs.is_any() {
            return paced(LOOK_EVERY);
        }
        let probe_in = match self.breaker.outlook(Instant::now()) {
            Outlook::Clear => Duration::ZERO,
            Outlook::ProbeAt(at) => at.saturating_duration_since(Instant::now()),
            Outlook::Probing | Outlook::Latched => paced(LOOK_EVERY),
        };
        if !probe_in.is_zero() {
            return probe_in;
        }
        match self.store.next_open_in().await {
            Ok(Some(Duration::ZERO)) => {}
            Ok(next_in) => return next_in.unwrap_or(paced(LOOK_EVERY)),
            Err(_) => return paced(LOOK_EVERY),
        }
        drive(self, None, &Arc::new(Progress::new())).await;
        Duration::ZERO
    }

    /// Keeps what is shown and known of the store fresh, until the service drains.
    pub(super) async fn keep_looking(self: Arc<Self>) {
        loop {
            self.look_around().await;
            tokio::select! {
                biased;
                () = tokio::time::sleep(LOOK_AROUND_EVERY) => {}
                () = self.shutdown.draining() => return,
            }
        }
    }

    async fn look_around(&self) {
        if let Ok(counts) = self.store.counts().await {
            self.figures.invoices(counts);
        }
        self.read_ledger().await;
    }
}
