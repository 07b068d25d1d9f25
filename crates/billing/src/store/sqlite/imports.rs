//! Imports in SQLite: decides row by row what an import does, and writes it unless it is a dry run.
//! A dry run goes the same way and remembers what it would have written, so that rows of one batch see each other.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::counts::Moves;
use super::{one, rows};
use crate::invoice::{CustomerId, Invoice, InvoiceState, PaidBy};
use crate::money::Currency;
use crate::store::{ImportMode, ImportRow, Imported};

pub(super) fn import(
    connection: &Connection,
    batch: &[ImportRow],
    mode: ImportMode,
    now: i64,
) -> rusqlite::Result<Vec<Imported>> {
    let mut import = Import {
        connection,
        mode,
        now,
        customers: HashMap::new(),
        invoices: HashMap::new(),
        moves: Moves::default(),
    };
    let imported = batch.iter().map(|row| import.row(row)).collect();
    if !mode.dry_run {
        import.moves.record(connection)?;
    }
    imported
}

/// One batch under way, with what it has read or written so far.
struct Import<'a> {
    connection: &'a Connection,
    mode: ImportMode,
    now: i64,
    customers: HashMap<CustomerId, Option<Currency>>,
    /// Written or to be written in this batch, by reference.
    invoices: HashMap<&'a str, &'a ImportRow>,
    moves: Moves,
}

/// What stands under a reference.
struct Known {
    state: InvoiceState,
    same: bool,
    /// An attempt is open or charged, or it is PAID.
    locked: bool,
}

impl<'a> Import<'a> {
    fn row(&mut self, row: &'a ImportRow) -> rusqlite::Result<Imported> {
        let customer = self.customer(row.customer_id)?;
        match customer {
            Some(currency) if currency != row.money.currency => {
                return Ok(Imported::CurrencyMismatch(currency));
            }
            _ => {}
        }
        let state = if row.paid { InvoiceState::Paid } else { InvoiceState::Pending };
        let imported = match self.known(row)? {
            Some(Known { same: true, .. }) => return Ok(Imported::Unchanged),
            Some(Known { locked: true, .. }) => return Ok(Imported::Locked),
            Some(_) if !self.mode.update => return Ok(Imported::Differs),
            Some(known) => {
                self.moves.change(known.state, state, 1);
                Imported::Updated
            }
            None => {
                self.moves.create(state);
                Imported::Created
            }
        };
        if customer.is_none() {
            self.customers.insert(row.customer_id, Some(row.money.currency));
        }
        self.invoices.insert(row.reference.as_str(), row);
        if !self.mode.dry_run {
            self.write(row, customer.is_none(), &imported)?;
        }
        Ok(imported)
    }

    fn customer(&mut self, id: CustomerId) -> rusqlite::Result<Option<Currency>> {
        if let Some(known) = self.customers.get(&id) {
            return Ok(*known);
        }
        let sql = "SELECT currency FROM customers WHERE id = ?1";
        let known = one(self.connection, sql, [id.0], |row| rows::word(row, 0, Currency::from_code))?;
        self.customers.insert(id, known);
        Ok(known)
    }

    fn known(&self, row: &ImportRow) -> rusqlite::Result<Option<Known>> {
        if let Some(earlier) = self.invoices.get(row.reference.as_str()) {
            let state = if earlier.paid { InvoiceState::Paid } else { InvoiceState::Pending };
            return Ok(Some(Known { state, same: *earlier == row, locked: earlier.paid }));
        }
        let sql = format!("SELECT {} FROM invoices WHERE reference = ?1", rows::INVOICE);
        let stored = one(self.connection, &sql, [row.reference.as_str()], rows::invoice)?;
        let Some(stored) = stored else { return Ok(None) };
        let same = is_same(row, &stored);
        let locked = !same && (stored.state == InvoiceState::Paid || self.has_attempt(&stored)?);
        Ok(Some(Known { state: stored.state, same, locked }))
    }

    fn has_attempt(&self, invoice: &Invoice) -> rusqlite::Result<bool> {
        let sql =
            "SELECT 1 FROM attempts WHERE invoice_id = ?1 AND state IN ('INTENT', 'IN_DOUBT', 'CHARGED')";
        self.connection.prepare_cached(sql)?.exists([invoice.id.0])
    }

    fn write(&self, row: &ImportRow, new_customer: bool, imported: &Imported) -> rusqlite::Result<()> {
        if new_customer {
            let sql = "INSERT INTO customers (id, currency) VALUES (?1, ?2)";
            let currency = row.money.currency.code();
            self.connection.prepare_cached(sql)?.execute(params![row.customer_id.0, currency])?;
        }
        let (state, paid_by) =
            if row.paid { (InvoiceState::Paid, Some(PaidBy::Import)) } else { (InvoiceState::Pending, None) };
        let sql = if *imported == Imported::Created {
            "INSERT INTO invoices (customer_id, currency, amount_minor, state, paid_by, updated_at, created_at, reference)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)"
        } else {
            "UPDATE invoices SET customer_id = ?1, currency = ?2, amount_minor = ?3, state = ?4, paid_by = ?5,
             updated_at = ?6, attention_reason = NULL WHERE reference = ?7 AND state <> 'PAID'"
        };
        let changed = self.connection.prepare_cached(sql)?.execute(params![
            row.customer_id.0,
            row.money.currency.code(),
            row.money.amount_minor,
            state.word(),
            paid_by.map(PaidBy::word),
            self.now,
            row.reference.as_str(),
        ])?;
        rows::one_row(changed, "an imported row is one invoice")
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
