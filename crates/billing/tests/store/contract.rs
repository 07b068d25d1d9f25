//! The contract of each method, one case per sentence, for every kind of store.

use std::time::Duration;

use billing::invoice::{
    AttemptState, AttentionReason, CustomerId, Invoice, InvoiceId, InvoiceState, PaidBy, Run,
};
use billing::money::{Currency, Money};
use billing::protocol::key::Key;
use billing::protocol::transition::{Conflict, Outcome, Settlement};
use billing::store::{Counts, Evidence, Imported, Resolution, Resolved, Settled, Store, VERSION};

use crate::fixture::{
    DEPLOYMENT, DRY, Fixture, LEASE, LEASE_MS, PLAIN, UPDATE, claimed, imported, row, run, settle,
};

cases_and_pooled! {
    a_new_store_is_empty_and_knows_its_deployment,
    the_first_ledger_is_remembered_for_ever,
    lists_go_on_after_a_cursor,
    an_import_twice_changes_nothing,
    references_are_compared_by_nfc_and_stay_as_they_are_stored,
    a_dry_run_tells_everything_and_changes_nothing,
    rows_of_one_batch_see_each_other,
    an_import_may_update_what_no_attempt_holds,
    an_invoice_that_we_charged_may_come_again_as_pending,
    a_rejected_invoice_is_tried_again_once_its_data_are_fixed,
    a_run_is_joined_while_it_is_unfinished_and_adopted_when_its_lease_has_ended,
    a_claim_is_journaled_before_it_is_answered,
    a_run_attempts_an_invoice_once_and_the_next_run_again_under_the_next_key,
    an_open_attempt_is_leased_to_one_claimer_at_a_time,
    the_oldest_lease_is_claimed_first,
    a_lease_further_ahead_than_a_lease_is_long_is_due,
    an_attempt_given_back_unsent_may_be_sent_at_once_as_if_for_the_first_time,
    what_needs_an_operator_is_not_claimed,
    recovery_ends_every_lease,
    a_settlement_reported_twice_is_the_same,
    a_late_charge_is_recorded_and_pays_the_invoice,
    a_late_charge_beside_an_open_attempt_needs_an_operator_and_never_counts_twice,
    a_contradiction_overwrites_nothing_and_needs_an_operator,
    doubt_is_counted_at_the_run_that_made_the_attempt,
    an_operator_decision_ends_an_open_attempt,
    an_operator_decision_ends_the_waiting_after_a_final_attempt,
    not_charged_waits_by_the_clock_of_the_store_until_no_request_can_be_alive,
    edits_of_an_invoice_do_not_reach_its_open_attempt,
    an_outcome_under_another_key_than_the_rows_settles_nothing,
}

async fn an_outcome_under_another_key_than_the_rows_settles_nothing(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 2).await;
    let of_first = |key: &Key| Settlement {
        key: key.clone(),
        ..Settlement::of(&attempts[0], Outcome::Charged, Duration::ZERO, None)
    };
    for key in [&unknown_key(), &attempts[1].key] {
        assert_eq!(store.settle(Some(run.id), &[of_first(key)]).await.unwrap(), [Settled::Unknown]);
    }
    let both = [of_first(&attempts[1].key), of_first(&attempts[0].key)];
    assert_eq!(store.settle(Some(run.id), &both).await.unwrap(), [Settled::Unknown, Settled::Applied]);
    let states = store.attempts((InvoiceId(0), 0), 9).await.unwrap().into_iter().map(|attempt| attempt.state);
    assert_eq!(states.collect::<Vec<_>>(), [AttemptState::Charged, AttemptState::Intent]);
}

fn unknown_key() -> Key {
    Key::parse("0123456789abcdef0123456789abcdef").unwrap()
}

async fn invoice(store: &dyn Store, id: i64) -> Invoice {
    store.invoice(InvoiceId(id)).await.unwrap().unwrap()
}

async fn state(store: &dyn Store, id: i64) -> (InvoiceState, Option<PaidBy>, Option<AttentionReason>) {
    let invoice = invoice(store, id).await;
    (invoice.state, invoice.paid_by, invoice.attention_reason)
}

