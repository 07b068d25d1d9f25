//! Every kind of finding on its own, and the judge against a slow and obvious second opinion.

use proptest::prelude::*;

use super::super::books::BYTES_PER_INVOICE_MAX;
use super::super::facts::{InvoiceState, PaidBy};
use super::*;

/// A small world: one invoice `I1`, charged and PAID, as it should be; tests spoil it.
#[derive(Debug)]
struct World {
    invoices: Vec<InvoiceFact>,
    attempts: Vec<AttemptFact>,
    rows: Vec<LedgerRow>,
    run: bool,
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
        state,
    }
}

impl World {
    fn right() -> Self {
        Self {
            invoices: vec![invoice(1, InvoiceState::Paid)],
            attempts: vec![attempt(1, 1, AttemptState::Charged)],
            rows: vec![row(1, Some(1), 1, RowState::Charged)],
            run: false,
        }
    }

    fn judge(self) -> Judgement {
        judge(self.invoices, self.attempts, self.rows, self.run, None)
    }

    /// Kinds found, each of which must name this reference.
    #[track_caller]
    fn kinds(self, reference: &str) -> Vec<Kind> {
        let judgement = self.judge();
        for finding in &judgement.findings {
            assert_eq!(finding.reference, reference, "{finding:?}");
        }
        let total = u64::try_from(judgement.findings.len()).unwrap();
        assert_eq!(judgement.findings_total(), total, "each count has its name");
        judgement.findings.iter().map(|finding| finding.kind).collect()
    }
}

#[test]
fn a_paid_invoice_with_its_one_charge_is_right() {
    let judgement = World::right().judge();
    assert!(judgement.is_right(), "{judgement:?}");
    assert_eq!((judgement.invoices, judgement.paid, judgement.charges, judgement.unkeyed), (1, 1, 1, 0));
    let eur = &judgement.sums["EUR"];
    assert_eq!((eur.paid_minor, eur.charged_minor), (1215, 1215));
}

/// One way to spoil the right world, and the kinds that must be found then.
type Spoiled = (&'static str, fn(&mut World), &'static [Kind]);

const SPOILED: &[Spoiled] = &[
    (
        "a copy of the charge without a key",
        |w| w.rows.push(row(2, None, 1, RowState::Charged)),
        &[Kind::Double],
    ),
    (
        "a second charge under a second key of the journal",
        |w| {
            w.attempts.push(attempt(1, 2, AttemptState::Refused));
            w.rows.push(row(2, Some(2), 1, RowState::Charged));
        },
        &[Kind::Double],
    ),
    ("the charge deleted", |w| w.rows.clear(), &[Kind::Unbacked]),
    ("only a charge without key where the journal names one", |w| w.rows[0].key = None, &[Kind::Unbacked]),
    ("the ledger says refused", |w| w.rows[0].state = RowState::Refused, &[Kind::Unbacked]),
    ("the ledger's amount changed", |w| w.rows[0].amount_minor = Some(1), &[Kind::Amount]),
    ("the invoice's amount changed", |w| w.invoices[0].amount_minor = 1, &[Kind::Amount]),
    ("the attempt's amount changed", |w| w.attempts[0].amount_minor = 1, &[Kind::Amount]),
    ("the ledger's currency changed", |w| w.rows[0].currency = Some("USD".to_owned()), &[Kind::Currency]),
    ("the attempt's customer changed", |w| w.attempts[0].customer_id = 7, &[Kind::Customer]),
    ("the attempt deleted", |w| w.attempts.clear(), &[Kind::UnknownKey]),
    (
        "a key that is not of our form",
        |w| w.rows[0].key = Some("abc".to_owned()),
        &[Kind::Unbacked, Kind::UnknownKey],
    ),
    (
        "imported as PAID, and charged by us",
        |w| w.invoices[0].paid_by = Some(PaidBy::Import),
        &[Kind::Double],
    ),
    (
        "the ledger names another reference than the key's",
        |w| w.rows[0].reference = Some("I2".to_owned()),
        &[Kind::UnknownKey],
    ),
    (
        "the charged attempt turned into a refused one",
        |w| w.attempts[0].state = AttemptState::Refused,
        &[Kind::Unbacked],
    ),
    (
        "a refused attempt deleted",
        |w| w.rows.push(row(2, Some(9), 1, RowState::Refused)),
        &[Kind::UnknownKey],
    ),
    ("charged, but PENDING", |w| w.invoices[0] = invoice(1, InvoiceState::Pending), &[Kind::Lost]),
    (
        "charged, but in a person's hands with nothing open",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Attention);
            w.attempts[0].state = AttemptState::Rejected;
        },
        &[Kind::Lost],
    ),
    (
        "charged, and still in doubt without a run",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0].state = AttemptState::InDoubt;
        },
        &[Kind::InDoubt],
    ),
    (
        "sent, never settled, and no run",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts[0].state = AttemptState::Intent;
            w.rows.clear();
        },
        &[Kind::InDoubt],
    ),
    (
        "CHARGING without an open attempt",
        |w| {
            w.invoices[0] = invoice(1, InvoiceState::Charging);
            w.attempts.clear();
            w.rows.clear();
        },
        &[Kind::InDoubt],
    ),
];

