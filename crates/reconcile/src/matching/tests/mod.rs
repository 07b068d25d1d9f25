//! Each kind of finding, tested separately.

mod agreement;
mod partitioned;

use super::*;
use crate::acknowledged::{Acknowledgement, UnbackedAcknowledgement};
use crate::facts::{InvoiceState, PaidBy};
use crate::index::BYTES_PER_INVOICE_MAX;

/// A small data set without findings: one invoice `I1`, charged and PAID. Tests change it.
#[derive(Debug)]
struct World {
    invoices: Vec<InvoiceFact>,
    attempts: Vec<AttemptFact>,
    rows: Vec<LedgerRow>,
    run: bool,
}

/// Runs all three phases over whole lists; each row was in the ledger before billing was read.
fn reconcile(
    invoices: impl IntoIterator<Item = InvoiceFact>,
    attempts: impl IntoIterator<Item = AttemptFact>,
    rows: impl IntoIterator<Item = LedgerRow>,
    run_is_unfinished: bool,
    deployment: Option<Uuid>,
) -> Reconciliation {
    let mut phase = InvoicePhase::default();
    invoices.into_iter().for_each(|invoice| phase.add(&invoice));
    let mut phase = phase.into_attempts(deployment);
    attempts.into_iter().for_each(|attempt| phase.add(&attempt));
    let mut phase = phase.into_ledger(settled(i64::MAX));
    rows.into_iter().for_each(|row| phase.add(&row));
    phase.finish(run_is_unfinished)
}

fn settled(last_seq_before_billing: i64) -> LedgerContext {
    LedgerContext { last_seq_before_billing, ..LedgerContext::default() }
}

fn key(number: u32) -> String {
    format!("{number:032x}")
}

fn invoice(id: i64, state: InvoiceState) -> InvoiceFact {
    let paid_by = (state == InvoiceState::Paid).then_some(PaidBy::Charge);
    InvoiceFact {
        id,
        reference: format!("I{id}"),
        customer_id: 1,
        currency: "EUR".to_owned(),
        amount_minor: 1215,
        exponent: 2,
        state,
        paid_by,
    }
}

fn attempt(invoice_id: i64, key_number: u32, state: AttemptState) -> AttemptFact {
    AttemptFact {
        key: key(key_number),
        invoice_id,
        number: 1,
        customer_id: 1,
        currency: "EUR".to_owned(),
        amount_minor: 1215,
        exponent: 2,
        state,
        sends: 1,
    }
}

fn row(seq: i64, key_number: Option<u32>, invoice: i64, state: RowState) -> LedgerRow {
    LedgerRow {
        seq,
        key: key_number.map(key),
        reference: Some(format!("I{invoice}")),
        customer_id: Some(1),
        currency: Some("EUR".to_owned()),
        amount_minor: Some(1215),
        exponent: 2,
        state,
    }
}

impl World {
    fn matched() -> Self {
        Self {
            invoices: vec![invoice(1, InvoiceState::Paid)],
            attempts: vec![attempt(1, 1, AttemptState::Charged)],
            rows: vec![row(1, Some(1), 1, RowState::Charged)],
            run: false,
        }
    }

    fn reconcile(self) -> Reconciliation {
        reconcile(self.invoices, self.attempts, self.rows, self.run, None)
    }

    /// The kinds of finding, each of which must name this reference.
    #[track_caller]
    fn kinds(self, reference: &str) -> Vec<FindingKind> {
        let result = self.reconcile();
        for finding in &result.findings {
            assert_eq!(finding.reference, reference, "{finding:?}");
        }
        let total = u64::try_from(result.findings.len()).unwrap();
        assert_eq!(result.findings_total(), total, "each count has its name");
        result.findings.iter().map(|finding| finding.kind).collect()
    }
}

#[test]
fn what_is_sent_again_is_counted_and_is_no_fault() {
    let mut world = World::matched();
    world.attempts[0].sends = 3;
    world.attempts.push(AttemptFact { number: 2, sends: 0, ..attempt(1, 2, AttemptState::Rejected) });
    let result = world.reconcile();
    assert_eq!((result.resent, result.findings_total()), (2, 0));
}

