//! Processes one delivery: key in flight, injected fault, charge decision, ledger record.
//! Decides everything and returns values; knows no SQL, no wire format and no status codes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::caller::Account;
use chassis::crash_point;
use chassis::shutdown::Shutdown;
use chassis::telemetry::{Kind, Span, TraceContext, Tracer};
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::amount::Minor;
use crate::controls::{Controls, InForce};
use crate::declines::Decline;
use crate::deployments::DeploymentId;
use crate::faults::draw::{Delivery, Subject};
use crate::faults::rates::Decision;
use crate::faults::script::{Facts, Fault, StatusFault};
use crate::keys::{Fingerprint, Key, Known, judge_known_key};
use crate::ledger::{Entry, Ledger, LedgerError, Recorded, Row, Seq, State};
use crate::metrics::Counters;

/// Maximum number of executions under way. When a client disconnects, its call ends, but its execution continues.
pub const EXECUTIONS_MAX: usize = 4096;

/// The requested charge, from any route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The customer; 0 where the route has none.
    pub customer_id: i64,
    /// The currency; empty when an existing client sent an object.
    pub currency: String,
    /// The amount.
    pub amount: Minor,
    /// The caller's own name of the charge.
    pub reference: Option<String>,
}

/// One delivery of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Account of the caller.
    pub account: Account,
    /// The idempotency key, if any.
    pub key: Option<Key>,
    pub charge: Charge,
    pub route: &'static str,
    /// The deployment of billing that sends the request, if the request names it and it was admitted.
    pub deployment: Option<DeploymentId>,
    /// The last row of the ledger that the caller has seen, if the request names it.
    pub seen: Option<Seq>,
}

/// The response to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The charge was decided, now or (`replayed`) at an earlier delivery.
    Decided {
        /// The row that holds the decision.
        seq: Seq,
        /// Whether the customer was charged; otherwise the charge was refused.
        charged: bool,
        /// Why the charge was refused, if it was and the row has a reason.
        decline: Option<Decline>,
        /// Whether this delivery executed nothing.
        replayed: bool,
    },
    /// Nothing was executed, because of a fault script.
    Nothing,
    /// Nothing was executed, because too many executions are under way.
    Overloaded,
    /// Nothing was executed, because the ledger might lose the record.
    NotDurable,
    /// Another delivery of the key is being executed: the caller must repeat the request.
    KeyInFlight,
    /// The key belongs to another account: see [`Recorded::Foreign`].
    KeyForeign,
    /// The key was voided, by this row.
    KeyVoided(Seq),
    /// The key came with other data before, and has this row.
    KeyReused(Seq),
    /// Nothing was executed: this row charged the reference under another key, or without a key.
    ReferenceCharged(Seq, Option<Key>),
    /// The ledger lacks a row that the caller has seen: nothing was executed.
    LedgerBehind,
    /// Nothing was executed, because the ledger may lack rows: an operator must act.
    NotServing,
    /// The ledger failed: whether the charge was executed is unknown.
    Unavailable,
}

impl Answer {
    /// The row from which the answer was given.
    #[must_use]
    pub fn row(&self) -> Option<Seq> {
        match self {
            Self::Decided { seq, .. }
            | Self::KeyVoided(seq)
            | Self::KeyReused(seq)
            | Self::ReferenceCharged(seq, _) => Some(*seq),
            _ => None,
        }
    }
}

/// A fault that hits the response, not the charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseFault {
    /// The connection is reset.
    Reset,
    /// The connection is closed without an answer.
    Lose,
    /// The answer is 500.
    Fail,
    /// The answer's body is cut off.
    CutOff,
    /// The response is delayed by this time.
    Hold(Duration),
    /// This answer replaces the real one.
    Replace(Arc<StatusFault>),
    /// The body is sent in pieces over this time.
    Slow(Duration),
    /// The connection is closed after half of the body.
    Truncate,
}

/// A response and the fault to apply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeReply {
    /// The response to a delivery.
    pub answer: Answer,
    /// The fault to apply.
    pub response_fault: Option<ResponseFault>,
}

impl From<Answer> for ChargeReply {
    fn from(answer: Answer) -> Self {
        Self { answer, response_fault: None }
    }
}

/// Decides charges and records them. Clones share everything.
#[derive(Clone)]
pub struct Charger(Arc<ChargerInner>);