#[test]
fn each_way_to_be_wrong_is_found_and_names_the_reference() {
    for (what, spoil, kinds) in SPOILED {
        let mut world = World::right();
        spoil(&mut world);
        assert_eq!(world.kinds("I1"), *kinds, "{what}");
    }
}

/// A change of the right world that leaves it right.
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
        ("PAID by a person's word, and charged indeed", |w| {
            w.invoices[0].paid_by = Some(PaidBy::Resolve);
        }),
        ("PAID by a person's word", |w| {
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
        ("a tombstone under a key nobody knows", |w| {
            w.rows.push(LedgerRow {
                customer_id: None,
                currency: None,
                ..row(2, Some(9), 1, RowState::Voided)
            });
        }),
        ("a key voided by a person", |w| {
            w.invoices[0] = invoice(1, InvoiceState::Pending);
            w.attempts[0].state = AttemptState::Voided;
            w.rows[0] = LedgerRow { amount_minor: Some(0), ..row(1, Some(1), 1, RowState::Voided) };
            w.rows[0].currency = Some(String::new());
        }),
        ("a charge by a route that names no customer", |w| w.rows[0].customer_id = Some(0)),
        ("an old client's charge that names no invoice", |w| {
            w.rows.push(LedgerRow { reference: None, ..row(2, None, 1, RowState::Charged) });
        }),
    ];
    for (what, change) in no_fault {
        let mut world = World::right();
        change(&mut world);
        assert_eq!(world.kinds("I1"), [], "{what}");
    }
}

#[test]
fn a_charge_that_billing_never_heard_of_is_found() {
    let mut world = World::right();
    world.rows.push(row(2, Some(9), 9, RowState::Charged));
    let judgement = world.judge();
    let named =
        Finding { kind: Kind::UnknownKey, reference: "I9".to_owned(), keys: vec![key(9)], seqs: vec![2] };
    assert_eq!(judgement.findings, [named]);
}

#[test]
fn an_attempt_under_the_key_of_another_deployment_is_found() {
    let [own, other] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
        .map(|id| id.parse::<Uuid>().unwrap());
    let mut world = World::right();
    let key = key_text(&key_of(own, 1, "I1"));
    world.attempts[0].key.clone_from(&key);
    world.rows[0].key = Some(key);
    for (deployment, kinds) in [(own, &[][..]), (other, &[Kind::UnknownKey])] {
        let (invoices, attempts, rows) = (world.invoices.clone(), world.attempts.clone(), world.rows.clone());
        let judgement = judge(invoices, attempts, rows, false, Some(deployment));
        let found: Vec<Kind> = judgement.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(found, kinds, "{deployment}");
    }
}

#[test]
fn a_double_names_its_keys_and_every_place_in_the_ledger() {
    let mut world = World::right();
    world.rows.push(row(5, None, 1, RowState::Charged));
    world.rows.push(row(8, None, 1, RowState::Charged));
    let judgement = world.judge();
    assert_eq!((judgement.count(Kind::Double), judgement.charges, judgement.unkeyed), (1, 3, 2));
    assert_eq!(judgement.findings[0].keys, [key(1)]);
    assert_eq!(judgement.findings[0].seqs, [1, 5, 8]);
}

#[test]
fn while_a_run_is_at_work_only_what_it_calls_in_doubt_is_counted_so() {
    let in_doubt = |state, run| {
        let mut world = World { run, ..World::right() };
        world.invoices[0] = invoice(1, InvoiceState::Charging);
        world.attempts[0].state = state;
        let judgement = world.judge();
        (judgement.in_doubt, judgement.open, judgement.is_right())
    };
    assert_eq!(in_doubt(AttemptState::Intent, true), (0, 1, true));
    assert_eq!(in_doubt(AttemptState::InDoubt, true), (1, 1, true));
    assert_eq!(in_doubt(AttemptState::Intent, false), (1, 1, false));
}

