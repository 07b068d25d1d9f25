//! The matching agrees with a slow and obvious second implementation on small random data sets.

use proptest::prelude::*;

use super::*;

/// The second implementation: whole lists, searched completely.
fn obvious(world: &World) -> BTreeMap<FindingKind, u64> {
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
            || (invoice.state == InvoiceState::Charging && !open)
            || (open && charges > 0);
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
            (FindingKind::Double, charges > 1),
            (FindingKind::Lost, charges > 0 && !paid && !open),
            (FindingKind::Unbacked, paid && (charges == 0 || (!journal.is_empty() && !keyed))),
            (FindingKind::UnknownKey, world.rows.iter().any(|row| unknown(row) || misnamed(row))),
            (FindingKind::Amount, other_amount),
            (FindingKind::InDoubt, doubt && !world.run),
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
    fn the_matching_agrees_with_the_obvious_one(world in worlds()) {
        let expected = obvious(&world);
        let result = world.reconcile();
        prop_assert_eq!(result.counts, expected);
    }
}
