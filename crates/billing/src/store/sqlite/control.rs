//! Holds and the halt in SQLite. Decides nothing.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use rusqlite::{Connection, params};

use super::{Columns, SqliteStore, one, one_row};
use crate::invoice::{CustomerId, InvoiceId, Reference};
use crate::store::changeset::control::CustomerFacts;
use crate::store::control::{
    ControlStore, Controlled, CustomerAction, CustomerStatus, Halt, InvoiceAction, OperatorNote,
};
use crate::store::{Result, transaction as steps};

#[async_trait]
impl ControlStore for SqliteStore {
    async fn control_invoice(
        &self,
        reference: &Reference,
        action: InvoiceAction,
        note: &OperatorNote,
    ) -> Result<Controlled> {
        let (reference, note) = (reference.clone(), note.clone());
        self.transact(Duration::ZERO, move |tx| {
            steps::control_invoice(tx, &reference, action, &note).now_or_never()
        })
        .await
    }

    async fn control_customer(
        &self,
        customer: CustomerId,
        action: CustomerAction,
        note: &OperatorNote,
    ) -> Result<Controlled> {
        let note = note.clone();
        self.transact(Duration::ZERO, move |tx| {
            steps::control_customer(tx, customer, action, &note).now_or_never()
        })
        .await
    }

    async fn customer_status(&self, customer: CustomerId) -> Result<Option<CustomerStatus>> {
        self.read_short(move |connection| status(connection, customer)).await
    }

    async fn halt(&self) -> Result<Option<Halt>> {
        self.read_short(halt).await
    }

    async fn stop_charging(&self, note: &OperatorNote) -> Result<bool> {
        let note = note.clone();
        self.transact(Duration::ZERO, move |tx| steps::set_halt(tx, true, &note).now_or_never()).await
    }

    async fn start_charging(&self, note: &OperatorNote) -> Result<bool> {
        let note = note.clone();
        self.transact(Duration::ZERO, move |tx| steps::set_halt(tx, false, &note).now_or_never()).await
    }
}

/// The scan of open attempts is short, because few are open at any time.
const CUSTOMER: &str = "
    SELECT held, network, EXISTS (SELECT 1 FROM attempts AS a INDEXED BY attempts_open JOIN invoices AS i ON i.id = a.invoice_id
        WHERE a.state IN ('INTENT', 'IN_DOUBT') AND i.customer_id = ?1)
    FROM customers WHERE id = ?1";

fn halt(connection: &Connection) -> rusqlite::Result<Option<Halt>> {
    one(connection, "SELECT reason, actor, created_at FROM halt", [], |row| {
        let note = OperatorNote { reason: row.text(0)?, actor: row.text(1)? };
        Ok(Halt { note, since: row.integer(2)? })
    })
}

pub(super) fn set_halt(
    connection: &Connection,
    halts: bool,
    note: &OperatorNote,
    now: i64,
) -> rusqlite::Result<bool> {
    let changed = if halts {
        let sql =
            "INSERT INTO halt (one, reason, actor, created_at) VALUES (1, ?1, ?2, ?3) ON CONFLICT DO NOTHING";
        connection.execute(sql, params![note.reason, note.actor, now])?
    } else {
        connection.execute("DELETE FROM halt", [])?
    };
    Ok(changed == 1)
}

pub(super) fn hold_of(
    connection: &Connection,
    reference: &Reference,
) -> rusqlite::Result<Option<(InvoiceId, bool)>> {
    let sql = "SELECT id, held FROM invoices WHERE reference = ?1";
    one(connection, sql, [reference.as_str()], |row| Ok((InvoiceId(row.integer(0)?), row.flag(1)?)))
}

pub(super) fn load_customer_facts(
    connection: &Connection,
    customer: CustomerId,
) -> rusqlite::Result<Option<CustomerFacts>> {
    one(connection, CUSTOMER, [customer.0], |row| {
        Ok(CustomerFacts { held: row.flag(0)?, network: row.value(1)?, has_open_attempt: row.flag(2)? })
    })
}

fn status(connection: &Connection, customer: CustomerId) -> rusqlite::Result<Option<CustomerStatus>> {
    let sql = "SELECT held, network, instrument_changed_at FROM customers WHERE id = ?1";
    one(connection, sql, [customer.0], |row| {
        let instrument_changed_at = row.optional_integer(2)?;
        Ok(CustomerStatus { held: row.flag(0)?, network: row.value(1)?, instrument_changed_at })
    })
}

pub(super) fn hold_invoice(
    connection: &Connection,
    invoice: InvoiceId,
    held: bool,
    now: i64,
) -> rusqlite::Result<()> {
    let sql = "UPDATE invoices SET held = ?2, updated_at = ?3 WHERE id = ?1";
    one_row(connection.execute(sql, params![invoice.0, held, now])?, "an invoice that is held is there")
}

pub(super) fn hold_customer(
    connection: &Connection,
    customer: CustomerId,
    held: bool,
) -> rusqlite::Result<()> {
    let sql = "UPDATE customers SET held = ?2 WHERE id = ?1";
    one_row(connection.execute(sql, params![customer.0, held])?, "a customer who is held is there")
}

pub(super) fn record_action(
    connection: &Connection,
    action: &str,
    subject: &str,
    note: &OperatorNote,
    now: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO operator_actions (action, subject, reason, actor, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.execute(sql, params![action, subject, note.reason, note.actor, now]).map(drop)
}