const PENDING: (InvoiceState, Option<PaidBy>, Option<AttentionReason>) = (InvoiceState::Pending, None, None);

fn paid(by: PaidBy) -> (InvoiceState, Option<PaidBy>, Option<AttentionReason>) {
    (InvoiceState::Paid, Some(by), None)
}

fn attention(reason: AttentionReason) -> (InvoiceState, Option<PaidBy>, Option<AttentionReason>) {
    (InvoiceState::Attention, None, Some(reason))
}

async fn a_new_store_is_empty_and_knows_its_deployment(fixture: impl Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.deployment().await.unwrap(), DEPLOYMENT);
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    assert!(store.counts().await.unwrap().all_paid());
    assert!(store.invoices(None, InvoiceId(0), 10).await.unwrap().is_empty());
    assert_eq!(store.invoice(InvoiceId(1)).await.unwrap(), None);
    assert_eq!(store.attempt(&unknown_key()).await.unwrap(), None);
    assert_eq!(store.next_open_in().await.unwrap(), None);
    assert_eq!(store.unfinished_run().await.unwrap(), None);
    assert_eq!(store.adopt_run(LEASE).await.unwrap(), None);
    assert_eq!(store.recover().await.unwrap(), 0);
}

async fn the_first_ledger_is_remembered_for_ever(fixture: impl Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.ledger_id().await.unwrap(), None);
    assert_eq!(store.remember_ledger("one").await.unwrap(), "one");
    assert_eq!(store.remember_ledger("two").await.unwrap(), "one");
    drop(store);
    assert_eq!(fixture.open().await.ledger_id().await.unwrap().as_deref(), Some("one"));
}

async fn lists_go_on_after_a_cursor(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 5).await;
    let ids = async |state, after| {
        let page = store.invoices(state, InvoiceId(after), 2).await.unwrap();
        page.into_iter().map(|invoice| invoice.id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 0).await, [1, 2]);
    assert_eq!(ids(None, 4).await, [5]);
    assert_eq!(ids(Some(InvoiceState::Pending), 1).await, [2, 3]);
    assert!(ids(Some(InvoiceState::Attention), 0).await.is_empty());
    let run = run(&*store).await;
    claimed(&*store, &run, 4).await;
    let first = store.attempts((InvoiceId(0), 0), 3).await.unwrap();
    let last = first.last().unwrap();
    assert_eq!(first.len(), 3);
    let rest = store.attempts((last.invoice_id, last.number), 3).await.unwrap();
    assert_eq!(rest.iter().map(|attempt| attempt.invoice_id.0).collect::<Vec<_>>(), [4]);
    assert_eq!(store.customers(CustomerId(0), 10).await.unwrap().len(), 1);
    assert_eq!(store.customer(CustomerId(1)).await.unwrap().unwrap().currency, Currency::EUR);
    assert_eq!(store.customer(CustomerId(2)).await.unwrap(), None);
    let by_reference = store.invoice_by_reference(&row("I3", 0).reference).await.unwrap();
    assert_eq!(by_reference.unwrap().id, InvoiceId(3));
}

async fn references_are_compared_by_nfc_and_stay_as_they_are_stored(fixture: impl Fixture) {
    let store = fixture.open().await;
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    for (first, second) in
        [(composed.to_owned(), decomposed.to_owned()), (format!("{decomposed}2"), format!("{composed}2"))]
    {
        assert_eq!(store.import(&[row(&first, 100)], PLAIN).await.unwrap(), [Imported::Created]);
        assert_eq!(store.import(&[row(&second, 100)], PLAIN).await.unwrap(), [Imported::Unchanged]);
        assert_eq!(store.import(&[row(&second, 200)], PLAIN).await.unwrap(), [Imported::Differs]);
        assert_eq!(store.import(&[row(&second, 200)], UPDATE).await.unwrap(), [Imported::Updated]);
        let asked = billing::invoice::Reference::new(second).unwrap();
        let found = store.invoice_by_reference(&asked).await.unwrap().unwrap();
        assert_eq!((found.reference.as_str(), found.money.amount_minor), (first.as_str(), 200));
    }
    let both = [row("\u{e5}", 1), row("a\u{30a}", 1), row("a\u{30a}", 2)];
    let answers = [Imported::Created, Imported::Unchanged, Imported::Differs];
    assert_eq!(store.import(&both, PLAIN).await.unwrap(), answers);
}