#[test]
fn a_paid_invoice_with_its_one_charge_is_ok() {
    let result = World::matched().reconcile();
    assert!(result.is_ok(), "{result:?}");
    assert_eq!((result.invoices, result.paid, result.charges, result.unkeyed), (1, 1, 1, 0));
    let eur = &result.sums["EUR"];
    assert_eq!((eur.paid_minor, eur.charged_minor), (1215, 1215));
}

/// A change that makes the data set wrong, and the kinds that must be found then.
type Spoiled = (&'static str, fn(&mut World), &'static [FindingKind]);

const SPOILED: &[Spoiled] = &[
    (
        "a copy of the charge without a key",
        |w| w.rows.push(row(2, None, 1, RowState::Charged)),
        &[FindingKind::Double],
    ),
    (
        "a second charge under a second key of the journal",
        |w| {
            w.attempts.push(attempt(1, 2, AttemptState::Refused));
            w.rows.push(row(2, Some(2), 1, RowState::Charged));
        },
        &[FindingKind::Double],
    ),
    ("the charge deleted", |w| w.rows.clear(), &[FindingKind::Unbacked]),
    (
        "only a charge without key where the journal names one",
        |w| w.rows[0].key = None,
        &[FindingKind::Unbacked],
    ),
    ("the ledger says refused", |w| w.rows[0].state = RowState::Refused, &[FindingKind::Unbacked]),
    ("the ledger's amount changed", |w| w.rows[0].amount_minor = Some(1), &[FindingKind::Amount]),
    ("the invoice's amount changed", |w| w.invoices[0].amount_minor = 1, &[FindingKind::Amount]),
    ("the attempt's amount changed", |w| w.attempts[0].amount_minor = 1, &[FindingKind::Amount]),
    (
        "the ledger's currency changed",
        |w| w.rows[0].currency = Some("USD".to_owned()),
        &[FindingKind::Currency],
    ),
    ("the attempt's customer changed", |w| w.attempts[0].customer_id = 7, &[FindingKind::Customer]),
    ("the attempt deleted", |w| w.attempts.clear(), &[FindingKind::UnknownKey]),
    (
        "a key that is not of our form",
        |w| w.rows[0].key = Some("abc".to_owned()),
        &[FindingKind::Unbacked, FindingKind::UnknownKey],
    ),
    (
        "imported as PAID, and charged by us",
        |w| w.invoices[0].paid_by = Some(PaidBy::Import),
        &[FindingKind::Double],
    ),
    (
        "the ledger names another reference than the key's",
        |w| w.rows[0].reference = Some("I2".to_owned()),
        &[FindingKind::UnknownKey],
    ),
    (
        "the charged attempt turned into a refused one",
        |w| w.attempts[0].state = AttemptState::Refused,
        &[FindingKind::Unbacked],
    ),
    (
        "a refused attempt deleted",
        |w| w.rows.push(row(2, Some(9), 1, RowState::Refused)),
        &[FindingKind::UnknownKey],
    ),
    ("charged, but PENDING", |w| w.invoices[0] = invoice(1, InvoiceState::Pending), &[FindingKind::Lost]),
    (
        "charged, in ATTENTION, and nothing open",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Attention);
            w.attempts[0].state = AttemptState::Rejected;
        },
        &[FindingKind::Lost],
    ),
    (
        "charged, and still in doubt without a run",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0].state = AttemptState::InDoubt;
        },
        &[FindingKind::InDoubt],
    ),
    (
        "sent, never settled, and no run",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0].state = AttemptState::Intent;
            w.rows.clear();
        },
        &[FindingKind::InDoubt],
    ),
    (
        "journaled as never sent, beside its CHARGED row, and no run",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0] = AttemptFact { sends: 0, ..attempt(1, 1, AttemptState::Intent) };
        },
        &[FindingKind::InDoubt],
    ),
    (
        "journaled as never sent, charged without a key meanwhile, and no run",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0] = AttemptFact { sends: 0, ..attempt(1, 1, AttemptState::Intent) };
            w.rows[0].key = None;
        },
        &[FindingKind::InDoubt],
    ),
    (
        "the charge's reference changed to one that billing does not have",
        |w| w.rows[0].reference = Some("X".to_owned()),
        &[FindingKind::UnknownKey],
    ),
    ("the charge's reference removed", |w| w.rows[0].reference = None, &[FindingKind::UnknownKey]),
    ("a row number that no ledger gives", |w| w.rows[0].seq = 0, &[FindingKind::InvalidSeq]),
    (
        "a second charge under a negative row number",
        |w| w.rows.insert(0, row(-7, None, 1, RowState::Charged)),
        &[FindingKind::Double, FindingKind::InvalidSeq],
    ),
    (
        "CHARGING without an open attempt",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts.clear();
            w.rows.clear();
        },
        &[FindingKind::InDoubt],
    ),
];

