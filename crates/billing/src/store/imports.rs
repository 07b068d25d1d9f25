//! What an import does to the facts that a store holds, row by row. Pure, and shared by every database; rows of one
//! batch see each other. Knows no SQL.

use std::collections::HashMap;

use crate::invoice::{CustomerId, Invoice, InvoiceState, PaidBy, Reference};
use crate::money::Currency;
use crate::store::{ImportMode, ImportRow, Imported};

/// What a store holds of the customers and references that a batch names.
#[derive(Debug, Default)]
pub struct Known {
    /// Currencies of those that exist.
    pub customers: HashMap<CustomerId, Currency>,
    /// Invoices that exist; `true` when an attempt of one is open or charged.
    pub invoices: HashMap<Reference, (Invoice, bool)>,
}

/// What is to be answered and, unless it is a dry run, to be written.
#[derive(Debug, Default)]
pub struct Intake<'a> {
    /// One for each row.
    pub answers: Vec<Imported>,
    pub customers: Vec<(CustomerId, Currency)>,
    /// New invoices, by the first row that names each; with the data of the last one that counts.
    pub created: Vec<&'a ImportRow>,
    /// Known invoices that change, and the state that they are to be in until then.
    pub updated: Vec<(&'a ImportRow, InvoiceState)>,
}

/// Where a row's invoice is to stand.
#[must_use]
pub fn stands(row: &ImportRow) -> (InvoiceState, Option<PaidBy>) {
    if row.paid { (InvoiceState::Paid, Some(PaidBy::Import)) } else { (InvoiceState::Pending, None) }
}

/// Decides a whole batch.
#[must_use]
pub fn decide<'a>(rows: &'a [ImportRow], mut known: Known, mode: ImportMode) -> Intake<'a> {
    let mut intake = Intake::default();
    let mut earlier: HashMap<&'a Reference, Earlier> = HashMap::new();
    for row in rows {
        let answer = one(row, &known, &intake, &earlier, mode);
        let place = match (&answer, earlier.get(&row.reference)) {
            (Imported::Created, _) => {
                intake.created.push(row);
                Some(Earlier::Created(intake.created.len() - 1))
            }
            (Imported::Updated, Some(Earlier::Created(place))) => {
                intake.created[*place] = row;
                None
            }
            (Imported::Updated, Some(Earlier::Updated(place))) => {
                intake.updated[*place].0 = row;
                None
            }
            (Imported::Updated, None) => {
                let state = known.invoices.get(&row.reference).map(|(stored, _)| stored.state);
                intake.updated.push((row, state.unwrap_or(InvoiceState::Pending)));
                Some(Earlier::Updated(intake.updated.len() - 1))
            }
            _ => None,
        };
        if let Some(place) = place {
            earlier.insert(&row.reference, place);
        }
        let takes = matches!(answer, Imported::Created | Imported::Updated);
        if takes && !known.customers.contains_key(&row.customer_id) {
            known.customers.insert(row.customer_id, row.money.currency);
            intake.customers.push((row.customer_id, row.money.currency));
        }
        intake.answers.push(answer);
    }
    intake
}

/// Where an earlier row of the batch with the same reference stands.
enum Earlier {
    Created(usize),
    Updated(usize),
}

fn one(
    row: &ImportRow,
    known: &Known,
    intake: &Intake<'_>,
    earlier: &HashMap<&Reference, Earlier>,
    mode: ImportMode,
) -> Imported {
    match known.customers.get(&row.customer_id) {
        Some(&currency) if currency != row.money.currency => return Imported::CurrencyMismatch(currency),
        _ => {}
    }
    let before = match earlier.get(&row.reference) {
        Some(Earlier::Created(place)) => Some(intake.created[*place]),
        Some(Earlier::Updated(place)) => Some(intake.updated[*place].0),
        None => None,
    };
    let (same, locked) = match (before, known.invoices.get(&row.reference)) {
        (Some(before), _) => (before == row, before.paid),
        (None, Some((stored, held))) => (is_same(row, stored), stored.state == InvoiceState::Paid || *held),
        (None, None) => return Imported::Created,
    };
    match (same, locked, mode.update) {
        (true, ..) => Imported::Unchanged,
        (false, true, _) => Imported::Locked,
        (false, false, false) => Imported::Differs,
        (false, false, true) => Imported::Updated,
    }
}

/// An invoice that we charged may come again as PENDING: the source does not know yet. One that the source called
/// PAID may not.
fn is_same(row: &ImportRow, stored: &Invoice) -> bool {
    let paid_agrees = match (row.paid, stored.paid_by) {
        (true, paid_by) => paid_by.is_some(),
        (false, paid_by) => paid_by != Some(PaidBy::Import),
    };
    row.customer_id == stored.customer_id && row.money == stored.money && paid_agrees
}
