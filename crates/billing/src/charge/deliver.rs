//! Sends one claimed attempt: whether it may be sent, the call, and the outcome to record.
//! Records nothing itself and claims nothing.

use std::time::Duration;

use chassis::crash_point;
use chassis::telemetry::TraceContext;
use chassis::test_overrides::scaled;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::RETRY_AFTER_MAX;
use super::backoff;
use super::breaker::Signal;
use super::engine::EngineContext;
use super::ledger::Known;
use super::problem::Problem;
use super::run::Progress;
use super::suspects::{Proof, Suspicion};
use super::trace::AttemptTrace;
use super::window::DOUBTS_MAX;
use crate::invoice::{Attempt, Decline};
use crate::protocol::transition::{
    AnswerClass, Idempotency, NOT_ACCEPTED, Outcome, Sent, Settlement, may_send, on_answer,
};
use crate::provider::answer::{Reason, Verdict};
use crate::provider::trace::of_attempt;
use crate::provider::{Answer, Preconditions, VoidOutcome};

/// Pause of an attempt that was released because it could not be sent at that time.
const UNSENT_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause of an item that the provider does not accept. The shortest is half of it, which is longer than
/// [`UNSENT_PAUSE`].
const SUSPECT_PAUSE: Duration = Duration::from_millis(800);
/// The number of sends from which the pause after a call that was not executed is derived.
const NOT_TAKEN: u32 = 2;

/// A claimed attempt in the queue of the workers.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) attempt: Attempt,
    /// Whether the key is to be voided, because no more attempt is allowed.
    pub(super) is_withdrawn: bool,
    /// The end of our lease by our own clock, counted from before the claim, so that it is never later than the stored
    /// end.
    pub(super) lease_ends: Instant,
    /// The attempt's permit among the claimed and unsettled attempts.
    pub(super) place: OwnedSemaphorePermit,
}

/// The outcome to record.
#[derive(Debug)]
pub(super) struct AttemptResult {
    pub(super) settlement: Settlement,
    pub(super) place: OwnedSemaphorePermit,
    /// The attempt's trace, if sampled.
    pub(super) trace: Option<AttemptTrace>,
}

impl EngineContext {
    /// Sends a claimed attempt, if it may be sent, and returns the outcome to record.
    pub(super) async fn deliver(&self, job: Job, progress: &Progress) -> AttemptResult {
        let Job { attempt, is_withdrawn, lease_ends, place } = job;
        let whole = of_attempt(self.provider.tracer(), &attempt.key);
        let run = whole.and_then(|_| TraceContext::current());
        let outcome = self.outcome(&attempt, is_withdrawn, lease_ends, progress);
        let (outcome, again_in, decline) = match whole {
            // The log lines of the attempt then have its trace id.
            Some(whole) => whole.scope(outcome).await,
            None => outcome.await,
        };
        log_parked(&attempt, outcome);
        let trace = self.trace_settlement(whole, run, &attempt);
        let decline = decline.filter(|_| outcome == Outcome::Refused);
        AttemptResult { settlement: Settlement::of(&attempt, outcome, again_in, decline), place, trace }
    }