async fn an_import_twice_changes_nothing(fixture: impl Fixture) {
    let store = fixture.open().await;
    let rows = [row("I1", 1215), row("I2", 1025)];
    assert_eq!(store.import(&rows, PLAIN).await.unwrap(), [Imported::Created, Imported::Created]);
    let before = store.invoices(None, InvoiceId(0), 10).await.unwrap();
    fixture.pass(Duration::from_secs(1)).await;
    assert_eq!(store.import(&rows, UPDATE).await.unwrap(), [Imported::Unchanged, Imported::Unchanged]);
    assert_eq!(store.invoices(None, InvoiceId(0), 10).await.unwrap(), before);
}

async fn a_dry_run_tells_everything_and_changes_nothing(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let mut danish = row("I3", 1);
    danish.money.currency = Currency::DKK;
    let rows = [row("I1", 1215), row("I1", 1), row("I2", 1), row("I2", 1), row("I2", 2), danish];
    let answers = [
        Imported::Unchanged,
        Imported::Differs,
        Imported::Created,
        Imported::Unchanged,
        Imported::Differs,
        Imported::CurrencyMismatch(Currency::EUR),
    ];
    for _ in 0..2 {
        assert_eq!(store.import(&rows, DRY).await.unwrap(), answers);
    }
    assert_eq!(store.counts().await.unwrap().pending, 1);
    assert_eq!(store.import(&rows, PLAIN).await.unwrap(), answers);
    assert_eq!(store.counts().await.unwrap().pending, 2);
}

async fn rows_of_one_batch_see_each_other(fixture: impl Fixture) {
    let store = fixture.open().await;
    let new = |name: &str, currency| {
        let mut row = row(name, 100);
        row.customer_id = CustomerId(7);
        row.money.currency = currency;
        row
    };
    let rows = [new("A", Currency::SEK), new("B", Currency::GBP), new("A", Currency::SEK)];
    for mode in [DRY, PLAIN] {
        assert_eq!(
            store.import(&rows, mode).await.unwrap(),
            [Imported::Created, Imported::CurrencyMismatch(Currency::SEK), Imported::Unchanged]
        );
    }
}

async fn an_import_may_update_what_no_attempt_holds(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    let dearer = [row("I1", 9_999), row("I2", 9_999)];
    assert_eq!(store.import(&dearer, PLAIN).await.unwrap(), [Imported::Locked, Imported::Differs]);
    assert_eq!(store.import(&dearer, UPDATE).await.unwrap(), [Imported::Locked, Imported::Updated]);
    assert_eq!(invoice(&*store, 2).await.money.amount_minor, 9_999);
    settle(&*store, Some(&run), &attempt.key, Outcome::Refused).await;
    assert_eq!(store.import(&dearer, UPDATE).await.unwrap(), [Imported::Updated, Imported::Unchanged]);
    let mut settled_elsewhere = row("I2", 9_999);
    settled_elsewhere.paid = true;
    let rows = [settled_elsewhere];
    assert_eq!(store.import(&rows, PLAIN).await.unwrap(), [Imported::Differs]);
    assert_eq!(store.import(&rows, UPDATE).await.unwrap(), [Imported::Updated]);
    assert_eq!(state(&*store, 2).await, paid(PaidBy::Import));
    assert_eq!(store.import(&[row("I2", 9_999)], UPDATE).await.unwrap(), [Imported::Locked]);
}

async fn an_invoice_that_we_charged_may_come_again_as_pending(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    settle(&*store, Some(&run), &attempt.key, Outcome::Charged).await;
    let mut reply = row("I1", 1215);
    assert_eq!(store.import(&[reply.clone()], UPDATE).await.unwrap(), [Imported::Unchanged]);
    reply.paid = true;
    assert_eq!(store.import(&[reply], UPDATE).await.unwrap(), [Imported::Unchanged]);
    assert_eq!(state(&*store, 1).await, paid(PaidBy::Charge));
}

