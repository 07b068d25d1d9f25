//! Repairs of a store from the provider's ledger, after it was restored from a backup. Part of the suite: each case
//! takes any fixture.

use std::time::Duration;

use billing::invoice::{AttemptState, AttentionReason, CustomerId, InvoiceId, InvoiceState, PaidBy};
use billing::money::{Currency, Money};
use billing::protocol::key::Key;
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::{
    ImportMode, ImportRow, Imported, LedgerAcceptance, LedgerAcknowledgement, LedgerFact, LedgerSeen,
    REPAIR_NUMBERS_MAX, Repaired, Resolution, Settled, Store, UnbackedAcknowledgement,
};

use crate::fixture::{DEPLOYMENT, Fixture, claimed, imported, reference, run, settle};

fn fact(name: &str, number: u32, outcome: Outcome) -> LedgerFact {
    LedgerFact {
        key: Key::new(DEPLOYMENT, &reference(name), number),
        reference: Some(reference(name)),
        customer_id: Some(CustomerId(1)),
        money: Some(Money { amount_minor: 1215, currency: Currency::EUR }),
        outcome,
        decline: None,
    }
}

async fn stands(store: &dyn Store, id: i64) -> (InvoiceState, Option<PaidBy>, Option<AttentionReason>) {
    let invoice = store.invoice(InvoiceId(id)).await.unwrap().unwrap();
    (invoice.state, invoice.paid_by, invoice.attention_reason)
}

const PAID: (InvoiceState, Option<PaidBy>, Option<AttentionReason>) =
    (InvoiceState::Paid, Some(PaidBy::Charge), None);

async fn forgotten_attempts_are_known_again_and_the_next_has_the_next_number(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let ledger = [
        fact("I1", 1, Outcome::Refused),
        fact("I1", 2, Outcome::Charged),
        fact("I2", 1, Outcome::Refused),
        fact("I3", 1, Outcome::Voided),
    ];
    assert_eq!(store.repair(&ledger).await.unwrap(), [Repaired::Adopted; 4]);
    assert_eq!(
        store.repair(&ledger).await.unwrap(),
        [Repaired::Known; 4],
        "a repair repeated changes nothing"
    );
    assert_eq!(stands(&*store, 1).await, PAID);
    assert_eq!(stands(&*store, 2).await.0, InvoiceState::Pending);
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.pending, counts.charging, counts.paid, counts.attention), (2, 0, 1, 0));
    let run = run(&*store).await;
    let next = claimed(&*store, &run, 2).await;
    assert_eq!(
        next.iter().map(|attempt| (attempt.invoice_id.0, attempt.number)).collect::<Vec<_>>(),
        [(2, 2), (3, 2)]
    );
}

async fn a_row_without_a_reference_is_of_the_attempt_with_its_key(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 4).await;
    let run = run(&*store).await;
    let attempts = claimed(&*store, &run, 4).await;
    let outcomes = [Outcome::Charged, Outcome::Refused, Outcome::Voided];
    for (attempt, outcome) in attempts.iter().zip(outcomes) {
        assert_eq!(settle(&*store, Some(&run), &attempt.key, outcome).await, Settled::Applied);
    }
    let unnamed =
        |number: usize, outcome| LedgerFact { reference: None, ..fact(&format!("I{number}"), 1, outcome) };
    let rows = [
        unnamed(1, Outcome::Voided),
        unnamed(2, Outcome::Refused),
        unnamed(3, Outcome::Voided),
        unnamed(4, Outcome::Voided),
        unnamed(5, Outcome::Voided),
    ];
    let became = [Repaired::Conflict, Repaired::Known, Repaired::Known, Repaired::Settled, Repaired::Unknown];
    assert_eq!(store.repair(&rows).await.unwrap(), became);
    assert_eq!(stands(&*store, 1).await.0, InvoiceState::Attention);
    let of_another =
        LedgerFact { reference: fact("I3", 1, Outcome::Charged).reference, ..unnamed(2, Outcome::Charged) };
    assert_eq!(store.repair(&[of_another]).await.unwrap(), [Repaired::Unknown], "its reference is another's");
}

