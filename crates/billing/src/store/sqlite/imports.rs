//! Imports in SQLite: loads the data that a batch names, and writes the plan of `changeset::import`, row by row.

use rusqlite::{Connection, params};

use super::transaction::add_state_counts;
use super::{Columns, normal_form, one, one_row, read};
use crate::invoice::{Invoice, PaidBy};
use crate::money::Currency;
use crate::store::changeset::import::{ImportPlan, KnownRows, status};
use crate::store::reads::EQUAL_TEXT_FIRST;
use crate::store::{ImportRow, rows};

pub(super) fn load(connection: &Connection, batch: &[ImportRow]) -> rusqlite::Result<KnownRows> {
    let mut known = KnownRows::default();
    let customer = "SELECT currency FROM customers WHERE id = ?1";
    let invoice = format!(
        "SELECT {} FROM invoices AS i WHERE {} {EQUAL_TEXT_FIRST}",
        rows::INVOICE,
        normal_form::MATCHES
    );
    for row in batch {
        let currency =
            one(connection, customer, [row.customer_id.0], |row| row.parsed(0, Currency::from_code))?;
        known.customers.extend(currency.map(|currency| (row.customer_id, currency)));
        let names = [row.reference.as_str(), row.reference.nfc()];
        let stored: Option<Invoice> = one(connection, &invoice, names, read)?;
        if let Some(stored) = stored {
            let held = is_held(connection, &stored)?;
            known.invoices.insert(row.reference.clone(), (stored, held));
        }
    }
    Ok(known)
}

fn is_held(connection: &Connection, invoice: &Invoice) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM attempts WHERE invoice_id = ?1 AND state IN ('INTENT', 'IN_DOUBT', 'CHARGED')";
    connection.prepare_cached(sql)?.exists([invoice.id.0])
}

const INSERT: &str = "INSERT INTO invoices (customer_id, currency, amount_minor, state, paid_by, updated_at,
     created_at, reference, reference_nfc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)";

const UPDATE: &str = "UPDATE invoices SET customer_id = ?1, currency = ?2, amount_minor = ?3, state = ?4,
     paid_by = ?5, updated_at = ?6, attention_reason = NULL,
     next_attempt_at = CASE WHEN customer_id = ?1 OR dunning IS NULL THEN next_attempt_at END,
     dunning = CASE WHEN ?4 = 'PENDING' AND customer_id = ?1 THEN dunning END WHERE id = ?7 AND state <> 'PAID'";

pub(super) fn apply(connection: &Connection, plan: &ImportPlan<'_>, now: i64) -> rusqlite::Result<()> {
    for (customer, currency) in &plan.customers {
        let sql = "INSERT INTO customers (id, currency) VALUES (?1, ?2)";
        connection.prepare_cached(sql)?.execute(params![customer.0, currency.code()])?;
    }
    let mut insert = connection.prepare_cached(INSERT)?;
    for row in &plan.created {
        let status = status(row);
        insert.execute(params![
            row.customer_id.0,
            row.money.currency.code(),
            row.money.amount_minor,
            status.state.as_str(),
            status.paid_by.map(PaidBy::as_str),
            now,
            row.reference.as_str(),
            row.reference.nfc_if_other(),
        ])?;
    }
    let mut update = connection.prepare_cached(UPDATE)?;
    for (id, row) in &plan.updated {
        let status = status(row);
        let changed = update.execute(params![
            row.customer_id.0,
            row.money.currency.code(),
            row.money.amount_minor,
            status.state.as_str(),
            status.paid_by.map(PaidBy::as_str),
            now,
            id.0,
        ])?;
        one_row(changed, "an imported row is one invoice")?;
    }
    add_state_counts(connection, &plan.state_counts)
}