async fn a_rejected_invoice_is_tried_again_once_its_data_are_fixed(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let first = run(&*store).await;
    let attempt = claimed(&*store, &first, 1).await.remove(0);
    settle(&*store, Some(&first), &attempt.key, Outcome::Rejected).await;
    assert_eq!(state(&*store, 1).await, attention(AttentionReason::Rejected));
    store.finish_run(first.id, first.joins).await.unwrap();
    let second = run(&*store).await;
    assert!(store.claim_in_turn(second.id, InvoiceId(0), 9, LEASE).await.unwrap().attempts.is_empty());
    assert_eq!(store.import(&[row("I1", 1300)], UPDATE).await.unwrap(), [Imported::Updated]);
    assert_eq!(state(&*store, 1).await, PENDING);
    let again = claimed(&*store, &second, 1).await.remove(0);
    assert_eq!((again.number, again.money.amount_minor), (2, 1300));
    assert_ne!(again.key, attempt.key);
}

async fn a_run_is_joined_while_it_is_unfinished_and_adopted_when_its_lease_has_ended(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let (first, joined) = store.open_run(LEASE).await.unwrap();
    assert_eq!((joined, first.counters.total, first.finished_at), (false, 3, None));
    assert_eq!(first.begun_by.as_deref(), Some(VERSION));
    let (again, joined) = store.open_run(LEASE * 2).await.unwrap();
    assert_eq!((again.clone(), joined), (Run { joins: 1, ..first.clone() }, true));
    assert_eq!(store.adopt_run(LEASE).await.unwrap(), None);
    fixture.pass(LEASE).await;
    let adopted = store.adopt_run(LEASE).await.unwrap().unwrap();
    assert_eq!(adopted.lease_until, first.lease_until + LEASE_MS);
    assert_eq!(store.adopt_run(LEASE).await.unwrap(), None);
    assert_eq!(store.unfinished_run().await.unwrap(), Some(adopted));
    assert!(store.renew_run(first.id, LEASE).await.unwrap());
    assert!(!store.finish_run(first.id, first.joins).await.unwrap(), "another caller has joined since");
    assert!(store.finish_run(first.id, again.joins).await.unwrap());
    assert!(!store.finish_run(first.id, again.joins).await.unwrap());
    assert!(!store.renew_run(first.id, LEASE).await.unwrap());
    assert!(store.run(first.id).await.unwrap().unwrap().finished_at.is_some());
    let (second, joined) = store.open_run(LEASE).await.unwrap();
    assert!(!joined && second.id > first.id);
    assert!(store.claim_in_turn(first.id, InvoiceId(0), 9, LEASE).await.unwrap().attempts.is_empty());
}

async fn a_claim_is_journaled_before_it_is_answered(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let claimed = claimed(&*store, &run, 2).await;
    let first = &claimed[0];
    assert_eq!(first.key, Key::new(DEPLOYMENT, &first.reference, 1));
    assert_eq!((first.state, first.sends, first.run_id), (AttemptState::Intent, 1, run.id));
    assert_eq!(first.money, Money { amount_minor: 1215, currency: Currency::EUR });
    assert_eq!(first.lease_until, fixture.now_ms() + LEASE_MS);
    drop(store);
    let store = fixture.open().await;
    for attempt in claimed {
        assert_eq!(store.attempt(&attempt.key).await.unwrap(), Some(attempt));
    }
    let counts = Counts { pending: 1, charging: 2, ..Counts::default() };
    assert_eq!(store.counts().await.unwrap(), counts);
    assert_eq!(store.run(run.id).await.unwrap().unwrap().counters.attempted, 2);
}

async fn a_run_attempts_an_invoice_once_and_the_next_run_again_under_the_next_key(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let mut keys = Vec::new();
    for number in 1..=3 {
        let run = run(&*store).await;
        let attempt = claimed(&*store, &run, 1).await.remove(0);
        assert_eq!(attempt.number, number);
        keys.push(attempt.key.clone());
        settle(&*store, Some(&run), &attempt.key, Outcome::Refused).await;
        assert_eq!(state(&*store, 1).await, PENDING);
        assert!(store.claim_in_turn(run.id, InvoiceId(0), 9, LEASE).await.unwrap().attempts.is_empty());
        store.finish_run(run.id, run.joins).await.unwrap();
    }
    keys.dedup();
    assert_eq!(keys.len(), 3);
}