struct ChargerInner {
    ledger: Arc<dyn Ledger>,
    controls: Controls,
    counters: Counters,
    in_flight: Arc<InFlight>,
    executions: Arc<Semaphore>,
    shutdown: Shutdown,
    tracer: Tracer,
}

impl Charger {
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        controls: Controls,
        counters: Counters,
        shutdown: Shutdown,
        tracer: Tracer,
    ) -> Self {
        let (in_flight, executions) = (Arc::default(), Arc::new(Semaphore::new(EXECUTIONS_MAX)));
        Self(Arc::new(ChargerInner { ledger, controls, counters, in_flight, executions, shutdown, tracer }))
    }

    /// The settings in force.
    #[must_use]
    pub fn controls(&self) -> &Controls {
        &self.0.controls
    }

    /// Executes one delivery, or replays the decision of its key. Runs as a task of its own: a caller that disconnects
    /// changes nothing, and a shutdown waits for it.
    pub async fn charge(&self, request: Request) -> ChargeReply {
        let Ok(permit) = Arc::clone(&self.0.executions).try_acquire_owned() else {
            return Answer::Overloaded.into();
        };
        let pass = match &request.key {
            Some(key) => match InFlight::enter(&self.0.in_flight, key, &request.account) {
                Ok(pass) => Some(pass),
                Err(answer) => return answer.into(),
            },
            None => None,
        };
        let inner = Arc::clone(&self.0);
        let task = async move {
            let reply = inner.execute(request).await;
            drop((pass, permit));
            reply
        };
        let task = TraceContext::inherit(task).in_current_span();
        self.0.shutdown.tracker().spawn(task).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a charge panicked, its outcome is unknown");
            Answer::Unavailable.into()
        })
    }
}

impl ChargerInner {
    async fn execute(&self, request: Request) -> ChargeReply {
        let Request { account, key, charge, route, deployment, seen } = request;
        let fingerprint = Fingerprint::new(charge.customer_id, &charge.currency, charge.amount);
        let in_force = self.controls.in_force();
        let facts = Facts {
            is_keyed: key.is_some(),
            account: account.as_str(),
            route,
            reference: charge.reference.as_deref(),
            customer_id: charge.customer_id,
            currency: &charge.currency,
            amount_minor: charge.amount.units,
            now_ms: self.controls.now_ms(),
        };
        let subject = subject(key.as_ref(), &charge, &fingerprint);
        let (delivery, fault) = match in_force.faults.select_fault(&*self.ledger, subject, &facts).await {
            Ok(selected) => selected,
            Err(error) => return uncounted_answer(&error).into(),
        };
        let (state, decline) = match decide(&in_force, fault.as_ref(), &facts, delivery) {
            Decision::Charge => (State::Charged, None),
            Decision::Decline(decline) => (State::Refused, Some(decline)),
        };
        if let Some(fault) = &fault {
            self.counters.count_fault(fault);
            tracing::info!(
                fault = fault.as_str(),
                key = key.as_ref().map(Key::as_str),
                "a fault of the script struck"
            );
        }
        if let Some(response_fault) = apply_early_fault(fault.as_ref()).await {
            return ChargeReply { answer: Answer::Nothing, response_fault: Some(response_fault) };
        }
        let key = key.filter(|_| fault != Some(Fault::ForgetKey));
        let is_once = self.controls.is_one_charge_per_reference();
        let entry = Arc::new(Entry {
            is_once: is_once && key.is_some() && charge.reference.is_some(),
            key,
            account: account.as_str().to_owned(),
            fingerprint,
            reference: charge.reference,
            customer_id: charge.customer_id,
            currency: charge.currency,
            amount: charge.amount,
            state,
            decline,
            route,
            deployment,
            seen,
        });
        let answer = self.record(&entry).await;
        if fault == Some(Fault::Duplicate) {
            self.record(&entry).await;
        }
        ChargeReply { answer, response_fault: fault.and_then(response_fault) }
    }

