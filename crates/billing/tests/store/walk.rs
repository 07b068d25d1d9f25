//! Random walks through the contract: each step is taken by the store and by the model, then everything is compared.

use std::sync::Arc;
use std::time::Duration;

use billing::invoice::{AttemptState, AttentionReason, CustomerId, InvoiceId, InvoiceState, RunId, RunState};
use billing::money::{Currency, Money};
use billing::protocol::key::Key;
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::{ImportMode, ImportRow, Resolution, Store};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fixture::{Fixture, LEASE, LEASE_MS, SqliteFixture, reference};
use crate::model::Model;

fn run_id(number: usize) -> RunId {
    RunId(i64::try_from(number).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Import { rows: Vec<ImportRow>, mode: ImportMode },
    OpenRun,
    AdoptRun,
    RenewRun,
    FinishRun,
    ClaimPending { after: i64, limit: usize },
    ClaimOpen { in_run: bool, limit: usize },
    Settle { in_run: bool, words: Vec<(usize, Outcome, u32)> },
    Resolve { which: usize, charged: bool },
    Pass { time_ms: u64 },
    Recover,
    Reopen,
}

fn an_import_row() -> impl Strategy<Value = ImportRow> {
    let currency = prop_oneof![9 => Just(Currency::Eur), 1 => Just(Currency::Dkk)];
    let amount = prop_oneof![8 => Just(1215), 1 => Just(1216)];
    (1..10_u32, 1..3_i64, currency, amount, prop::bool::weighted(0.1)).prop_map(
        |(number, customer, currency, amount_minor, paid)| ImportRow {
            reference: reference(&format!("I{number}")),
            customer_id: CustomerId(customer),
            money: Money { amount_minor, currency },
            paid,
        },
    )
}

fn an_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Charged),
        4 => Just(Outcome::Refused),
        1 => Just(Outcome::Rejected),
        1 => Just(Outcome::Voided),
        3 => Just(Outcome::InDoubt(None)),
        1 => Just(Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys))),
        1 => Just(Outcome::InDoubt(Some(AttentionReason::KeyReused))),
        2 => Just(Outcome::NotSent),
    ]
}

/// Mostly one of the newest, so that several words meet on one attempt.
fn an_attempt() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..4_usize, 1 => 0..40_usize]
}

fn a_step() -> impl Strategy<Value = Step> {
    let words = vec((an_attempt(), an_outcome(), prop_oneof![Just(0), Just(700)]), 1..6);
    let mode = (prop::bool::weighted(0.2), prop::bool::weighted(0.4))
        .prop_map(|(dry_run, update)| ImportMode { dry_run, update });
    prop_oneof![
        3 => (vec(an_import_row(), 1..8), mode).prop_map(|(rows, mode)| Step::Import { rows, mode }),
        4 => Just(Step::OpenRun),
        1 => Just(Step::AdoptRun),
        1 => Just(Step::RenewRun),
        2 => Just(Step::FinishRun),
        6 => (0..3_i64, 1..6_usize).prop_map(|(after, limit)| Step::ClaimPending { after, limit }),
        3 => (any::<bool>(), 1..6_usize).prop_map(|(in_run, limit)| Step::ClaimOpen { in_run, limit }),
        8 => (any::<bool>(), words).prop_map(|(in_run, words)| Step::Settle { in_run, words }),
        2 => (an_attempt(), any::<bool>()).prop_map(|(which, charged)| Step::Resolve { which, charged }),
        3 => prop_oneof![Just(500), Just(15_000), Just(60_000)].prop_map(|time_ms| Step::Pass { time_ms }),
        1 => Just(Step::Recover),
        1 => Just(Step::Reopen),
    ]
}

struct Walk<F> {
    fixture: F,
    store: Option<Arc<dyn Store>>,
    model: Model,
}

impl<F: Fixture> Walk<F> {
    async fn new(fixture: F) -> Self {
        let store = Some(fixture.open().await);
        let model = Model { now: fixture.now_ms(), ..Model::default() };
        Self { fixture, store, model }
    }

    fn store(&self) -> &dyn Store {
        self.store.as_deref().unwrap()
    }