async fn an_open_attempt_is_leased_to_one_claimer_at_a_time(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    claimed(&*store, &run, 2).await;
    assert!(store.claim_open(None, 9, LEASE).await.unwrap().is_empty());
    assert_eq!(store.next_open_in().await.unwrap(), Some(LEASE));
    fixture.pass(LEASE).await;
    assert_eq!(store.next_open_in().await.unwrap(), Some(Duration::ZERO));
    let again = store.claim_open(Some(run.id), 1, LEASE).await.unwrap();
    assert_eq!((again.len(), again[0].sends), (1, 2));
    let other = store.claim_open(Some(run.id), 9, LEASE).await.unwrap();
    assert_eq!(other.len(), 1);
    assert_ne!(again[0].key, other[0].key);
    assert!(store.claim_open(None, 9, LEASE).await.unwrap().is_empty());
    assert_eq!(store.run(run.id).await.unwrap().unwrap().counters.attempted, 4);
}

/// The clock was two hours ahead for a moment.
async fn a_lease_further_ahead_than_a_lease_is_long_is_due(fixture: impl Fixture) {
    const WRONG: Duration = Duration::from_secs(7200);
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let (run, _) = store.open_run(WRONG).await.unwrap();
    let wrong = store.claim_in_turn(run.id, InvoiceId(0), 1, WRONG).await.unwrap().attempts;
    let sound = store.claim_in_turn(run.id, wrong[0].invoice_id, 1, LEASE).await.unwrap().attempts;
    assert_eq!((wrong.len(), sound.len()), (1, 1));
    assert_eq!(store.next_open_in().await.unwrap(), Some(LEASE), "the sound one comes first");
    settle(&*store, Some(&run), &sound[0].key, Outcome::Charged).await;
    assert_eq!(store.next_open_in().await.unwrap(), Some(Duration::ZERO));
    let again = store.claim_open(Some(run.id), 9, LEASE).await.unwrap();
    assert_eq!(again.iter().map(|attempt| &attempt.key).collect::<Vec<_>>(), [&wrong[0].key]);
    assert_eq!(store.next_open_in().await.unwrap(), Some(LEASE));
    assert!(store.adopt_run(LEASE).await.unwrap().is_some(), "the run's lease was wrong too");
    assert_eq!(store.adopt_run(LEASE).await.unwrap(), None);
}

async fn the_oldest_lease_is_claimed_first(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 3).await;
    for (attempt, again_in) in attempts.iter().zip([3, 1, 2]) {
        let again_in = Duration::from_secs(again_in);
        let settlement = Settlement::of(attempt, Outcome::InDoubt(None), again_in, None);
        store.settle(Some(run.id), &[settlement]).await.unwrap();
    }
    fixture.pass(LEASE).await;
    for oldest in [&attempts[1], &attempts[2], &attempts[0]] {
        let again = store.claim_open(None, 1, LEASE).await.unwrap();
        assert_eq!(again.iter().map(|attempt| &attempt.key).collect::<Vec<_>>(), [&oldest.key]);
    }
}

async fn an_attempt_given_back_unsent_may_be_sent_at_once_as_if_for_the_first_time(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    assert_eq!(settle(&*store, Some(&run), &attempt.key, Outcome::NotSent).await, Settled::Applied);
    let back = store.attempt(&attempt.key).await.unwrap().unwrap();
    assert_eq!((back.state, back.sends), (AttemptState::Intent, 0));
    assert_eq!(invoice(&*store, 1).await.state, InvoiceState::Charging);
    let again = store.claim_open(Some(run.id), 9, LEASE).await.unwrap();
    assert_eq!((again[0].key.clone(), again[0].sends), (attempt.key, 1));
    assert_eq!(store.run(run.id).await.unwrap().unwrap().counters.not_sent, 1);
}