    async fn record(&self, entry: &Arc<Entry>) -> Answer {
        crash_point!("P1");
        let mut span = self.tracer.child(Kind::Internal, "ledger commit");
        let recorded = self.ledger.record(entry).await;
        describe(&mut span, entry, &recorded);
        drop(span);
        let answer = match recorded {
            Ok(Recorded::New(seq)) => {
                self.counters.executed(entry.state);
                let (charged, decline) = (entry.state == State::Charged, entry.decline.clone());
                Answer::Decided { seq, charged, decline, replayed: false }
            }
            Ok(Recorded::Known(row)) => self.repeat(&row, entry),
            Ok(Recorded::Foreign) => Answer::KeyForeign,
            Ok(Recorded::ReferenceCharged(row)) => Answer::ReferenceCharged(row.seq, row.key),
            Ok(Recorded::Behind) => {
                tracing::error!(
                    ledger.seen = entry.seen.map(|seq| seq.0),
                    account = entry.account,
                    "this ledger lacks a row that a caller has seen, so nothing is executed: it may have been restored"
                );
                Answer::LedgerBehind
            }
            Err(LedgerError::NotServing(why)) => {
                tracing::debug!(why, "a charge was not executed");
                Answer::NotServing
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "ledger operation failed");
                if matches!(error, LedgerError::NotDurable(_)) {
                    Answer::NotDurable
                } else {
                    Answer::Unavailable
                }
            }
        };
        crash_point!("P4");
        answer
    }

    fn repeat(&self, row: &Row, entry: &Entry) -> Answer {
        match judge_known_key(row, entry) {
            Known::Replay => {
                self.counters.replayed();
                let (charged, decline) = (row.state == State::Charged, row.decline.clone());
                Answer::Decided { seq: row.seq, charged, decline, replayed: true }
            }
            Known::Voided => Answer::KeyVoided(row.seq),
            Known::Reused => Answer::KeyReused(row.seq),
        }
    }
}

/// Records on a span what the ledger did with a charge, without the amount.
fn describe(span: &mut Span, entry: &Entry, recorded: &Result<Recorded, LedgerError>) {
    if !span.is_recorded() {
        return;
    }
    if let Some(key) = &entry.key {
        span.set_attribute("attempt.key", key.as_str().to_owned());
    }
    match recorded {
        Ok(Recorded::New(seq)) => {
            span.set_attribute("ledger.seq", seq.0);
            span.set_attribute("ledger.replayed", false);
        }
        Ok(Recorded::Known(row)) => {
            span.set_attribute("ledger.seq", row.seq.0);
            span.set_attribute("ledger.replayed", true);
        }
        Ok(Recorded::Foreign) => span.fail("key_foreign"),
        Ok(Recorded::ReferenceCharged(_)) => span.fail("reference_charged"),
        Ok(Recorded::Behind) => span.fail("ledger_behind"),
        Err(_) => span.fail("ledger"),
    }
}

fn subject<'a>(key: Option<&'a Key>, charge: &'a Charge, fingerprint: &'a Fingerprint) -> Subject<'a> {
    match (key, &charge.reference) {
        (Some(key), _) => Subject::Key(key.as_str()),
        (None, Some(reference)) => Subject::Reference(reference),
        (None, None) => Subject::Fingerprint(fingerprint.as_str()),
    }
}

/// The answer when a fault could not be counted and might occur again: nothing was executed.
fn uncounted_answer(error: &LedgerError) -> Answer {
    if let LedgerError::NotServing(why) = error {
        tracing::debug!(why, "a charge was not executed");
        return Answer::NotServing;
    }
    tracing::error!(error = error as &dyn std::error::Error, "counting a fault failed");
    Answer::NotDurable
}

/// Decides a charge: by a rule that refuses, by the amount of a test, or by the rates.
fn decide(in_force: &InForce, fault: Option<&Fault>, facts: &Facts<'_>, delivery: Delivery<'_>) -> Decision {
    if let Some(Fault::Refuse(decline)) = fault {
        return Decision::Decline(decline.clone());
    }
    let draw = || in_force.rates.decide(delivery.draw(in_force.seed, "charge"));
    in_force.faults.decision(facts).unwrap_or_else(draw)
}

/// Applies a fault before the charge: waits, or returns a response with nothing executed.
async fn apply_early_fault(fault: Option<&Fault>) -> Option<ResponseFault> {
    match fault? {
        Fault::Latency(wait) => {
            tokio::time::sleep(*wait).await;
            None
        }
        Fault::ErrorBefore => Some(ResponseFault::Fail),
        Fault::Reset => Some(ResponseFault::Reset),
        Fault::Status(instead) if !instead.execute => Some(ResponseFault::Replace(Arc::clone(instead))),
        _ => None,
    }
}

