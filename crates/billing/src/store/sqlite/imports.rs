//! Imports in SQLite: reads what a batch names, asks `store::imports` what it does, and writes that.

use rusqlite::{Connection, params};

use super::counts::Moves;
use super::{normal_form, one, rows};
use crate::invoice::{Invoice, PaidBy};
use crate::money::Currency;
use crate::store::imports::{Intake, Known, decide, stands};
use crate::store::{ImportMode, ImportRow, Imported};

pub(super) fn import(
    connection: &Connection,
    batch: &[ImportRow],
    mode: ImportMode,
    now: i64,
) -> rusqlite::Result<Vec<Imported>> {
    let intake = decide(batch, known(connection, batch)?, mode);
    if !mode.dry_run {
        write(connection, &intake, now)?;
    }
    Ok(intake.answers)
}

fn known(connection: &Connection, batch: &[ImportRow]) -> rusqlite::Result<Known> {
    let mut known = Known::default();
    let customer = "SELECT currency FROM customers WHERE id = ?1";
    let invoice = format!("SELECT {} FROM invoices WHERE {}", rows::INVOICE, normal_form::MATCHES);
    for row in batch {
        let currency =
            one(connection, customer, [row.customer_id.0], |row| rows::word(row, 0, Currency::from_code))?;
        known.customers.extend(currency.map(|currency| (row.customer_id, currency)));
        if let Some(stored) =
            one(connection, &invoice, [row.reference.as_str(), row.reference.nfc()], rows::invoice)?
        {
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

fn write(connection: &Connection, intake: &Intake<'_>, now: i64) -> rusqlite::Result<()> {
    let mut moves = Moves::default();
    for (customer, currency) in &intake.customers {
        let sql = "INSERT INTO customers (id, currency) VALUES (?1, ?2)";
        connection.prepare_cached(sql)?.execute(params![customer.0, currency.code()])?;
    }
    for row in &intake.created {
        let sql = "INSERT INTO invoices (customer_id, currency, amount_minor, state, paid_by, updated_at, created_at, reference,
                reference_nfc)
             VALUES (?3, ?4, ?5, ?6, ?7, ?8, ?8, ?1, nullif(?2, ?1))";
        write_one(connection, sql, row, now)?;
        moves.create(stands(row).0);
    }
    // The reference stays as it is stored, whichever form the row has.
    let update = format!(
        "UPDATE invoices SET customer_id = ?3, currency = ?4, amount_minor = ?5, state = ?6, paid_by = ?7,
         updated_at = ?8, attention_reason = NULL
         WHERE id = (SELECT id FROM invoices WHERE {}) AND state <> 'PAID'",
        normal_form::MATCHES
    );
    for (row, from) in &intake.updated {
        write_one(connection, &update, row, now)?;
        moves.change(*from, stands(row).0, 1);
    }
    moves.record(connection)
}

fn write_one(connection: &Connection, sql: &str, row: &ImportRow, now: i64) -> rusqlite::Result<()> {
    let (state, paid_by) = stands(row);
    let changed = connection.prepare_cached(sql)?.execute(params![
        row.reference.as_str(),
        row.reference.nfc(),
        row.customer_id.0,
        row.money.currency.code(),
        row.money.amount_minor,
        state.as_str(),
        paid_by.map(PaidBy::as_str),
        now,
    ])?;
    rows::one_row(changed, "an imported row is one invoice")
}