async fn what_needs_an_operator_is_not_claimed<F: Fixture>(fixture: F) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    let parked = Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys));
    settle(&*store, Some(&run), &attempt.key, parked).await;
    assert_eq!(state(&*store, 1).await, attention(AttentionReason::InDoubtWithoutKeys));
    let lease_until = store.attempt(&attempt.key).await.unwrap().unwrap().lease_until;
    assert_eq!(store.recover().await.unwrap(), u64::from(!F::SHARED));
    assert_eq!(store.attempt(&attempt.key).await.unwrap().unwrap().lease_until, lease_until);
    fixture.pass(LEASE * 10).await;
    assert_eq!(store.next_open_in().await.unwrap(), None);
    assert!(store.claim_open(None, 9, LEASE).await.unwrap().is_empty());
    let other_reason = Outcome::InDoubt(Some(AttentionReason::KeyReused));
    for outcome in [Outcome::InDoubt(None), other_reason, Outcome::NotSent] {
        settle(&*store, None, &attempt.key, outcome).await;
        let parked = store.attempt(&attempt.key).await.unwrap().unwrap();
        assert_eq!(parked.lease_until, lease_until);
        assert_eq!(state(&*store, 1).await, attention(AttentionReason::InDoubtWithoutKeys));
        assert!(store.claim_open(None, 9, LEASE).await.unwrap().is_empty());
    }
    settle(&*store, None, &attempt.key, Outcome::Charged).await;
    assert_eq!(state(&*store, 1).await, paid(PaidBy::Charge));
}

/// Runs only for a store that one process uses; leases of another process end by themselves.
async fn recovery_ends_every_lease<F: Fixture>(fixture: F) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 2).await;
    settle(&*store, Some(&run), &attempts[0].key, Outcome::InDoubt(None)).await;
    drop(store);
    let store = fixture.open().await;
    if F::SHARED {
        assert_eq!(store.recover().await.unwrap(), 0);
        assert_eq!(store.adopt_run(LEASE).await.unwrap(), None);
        fixture.pass(LEASE).await;
    } else {
        assert_eq!(store.recover().await.unwrap(), 2);
    }
    assert_eq!(store.adopt_run(LEASE).await.unwrap().unwrap().id, run.id);
    let again = store.claim_open(Some(run.id), 9, LEASE).await.unwrap();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|attempt| attempt.sends == 2));
}

async fn a_settlement_reported_twice_is_the_same(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    assert_eq!(settle(&*store, Some(&run), &attempt.key, Outcome::Charged).await, Settled::Applied);
    for outcome in [Outcome::Charged, Outcome::InDoubt(None), Outcome::NotSent] {
        assert_eq!(settle(&*store, Some(&run), &attempt.key, outcome).await, Settled::Same);
    }
    assert_eq!(settle(&*store, None, &unknown_key(), Outcome::Charged).await, Settled::Unknown);
    let counters = store.run(run.id).await.unwrap().unwrap().counters;
    assert_eq!((counters.paid, counters.not_sent, counters.in_doubt), (1, 0, 0));
    assert_eq!(store.attempt(&attempt.key).await.unwrap().unwrap().sends, 1);
}

async fn a_late_charge_is_recorded_and_pays_the_invoice(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    settle(&*store, Some(&run), &attempt.key, Outcome::Refused).await;
    let late = Settled::Conflict(Conflict::ChargedLate);
    assert_eq!(settle(&*store, Some(&run), &attempt.key, Outcome::Charged).await, late);
    assert_eq!(state(&*store, 1).await, paid(PaidBy::Charge));
    let charged = store.attempt(&attempt.key).await.unwrap().unwrap();
    assert_eq!(charged.state, AttemptState::Charged);
}