/// The response fault of a fault, after the charge is recorded.
fn response_fault(fault: Fault) -> Option<ResponseFault> {
    match fault {
        Fault::ErrorAfter => Some(ResponseFault::Fail),
        Fault::ReplyLost => Some(ResponseFault::Lose),
        Fault::Malformed => Some(ResponseFault::CutOff),
        Fault::Hold(wait) => Some(ResponseFault::Hold(wait)),
        Fault::Status(instead) => Some(ResponseFault::Replace(instead)),
        Fault::SlowBody(over) => Some(ResponseFault::Slow(over)),
        Fault::TruncatedBody => Some(ResponseFault::Truncate),
        Fault::Refuse(_)
        | Fault::Latency(_)
        | Fault::ErrorBefore
        | Fault::Reset
        | Fault::Duplicate
        | Fault::ForgetKey => None,
    }
}

/// The keys under execution in this process, each within its account. Bounded by the server's calls in flight.
#[derive(Debug, Default)]
struct InFlight(Mutex<HashSet<(Account, Key)>>);

/// Removes its key again when dropped, however the execution ends.
#[derive(Debug)]
struct Pass {
    keys: Arc<InFlight>,
    key: (Account, Key),
}

impl InFlight {
    fn enter(keys: &Arc<Self>, key: &Key, account: &Account) -> Result<Pass, Answer> {
        let key = (account.clone(), key.clone());
        if !keys.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return Err(Answer::KeyInFlight);
        }
        Ok(Pass { keys: Arc::clone(keys), key })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::StartSettings;
    use crate::faults::draw::{Seed, Share};
    use crate::faults::rates::Rates;
    use crate::faults::script::Script;
    use crate::ledger::sqlite::SqliteLedger;
    use chassis::clock::{Clock, Random};
    use chassis::telemetry::Telemetry;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use tempfile::TempDir;

    /// A charger over a real ledger, and the folder of that ledger.
    async fn charger(script: &str) -> (Charger, TempDir) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("payments.db");
        let ledger = SqliteLedger::open(&path, Clock::system(), Random::seeded(1)).await.unwrap();
        let start = StartSettings {
            seed: Seed(1),
            is_seed_set: true,
            rates: Rates::of_success(Share::ALL),
            script: Script::parse(script).unwrap(),
            has_test_amounts: false,
            is_one_charge_per_reference: false,
            at_run_time: false,
        };
        let controls = Controls::new(start, Clock::system());
        let counters = Counters::new(&Telemetry::new("payments", "0", "0").metrics);
        (Charger::new(Arc::new(ledger), controls, counters, Shutdown::new(), Tracer::default()), dir)
    }

    fn request(key: Option<&str>) -> Request {
        let charge = Charge {
            customer_id: 1,
            currency: "EUR".to_owned(),
            amount: Minor::hundredths(100),
            reference: None,
        };
        let key = key.and_then(Key::parse);
        Request { account: Account::default(), key, charge, route: "/", deployment: None, seen: None }
    }

    #[tokio::test]
    async fn executions_without_a_waiting_caller_are_bounded() {
        let (charger, _dir) = charger("[[rule]]\nfault = \"latency\"\nlatency_ms = 3600000").await;
        for _ in 0..EXECUTIONS_MAX {
            let mut call = pin!(charger.charge(request(None)));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(charger.charge(request(None)).await.answer, Answer::Overloaded);
        assert_eq!(charger.charge(request(Some("k"))).await.answer, Answer::Overloaded);
        assert!(charger.0.in_flight.0.lock().unwrap().is_empty(), "an overload holds no key");
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_half_way_is_executed_and_frees_its_key() {
        let (charger, _dir) = charger("").await;
        {
            let mut call = pin!(charger.charge(request(Some("k"))));
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let seen = charger.charge(request(Some("k"))).await.answer;
        assert_eq!(seen, Answer::KeyInFlight, "the dropped call is still being executed");
        charger.0.shutdown.tracker().close();
        charger.0.shutdown.tracker().wait().await;
        let seen = charger.charge(request(Some("k"))).await.answer;
        assert_eq!(seen, Answer::Decided { seq: Seq(1), charged: true, decline: None, replayed: true });
    }
}