#[test]
fn each_way_to_be_wrong_is_found_and_names_the_reference() {
    for (what, spoil, kinds) in SPOILED {
        let mut world = World::matched();
        spoil(&mut world);
        assert_eq!(world.kinds("I1"), *kinds, "{what}");
    }
}

/// A change of the data set that adds no finding.
type Changed = (&'static str, fn(&mut World));

#[test]
fn what_is_no_fault_is_not_found() {
    let no_fault: &[Changed] = &[
        ("a refused attempt before the charge", |w| {
            w.attempts.push(attempt(1, 2, AttemptState::Refused));
            w.rows.push(row(2, Some(2), 1, RowState::Refused));
        }),
        ("an invoice edited after a refusal", |w| {
            w.invoices[0] = invoice(1, InvoiceState::Pending);
            w.invoices[0].amount_minor = 99;
            w.attempts[0].state = AttemptState::Refused;
            w.rows[0].state = RowState::Refused;
        }),
        ("PAID by import without a charge", |w| {
            w.invoices[0].paid_by = Some(PaidBy::Import);
            w.attempts.clear();
            w.rows.clear();
        }),
        ("PAID by import, charged without a key by what charged before", |w| {
            w.invoices[0].paid_by = Some(PaidBy::Import);
            w.attempts.clear();
            w.rows[0].key = None;
        }),
        ("PAID by an operator's decision, and charged indeed", |w| {
            w.invoices[0].paid_by = Some(PaidBy::Resolve);
        }),
        ("PAID by an operator's decision", |w| {
            w.invoices[0].paid_by = Some(PaidBy::Resolve);
            w.rows.clear();
        }),
        ("open while a run goes on", |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0].state = AttemptState::InDoubt;
            w.run = true;
        }),
        ("journaled, taken back unsent, and no run", |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0] = AttemptFact { sends: 0, ..attempt(1, 1, AttemptState::Intent) };
            w.rows.clear();
        }),
        ("a tombstone under an unknown key", |w| {
            w.rows.push(LedgerRow {
                customer_id: None,
                currency: None,
                ..row(2, Some(9), 1, RowState::Voided)
            });
        }),
        ("a key voided by an operator", |w| {
            w.invoices[0] = invoice(1, InvoiceState::Pending);
            w.attempts[0].state = AttemptState::Voided;
            w.rows[0] = LedgerRow { amount_minor: Some(0), ..row(1, Some(1), 1, RowState::Voided) };
            w.rows[0].currency = Some(String::new());
        }),
        ("a charge by a route that names no customer", |w| w.rows[0].customer_id = Some(0)),
        ("a refusal without a key that names no invoice", |w| {
            w.rows.push(LedgerRow { reference: None, ..row(2, None, 1, RowState::Refused) });
        }),
    ];
    for (what, change) in no_fault {
        let mut world = World::matched();
        change(&mut world);
        assert_eq!(world.kinds("I1"), [], "{what}");
    }
}

