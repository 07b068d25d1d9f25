//! Drives a run: claims in batches, hands to workers, lets a recorder settle behind them, and knows when it is done.
//! Knows no answer and no outcome; claims nothing more once the service drains.
//!
//! With keys it claims ahead, so that a commit is shared by hundreds of attempts. Without keys it claims only what
//! is sent at once, so that a crash leaves as few attempts as possible in doubt;
//! and no more than the breaker's window is wide.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis::crash_point;
use chassis::telemetry::TraceContext;
use chassis::test_overrides::scaled;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::breaker::Admission;
use super::deliver::{AttemptResult, Job};
use super::engine::EngineContext;
use super::record::{RECORD_MAX, Recorder};
use super::run::Progress;
use crate::invoice::{Attempt, InvoiceId, RunId};
use crate::protocol::key::Key;
use crate::protocol::transition::Idempotency;

/// Attempts of one claim, with keys.
const CLAIM_MAX: usize = 256;
/// Such claims that may be unsettled, besides what is under way: one is sent, one waits, one is recorded.
const CLAIMS_AHEAD: usize = 3;
/// Interval at which a run with fresh invoices left claims due open attempts.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a run waits for attempts in doubt after its last progress.
const TAIL: Duration = Duration::from_secs(10);
/// The shortest pause of a run that waits for attempts in doubt.
const REST: Duration = Duration::from_millis(10);

/// Result of driving a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing is left that this run should do now.
    Done,
    /// The service drains.
    Interrupted,
}

/// Sends everything that is due for a run, or without one what is left open; returns when all is settled.
pub(super) async fn drive(
    shared: &Arc<EngineContext>,
    run: Option<RunId>,
    progress: &Arc<Progress>,
) -> Ended {
    let (jobs, claimed) = mpsc::channel(CLAIM_MAX);
    let (results, outcomes) = mpsc::channel(RECORD_MAX);
    let claimed = Arc::new(Mutex::new(claimed));
    let mut tasks = JoinSet::new();
    for _ in 0..shared.settings.in_flight_max.get() {
        let (shared, progress) = (Arc::clone(shared), Arc::clone(progress));
        let worker = work(shared, progress, Arc::clone(&claimed), results.clone());
        // Without the span of this task: it would be entered and left at each poll of each worker.
        tasks.spawn(TraceContext::inherit(worker));
    }
    drop(results);
    let out = Arc::new(AtomicUsize::new(0));
    let recorder =
        Recorder { shared: Arc::clone(shared), run, progress: Arc::clone(progress), out: Arc::clone(&out) };
    tasks.spawn(recorder.record(outcomes).in_current_span());
    let ended = Claimer::new(shared, run, progress, jobs, out).claim_all().await;
    if ended == Ended::Interrupted {
        crash_point!("K14");
    }
    // The claimer has dropped its sender: workers end when the queue is empty, the recorder when they have ended.
    while let Some(ended) = tasks.join_next().await {
        if let Err(panic) = ended {
            tracing::error!(error = &panic as &dyn std::error::Error, "a task of the run panicked");
        }
    }
    ended
}

async fn work(
    shared: Arc<EngineContext>,
    progress: Arc<Progress>,
    claimed: Arc<Mutex<Receiver<Job>>>,
    results: Sender<AttemptResult>,
) {
    loop {
        let job = claimed.lock().await.recv().await;
        let Some(job) = job else { return };
        let outcome = shared.deliver(job, &progress).await;
        if results.send(outcome).await.is_err() {
            return;
        }
    }
}

/// The next step.
enum Next {
    Claim { at_most: usize, places: OwnedSemaphorePermit },
    LookAgain,
    End(Ended),
}