    async fn outcome(
        &self,
        attempt: &Attempt,
        is_withdrawn: bool,
        lease_ends: Instant,
        progress: &Progress,
    ) -> (Outcome, Duration, Option<Decline>) {
        let idempotency = self.provider.idempotency();
        let sent = Sent { state: attempt.state, sends: attempt.sends };
        if let Err(parked) = may_send(idempotency, sent) {
            return (parked, Duration::ZERO, None);
        }
        let _slot = self.in_flight.acquire().await.expect("the semaphore is never closed");
        if self.shutdown.is_draining() {
            return (Outcome::NotSent, Duration::ZERO, None);
        }
        let in_time = Instant::now() + self.provider.deadline() <= lease_ends;
        let Some(permit) = in_time.then(|| self.breaker.admit(Instant::now())).flatten() else {
            return (Outcome::NotSent, self.random.jitter(UNSENT_PAUSE), None);
        };
        if is_withdrawn && let Some(ended) = self.withdraw(attempt, sent, progress).await {
            return ended;
        }
        let (answer, verdict) = self.call(attempt, lease_ends, progress).await;
        let left_alone_for = answer.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)).unwrap_or_default();
        // Hold before the permit is released, so that no other call is admitted in between.
        if !left_alone_for.is_zero() {
            self.breaker.hold(Instant::now() + left_alone_for);
        }
        let suspicion = self.suspect(attempt, verdict, answer.status);
        let signal = signal(idempotency, verdict, suspicion);
        if signal != Signal::Good {
            self.record_problem_in(progress, verdict.reason, answer.status);
        }
        let opened = permit.report(signal, Instant::now());
        self.log_outcome(attempt, &answer, verdict, opened);
        let outcome = match suspicion {
            Some(Suspicion::Item) => NOT_ACCEPTED,
            _ => on_answer(idempotency, sent, verdict.class),
        };
        let again_in = match outcome {
            // The pause is longer than that of unsent attempts, because those show whether the endpoint works.
            Outcome::InDoubt(None) | Outcome::NotSent if suspicion.is_some() => {
                scaled(SUSPECT_PAUSE / 2 + self.random.jitter(SUSPECT_PAUSE / 2))
            }
            Outcome::InDoubt(None) => backoff::pause(&self.random, attempt.sends),
            Outcome::NotSent => backoff::pause(&self.random, NOT_TAKEN),
            _ => return (outcome, Duration::ZERO, answer.decline),
        };
        (outcome, again_in.max(left_alone_for), None)
    }

    /// Records that a call got no answer about its invoice.
    fn record_problem_in(&self, progress: &Progress, reason: Reason, status: Option<u16>) {
        let problem = Problem { reason, status, count: 1 };
        progress.record_problem(problem);
        self.record_problem(problem);
    }

    /// Voids the key; `None` if it is charged already, because a resend then returns that result and charges nothing.
    /// The result is not reported to the breaker: one key that cannot be voided must not stop others.
    async fn withdraw(
        &self,
        attempt: &Attempt,
        sent: Sent,
        progress: &Progress,
    ) -> Option<(Outcome, Duration, Option<Decline>)> {
        let said = {
            let ledger = self.ledger.known();
            self.provider.void(&attempt.key, self.preconditions(ledger.as_deref())).await
        };
        let key = attempt.key.as_str();
        match said {
            VoidOutcome::Voided => {
                tracing::warn!(attempt.key = key, "withdrew an attempt that is allowed no more");
                Some((Outcome::Voided, Duration::ZERO, None))
            }
            VoidOutcome::Refused(decline) => Some((Outcome::Refused, Duration::ZERO, Some(decline))),
            VoidOutcome::Charged => None,
            VoidOutcome::Unknown(why) => {
                tracing::warn!(attempt.key = key, why, "an attempt that is allowed no more was not voided");
                self.record_problem_in(progress, Reason::NotVoided, None);
                // The ledger may have been replaced, or may lack rows that this store has seen.
                self.read_ledger().await;
                let pause = backoff::pause(&self.random, attempt.sends.max(NOT_TAKEN));
                let outcome = if sent.is_resend() { Outcome::InDoubt(None) } else { Outcome::NotSent };
                Some((outcome, pause, None))
            }
        }
    }

    /// Makes the call, and records what the answer says about the provider's ledger.
    async fn call(&self, attempt: &Attempt, lease_ends: Instant, progress: &Progress) -> (Answer, Verdict) {
        let ledger = self.ledger.known();
        let began = Instant::now();
        let answer = self.provider.charge(attempt, self.preconditions(ledger.as_deref()), lease_ends).await;
        self.metrics.provider_answered(began.elapsed());
        crash_point!("K7");
        match answer.verdict.reason {
            Reason::NotConnected => progress.record_not_connected(),
            Reason::SendLate => {}
            _ => progress.record_reached(),
        }
        let verdict = match ledger {
            Some(_) => answer.verdict,
            None => self.first_of_its_ledger(&answer).await,
        };
        if matches!(verdict.reason, Reason::LedgerMismatch | Reason::OtherLedger | Reason::LedgerBehind) {
            self.read_ledger().await;
        }
        // Only definite answers count: a row number that this ledger never had would block all charging.
        if let (true, Some(ledger), Some(seq)) =
            (is_definite(verdict.class), answer.ledger.as_deref(), answer.seq)
        {
            self.ledger.see(ledger, seq);
        }
        (answer, verdict)
    }

    /// Whether the item or the endpoint is at fault, for an answer that fits either cause. Records each answer that
    /// shows that the endpoint works.
    fn suspect(&self, attempt: &Attempt, verdict: Verdict, status: Option<u16>) -> Option<Suspicion> {
        let now = Instant::now();
        if is_definite(verdict.class) && verdict.class != AnswerClass::Invalid {
            self.suspects.succeeded(&attempt.key, now);
        }
        // Without keys a call that may have been executed needs an operator at once.
        let ends_in_doubt = self.provider.idempotency() == Idempotency::None
            && matches!(
                verdict.class,
                AnswerClass::InDoubt | AnswerClass::EndpointWrong { not_executed: false }
            );
        let is_suspect = verdict.is_about_item_or_endpoint(status) && !ends_in_doubt;
        let proof = if verdict.reason == Reason::Credentials { Proof::Later } else { Proof::Recent };
        let suspicion = is_suspect.then(|| self.suspects.failed(&attempt.key, proof, now));
        if suspicion == Some(Suspicion::Item) {
            tracing::warn!(
                invoice.id = attempt.invoice_id.0,
                attempt.key = attempt.key.as_str(),
                answer = verdict.reason.as_str(),
                status,
                "the provider does not accept this invoice, though it accepts others"
            );
        }
        suspicion
    }

    /// The conditions under which the provider may execute a request.
    pub(super) fn preconditions<'a>(&self, ledger: Option<&'a Known>) -> Preconditions<'a> {
        let seen = ledger.and_then(Known::seen);
        Preconditions { deployment: self.deployment, ledger: ledger.map(|ledger| ledger.id.as_str()), seen }
    }

    /// Stores the first ledger that answers before its answer counts.
    async fn first_of_its_ledger(&self, answer: &Answer) -> Verdict {
        let (verdict, Some(ledger)) = (answer.verdict, answer.ledger.as_deref()) else {
            return answer.verdict;
        };
        if !is_definite(verdict.class) {
            return verdict;
        }
        let remembering =
            self.retry_until_stopped("remember the ledger", || self.store.remember_ledger(ledger));
        let Some(remembered) = remembering.await else {
            return Verdict { class: AnswerClass::InDoubt, reason: Reason::OtherLedger };
        };
        self.ledger.remember(&remembered);
        if remembered == ledger {
            return verdict;
        }
        Verdict { class: AnswerClass::EndpointWrong { not_executed: false }, reason: Reason::OtherLedger }
    }

    fn log_outcome(&self, attempt: &Attempt, answer: &Answer, verdict: Verdict, opened: bool) {
        tracing::debug!(
            invoice.id = attempt.invoice_id.0,
            attempt.key = attempt.key.as_str(),
            attempt.sends = attempt.sends,
            run.id = attempt.run_id.0,
            answer = verdict.reason.as_str(),
            status = answer.status,
            failure = answer.failure,
            "called the provider"
        );
        self.metrics.breaker_open.set(i64::from(self.breaker.is_open(Instant::now())));
        if verdict.reason == Reason::NoEcho {
            tracing::error!(
                invoice.id = attempt.invoice_id.0,
                attempt.key = attempt.key.as_str(),
                "the provider does not echo Idempotency-Key, so nothing more is sent: \
                 set PAYMENT_PROVIDER_IDEMPOTENCY=none, or let the header pass, and start again"
            );
        } else if opened && self.breaker.awaits_operator() {
            tracing::error!(
                answer = verdict.reason.as_str(),
                status = answer.status,
                failure = answer.failure,
                calls = DOUBTS_MAX,
                "calls in a row ended in doubt and each cost an invoice its state, so nothing more is sent until an \
                 operator has resolved one (tinjis resolve) or has started the service again"
            );
        } else if opened {
            tracing::error!(
                answer = verdict.reason.as_str(),
                status = answer.status,
                failure = answer.failure,
                hint = verdict.reason.hint(),
                "circuit breaker opened"
            );
        }
    }
}