#[test]
fn a_charge_of_no_invoice_is_found_until_it_is_acknowledged() {
    for (key_number, reference) in [(Some(9), Some("I9")), (None, Some("I9")), (None, None), (Some(9), None)]
    {
        let mut world = World::matched();
        let reference = reference.map(str::to_owned);
        world
            .rows
            .push(LedgerRow { reference: reference.clone(), ..row(2, key_number, 9, RowState::Charged) });
        let reconcile = |acknowledged: &[(i64, i64)]| {
            let all = acknowledged.iter().map(|(seq_first, seq_last)| Acknowledgement {
                ledger_id: "L".to_owned(),
                seq_first: *seq_first,
                seq_last: *seq_last,
            });
            let acknowledged = AcknowledgedRows::of_ledger(all, Some("L"));
            let mut phase = InvoicePhase::default();
            world.invoices.iter().for_each(|invoice| phase.add(invoice));
            let mut phase = phase.into_attempts(None);
            world.attempts.iter().for_each(|attempt| phase.add(attempt));
            let mut phase = phase.into_ledger(LedgerContext { acknowledged, ..settled(i64::MAX) });
            world.rows.iter().for_each(|row| phase.add(row));
            phase.finish(false)
        };
        let kind = FindingKind::Unattributed;
        let keys: Vec<String> = key_number.map(key).into_iter().collect();
        let found = Finding { kind, reference: reference.unwrap_or_default(), keys, seqs: vec![2] };
        let open = reconcile(&[(1, 1), (3, 9)]);
        assert_eq!((open.findings, open.acknowledged), (vec![found], 0));
        let acknowledged = reconcile(&[(2, 2)]);
        assert!(acknowledged.is_ok(), "{acknowledged:?}");
        assert_eq!((acknowledged.acknowledged, acknowledged.charges), (1, 2));
    }
}

/// Runs all three phases; the loss of the charge of `I1` is acknowledged.
fn with_acknowledged_loss(world: &World) -> Reconciliation {
    let one = UnbackedAcknowledgement { ledger_id: "L".to_owned(), reference: "I1".to_owned() };
    let acknowledged_unbacked = AcknowledgedUnbacked::of_ledger([one], Some("L"));
    let mut phase = InvoicePhase::default();
    world.invoices.iter().for_each(|invoice| phase.add(invoice));
    let mut phase = phase.into_attempts(None);
    world.attempts.iter().for_each(|attempt| phase.add(attempt));
    let mut phase = phase.into_ledger(LedgerContext { acknowledged_unbacked, ..settled(i64::MAX) });
    world.rows.iter().for_each(|row| phase.add(row));
    phase.finish(world.run)
}

#[test]
fn a_lost_charge_is_found_until_it_is_acknowledged_by_its_reference() {
    let mut world = World::matched();
    world.rows.clear();
    let acknowledged = with_acknowledged_loss(&world);
    assert!(acknowledged.is_ok(), "{acknowledged:?}");
    assert_eq!((acknowledged.acknowledged_unbacked, acknowledged.paid), (1, 1));
    world.invoices.push(invoice(2, InvoiceState::Paid));
    let found = with_acknowledged_loss(&world);
    assert_eq!((found.count(FindingKind::Unbacked), found.acknowledged_unbacked), (1, 1));
    assert_eq!(found.findings[0].reference, "I2");
}

#[test]
fn an_acknowledged_loss_excuses_nothing_but_a_charge_that_the_ledger_does_not_have() {
    const LOST: [&str; 2] = ["the charge deleted", "the ledger says refused"];
    for (what, spoil, kinds) in SPOILED.iter().filter(|(what, ..)| !LOST.contains(what)) {
        let mut world = World::matched();
        spoil(&mut world);
        let found = with_acknowledged_loss(&world);
        let found: Vec<FindingKind> = found.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(found, *kinds, "{what}");
    }
}

#[test]
fn an_acknowledgement_excuses_nothing_but_a_charge_of_no_invoice() {
    let all = Acknowledgement { ledger_id: "L".to_owned(), seq_first: 1, seq_last: i64::MAX };
    for (what, spoil, kinds) in SPOILED {
        let mut world = World::matched();
        spoil(&mut world);
        let acknowledged = AcknowledgedRows::of_ledger([all.clone()], Some("L"));
        let mut phase = InvoicePhase::default();
        world.invoices.iter().for_each(|invoice| phase.add(invoice));
        let mut phase = phase.into_attempts(None);
        world.attempts.iter().for_each(|attempt| phase.add(attempt));
        let mut phase = phase.into_ledger(LedgerContext { acknowledged, ..settled(i64::MAX) });
        world.rows.iter().for_each(|row| phase.add(row));
        let found: Vec<FindingKind> = phase.finish(false).findings.iter().map(|one| one.kind).collect();
        assert_eq!(found, *kinds, "{what}");
    }
}

