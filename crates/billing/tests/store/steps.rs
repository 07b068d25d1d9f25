//! Steps through the contract and the model's reply to each: the reference for every store. Knows no store.

use std::fmt;
use std::marker::PhantomData;

use billing::invoice::{AttentionReason, CustomerId};
use billing::money::{Currency, Money};
use billing::protocol::key::Key;
use billing::protocol::transition::Outcome;
use billing::store::control::Controlled;
use billing::store::{BATCH_MAX, ImportMode, ImportRow, Imported, Resolved, Settled};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::fixture::{Fixture, LEASE_MS, START_MS, reference};
use crate::model::Model;

/// One call of the contract. Its keys were chosen from those that the model knew.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Import { rows: Vec<ImportRow>, mode: ImportMode },
    OpenRun,
    AdoptRun,
    RenewRuns,
    FinishRuns,
    ClaimPending { after: i64, limit: usize },
    ClaimOpen { in_run: bool, limit: usize },
    Settle { in_run: bool, words: Vec<(Key, Outcome, u32)> },
    Resolve { key: Key, charged: bool },
    SetNetwork { customer: i64, is_known: bool },
    Pass { time_ms: u64 },
    Recover,
    Reopen,
}

/// The contract's reply to a step; runs by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum StoreReply {
    #[default]
    Nothing,
    Imported(Vec<Imported>),
    Opened {
        run: usize,
        joined: bool,
    },
    Adopted(Option<usize>),
    /// Whether each run is unfinished, and its joins.
    Runs(Vec<(bool, i64)>),
    /// If a customer's network is known, `limit` is so large that one claim takes all: after how many waiting invoices
    /// a smaller claim ends is the store's choice.
    ClaimedPending {
        run: usize,
        limit: usize,
        keys: Vec<Key>,
    },
    /// `limit` includes all or none of the equally old leases: which of them a smaller claim takes is the store's
    /// choice.
    ClaimedOpen {
        run: Option<usize>,
        limit: usize,
        keys: Vec<Key>,
    },
    Settled {
        run: Option<usize>,
        answers: Vec<Settled>,
    },
    Resolved(Resolved),
    Controlled(Controlled),
    Recovered(u64),
}

/// The contract of stores of this kind.
pub(crate) struct Contract<F>(PhantomData<F>);

impl<F> fmt::Debug for Contract<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contract")
    }
}

impl<F: Fixture + 'static> ReferenceStateMachine for Contract<F> {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model { now: START_MS, shared: F::SHARED, ..Model::default() }).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        a_step(known_keys(model))
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        model.reply = tell(&mut model, step);
        model
    }
}

fn tell(model: &mut Model, step: &Step) -> StoreReply {
    match step {
        Step::Import { rows, mode } => StoreReply::Imported(model.import(rows, *mode)),
        Step::OpenRun => {
            let (run, joined) = model.open_run(LEASE_MS);
            StoreReply::Opened { run, joined }
        }
        Step::AdoptRun => StoreReply::Adopted(model.adopt_run(LEASE_MS)),
        Step::RenewRuns => {
            let runs = model.known_runs();
            model.renew_runs(LEASE_MS);
            StoreReply::Runs(runs)
        }
        Step::FinishRuns => {
            let runs = model.known_runs();
            model.runs.iter_mut().for_each(|run| run.finished = true);
            StoreReply::Runs(runs)
        }
        // Without an unfinished run the last run claims, and gets nothing.
        Step::ClaimPending { after, limit } => match model.running().unwrap_or(model.runs.len()) {
            0 => StoreReply::Nothing,
            run => {
                let limit = if model.networks.is_empty() { *limit } else { BATCH_MAX };
                let keys = model.claim_pending(run, *after, limit, LEASE_MS);
                StoreReply::ClaimedPending { run, limit, keys }
            }
        },
        Step::ClaimOpen { in_run, limit } => {
            let run = model.running().filter(|_| *in_run);
            let keys = model.claim_open(run, *limit, LEASE_MS);
            StoreReply::ClaimedOpen { run, limit: keys.len().max(*limit), keys }
        }
        Step::Settle { in_run, words } => {
            let run = model.running().filter(|_| *in_run);
            let settle = |(key, outcome, again_in_ms): &(Key, Outcome, u32)| {
                model.settle(run, key, *outcome, i64::from(*again_in_ms))
            };
            StoreReply::Settled { run, answers: words.iter().map(settle).collect() }
        }
        Step::Resolve { key, charged } => StoreReply::Resolved(model.resolve(key, *charged)),
        Step::SetNetwork { customer, is_known } => {
            StoreReply::Controlled(model.set_network(*customer, *is_known))
        }
        Step::Pass { time_ms } => {
            model.now += i64::try_from(*time_ms).unwrap();
            StoreReply::Nothing
        }
        Step::Recover => StoreReply::Recovered(if model.shared { 0 } else { model.recover() }),
        Step::Reopen => StoreReply::Nothing,
    }
}

/// Newest first; then a key that is not in the store.
fn known_keys(model: &Model) -> Vec<Key> {
    let unknown = Key::parse("0123456789abcdef0123456789abcdef").unwrap();
    let mut keys: Vec<_> = model.attempts.iter().map(|(key, attempt)| (attempt.run, key)).collect();
    keys.sort_by(|one, other| other.cmp(one));
    keys.into_iter().map(|(_, key)| key.clone()).chain([unknown]).collect()
}

fn an_import_row() -> impl Strategy<Value = ImportRow> {
    let currency = prop_oneof![9 => Just(Currency::EUR), 1 => Just(Currency::DKK)];
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

/// Mostly one of the newest, so that several settlements and decisions concern one attempt.
fn a_key(keys: Vec<Key>) -> impl Strategy<Value = Key> {
    let place = prop_oneof![3 => 0..4_usize, 1 => 0..40_usize];
    place.prop_map(move |place| keys[place % keys.len()].clone())
}

fn a_step(keys: Vec<Key>) -> BoxedStrategy<Step> {
    let words = vec((a_key(keys.clone()), an_outcome(), prop_oneof![Just(0), Just(700)]), 1..6);
    let mode = (prop::bool::weighted(0.2), prop::bool::weighted(0.4))
        .prop_map(|(dry_run, update)| ImportMode { dry_run, update });
    prop_oneof![
        3 => (vec(an_import_row(), 1..8), mode).prop_map(|(rows, mode)| Step::Import { rows, mode }),
        4 => Just(Step::OpenRun),
        1 => Just(Step::AdoptRun),
        1 => Just(Step::RenewRuns),
        2 => Just(Step::FinishRuns),
        6 => (0..3_i64, 1..6_usize).prop_map(|(after, limit)| Step::ClaimPending { after, limit }),
        3 => (any::<bool>(), 1..6_usize).prop_map(|(in_run, limit)| Step::ClaimOpen { in_run, limit }),
        8 => (any::<bool>(), words).prop_map(|(in_run, words)| Step::Settle { in_run, words }),
        2 => (a_key(keys), any::<bool>()).prop_map(|(key, charged)| Step::Resolve { key, charged }),
        2 => (1..3_i64, prop::bool::weighted(0.7))
            .prop_map(|(customer, is_known)| Step::SetNetwork { customer, is_known }),
        3 => prop_oneof![Just(500), Just(15_000), Just(60_000)].prop_map(|time_ms| Step::Pass { time_ms }),
        1 => Just(Step::Recover),
        1 => Just(Step::Reopen),
    ]
    .boxed()
}
