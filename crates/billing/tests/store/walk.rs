//! Random walks through the contract: a store and the model take each step, then everything is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use billing::invoice::{
    Attempt, AttemptState, CustomerId, InvoiceId, InvoiceState, Network, RunId, RunState,
};
use billing::store::charged_days::DAY_MS;
use billing::store::control::{CustomerAction, OperatorNote};
use billing::store::{Resolution, Store};
use proptest::test_runner::{Config, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::{Builder, Runtime};

use crate::fixture::{Fixture, LEASE, PostgresFixture, SqliteFixture, postgres_kept, settlement};
use crate::model::Model;
use crate::steps::{Contract, Step, StoreReply};

fn run_id(number: usize) -> RunId {
    RunId(i64::try_from(number).unwrap())
}

/// A store under test, on its own runtime.
struct Walk<F> {
    // Dropped before the runtime on which it runs.
    store: Option<Arc<dyn Store>>,
    fixture: F,
    runtime: Runtime,
}

/// How a kind of fixture is created.
trait Made: Fixture + Sized + 'static {
    fn make() -> (Runtime, Self);
}

impl Made for SqliteFixture {
    fn make() -> (Runtime, Self) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let fixture = runtime.block_on(async { Self::new() });
        (runtime, fixture)
    }
}

impl Made for PostgresFixture {
    fn make() -> (Runtime, Self) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let fixture = runtime.block_on(Self::new()).expect("it was there a moment ago");
        (runtime, fixture)
    }
}

impl<F: Made> StateMachineTest for Walk<F> {
    type SystemUnderTest = Self;
    type Reference = Contract<F>;

    fn init_test(_: &Model) -> Self {
        let (runtime, fixture) = F::make();
        let store = Some(runtime.block_on(fixture.open()));
        Self { store, fixture, runtime }
    }

    fn apply(mut walk: Self, model: &Model, step: Step) -> Self {
        let Walk { store, fixture, runtime } = &mut walk;
        match step {
            Step::Pass { time_ms } => runtime.block_on(fixture.pass(Duration::from_millis(time_ms))),
            Step::Reopen => {
                *store = None;
                *store = Some(runtime.block_on(fixture.open()));
            }
            step => runtime.block_on(take(store.as_deref().unwrap(), &step, &model.reply)),
        }
        walk
    }

    fn check_invariants(walk: &Self, model: &Model) {
        walk.runtime.block_on(async {
            assert_eq!(walk.fixture.now_ms(), model.now);
            Compared { store: walk.store.as_deref().unwrap(), model }.compare().await;
        });
    }
}