#[test]
fn an_open_attempt_whose_key_another_account_holds_is_found_also_during_a_run() {
    for run_is_unfinished in [false, true] {
        let mut world = World::matched();
        world.invoices.push(invoice(2, InvoiceState::Charging));
        world.attempts.push(AttemptFact { sends: 0, ..attempt(2, 2, AttemptState::Intent) });
        let mut phase = InvoicePhase::default();
        world.invoices.iter().for_each(|invoice| phase.add(invoice));
        let mut phase = phase.into_attempts(None);
        world.attempts.iter().for_each(|attempt| phase.add(attempt));
        let mut phase = phase.into_ledger(settled(i64::MAX));
        world.rows.iter().for_each(|row| phase.add(row));
        assert_eq!(phase.open_keys_not_in_ledger(9), (vec![key(2)], false));
        assert_eq!(phase.open_keys_not_in_ledger(0), (Vec::new(), true));
        phase.key_taken(&key(2));
        let result = phase.finish(run_is_unfinished);
        assert_eq!(result.counts, BTreeMap::from([(FindingKind::KeyTaken, 1)]));
        assert_eq!(result.findings[0].reference, "I2");
    }
}

#[test]
fn an_attempt_under_a_text_that_is_no_key_is_found_and_counts_as_open() {
    let deployment = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let invoices = [invoice(1, InvoiceState::Charging)];
    let attempts = [AttemptFact { key: "no key".to_owned(), ..attempt(1, 1, AttemptState::InDoubt) }];
    let result = reconcile(invoices, attempts, [], false, Some(deployment));
    assert_eq!(result.counts, BTreeMap::from([(FindingKind::UnknownKey, 1), (FindingKind::InDoubt, 1)]));
    assert_eq!((result.open, result.in_doubt), (1, 1));
}

#[test]
fn charges_that_both_sides_know_by_key_are_confirmed() {
    assert_eq!(World::matched().reconcile().confirmed, 1);
    let mut unkeyed = World::matched();
    unkeyed.rows[0].key = None;
    assert_eq!(unkeyed.reconcile().confirmed, 0);
}

#[test]
fn an_attempt_under_the_key_of_another_deployment_is_found() {
    let [own, other] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
        .map(|id| id.parse::<Uuid>().unwrap());
    let mut world = World::matched();
    let key = key::text(&key::derive(own, 1, "I1"));
    world.attempts[0].key.clone_from(&key);
    world.rows[0].key = Some(key);
    for (deployment, kinds) in [(own, &[][..]), (other, &[FindingKind::UnknownKey])] {
        let (invoices, attempts, rows) = (world.invoices.clone(), world.attempts.clone(), world.rows.clone());
        let result = reconcile(invoices, attempts, rows, false, Some(deployment));
        let found: Vec<FindingKind> = result.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(found, kinds, "{deployment}");
    }
}

#[test]
fn a_double_names_its_keys_and_every_place_in_the_ledger() {
    let mut world = World::matched();
    world.rows.push(row(5, None, 1, RowState::Charged));
    world.rows.push(row(8, None, 1, RowState::Charged));
    let result = world.reconcile();
    assert_eq!((result.count(FindingKind::Double), result.charges, result.unkeyed), (1, 3, 2));
    assert_eq!(result.findings[0].keys, [key(1)]);
    assert_eq!(result.findings[0].seqs, [1, 5, 8]);
}

#[test]
fn while_a_run_is_at_work_only_what_it_calls_in_doubt_is_counted_so() {
    let in_doubt = |state, run| {
        let mut world = World { run, ..World::matched() };
        world.invoices[0] = invoice(1, InvoiceState::Charging);
        world.attempts[0].state = state;
        let result = world.reconcile();
        (result.in_doubt, result.open, result.is_ok())
    };
    assert_eq!(in_doubt(AttemptState::Intent, true), (0, 1, true));
    assert_eq!(in_doubt(AttemptState::InDoubt, true), (1, 1, true));
    assert_eq!(in_doubt(AttemptState::Intent, false), (1, 1, false));
}

#[test]
fn findings_are_all_counted_and_a_bounded_number_is_named() {
    let count = i64::try_from(NAMED_FINDINGS_MAX).unwrap() + 5;
    let invoices = (1..=count).map(|id| invoice(id, InvoiceState::Paid));
    let result = reconcile(invoices, [], [], false, None);
    assert_eq!(result.count(FindingKind::Unbacked), u64::try_from(count).unwrap());
    assert_eq!(result.findings.len(), NAMED_FINDINGS_MAX);
}