    /// The attempt that a random number stands for, newest first; now and then one that nobody knows.
    fn key(&self, which: usize) -> Key {
        let unknown = Key::parse("0123456789abcdef0123456789abcdef").unwrap();
        let mut keys: Vec<_> = self.model.attempts.iter().map(|(key, attempt)| (attempt.run, key)).collect();
        keys.sort_by(|one, other| other.cmp(one));
        keys.get(which % (keys.len() + 1)).map_or(unknown, |(_, key)| (*key).clone())
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Import { rows, mode } => {
                let answers = self.store().import(rows, *mode).await.unwrap();
                assert_eq!(answers, self.model.import(rows, *mode));
            }
            Step::OpenRun | Step::AdoptRun | Step::RenewRun | Step::FinishRun => self.step_runs(step).await,
            Step::ClaimPending { after, limit } => {
                // Without an unfinished run the last one asks, and gets nothing.
                let run = self.model.running().unwrap_or(self.model.runs.len());
                if run == 0 {
                    return;
                }
                let claimed = self.store().claim_pending(run_id(run), InvoiceId(*after), *limit, LEASE).await;
                let claimed: Vec<_> = claimed.unwrap().into_iter().map(|attempt| attempt.key).collect();
                assert_eq!(claimed, self.model.claim_pending(run, *after, *limit, LEASE_MS));
            }
            Step::ClaimOpen { in_run, limit } => {
                self.claim_open(self.model.running().filter(|_| *in_run), *limit).await;
            }
            Step::Settle { in_run, words } => {
                self.settle(self.model.running().filter(|_| *in_run), words).await;
            }
            Step::Resolve { which, charged } => {
                let resolution = Resolution {
                    key: self.key(*which),
                    charged: *charged,
                    reason: "asked the bank".to_owned(),
                    actor: "an operator".to_owned(),
                };
                let resolved = self.store().resolve(&resolution).await.unwrap();
                assert_eq!(resolved, self.model.resolve(&resolution.key, *charged));
            }
            Step::Pass { time_ms } => {
                self.fixture.pass(Duration::from_millis(*time_ms)).await;
                self.model.now = self.fixture.now_ms();
            }
            Step::Recover => {
                assert_eq!(self.store().recover().await.unwrap(), self.model.recover());
            }
            Step::Reopen => {
                self.store = None;
                self.store = Some(self.fixture.open().await);
            }
        }
    }

    async fn step_runs(&mut self, step: &Step) {
        let store = self.store.clone().unwrap();
        let now = self.model.now;
        match step {
            Step::AdoptRun => {
                let adopted = store.adopt_run(LEASE).await.unwrap();
                let running = self.model.running();
                let due = running.filter(|run| self.model.runs[run - 1].lease_until <= now);
                assert_eq!(adopted.map(|run| run.id), due.map(run_id));
                if let Some(run) = due {
                    self.model.runs[run - 1].lease_until = now + LEASE_MS;
                }
            }
            Step::RenewRun => {
                for (run, number) in self.model.runs.iter_mut().zip(1..) {
                    assert_eq!(store.renew_run(run_id(number), LEASE).await.unwrap(), !run.finished);
                    run.lease_until = if run.finished { run.lease_until } else { now + LEASE_MS };
                }
            }
            Step::FinishRun => {
                for (run, number) in self.model.runs.iter_mut().zip(1..) {
                    let (id, joins) = (run_id(number), run.joins);
                    assert!(!store.finish_run(id, joins + 1).await.unwrap(), "it has other joins");
                    assert_eq!(store.finish_run(id, joins).await.unwrap(), !run.finished);
                    run.finished = true;
                }
            }
            _ => {
                let (run, joined) = store.open_run(LEASE).await.unwrap();
                let (expected, expected_joined) = self.model.open_run(LEASE_MS);
                assert_eq!((run.id, joined), (run_id(expected), expected_joined));
            }
        }
    }

    /// Which of several equally due attempts are taken is the store's choice; that they are due, and the oldest, is not.
    async fn claim_open(&mut self, run: Option<usize>, limit: usize) {
        let mut due = self.model.resendable();
        due.retain(|(lease_until, _)| *lease_until <= self.model.now);
        let claimed = self.store().claim_open(run.map(run_id), limit, LEASE).await.unwrap();
        assert_eq!(claimed.len(), due.len().min(limit));
        let latest = due.get(claimed.len().saturating_sub(1)).map(|(lease_until, _)| *lease_until);
        for attempt in claimed {
            let was = self.model.attempts[&attempt.key].lease_until;
            assert!(Some(was) <= latest && due.contains(&(was, attempt.key.clone())));
            self.model.lease_again(run, &attempt.key, LEASE_MS);
            assert_eq!(attempt.sends, self.model.attempts[&attempt.key].sends);
        }
    }

    async fn settle(&mut self, run: Option<usize>, words: &[(usize, Outcome, u32)]) {
        let settlements: Vec<_> = words
            .iter()
            .map(|(which, outcome, again_in_ms)| Settlement {
                key: self.key(*which),
                outcome: *outcome,
                again_in: Duration::from_millis(u64::from(*again_in_ms)),
            })
            .collect();
        let answers = self.store().settle(run.map(run_id), &settlements).await.unwrap();
        let expected: Vec<_> = settlements
            .iter()
            .zip(words)
            .map(|(settlement, (_, outcome, again_in_ms))| {
                self.model.settle(run, &settlement.key, *outcome, i64::from(*again_in_ms))
            })
            .collect();
        assert_eq!(answers, expected, "{settlements:?}");
    }

    async fn compare(&self) {
        self.compare_invoices().await;
        self.compare_attempts().await;
        for (place, expected) in self.model.runs.iter().enumerate() {
            let run = self.store().run(run_id(place + 1)).await.unwrap().unwrap();
            assert_eq!(run.state == RunState::Finished, expected.finished);
            assert_eq!((run.lease_until, run.joins), (expected.lease_until, expected.joins));
            assert_eq!(run.counters, expected.counters);
        }
        let unfinished = self.store().unfinished_run().await.unwrap();
        assert_eq!(unfinished.map(|run| run.id), self.model.running().map(run_id));
        assert_eq!(self.store().counts().await.unwrap(), self.model.counts());
        let due = self.model.resendable().first().map(|(lease_until, _)| lease_until - self.model.now);
        let due = due.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        assert_eq!(self.store().next_open_in().await.unwrap(), due);
    }

    async fn compare_invoices(&self) {
        let invoices = self.store().invoices(None, InvoiceId(0), 1000).await.unwrap();
        assert_eq!(invoices.len(), self.model.invoices.len());
        for ((invoice, expected), number) in invoices.iter().zip(&self.model.invoices).zip(1..) {
            assert_eq!(invoice.id, InvoiceId(number));
            assert_eq!(invoice.reference.as_str(), expected.reference);
            assert_eq!((invoice.customer_id.0, invoice.money), (expected.customer, expected.money));
            assert_eq!(invoice.state, expected.state);
            assert_eq!((invoice.paid_by, invoice.attention_reason), (expected.paid_by, expected.attention));
        }
        for &state in InvoiceState::ALL {
            let of_state = self.store().invoices(Some(state), InvoiceId(0), 1000).await.unwrap();
            let expected: Vec<_> = invoices.iter().filter(|invoice| invoice.state == state).collect();
            assert_eq!(of_state.iter().collect::<Vec<_>>(), expected);
        }
    }

    async fn compare_attempts(&self) {
        let attempts = self.store().attempts((InvoiceId(0), 0), 1000).await.unwrap();
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
        for mut guarded in [open, charged] {
            let all = guarded.len();
            guarded.dedup();
            assert_eq!(guarded.len(), all, "one open and one charged attempt an invoice at most");
        }
    }
}

async fn walk(fixture: impl Fixture, steps: &[Step]) {
    let mut walk = Walk::new(fixture).await;
    for step in steps {
        walk.step(step).await;
        walk.compare().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_walk_through_sqlite_agrees_with_the_model(steps in vec(a_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { walk(SqliteFixture::new(), &steps).await });
    }
}