async fn open_attempts_are_settled_by_their_key(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    claimed(&*store, &run, 2).await;
    let ledger =
        [fact("I1", 1, Outcome::Charged), fact("I2", 1, Outcome::Refused), fact("I2", 2, Outcome::Charged)];
    let became = [Repaired::Settled, Repaired::Settled, Repaired::Adopted];
    assert_eq!(store.repair(&ledger).await.unwrap(), became);
    assert_eq!((stands(&*store, 1).await, stands(&*store, 2).await), (PAID, PAID));
}

async fn keys_of_others_stay_unknown(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let other = LedgerFact { key: fact("I2", 1, Outcome::Charged).key, ..fact("I1", 1, Outcome::Charged) };
    let far = fact("I1", REPAIR_NUMBERS_MAX + 1, Outcome::Charged);
    let nameless = LedgerFact { reference: None, ..fact("I1", 1, Outcome::Voided) };
    let ledger = [other, far, nameless, fact("not imported", 1, Outcome::Charged)];
    assert_eq!(store.repair(&ledger).await.unwrap(), [Repaired::Unknown; 4]);
    assert_eq!(stands(&*store, 1).await.0, InvoiceState::Pending);
}

async fn a_forgotten_charge_of_other_data_needs_an_operator(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let money = Money { amount_minor: 99, currency: Currency::EUR };
    let other = LedgerFact { money: Some(money), ..fact("I1", 1, Outcome::Charged) };
    assert_eq!(store.repair(&[other]).await.unwrap(), [Repaired::Conflict]);
    assert_eq!(stands(&*store, 1).await.2, Some(AttentionReason::KeyReused));
    let attempt = store.attempts((InvoiceId(0), 0), 1).await.unwrap().remove(0);
    assert_eq!((attempt.state, attempt.money), (AttemptState::Charged, money));
}

async fn a_forgotten_charge_beside_an_open_attempt_needs_an_operator(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    claimed(&*store, &run, 1).await;
    let became = store.repair(&[fact("I1", 2, Outcome::Charged)]).await.unwrap();
    assert_eq!(became, [Repaired::Conflict]);
    assert_eq!(stands(&*store, 1).await.2, Some(AttentionReason::ChargedLate));
}

async fn a_charge_of_other_terms_under_a_known_key_pays_nothing(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    claimed(&*store, &run, 2).await;
    let other_money = Money { amount_minor: 99, currency: Currency::EUR };
    let other_amount = LedgerFact { money: Some(other_money), ..fact("I1", 1, Outcome::Charged) };
    let other_customer = LedgerFact { customer_id: Some(CustomerId(77)), ..fact("I2", 1, Outcome::Charged) };
    for _ in 0..2 {
        let repaired = store.repair(&[other_amount.clone(), other_customer.clone()]).await.unwrap();
        assert_eq!(repaired, [Repaired::Conflict; 2]);
        for id in [1, 2] {
            let attention = (InvoiceState::Attention, None, Some(AttentionReason::KeyReused));
            assert_eq!(stands(&*store, id).await, attention);
        }
    }
    let attempts = store.attempts((InvoiceId(0), 0), 9).await.unwrap();
    assert!(attempts.iter().all(|attempt| attempt.state.is_open()), "an operator decides: {attempts:?}");
    let refused = LedgerFact { money: Some(other_money), ..fact("I1", 1, Outcome::Refused) };
    assert_eq!(store.repair(&[refused]).await.unwrap(), [Repaired::Settled], "refused is refused");
    assert_eq!(stands(&*store, 1).await.0, InvoiceState::Pending);
}

async fn a_late_charge_of_an_invoice_edited_since_pays_nothing(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    assert_eq!(store.repair(&[fact("I1", 1, Outcome::Refused)]).await.unwrap(), [Repaired::Adopted]);
    let row = ImportRow {
        reference: reference("I1"),
        customer_id: CustomerId(1),
        money: Money { amount_minor: 9900, currency: Currency::EUR },
        paid: false,
    };
    let edited = store.import(&[row], ImportMode { update: true, dry_run: false }).await.unwrap();
    assert_eq!(edited, [Imported::Updated]);
    assert_eq!(store.repair(&[fact("I1", 1, Outcome::Charged)]).await.unwrap(), [Repaired::Conflict]);
    assert_eq!(stands(&*store, 1).await.2, Some(AttentionReason::KeyReused));
}