#[test]
fn rows_newer_than_billings_lists_back_and_double_but_do_not_accuse() {
    let reconcile = |world: World, last: i64| {
        let mut phase = InvoicePhase::default();
        world.invoices.iter().for_each(|invoice| phase.add(invoice));
        let mut phase = phase.into_attempts(None);
        world.attempts.iter().for_each(|attempt| phase.add(attempt));
        let mut phase = phase.into_ledger(settled(last));
        world.rows.iter().for_each(|row| phase.add(row));
        phase.finish(true).counts
    };
    let paid_since = World { attempts: Vec::new(), ..World::matched() };
    assert_eq!(reconcile(paid_since, 0), BTreeMap::new());
    let charged_since = || World { invoices: vec![invoice(1, InvoiceState::Pending)], ..World::matched() };
    assert_eq!(reconcile(charged_since(), 0), BTreeMap::new());
    assert_eq!(reconcile(charged_since(), 1), BTreeMap::from([(FindingKind::Lost, 1)]));
    let mut doubled_since = World::matched();
    doubled_since.rows.push(row(2, None, 1, RowState::Charged));
    assert_eq!(reconcile(doubled_since, 1), BTreeMap::from([(FindingKind::Double, 1)]));
    let mut imported_since = World::matched();
    imported_since.rows.push(row(2, None, 9, RowState::Charged));
    assert_eq!(reconcile(imported_since, 1), BTreeMap::new());
}

#[test]
fn memory_for_many_invoices_stays_within_the_stated_limit() {
    const MANY: u32 = 50_000;
    let mut phase = InvoicePhase::default();
    for id in 0..MANY {
        let reference = format!("reference-{id:010}");
        phase.add(&InvoiceFact { reference, ..invoice(i64::from(id), InvoiceState::Paid) });
    }
    let mut phase = phase.into_attempts(None);
    for id in 0..MANY {
        phase.add(&attempt(i64::from(id), id, AttemptState::Charged));
    }
    let bytes = phase.into_ledger(settled(i64::MAX)).matcher.index.bytes();
    assert!(bytes <= BYTES_PER_INVOICE_MAX * MANY as usize, "{bytes} bytes");
}

#[test]
fn rows_under_keys_of_another_deployment_are_reported_from_forgotten_ones() {
    let [own, other] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
        .map(|id| id.parse::<Uuid>().unwrap());
    let mut world = World::matched();
    let text = |deployment, number, name| Some(key::text(&key::derive(deployment, number, name)));
    world.attempts[0].key = text(own, 1, "I1").unwrap();
    world.rows[0].key = text(own, 1, "I1");
    for (key, named, state, kinds, foreign) in [
        (text(other, 1, "I9"), 9, RowState::Charged, &[FindingKind::Unattributed][..], 0),
        (text(other, 1, "I9"), 9, RowState::Refused, &[], 1),
        (text(other, 1, "I9"), 9, RowState::Voided, &[], 1),
        // Billing's own keys, of an invoice that billing has lost.
        (text(own, 2, "I9"), 9, RowState::Charged, &[FindingKind::UnknownKey], 0),
        (text(own, OWN_NUMBERS_MAX, "I9"), 9, RowState::Refused, &[FindingKind::UnknownKey], 0),
        (text(own, OWN_NUMBERS_MAX + 1, "I9"), 9, RowState::Charged, &[FindingKind::Unattributed], 0),
        // A key of a lost invoice, and the row's reference was changed.
        (text(own, 1, "I9"), 8, RowState::Charged, &[FindingKind::Unattributed], 0),
        // A key of another deployment for an invoice that billing has too: charged twice.
        (text(other, 1, "I1"), 1, RowState::Charged, &[FindingKind::Double, FindingKind::UnknownKey], 0),
    ] {
        let mut rows = world.rows.clone();
        rows.push(LedgerRow { key, ..row(2, Some(9), named, state) });
        let (invoices, attempts) = (world.invoices.clone(), world.attempts.clone());
        let result = reconcile(invoices, attempts, rows, false, Some(own));
        let found: Vec<FindingKind> =
            result.counts.iter().filter(|(_, count)| **count > 0).map(|(kind, _)| *kind).collect();
        assert_eq!((&found[..], result.foreign), (kinds, foreign), "I{named} {state:?}");
    }
}