#[test]
fn findings_are_all_counted_and_a_bounded_number_is_named() {
    let count = i64::try_from(SUSPECTS_MAX).unwrap() + 5;
    let invoices = (1..=count).map(|id| invoice(id, InvoiceState::Paid));
    let judgement = judge(invoices, [], [], false, None);
    assert_eq!(judgement.count(Kind::Unbacked), u64::try_from(count).unwrap());
    assert_eq!(judgement.findings.len(), SUSPECTS_MAX);
}

#[test]
fn what_came_to_the_ledger_after_billing_was_read_backs_and_doubles_but_does_not_accuse() {
    let judge = |world: World, settled| {
        let mut reading = Invoices::default();
        world.invoices.iter().for_each(|invoice| reading.invoice(invoice));
        let mut reading = reading.end(None);
        world.attempts.iter().for_each(|attempt| reading.attempt(attempt));
        let mut reading = reading.end(settled);
        world.rows.iter().for_each(|row| reading.row(row));
        reading.judgement(true).counts
    };
    let paid_since = World { attempts: Vec::new(), ..World::right() };
    assert_eq!(judge(paid_since, 0), BTreeMap::new());
    let charged_since = || World { invoices: vec![invoice(1, InvoiceState::Pending)], ..World::right() };
    assert_eq!(judge(charged_since(), 0), BTreeMap::new());
    assert_eq!(judge(charged_since(), 1), BTreeMap::from([(Kind::Lost, 1)]));
    let mut doubled_since = World::right();
    doubled_since.rows.push(row(2, None, 1, RowState::Charged));
    assert_eq!(judge(doubled_since, 1), BTreeMap::from([(Kind::Double, 1)]));
}

#[test]
fn the_memory_for_many_invoices_is_what_we_say() {
    const MANY: u32 = 50_000;
    let mut reading = Invoices::default();
    for id in 0..MANY {
        let reference = format!("reference-{id:010}");
        reading.invoice(&InvoiceFact { reference, ..invoice(i64::from(id), InvoiceState::Paid) });
    }
    let mut reading = reading.end(None);
    for id in 0..MANY {
        reading.attempt(&attempt(i64::from(id), id, AttemptState::Charged));
    }
    let bytes = reading.end(i64::MAX).case.books.bytes();
    assert!(bytes <= BYTES_PER_INVOICE_MAX * MANY as usize, "{bytes} bytes");
}

/// The second opinion: whole lists, searched from end to end.
fn obvious(world: &World) -> BTreeMap<Kind, u64> {
    let mut counts = BTreeMap::new();
    for invoice in &world.invoices {
        let journal: Vec<_> = world.attempts.iter().filter(|a| a.invoice_id == invoice.id).collect();
        let journaled = |row: &LedgerRow| journal.iter().any(|a| row.key.as_ref() == Some(&a.key));
        let foreign = |row: &LedgerRow| world.attempts.iter().any(|a| row.key.as_ref() == Some(&a.key));
        let named = |row: &LedgerRow| row.reference.as_ref() == Some(&invoice.reference);
        let is_of = |row: &LedgerRow| journaled(row) || (!foreign(row) && named(row));
        let charged = |row: &&LedgerRow| row.state == RowState::Charged && is_of(row);
        let charges = world.rows.iter().filter(charged).count();
        let paid = invoice.state == InvoiceState::Paid;
        let open = journal.iter().any(|a| a.state.is_open());
        let keyed = world.rows.iter().any(|row| {
            let is_its = |a: &&&AttemptFact| row.key.as_ref() == Some(&a.key);
            row.state == RowState::Charged
                && journal.iter().find(is_its).is_some_and(|a| a.state == AttemptState::Charged)
        });
        let misnamed = |row: &LedgerRow| row.state != RowState::Voided && journaled(row) && !named(row);
        let doubt = journal
            .iter()
            .any(|a| a.state == AttemptState::InDoubt || (a.state == AttemptState::Intent && a.sends > 0))
            || (invoice.state == InvoiceState::Charging && !open);
        let unknown = |row: &LedgerRow| {
            row.key.is_some() && !foreign(row) && named(row) && row.state != RowState::Voided
        };
        let asked = |row: &LedgerRow| {
            let is_asked =
                |a: &&&AttemptFact| row.state != RowState::Voided && row.key.as_ref() == Some(&a.key);
            journal.iter().find(is_asked).map(|a| a.amount_minor)
        };
        let other_amount = world.rows.iter().any(|row| {
            asked(row).is_some_and(|amount| row.amount_minor != Some(amount))
                || (charged(&row) && row.amount_minor != Some(invoice.amount_minor))
        }) || journal.iter().any(|a| {
            (a.state.is_open() || a.state == AttemptState::Charged) && a.amount_minor != invoice.amount_minor
        });
        for (kind, found) in [
            (Kind::Double, charges > 1),
            (Kind::Lost, charges > 0 && !paid && !open),
            (Kind::Unbacked, paid && (charges == 0 || (!journal.is_empty() && !keyed))),
            (Kind::UnknownKey, world.rows.iter().any(|row| unknown(row) || misnamed(row))),
            (Kind::Amount, other_amount),
            (Kind::InDoubt, doubt && !world.run),
        ] {
            if found {
                *counts.entry(kind).or_default() += 1;
            }
        }
    }
    counts
}