async fn acknowledgements_are_kept_in_order_with_reason_and_actor(fixture: impl Fixture) {
    let store = fixture.open().await;
    let acknowledgement = |seq_first, seq_last| LedgerAcknowledgement {
        ledger_id: "00000000-0000-4000-8000-000000000001".to_owned(),
        seq_first,
        seq_last,
        reason: "test charges".to_owned(),
        actor: "ann".to_owned(),
    };
    let mut recorded = Vec::new();
    for (first, last) in [(7, 7), (1, 9), (7, 7)] {
        recorded.push(store.acknowledge(&acknowledgement(first, last)).await.unwrap());
    }
    assert_eq!(recorded[1].acknowledgement, acknowledgement(1, 9));
    assert_eq!(store.ledger_acknowledgements(0, 9).await.unwrap(), recorded);
    assert_eq!(store.ledger_acknowledgements(recorded[0].id, 1).await.unwrap(), recorded[1..2]);
    assert!(store.acknowledge(&acknowledgement(2, 1)).await.is_err(), "a range that is none");
}

async fn a_lost_charge_is_acknowledged_only_of_a_paid_invoice_in_the_settled_ledger(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 3).await;
    let acknowledgement = |ledger_id: &str, name: &str| UnbackedAcknowledgement {
        ledger_id: ledger_id.to_owned(),
        reference: reference(name),
        reason: "the ledger was restored".to_owned(),
        actor: "ann".to_owned(),
    };
    let refused = async |store: &dyn Store, ledger_id, name| {
        assert_eq!(store.acknowledge_unbacked(&acknowledgement(ledger_id, name)).await.unwrap(), None);
    };
    let charged =
        [fact("I1", 1, Outcome::Charged), fact("I2", 1, Outcome::Charged), fact("I3", 1, Outcome::Refused)];
    assert_eq!(store.repair(&charged).await.unwrap(), [Repaired::Adopted; 3]);
    refused(&*store, "L1", "I1").await;
    store.remember_ledger("L1").await.unwrap();
    let mut recorded = Vec::new();
    for name in ["I2", "I1", "I2"] {
        recorded.push(store.acknowledge_unbacked(&acknowledgement("L1", name)).await.unwrap().unwrap());
    }
    assert_eq!(recorded[1].acknowledgement, acknowledgement("L1", "I1"));
    refused(&*store, "L2", "I1").await;
    refused(&*store, "L1", "I3").await;
    refused(&*store, "L1", "I4").await;
    fixture.by_hand("UPDATE invoices SET paid_by = 'import' WHERE reference = 'I1'");
    refused(&*store, "L1", "I1").await;
    assert_eq!(store.unbacked_acknowledgements(0, 9).await.unwrap(), recorded);
    assert_eq!(store.unbacked_acknowledgements(recorded[0].id, 1).await.unwrap(), recorded[1..2]);
}

fn seen(ledger_id: &str, seq: i64) -> LedgerSeen {
    LedgerSeen { ledger_id: ledger_id.to_owned(), seq }
}

async fn the_last_row_of_a_ledger_is_remembered_with_a_settlement_and_never_lowered(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    assert_eq!(store.ledger_seen().await.unwrap(), None);
    store.remember_ledger("L1").await.unwrap();
    assert_eq!(store.ledger_seen().await.unwrap(), Some(seen("L1", 0)));
    let settlements = [Settlement::of(&attempt, Outcome::Charged, Duration::ZERO, None)];
    let settle = async |store: &dyn Store, seen: Option<LedgerSeen>| {
        store.settle_and_see(Some(run.id), &settlements, seen.as_ref()).await.unwrap()
    };
    assert_eq!(settle(&*store, Some(seen("L1", 7))).await, [Settled::Applied]);
    assert_eq!(stands(&*store, 1).await, PAID);
    for lower in [Some(seen("L1", 6)), Some(seen("L2", 9)), None] {
        assert_eq!(settle(&*store, lower).await, [Settled::Same]);
        assert_eq!(store.ledger_seen().await.unwrap(), Some(seen("L1", 7)));
    }
    drop(store);
    let store = fixture.open().await;
    assert_eq!(settle(&*store, Some(seen("L1", 5))).await, [Settled::Same]);
    assert_eq!(store.ledger_seen().await.unwrap(), Some(seen("L1", 7)), "after a restart");
    assert_eq!(settle(&*store, Some(seen("L1", 8))).await, [Settled::Same]);
    assert_eq!(store.ledger_seen().await.unwrap(), Some(seen("L1", 8)));
    let (reason, actor) = ("replaced".to_owned(), "ann".to_owned());
    let other = LedgerAcceptance { ledger_id: "L2".to_owned(), reason, actor };
    store.accept_ledger(&other).await.unwrap();
    assert_eq!(store.ledger_seen().await.unwrap(), Some(seen("L2", 9)), "each ledger has its own rows");
}

