//! The effect of an import on the facts of a store, row by row; later rows of a batch see earlier ones. Pure; knows no
//! SQL.

use std::collections::HashMap;

use super::{InvoiceStatus, StateCountDeltas};
use crate::invoice::{CustomerId, Invoice, InvoiceId, InvoiceState, PaidBy, Reference};
use crate::money::Currency;
use crate::store::{ImportMode, ImportRow, Imported};

/// The store's data of the customers and references in a batch.
#[derive(Debug, Default)]
pub struct KnownRows {
    /// Currencies of the existing customers.
    pub customers: HashMap<CustomerId, Currency>,
    /// Existing invoices; `true` if an attempt of the invoice is open or charged.
    pub invoices: HashMap<Reference, (Invoice, bool)>,
}

/// The results for the caller and, unless it is a dry run, the rows to write.
#[derive(Debug, Default)]
pub struct ImportPlan<'a> {
    /// One result for each row.
    pub answers: Vec<Imported>,
    pub customers: Vec<(CustomerId, Currency)>,
    /// New invoices, in the order of the first row of each, with the data of the last valid row.
    pub created: Vec<&'a ImportRow>,
    /// Known invoices that change, none of them PAID or CANCELLED. Their references stay as stored, also if a row has
    /// another form.
    pub updated: Vec<(InvoiceId, &'a ImportRow)>,
    /// Deltas that SQLite's store adds; in PostgreSQL triggers count.
    pub state_counts: StateCountDeltas,
}

/// The status that a row gives its invoice.
#[must_use]
pub fn status(row: &ImportRow) -> InvoiceStatus {
    if row.paid { InvoiceStatus::paid(PaidBy::Import) } else { InvoiceStatus::plain(InvoiceState::Pending) }
}

/// Decides a whole batch.
#[must_use]
pub fn plan<'a>(rows: &'a [ImportRow], mut known: KnownRows, mode: ImportMode) -> ImportPlan<'a> {
    let mut plan = ImportPlan::default();
    let mut earlier: HashMap<&'a Reference, Earlier> = HashMap::new();
    for row in rows {
        let answer = decide(row, &known, &plan, &earlier, mode);
        let place = match (&answer, earlier.get(&row.reference)) {
            (Imported::Created, _) => {
                plan.created.push(row);
                Some(Earlier::Created(plan.created.len() - 1))
            }
            (Imported::Updated, Some(Earlier::Created(place))) => {
                plan.created[*place] = row;
                None
            }
            (Imported::Updated, Some(Earlier::Updated(place))) => {
                plan.updated[*place].1 = row;
                None
            }
            (Imported::Updated, None) => known.invoices.get(&row.reference).map(|(stored, _)| {
                plan.updated.push((stored.id, row));
                Earlier::Updated(plan.updated.len() - 1)
            }),
            _ => None,
        };
        if let Some(place) = place {
            earlier.insert(&row.reference, place);
        }
        let takes = matches!(answer, Imported::Created | Imported::Updated);
        if takes && !known.customers.contains_key(&row.customer_id) {
            known.customers.insert(row.customer_id, row.money.currency);
            plan.customers.push((row.customer_id, row.money.currency));
        }
        plan.answers.push(answer);
    }
    for &row in plan.created.iter().chain(plan.updated.iter().map(|(_, row)| row)) {
        let read = known.invoices.get(&row.reference).map(|(stored, _)| stored.state);
        plan.state_counts.add(read, status(row).state);
    }
    plan
}

/// Where the plan has an earlier row of the batch with the same reference.
enum Earlier {
    Created(usize),
    Updated(usize),
}

fn decide(
    row: &ImportRow,
    known: &KnownRows,
    plan: &ImportPlan<'_>,
    earlier: &HashMap<&Reference, Earlier>,
    mode: ImportMode,
) -> Imported {
    match known.customers.get(&row.customer_id) {
        Some(&currency) if currency != row.money.currency => return Imported::CurrencyMismatch(currency),
        _ => {}
    }
    let before = match earlier.get(&row.reference) {
        Some(Earlier::Created(place)) => Some(plan.created[*place]),
        Some(Earlier::Updated(place)) => Some(plan.updated[*place].1),
        None => None,
    };
    let (same, locked) = match (before, known.invoices.get(&row.reference)) {
        (Some(before), _) => (before == row, before.paid),
        (None, Some((stored, held))) => {
            let is_final = matches!(stored.state, InvoiceState::Paid | InvoiceState::Cancelled);
            (is_same(row, stored), is_final || *held)
        }
        (None, None) => return Imported::Created,
    };
    match (same, locked, mode.update) {
        (true, ..) => Imported::Unchanged,
        (false, true, _) => Imported::Locked,
        (false, false, false) => Imported::Differs,
        (false, false, true) => Imported::Updated,
    }
}

/// Whether a row agrees with the stored invoice. An invoice that we charged may be imported again as PENDING, because
/// its source may not know yet. An invoice that was imported as PAID may not.
fn is_same(row: &ImportRow, stored: &Invoice) -> bool {
    let paid_agrees = match (row.paid, stored.paid_by) {
        (true, paid_by) => paid_by.is_some(),
        (false, paid_by) => paid_by != Some(PaidBy::Import),
    };
    row.customer_id == stored.customer_id && row.money == stored.money && paid_agrees
}