async fn a_late_charge_beside_an_open_attempt_needs_an_operator_and_never_counts_twice(
    fixture: impl Fixture,
) {
    for (outcome, expected) in [
        (Outcome::Refused, paid(PaidBy::Charge)),
        (Outcome::Charged, attention(AttentionReason::ChargedLate)),
    ] {
        let store = fixture.open().await;
        imported_as(&*store, outcome).await;
        let id = store.invoices(None, InvoiceId(0), 9).await.unwrap().last().unwrap().id;
        let first_run = run(&*store).await;
        let first = claimed(&*store, &first_run, 1).await.remove(0);
        settle(&*store, Some(&first_run), &first.key, Outcome::Refused).await;
        store.finish_run(first_run.id, first_run.joins).await.unwrap();
        let second_run = run(&*store).await;
        let second = claimed(&*store, &second_run, 1).await.remove(0);
        let late = Settled::Conflict(Conflict::ChargedLate);
        assert_eq!(settle(&*store, None, &first.key, Outcome::Charged).await, late);
        assert_eq!(state(&*store, id.0).await, attention(AttentionReason::ChargedLate));
        fixture.pass(LEASE).await;
        assert!(store.claim_open(None, 9, LEASE).await.unwrap().is_empty());
        let settled = settle(&*store, Some(&second_run), &second.key, outcome).await;
        assert_eq!(settled, if outcome == Outcome::Charged { late } else { Settled::Applied });
        assert_eq!(state(&*store, id.0).await, expected);
        store.finish_run(second_run.id, second_run.joins).await.unwrap();
        if outcome == Outcome::Charged {
            paid_back(&*store, &second.key).await;
            assert_eq!(state(&*store, id.0).await, paid(PaidBy::Charge));
        }
    }
}

async fn imported_as(store: &dyn Store, outcome: Outcome) {
    let answers = store.import(&[row(&format!("{outcome:?}"), 100)], PLAIN).await.unwrap();
    assert_eq!(answers, [Imported::Created]);
}

/// Resolves a second charge, which cannot be recorded, as not charged after it was paid back.
async fn paid_back(store: &dyn Store, key: &Key) {
    let word = |charged| Resolution {
        key: key.clone(),
        charged,
        reason: "paid back".to_owned(),
        actor: "an operator".to_owned(),
    };
    assert_eq!(store.resolve(&word(true)).await.unwrap(), Resolved::OtherCharged);
    assert_eq!(store.resolve(&word(false)).await.unwrap(), Resolved::Applied);
}

async fn a_contradiction_overwrites_nothing_and_needs_an_operator(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    settle(&*store, Some(&run), &attempt.key, Outcome::Charged).await;
    let settled = settle(&*store, Some(&run), &attempt.key, Outcome::Refused).await;
    assert_eq!(settled, Settled::Conflict(Conflict::Contradiction));
    assert_eq!(store.attempt(&attempt.key).await.unwrap().unwrap().state, AttemptState::Charged);
    assert_eq!(state(&*store, 1).await, attention(AttentionReason::Contradiction));
    assert_eq!(store.run(run.id).await.unwrap().unwrap().counters.refused, 0);
}

async fn doubt_is_counted_at_the_run_that_made_the_attempt(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let first = run(&*store).await;
    let attempt = claimed(&*store, &first, 1).await.remove(0);
    for _ in 0..2 {
        settle(&*store, Some(&first), &attempt.key, Outcome::InDoubt(None)).await;
        assert_eq!(store.run(first.id).await.unwrap().unwrap().counters.in_doubt, 1);
    }
    store.finish_run(first.id, first.joins).await.unwrap();
    let second = run(&*store).await;
    store.claim_open(Some(second.id), 1, LEASE).await.unwrap();
    settle(&*store, Some(&second), &attempt.key, Outcome::Charged).await;
    let counters = async |id| store.run(id).await.unwrap().unwrap().counters;
    assert_eq!((counters(first.id).await.in_doubt, counters(first.id).await.paid), (0, 0));
    assert_eq!((counters(second.id).await.in_doubt, counters(second.id).await.paid), (0, 1));
}

async fn an_operator_decision_ends_an_open_attempt(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 2).await;
    for (attempt, charged) in attempts.iter().zip([true, false]) {
        let word = Resolution {
            key: attempt.key.clone(),
            charged,
            reason: "the bank's list".to_owned(),
            actor: "an operator".to_owned(),
        };
        assert_eq!(store.resolve(&word).await.unwrap(), Resolved::Applied);
        let stands = if charged { AttemptState::Charged } else { AttemptState::Voided };
        assert_eq!(store.resolve(&word).await.unwrap(), Resolved::Final(stands));
        assert_eq!(store.attempt(&attempt.key).await.unwrap().unwrap().state, stands);
        let unknown = Resolution { key: unknown_key(), ..word };
        assert_eq!(store.resolve(&unknown).await.unwrap(), Resolved::Unknown);
    }
    assert_eq!(state(&*store, 1).await, paid(PaidBy::Resolve));
    assert_eq!(state(&*store, 2).await, PENDING);
}