struct Claimer<'a> {
    shared: &'a EngineContext,
    run: Option<RunId>,
    progress: &'a Progress,
    jobs: Sender<Job>,
    /// Attempts that are claimed and have not come back.
    out: Arc<AtomicUsize>,
    /// A place for each attempt that is claimed and not yet settled.
    places: Arc<Semaphore>,
    places_max: usize,
    /// The last invoice that this run has claimed; the run ends where ids end.
    after: InvoiceId,
    fresh_left: bool,
    /// The first invoice of this pass that waits for another attempt of its customer.
    waiting_from: Option<InvoiceId>,
    /// Since this pass began, something was claimed here, or others have settled something.
    moved: bool,
    look_at: Instant,
    /// Outcomes of the run when it was looked at last.
    counted: Option<[i64; 4]>,
    looked_again: bool,
}

impl<'a> Claimer<'a> {
    fn new(
        shared: &'a EngineContext,
        run: Option<RunId>,
        progress: &'a Progress,
        jobs: Sender<Job>,
        out: Arc<AtomicUsize>,
    ) -> Self {
        let in_flight_max = shared.settings.in_flight_max.get();
        let places_max = match shared.provider.idempotency() {
            Idempotency::Keys => in_flight_max + CLAIMS_AHEAD * CLAIM_MAX,
            Idempotency::None => in_flight_max,
        };
        let places = Arc::new(Semaphore::new(places_max));
        let (after, look_at) = (InvoiceId(i64::MIN), Instant::now());
        Self {
            shared,
            run,
            progress,
            jobs,
            out,
            places,
            places_max,
            after,
            fresh_left: run.is_some(),
            waiting_from: None,
            moved: false,
            look_at,
            counted: None,
            looked_again: false,
        }
    }

    async fn claim_all(mut self) -> Ended {
        loop {
            match self.next().await {
                Next::End(ended) => return ended,
                Next::LookAgain => {}
                Next::Claim { at_most, places } => {
                    let lease_ends = Instant::now() + self.shared.settings.lease;
                    let (attempts, withdrawn) = self.claim(at_most).await;
                    if attempts.is_empty() {
                        drop(places);
                        if let Some(ended) = self.wait_for_work().await {
                            return ended;
                        }
                        continue;
                    }
                    crash_point!("K2");
                    self.moved = true;
                    if !self.hand_over(attempts, &withdrawn, places, lease_ends).await {
                        return Ended::Interrupted;
                    }
                }
            }
        }
    }

    /// Looks at the service, the breaker and the free places.
    async fn next(&self) -> Next {
        let shutdown = &self.shared.shutdown;
        if shutdown.is_draining() {
            return Next::End(Ended::Interrupted);
        }
        let breaker = &self.shared.breaker;
        let changed = breaker.changed();
        let now = Instant::now();
        let admission = breaker.admission(now);
        if self.run.is_some() && breaker.has_given_up() || admission == Admission::Latched {
            self.progress.give_up();
            return Next::End(Ended::Done);
        }
        let claim = async {
            match admission {
                Admission::Clear => match breaker.window() {
                    None => self.claim_ahead().await,
                    Some(size) => tokio::select! {
                        biased;
                        next = self.claim_in_window(size) => next,
                        () = changed => Next::LookAgain,
                    },
                },
                // Outside a run nothing waits for a provider that is not known to answer.
                Admission::Probing if self.run.is_none() => Next::End(Ended::Done),
                Admission::ProbeAt(at) if self.run.is_none() && at > now => Next::End(Ended::Done),
                Admission::Probing => {
                    changed.await;
                    Next::LookAgain
                }
                Admission::ProbeAt(at) => self.claim_probe(at).await,
                Admission::Latched => Next::End(Ended::Done),
            }
        };
        tokio::select! {
            biased;
            next = claim => next,
            () = shutdown.draining() => Next::End(Ended::Interrupted),
        }
    }

    async fn claim_ahead(&self) -> Next {
        let places = self.take_places(CLAIM_MAX).await;
        Next::Claim { at_most: places.num_permits(), places }
    }