async fn a_settlement_whose_ledger_row_cannot_be_remembered_is_not_recorded(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 1).await;
    let run = run(&*store).await;
    let attempt = claimed(&*store, &run, 1).await.remove(0);
    store.remember_ledger("L1").await.unwrap();
    let settlements = [Settlement::of(&attempt, Outcome::Charged, Duration::ZERO, None)];
    let (first, later) = (seen("L1", 7), seen("L1", 8));
    fixture.by_hand("ALTER TABLE ledger_seen RENAME TO taken_away");
    store.settle_and_see(Some(run.id), &settlements, Some(&first)).await.unwrap_err();
    fixture.by_hand("ALTER TABLE taken_away RENAME TO ledger_seen");
    assert_eq!(store.attempt(&attempt.key).await.unwrap().unwrap().state, AttemptState::Intent);
    assert_eq!(stands(&*store, 1).await.0, InvoiceState::Charging);
    assert_eq!(store.run(run.id).await.unwrap().unwrap().counters.paid, 0);
    assert_eq!(store.ledger_seen().await.unwrap(), Some(seen("L1", 0)));
    let settled = store.settle_and_see(Some(run.id), &settlements, Some(&later)).await.unwrap();
    assert_eq!(settled, [Settled::Applied]);
    assert_eq!(store.ledger_seen().await.unwrap(), Some(later));
    assert_eq!(store.run(run.id).await.unwrap().unwrap().counters.paid, 1);
}

async fn words_are_kept_with_what_they_changed(fixture: impl Fixture) {
    let store = fixture.open().await;
    imported(&*store, 2).await;
    let run = run(&*store).await;
    for (attempt, charged) in claimed(&*store, &run, 2).await.iter().zip([true, false]) {
        let (reason, actor) = ("the bank's list".to_owned(), "an operator".to_owned());
        store.resolve(&Resolution { key: attempt.key.clone(), charged, reason, actor }).await.unwrap();
    }
    let words = store.resolutions(0, 10).await.unwrap();
    let changed = words.iter().map(|word| (word.reference.as_str(), word.attempt, word.invoice));
    let (open, charging) = (AttemptState::Intent, InvoiceState::Charging);
    assert_eq!(
        changed.collect::<Vec<_>>(),
        [
            ("I1", Some((open, AttemptState::Charged)), Some((charging, InvoiceState::Paid))),
            ("I2", Some((open, AttemptState::Voided)), Some((charging, InvoiceState::Pending))),
        ]
    );
    assert_eq!(store.resolutions(words[0].id, 10).await.unwrap(), words[1..]);
}

cases! {
    forgotten_attempts_are_known_again_and_the_next_has_the_next_number,
    a_row_without_a_reference_is_of_the_attempt_with_its_key,
    open_attempts_are_settled_by_their_key,
    keys_of_others_stay_unknown,
    a_forgotten_charge_of_other_data_needs_an_operator,
    a_forgotten_charge_beside_an_open_attempt_needs_an_operator,
    a_charge_of_other_terms_under_a_known_key_pays_nothing,
    a_late_charge_of_an_invoice_edited_since_pays_nothing,
    acknowledgements_are_kept_in_order_with_reason_and_actor,
    a_lost_charge_is_acknowledged_only_of_a_paid_invoice_in_the_settled_ledger,
    the_last_row_of_a_ledger_is_remembered_with_a_settlement_and_never_lowered,
    a_settlement_whose_ledger_row_cannot_be_remembered_is_not_recorded,
    words_are_kept_with_what_they_changed,
}