/// Logs that from now on only an operator can resolve the invoice: `tinjis resolve`.
pub(super) fn log_parked(attempt: &Attempt, outcome: Outcome) {
    let Some(reason) = outcome.attention() else { return };
    tracing::warn!(
        invoice.id = attempt.invoice_id.0,
        attempt.key = attempt.key.as_str(),
        reason = reason.as_str(),
        "invoice needs manual resolution"
    );
}

fn is_definite(class: AnswerClass) -> bool {
    use AnswerClass::{Charged, Invalid, KeyReused, Refused, Voided};
    matches!(class, Charged | Refused | Voided | Invalid | KeyReused)
}

/// Maps a verdict to the breaker's signal.
fn signal(idempotency: Idempotency, verdict: Verdict, suspicion: Option<Suspicion>) -> Signal {
    match suspicion {
        Some(Suspicion::Endpoint) => return Signal::Wrong,
        Some(Suspicion::Unclear | Suspicion::Item) => return Signal::Suspect,
        None => {}
    }
    match verdict.class {
        AnswerClass::EndpointWrong { not_executed: false } | AnswerClass::InDoubt
            if idempotency == Idempotency::None =>
        {
            Signal::Doubt
        }
        AnswerClass::Charged | AnswerClass::Refused | AnswerClass::Voided | AnswerClass::KeyReused => {
            Signal::Good
        }
        AnswerClass::Invalid => Signal::Invalid,
        AnswerClass::EndpointWrong { .. } => Signal::Wrong,
        AnswerClass::Unkeyed => Signal::Unkeyed,
        AnswerClass::InDoubt if verdict.reason == Reason::KeyInFlight => Signal::Good,
        AnswerClass::InDoubt | AnswerClass::NotSent => Signal::Failure,
    }
}