async fn take(store: &dyn Store, step: &Step, reply: &StoreReply) {
    match (step, reply) {
        (Step::Import { rows, mode }, StoreReply::Imported(answers)) => {
            assert_eq!(store.import(rows, *mode).await.unwrap(), *answers);
        }
        (Step::OpenRun, StoreReply::Opened { run, joined }) => {
            let (opened, was_joined) = store.open_run(LEASE).await.unwrap();
            assert_eq!((opened.id, was_joined), (run_id(*run), *joined));
        }
        (Step::AdoptRun, StoreReply::Adopted(adopted)) => {
            let run = store.adopt_run(LEASE).await.unwrap();
            assert_eq!(run.map(|run| run.id), adopted.map(run_id));
        }
        (Step::RenewRuns | Step::FinishRuns, StoreReply::Runs(runs)) => take_runs(store, step, runs).await,
        (Step::ClaimPending { after, .. }, StoreReply::ClaimedPending { run, limit, keys }) => {
            let claimed =
                store.claim_in_turn(run_id(*run), InvoiceId(*after), *limit, LEASE).await.unwrap().attempts;
            let claimed: Vec<_> = claimed.into_iter().map(|attempt| attempt.key).collect();
            assert_eq!(claimed, *keys);
        }
        (Step::ClaimOpen { .. }, StoreReply::ClaimedOpen { run, limit, keys }) => {
            let claimed = store.claim_open(run.map(run_id), *limit, LEASE).await.unwrap();
            let claimed: BTreeSet<_> = claimed.iter().map(|attempt| &attempt.key).collect();
            assert_eq!(claimed, keys.iter().collect());
        }
        (Step::Settle { words, .. }, StoreReply::Settled { run, answers }) => {
            let mut settlements = Vec::with_capacity(words.len());
            for (key, outcome, again_in_ms) in words {
                let again_in = Duration::from_millis(u64::from(*again_in_ms));
                settlements.push(settlement(store, key, *outcome, again_in).await);
            }
            let settled = store.settle(run.map(run_id), &settlements).await.unwrap();
            assert_eq!(settled, *answers, "{settlements:?}");
        }
        (Step::Resolve { key, charged }, StoreReply::Resolved(answer)) => {
            let (reason, actor) = ("asked the bank".to_owned(), "an operator".to_owned());
            let resolution = Resolution { key: key.clone(), charged: *charged, reason, actor };
            assert_eq!(store.resolve(&resolution).await.unwrap(), *answer);
        }
        (Step::SetNetwork { customer, is_known }, StoreReply::Controlled(answer)) => {
            let network = if *is_known { Network::Sepa } else { Network::None };
            let (reason, actor) = ("a call".to_owned(), "an operator".to_owned());
            let (action, note) = (CustomerAction::SetNetwork(network), OperatorNote { reason, actor });
            let controlled = store.control_customer(CustomerId(*customer), action, &note).await.unwrap();
            assert_eq!(controlled, *answer);
        }
        (Step::Recover, StoreReply::Recovered(open)) => assert_eq!(store.recover().await.unwrap(), *open),
        (_, reply) => assert_eq!(*reply, StoreReply::Nothing),
    }
}

async fn take_runs(store: &dyn Store, step: &Step, runs: &[(bool, i64)]) {
    for (&(goes_on, joins), number) in runs.iter().zip(1..) {
        let id = run_id(number);
        if matches!(step, Step::RenewRuns) {
            assert_eq!(store.renew_run(id, LEASE).await.unwrap(), goes_on);
            continue;
        }
        assert!(!store.finish_run(id, joins + 1).await.unwrap(), "it has other joins");
        assert_eq!(store.finish_run(id, joins).await.unwrap(), goes_on);
    }
}

/// The facts that are compared after each step.
struct Compared<'a> {
    store: &'a dyn Store,
    model: &'a Model,
}

