//! What goes on without anybody asking: runs to their end, unfinished ones adopted, doubt outside runs settled,
//! figures kept fresh. Knows no answer and no caller.

use std::sync::Arc;
use std::time::Duration;

use chassis::crash_point;
use tokio::time::Instant;

use super::Started;
use super::breaker::Outlook;
use super::deliver::tell_parked;
use super::driver::{Ended, drive};
use super::engine::Shared;
use super::run::Progress;
use crate::invoice::{Run, RunId};
use crate::protocol::transition::{Idempotency, Outcome, Sent, Settlement, may_send};
use crate::store::{self, BATCH_MAX};

/// How long a run stays this process's own without a renewal.
pub const RUN_LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often the keeper looks for work at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it looks at most.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(50);
/// How often the invoices are counted for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(2);

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
    /// Starts a run, or joins the unfinished one and makes it look once more; one that is being finished is waited for.
    pub(super) async fn start_or_join(self: &Arc<Self>) -> store::Result<Started> {
        loop {
            let (run, joined) = self.store.open_run(RUN_LEASE).await?;
            if !joined {
                self.breaker.rearm(Instant::now());
                self.begin(run.id);
                return Ok(Started { run: run.id, joined });
            }
            if let Some(progress) = self.runs.find(run.id)
                && !progress.join()
                && progress.over().await
            {
                continue;
            }
            self.wake.notify_one();
            return Ok(Started { run: run.id, joined });
        }
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
        let ended = loop {
            let ended = tokio::select! {
                biased;
                ended = drive(&self, Some(run), &progress) => ended,
                () = self.renew(run) => Ended::Interrupted,
            };
            // Who joined at the last moment may know of new invoices.
            if ended == Ended::Interrupted || progress.close() {
                break ended;
            }
        };
        if ended == Ended::Done {
            let finished = self.insist("finish the run", || self.store.finish_run(run)).await;
            letting_go.finished = finished.is_some();
        }
        self.count_invoices().await;
        self.tell_end(run, letting_go.finished).await;
    }

    /// Prolongs the lease for as long as it is polled; does not end by itself.
    async fn renew(&self, run: RunId) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            crash_point!("K12");
            match self.store.renew_run(run, RUN_LEASE).await {
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

    /// Until the service drains: adopts the unfinished run when its driver is gone; with keys, settles what is left
    /// open outside runs.
    pub(super) async fn keep(self: Arc<Self>) {
        while !self.shutdown.is_draining() {
            match self.store.adopt_run(RUN_LEASE).await {
                Ok(Some(run)) => self.begin(run.id),
                Ok(None) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "Looking for an unfinished run failed");
                }
            }
            let next_in = self.settle_leftovers().await;
            tokio::select! {
                () = tokio::time::sleep(next_in.clamp(LOOK_AT_MOST_EVERY, LOOK_EVERY)) => {}
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
            return LOOK_EVERY;
        }
        let probe_in = match self.breaker.outlook(Instant::now()) {
            Outlook::Clear => Duration::ZERO,
            Outlook::ProbeAt(at) => at.saturating_duration_since(Instant::now()),
            Outlook::Probing | Outlook::Latched => LOOK_EVERY,
        };
        if !probe_in.is_zero() {
            return probe_in;
        }
        match self.store.next_open_in().await {
            Ok(Some(Duration::ZERO)) => {}
            Ok(next_in) => return next_in.unwrap_or(LOOK_EVERY),
            Err(_) => return LOOK_EVERY,
        }
        drive(self, None, &Arc::new(Progress::new())).await;
        Duration::ZERO
    }

    /// Keeps the figures of the invoices fresh, until the hard stop.
    pub(super) async fn keep_counting(self: Arc<Self>) {
        loop {
            self.count_invoices().await;
            tokio::select! {
                () = tokio::time::sleep(COUNT_EVERY) => {}
                () = self.shutdown.draining() => return,
            }
        }
    }

    async fn count_invoices(&self) {
        if let Ok(counts) = self.store.counts().await {
            self.figures.invoices(counts);
        }
    }
}