    /// As many as fit beside what is claimed and not yet settled; waits until one does.
    async fn claim_in_window(&self, size: usize) -> Next {
        let size = size.min(self.places_max);
        let mut free = self.take_places(self.places_max - size + 1).await;
        let more = u32::try_from(self.places.available_permits()).unwrap_or(0);
        if let Ok(more) = Arc::clone(&self.places).try_acquire_many_owned(more) {
            free.merge(more);
        }
        let out = self.places_max - free.num_permits();
        let at_most = (size - out).min(CLAIM_MAX);
        let places = free.split(at_most).expect("no more is taken than is free");
        Next::Claim { at_most, places }
    }

    /// One attempt, once everything before it is settled.
    async fn claim_probe(&self, at: Instant) -> Next {
        tokio::time::sleep_until(at).await;
        let mut places = self.take_places(self.places_max).await;
        // What was settled meanwhile may have opened the breaker: then this probe comes too early.
        let now = Instant::now();
        if !matches!(self.shared.breaker.admission(now), Admission::ProbeAt(at) if at <= now) {
            return Next::LookAgain;
        }
        let place = places.split(1).expect("all places are at least one");
        Next::Claim { at_most: 1, places: place }
    }

    async fn take_places(&self, count: usize) -> OwnedSemaphorePermit {
        let count = u32::try_from(count).expect("places are counted in hundreds");
        Arc::clone(&self.places).acquire_many_owned(count).await.expect("the semaphore is never closed")
    }

    /// Attempts in doubt first, then fresh invoices. While the breaker is open the other way round: a few items that fail
    /// for ever would be all that is ever tried. With the keys of those that are to be voided.
    async fn claim(&mut self, at_most: usize) -> (Vec<Attempt>, HashSet<Key>) {
        let now = Instant::now();
        let fresh_first = self.fresh_left && self.shared.breaker.wants_fresh();
        if !fresh_first && (!self.fresh_left || now >= self.look_at) {
            let open = self.claim_open(at_most, now).await;
            if !open.is_empty() {
                let withdrawn = self.to_withdraw(&open).await;
                return (open, withdrawn);
            }
            self.look_at = now + LOOK_AGAIN;
        }
        self.fresh_left |= self.progress.was_joined();
        let (Some(run), true) = (self.run, self.fresh_left) else { return Default::default() };
        let EngineContext { store, settings, budget, .. } = self.shared;
        let claim = || store.claim_in_turn(run, self.after, at_most, settings.lease);
        let claimed = self.shared.retry_until_draining("claim", claim).await.unwrap_or_default();
        let fresh = claimed.attempts;
        budget.first_sends(fresh.len());
        self.fresh_left = !fresh.is_empty();
        self.waiting_from = self.waiting_from.or(claimed.waiting_from);
        if let Some(last) = fresh.last() {
            self.after = last.invoice_id;
            self.progress.forward();
        }
        // These were claimed because their networks allow them.
        (fresh, HashSet::new())
    }

    async fn claim_open(&self, at_most: usize, now: Instant) -> Vec<Attempt> {
        let EngineContext { store, settings, budget, .. } = self.shared;
        let affordable = budget.take(at_most, now);
        if affordable == 0 {
            return Vec::new();
        }
        let claim = || store.claim_open(self.run, affordable, settings.lease);
        let open = self.shared.retry_until_draining("claim again", claim).await.unwrap_or_default();
        budget.give_back(affordable.saturating_sub(open.len()));
        open
    }

    /// Keys to void, of attempts that were claimed again. Without keys nothing can be voided.
    async fn to_withdraw(&self, attempts: &[Attempt]) -> HashSet<Key> {
        let EngineContext { store, provider, .. } = self.shared;
        if provider.idempotency() == Idempotency::None {
            return HashSet::new();
        }
        let look = || store.to_withdraw(attempts);
        // None: the service drains, and sends nothing.
        self.shared.retry_until_draining("look for what forbids an attempt", look).await.unwrap_or_default()
    }

