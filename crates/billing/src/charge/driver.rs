//! Drives a run: claims batches, passes them to workers, has a recorder settle the results, and decides when the run is
//! done. Knows no answer and no outcome; claims nothing more once the service drains.
//!
//! With keys it claims ahead, so that hundreds of attempts share a commit. Without keys it claims only what is sent at
//! once, within the breaker's window. So a crash leaves as few attempts as possible in doubt.

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

/// The most attempts of one claim, with keys.
const CLAIM_MAX: usize = 256;
/// Claims that may be unsettled besides the calls in flight: one being sent, one queued, one being recorded.
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

/// Sends all attempts that are due for a run, or, without a run, all open attempts. Returns when all are settled.
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
        // Without this task's span, which would be entered and left at each poll of each worker.
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
    // The claimer has dropped its sender: workers end when the queue is empty, and the recorder ends after the workers.
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
    /// The number of claimed attempts whose results have not been received.
    out: Arc<AtomicUsize>,
    /// One permit for each attempt that is claimed and not yet settled.
    places: Arc<Semaphore>,
    places_max: usize,
    /// The last invoice that this run has claimed. A pass goes through the invoices by id.
    after: InvoiceId,
    fresh_left: bool,
    /// The first invoice of this pass that waits for another attempt of its customer.
    waiting_from: Option<InvoiceId>,
    /// Whether something was claimed here, or settled by others, since this pass began.
    moved: bool,
    look_at: Instant,
    /// The outcomes of the run at the last read.
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
            match self.next_step().await {
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

    /// Decides the next step by the shutdown, the breaker and the free permits.
    async fn next_step(&self) -> Next {
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
                // Outside a run, open attempts do not wait for a provider that is not known to answer.
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

    /// Claims as many as the window has places for beside the unsettled ones; waits until there is a place.
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

    /// Claims one attempt, once all earlier ones are settled.
    async fn claim_probe(&self, at: Instant) -> Next {
        tokio::time::sleep_until(at).await;
        let mut places = self.take_places(self.places_max).await;
        // Results that were settled meanwhile may have opened the breaker: then it is too early for this probe.
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

    /// Claims attempts in doubt first, then fresh invoices. While the breaker is open the order is reversed: otherwise
    /// a few items that always fail would be the only probes. Also returns the keys to void.
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
        self.fresh_left |= self.progress.take_claim_request();
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
            self.progress.record_progress();
        }
        // No key is to be voided: the claim has checked that the networks allow these attempts.
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

    /// The keys to void among attempts that were claimed again. Without keys nothing can be voided.
    async fn to_withdraw(&self, attempts: &[Attempt]) -> HashSet<Key> {
        let EngineContext { store, provider, .. } = self.shared;
        if provider.idempotency() == Idempotency::None {
            return HashSet::new();
        }
        let look = || store.to_withdraw(attempts);
        // `None` means that the service drains: then nothing is sent.
        self.shared.retry_until_draining("look for what forbids an attempt", look).await.unwrap_or_default()
    }

    /// Passes attempts to the workers; `false` when no worker is left.
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

    /// Once per run on a shared store: an invoice that another process held in our pass is PENDING again if that
    /// process died.
    fn should_claim_again(&mut self) -> bool {
        let looks = self.run.is_some() && self.shared.store.is_shared() && !self.looked_again;
        if looks {
            self.looked_again = true;
            self.claim_after(InvoiceId(i64::MIN));
        }
        looks
    }

    /// Starts again from the first invoice that had to wait for another attempt of its customer: it may be free now.
    fn resume_from_first_waiting(&mut self) -> bool {
        let first = self.waiting_from;
        if let Some(InvoiceId(first)) = first {
            self.claim_after(InvoiceId(first - 1));
        }
        first.is_some()
    }

    /// Whether other processes have left something to claim. They may claim a customer's invoices one after another, so
    /// that our pass finds each of them taken. Ending the run here would end it for them too.
    async fn has_claimable_left(&self) -> bool {
        let Some(run) = self.run else { return false };
        let store = &self.shared.store;
        self.shared
            .retry_until_draining("look for turns", || store.has_claimable_left(run))
            .await
            .unwrap_or(true)
    }

    /// Begins another pass after this invoice.
    fn claim_after(&mut self, after: InvoiceId) {
        (self.after, self.fresh_left, self.waiting_from, self.moved) = (after, true, None, false);
    }

    /// The time until the next check of open attempts: another process may settle them before their leases end.
    /// Outcomes that other processes record count as progress of the run.
    async fn wait_or_settled(&mut self, next_in: Duration) -> Duration {
        let (Some(run), true) = (self.run, self.shared.store.is_shared()) else { return next_in };
        if let Ok(Some(run)) = self.shared.store.run(run).await
            && let ended = run.counters.outcomes()
            && self.counted != Some(ended)
        {
            self.counted = Some(ended);
            self.moved = true;
            self.progress.record_progress();
        }
        next_in.min(LOOK_AGAIN)
    }

    /// Called when nothing could be claimed: waits until all is settled, then for attempts in doubt. `Some` when there
    /// is nothing to wait for.
    async fn wait_for_work(&mut self) -> Option<Ended> {
        if self.fresh_left {
            return None;
        }
        tokio::select! {
            biased;
            all = self.take_places(self.places_max) => drop(all),
            () = self.progress.claim_requested() => return None,
        }
        if self.shared.shutdown.is_draining() {
            return Some(Ended::Interrupted);
        }
        let store = &self.shared.store;
        let next = self.shared.retry_until_draining("look ahead", || store.next_open_in()).await;
        let next_in = match next {
            // The store failed until the service drained: whether attempts are left is unknown.
            None => return Some(Ended::Interrupted),
            Some(None) if self.resume_from_first_waiting() || self.should_claim_again() => return None,
            Some(None) if !self.has_claimable_left().await => return Some(Ended::Done),
            Some(None) => {
                self.claim_after(InvoiceId(i64::MIN));
                self.wait_or_settled(LOOK_AGAIN).await
            }
            Some(Some(next_in)) => self.wait_or_settled(next_in).await,
        };
        // Other attempts are still open, perhaps in doubt.
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
            () = self.progress.claim_requested() => None,
            () = self.shared.shutdown.draining() => Some(Ended::Interrupted),
        }
    }
}