fn worlds() -> impl Strategy<Value = World> {
    use AttemptState as A;
    const INVOICES: i64 = 6;
    let states = prop_oneof![
        Just(InvoiceState::Pending),
        Just(InvoiceState::Charging),
        Just(InvoiceState::Paid),
        Just(InvoiceState::Attention),
    ];
    let attempt_states = prop::sample::select(vec![A::Intent, A::Charged, A::Refused, A::InDoubt, A::Voided]);
    let row_states = prop::sample::select(vec![RowState::Charged, RowState::Refused, RowState::Voided]);
    let amounts = prop_oneof![9 => Just(1215i64), 1 => Just(1216i64)];
    let invoices = prop::collection::vec((states, amounts.clone()), 6);
    let attempts = prop::collection::vec((1..=INVOICES, attempt_states, amounts.clone(), 0..2i64), 0..10);
    let rows = prop::collection::vec((prop::option::of(0..12u32), 1..=INVOICES, row_states, amounts), 0..10);
    (invoices, attempts, rows, any::<bool>()).prop_map(|(invoices, attempts, rows, run)| World {
        invoices: (1..)
            .zip(invoices)
            .map(|(id, (state, amount_minor))| InvoiceFact { amount_minor, ..invoice(id, state) })
            .collect(),
        attempts: (0..)
            .zip(attempts)
            .map(|(number, (of, state, amount_minor, sends))| AttemptFact {
                amount_minor,
                sends,
                ..attempt(of, number, state)
            })
            .collect(),
        rows: (1..)
            .zip(rows)
            .map(|(seq, (key, of, state, amount))| LedgerRow {
                amount_minor: Some(amount),
                ..row(seq, key, of, state)
            })
            .collect(),
        run,
    })
}

proptest! {
    #[test]
    fn the_judge_agrees_with_the_obvious_one(world in worlds()) {
        let expected = obvious(&world);
        let judgement = world.judge();
        prop_assert_eq!(judgement.counts, expected);
    }
}

#[test]
fn rows_of_another_deployment_accuse_nobody_unless_they_name_an_invoice_of_ours() {
    let [own, other] = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
        .map(|id| id.parse::<Uuid>().unwrap());
    let mut world = World::right();
    let text = |deployment, number, name| Some(key_text(&key_of(deployment, number, name)));
    world.attempts[0].key = text(own, 1, "I1").unwrap();
    world.rows[0].key = text(own, 1, "I1");
    for (key, named, kinds, foreign) in [
        (text(other, 1, "I9"), 9, &[][..], 1),
        // Ours, of an invoice that was forgotten.
        (text(own, 2, "I9"), 9, &[Kind::UnknownKey], 0),
        // Of an invoice that is ours too: charged twice.
        (text(other, 1, "I1"), 1, &[Kind::Double, Kind::UnknownKey], 0),
    ] {
        let mut rows = world.rows.clone();
        rows.push(LedgerRow { key, ..row(2, Some(9), named, RowState::Charged) });
        let (invoices, attempts) = (world.invoices.clone(), world.attempts.clone());
        let judgement = judge(invoices, attempts, rows, false, Some(own));
        let found: Vec<Kind> =
            judgement.counts.iter().filter(|(_, count)| **count > 0).map(|(kind, _)| *kind).collect();
        assert_eq!((&found[..], judgement.foreign), (kinds, foreign), "I{named}");
    }
}