    /// `false` when no worker is left.
    async fn hand_over(
        &self,
        attempts: Vec<Attempt>,
        withdrawn: &HashSet<Key>,
        mut places: OwnedSemaphorePermit,
        lease_ends: Instant,
    ) -> bool {
        self.out.fetch_add(attempts.len(), Ordering::AcqRel);
        for attempt in attempts {
            let place = places.split(1).expect("no more is claimed than there are places");
            let is_withdrawn = withdrawn.contains(&attempt.key);
            if self.jobs.send(Job { attempt, is_withdrawn, lease_ends, place }).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Once, where others claim too: what one of them held when we passed it is PENDING still if that one died.
    fn should_claim_again(&mut self) -> bool {
        let looks = self.run.is_some() && self.shared.store.is_shared() && !self.looked_again;
        if looks {
            self.looked_again = true;
            self.claim_after(InvoiceId(i64::MIN));
        }
        looks
    }

    /// What waited for another attempt of its customer may be free now.
    fn resume_from_first_waiting(&mut self) -> bool {
        let first = self.waiting_from;
        if let Some(InvoiceId(first)) = first {
            self.claim_after(InvoiceId(first - 1));
        }
        first.is_some()
    }

    /// Another process claims one invoice of a customer after the other, and we met none that it did not hold: to end the
    /// run would be to end it there too.
    async fn has_claimable_left(&self) -> bool {
        let Some(run) = self.run else { return false };
        let store = &self.shared.store;
        self.shared
            .retry_until_draining("look for turns", || store.has_claimable_left(run))
            .await
            .unwrap_or(true)
    }

    /// Begins another pass.
    fn claim_after(&mut self, after: InvoiceId) {
        (self.after, self.fresh_left, self.waiting_from, self.moved) = (after, true, None, false);
    }

    /// When to look again for what is open: another process may settle it before its lease ends, and what others do is
    /// a step forward of the run too.
    async fn wait_or_settled(&mut self, next_in: Duration) -> Duration {
        let (Some(run), true) = (self.run, self.shared.store.is_shared()) else { return next_in };
        if let Ok(Some(run)) = self.shared.store.run(run).await
            && let ended = run.counters.outcomes()
            && self.counted != Some(ended)
        {
            self.counted = Some(ended);
            self.moved = true;
            self.progress.forward();
        }
        next_in.min(LOOK_AGAIN)
    }

    /// Nothing could be claimed: waits until all is settled, then for attempts in doubt; `Some` when there is
    /// nothing to wait for.
    async fn wait_for_work(&mut self) -> Option<Ended> {
        if self.fresh_left {
            return None;
        }
        tokio::select! {
            biased;
            all = self.take_places(self.places_max) => drop(all),
            () = self.progress.joining() => return None,
        }
        if self.shared.shutdown.is_draining() {
            return Some(Ended::Interrupted);
        }
        let store = &self.shared.store;
        let next = self.shared.retry_until_draining("look ahead", || store.next_open_in()).await;
        let next_in = match next {
            // The store failed until the service drained: whether something is left is unknown.
            None => return Some(Ended::Interrupted),
            Some(None) if self.resume_from_first_waiting() || self.should_claim_again() => return None,
            Some(None) if !self.has_claimable_left().await => return Some(Ended::Done),
            Some(None) => {
                self.claim_after(InvoiceId(i64::MIN));
                self.wait_or_settled(LOOK_AGAIN).await
            }
            Some(Some(next_in)) => self.wait_or_settled(next_in).await,
        };
        // Others are open still, perhaps in doubt.
        if self.moved && self.resume_from_first_waiting() {
            return None;
        }
        let (next_at, tail_ends) =
            (Instant::now() + next_in, self.progress.last_progress_at() + scaled(TAIL));
        if self.run.is_none() && !next_in.is_zero() || next_at >= tail_ends {
            return if self.should_claim_again() { None } else { Some(Ended::Done) };
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(next_at.max(Instant::now() + REST)) => None,
            () = self.progress.joining() => None,
            () = self.shared.shutdown.draining() => Some(Ended::Interrupted),
        }
    }
}