async fn not_charged_waits_by_the_clock_of_the_store_until_no_request_can_be_alive(fixture: impl Fixture) {
    const QUIET: Duration = Duration::from_secs(16 * 60);
    const MINUTE: Duration = Duration::from_secs(60);
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 2).await;
    let decide = async |at: usize, charged| {
        let (reason, actor) = ("the bank's list".to_owned(), "an operator".to_owned());
        let resolution = Resolution { key: attempts[at].key.clone(), charged, reason, actor };
        store.resolve_by(&resolution, &Evidence::Quiet(QUIET)).await.unwrap()
    };
    // The attempt can be claimed and sent at any moment.
    fixture.pass(2 * QUIET).await;
    assert_eq!(decide(0, false).await, Resolved::TooEarly(QUIET));
    for attempt in &attempts {
        let doubt = Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys));
        settle(&*store, Some(&run), &attempt.key, doubt).await;
    }
    assert_eq!(decide(0, false).await, Resolved::TooEarly(QUIET));
    fixture.pass(QUIET - MINUTE).await;
    assert_eq!(decide(0, false).await, Resolved::TooEarly(MINUTE));
    assert_eq!(state(&*store, 1).await, attention(AttentionReason::InDoubtWithoutKeys));
    assert_eq!(decide(1, true).await, Resolved::Applied, "charged is believed at once");
    fixture.pass(MINUTE).await;
    assert_eq!(decide(0, false).await, Resolved::Applied);
    assert_eq!(decide(0, false).await, Resolved::Final(AttemptState::Voided));
    assert_eq!((state(&*store, 1).await, state(&*store, 2).await), (PENDING, paid(PaidBy::Resolve)));
}

async fn an_operator_decision_ends_the_waiting_after_a_final_attempt(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let first = run(&*store).await;
    let attempts = claimed(&*store, &first, 2).await;
    settle(&*store, Some(&first), &attempts[0].key, Outcome::Rejected).await;
    settle(&*store, Some(&first), &attempts[1].key, Outcome::Charged).await;
    settle(&*store, Some(&first), &attempts[1].key, Outcome::Refused).await;
    store.finish_run(first.id, first.joins).await.unwrap();
    for (attempt, charged, stands) in
        [(&attempts[0], false, AttemptState::Rejected), (&attempts[1], true, AttemptState::Charged)]
    {
        let word = |charged| Resolution {
            key: attempt.key.clone(),
            charged,
            reason: "the customer was unknown there".to_owned(),
            actor: "an operator".to_owned(),
        };
        assert_eq!(store.resolve(&word(!charged)).await.unwrap(), Resolved::Final(stands));
        assert_eq!(store.resolve(&word(charged)).await.unwrap(), Resolved::Applied);
        assert_eq!(store.resolve(&word(charged)).await.unwrap(), Resolved::Final(stands));
        assert_eq!(store.attempt(&attempt.key).await.unwrap().unwrap().state, stands);
    }
    assert_eq!(state(&*store, 1).await, PENDING);
    assert_eq!(state(&*store, 2).await, paid(PaidBy::Resolve));
    let second = run(&*store).await;
    let again = claimed(&*store, &second, 1).await.remove(0);
    assert_eq!((again.invoice_id, again.number), (InvoiceId(1), 2));
    assert_ne!(again.key, attempts[0].key);
}

async fn edits_of_an_invoice_do_not_reach_its_open_attempt(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    settle(&*store, Some(&run), &attempt.key, Outcome::InDoubt(None)).await;
    assert_eq!(store.import(&[row("I1", 1)], UPDATE).await.unwrap(), [Imported::Locked]);
    let again = store.claim_open(None, 1, LEASE).await.unwrap().remove(0);
    assert_eq!((again.key, again.money), (attempt.key, attempt.money));
}