impl Compared<'_> {
    async fn compare(&self) {
        self.compare_invoices().await;
        self.compare_attempts().await;
        for (place, expected) in self.model.runs.iter().enumerate() {
            let run = self.store.run(run_id(place + 1)).await.unwrap().unwrap();
            assert_eq!(run.state == RunState::Finished, expected.finished);
            assert_eq!((run.lease_until, run.joins), (expected.lease_until, expected.joins));
            assert_eq!(run.counters, expected.counters);
        }
        let unfinished = self.store.unfinished_run().await.unwrap();
        assert_eq!(unfinished.map(|run| run.id), self.model.running().map(run_id));
        assert_eq!(self.store.counts().await.unwrap(), self.model.counts());
        let due = self.model.resendable().first().map(|(lease_until, _)| lease_until - self.model.now);
        let due = due.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        assert_eq!(self.store.next_open_in().await.unwrap(), due);
    }

    async fn compare_invoices(&self) {
        let invoices = self.store.invoices(None, InvoiceId(0), 1000).await.unwrap();
        assert_eq!(invoices.len(), self.model.invoices.len());
        for ((invoice, expected), number) in invoices.iter().zip(&self.model.invoices).zip(1..) {
            assert_eq!(invoice.id, InvoiceId(number));
            assert_eq!(invoice.reference.as_str(), expected.reference);
            assert_eq!((invoice.customer_id.0, invoice.money), (expected.customer, expected.money));
            assert_eq!(invoice.state, expected.state);
            assert_eq!((invoice.paid_by, invoice.attention_reason), (expected.paid_by, expected.attention));
        }
        for &state in InvoiceState::ALL {
            let of_state = self.store.invoices(Some(state), InvoiceId(0), 1000).await.unwrap();
            let expected: Vec<_> = invoices.iter().filter(|invoice| invoice.state == state).collect();
            assert_eq!(of_state.iter().collect::<Vec<_>>(), expected);
        }
    }

    async fn compare_attempts(&self) {
        let attempts = self.store.attempts((InvoiceId(0), 0), 1000).await.unwrap();
        assert_eq!(attempts.len(), self.model.attempts.len());
        assert!(attempts.is_sorted_by_key(|attempt| (attempt.invoice_id, attempt.number)));
        let (mut open, mut charged) = (Vec::new(), Vec::new());
        for attempt in &attempts {
            let expected = &self.model.attempts[&attempt.key];
            let invoice = InvoiceId(i64::try_from(expected.invoice).unwrap());
            assert_eq!((attempt.invoice_id, attempt.number), (invoice, expected.number));
            assert_eq!(attempt.run_id, run_id(expected.run));
            assert_eq!((attempt.customer_id.0, attempt.money), (expected.customer, expected.money));
            assert_eq!((attempt.state, attempt.sends), (expected.state, expected.sends), "{attempt:?}");
            assert_eq!(attempt.settled_at.is_some(), !expected.state.is_open());
            let invoice = self.model.invoices[expected.invoice - 1].state;
            if expected.state.is_open() && invoice == InvoiceState::Charging {
                assert_eq!(attempt.lease_until, expected.lease_until);
            }
            if attempt.state.is_open() {
                open.push(attempt.invoice_id);
                assert!(matches!(invoice, InvoiceState::Charging | InvoiceState::Attention));
            }
            if attempt.state == AttemptState::Charged {
                charged.push(attempt.invoice_id);
                assert!(matches!(invoice, InvoiceState::Paid | InvoiceState::Attention));
            }
        }
        self.compare_charged_days(&attempts).await;
        for mut guarded in [open, charged] {
            let all = guarded.len();
            guarded.dedup();
            assert_eq!(guarded.len(), all, "one open and one charged attempt an invoice at most");
        }
    }
}

impl Compared<'_> {
    /// Compares the sums with their attempts.
    async fn compare_charged_days(&self, attempts: &[Attempt]) {
        let mut expected = BTreeMap::new();
        for attempt in attempts.iter().filter(|attempt| attempt.state == AttemptState::Charged) {
            let day = attempt.settled_at.unwrap().div_euclid(DAY_MS);
            let (charges, amount_minor) = expected.entry((day, attempt.money.currency)).or_insert((0, 0));
            *charges += 1;
            *amount_minor += attempt.money.amount_minor;
        }
        let days = self.store.charged_days(0, 1000).await.unwrap();
        let sums =
            days.iter().map(|day| ((day.day, day.money.currency), (day.charges, day.money.amount_minor)));
        assert_eq!(sums.collect::<BTreeMap<_, _>>(), expected);
    }
}

fn walks<F: Made>(cases: u32) {
    let config = Config { cases, max_shrink_iters: 400, failure_persistence: None, ..Config::default() };
    let walks = Contract::<F>::sequential_strategy(1..60);
    let walked = TestRunner::new(config.clone()).run(&walks, |(model, steps, seen)| {
        Walk::<F>::test_sequential(config.clone(), model, steps, seen);
        Ok(())
    });
    walked.unwrap_or_else(|error| panic!("{error}"));
}

/// The number of walks, unless an environment variable sets another.
fn number(small: usize) -> u32 {
    u32::try_from(testkit::size("STORE_WALKS", small)).unwrap()
}

#[test]
fn every_walk_through_sqlite_agrees_with_the_model() {
    walks::<SqliteFixture>(number(64));
}

#[test]
fn every_walk_through_postgresql_agrees_with_the_model() {
    let Some(_kept) = postgres_kept() else { return };
    walks::<PostgresFixture>(number(12));
}
