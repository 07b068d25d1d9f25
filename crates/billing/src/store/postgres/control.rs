//! Holds and the halt in PostgreSQL. Claims share a transaction lock; actions that forbid claims take it exclusively,
//! so that no claim that has begun before commits after them. Decides nothing.

use async_trait::async_trait;
use chassis::postgres::{Param, PoolClass, Result as PgResult, Row, Tx, Type, get};

use super::{PostgresStore, changed, store_error};
use crate::invoice::{CustomerId, InvoiceId, Reference};
use crate::store::changeset::control::CustomerFacts;
use crate::store::control::{
    ControlStore, Controlled, CustomerAction, CustomerStatus, Halt, InvoiceAction, OperatorNote,
};
use crate::store::rows::Columns;
use crate::store::{Result, transaction as steps};

const LOCK_CLAIMS_SHARED_SQL: &str = "SELECT pg_advisory_xact_lock_shared(hashtext('billing claims'))";
const LOCK_CLAIMS_SQL: &str = "SELECT pg_advisory_xact_lock(hashtext('billing claims'))";

/// Takes the lock before any read of a claim, so that the following statements see each earlier halt and hold.
pub(super) async fn lock_for_claim(tx: &Tx) -> PgResult<()> {
    tx.query(LOCK_CLAIMS_SHARED_SQL, &[]).await.map(drop)
}

/// Few attempts are open at any time. The weaker row lock is enough: settlements of the customer's invoices check by a
/// foreign key that the customer exists, and must not wait for an action that itself waits for such an invoice.
const CUSTOMER: &str = "
    SELECT c.held, c.network, EXISTS (SELECT 1 FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
        WHERE a.state IN ('INTENT', 'IN_DOUBT') AND i.customer_id = c.id)
    FROM customers AS c WHERE c.id = $1 FOR NO KEY UPDATE OF c";

pub(super) async fn load_customer_facts(tx: &Tx, customer: CustomerId) -> PgResult<Option<CustomerFacts>> {
    tx.query(LOCK_CLAIMS_SQL, &[]).await?;
    let found = tx.query(CUSTOMER, &[(&customer.0, Type::INT8)]).await?;
    let facts = |row: &Row| {
        Ok(CustomerFacts { held: row.flag(0)?, network: row.value(1)?, has_open_attempt: row.flag(2)? })
    };
    found.first().map(facts).transpose()
}

pub(super) async fn hold_of(tx: &Tx, reference: &Reference) -> PgResult<Option<(InvoiceId, bool)>> {
    let sql = "SELECT id, held FROM invoices WHERE reference = $1";
    let found = tx.query(sql, &[(&reference.as_str(), Type::TEXT)]).await?;
    found.first().map(|row| Ok((InvoiceId(get(row, 0)?), get(row, 1)?))).transpose()
}

pub(super) async fn hold_invoice(tx: &Tx, invoice: InvoiceId, held: bool) -> PgResult<()> {
    let sql = "UPDATE invoices SET held = $2, updated_at = billing_now_ms() WHERE id = $1";
    let done = tx.execute(sql, &[(&invoice.0, Type::INT8), (&held, Type::BOOL)]).await?;
    changed(done, 1, "an invoice that is held is there")
}

pub(super) async fn hold_customer(tx: &Tx, customer: CustomerId, held: bool) -> PgResult<()> {
    let sql = "UPDATE customers SET held = $2 WHERE id = $1";
    let done = tx.execute(sql, &[(&customer.0, Type::INT8), (&held, Type::BOOL)]).await?;
    changed(done, 1, "a customer who is held is there")
}

pub(super) async fn set_halt(tx: &Tx, halts: bool, note: &OperatorNote) -> PgResult<bool> {
    tx.query(LOCK_CLAIMS_SQL, &[]).await?;
    let changed = if halts {
        let sql = "INSERT INTO halt (one, reason, actor, created_at) VALUES (1, $1, $2, billing_now_ms())
             ON CONFLICT DO NOTHING";
        tx.execute(sql, &[(&note.reason, Type::TEXT), (&note.actor, Type::TEXT)]).await?
    } else {
        tx.execute("DELETE FROM halt", &[]).await?
    };
    Ok(changed == 1)
}

pub(super) async fn record_action(tx: &Tx, action: &str, subject: &str, note: &OperatorNote) -> PgResult<()> {
    let sql = "INSERT INTO operator_actions (action, subject, reason, actor, created_at)
         VALUES ($1, $2, $3, $4, billing_now_ms())";
    let params: &[Param<'_>] = &[
        (&action, Type::TEXT),
        (&subject, Type::TEXT),
        (&note.reason, Type::TEXT),
        (&note.actor, Type::TEXT),
    ];
    tx.execute(sql, params).await.map(drop)
}

impl PostgresStore {
    async fn read_halt(&self) -> PgResult<Option<Halt>> {
        let sql = "SELECT reason, actor, created_at FROM halt";
        let rows = self.database.read(PoolClass::Record, sql, &[]).await?;
        let halt = |row| {
            let note = OperatorNote { reason: get(row, 0)?, actor: get(row, 1)? };
            Ok(Halt { note, since: get(row, 2)? })
        };
        rows.first().map(halt).transpose()
    }

    async fn read_status(&self, customer: CustomerId) -> PgResult<Option<CustomerStatus>> {
        let sql = "SELECT held, network, instrument_changed_at FROM customers WHERE id = $1";
        let rows = self.database.read(PoolClass::Record, sql, &[(&customer.0, Type::INT8)]).await?;
        let status = |row: &Row| {
            let instrument_changed_at = row.optional_integer(2)?;
            Ok(CustomerStatus { held: row.flag(0)?, network: row.value(1)?, instrument_changed_at })
        };
        rows.first().map(status).transpose()
    }
}

#[async_trait]
impl ControlStore for PostgresStore {
    async fn control_invoice(
        &self,
        reference: &Reference,
        action: InvoiceAction,
        note: &OperatorNote,
    ) -> Result<Controlled> {
        self.transact(PoolClass::Record, |tx| async move {
            steps::control_invoice(&tx, reference, action, note).await
        })
        .await
    }

    async fn control_customer(
        &self,
        customer: CustomerId,
        action: CustomerAction,
        note: &OperatorNote,
    ) -> Result<Controlled> {
        self.transact(PoolClass::Record, |tx| async move {
            steps::control_customer(&tx, customer, action, note).await
        })
        .await
    }

    async fn customer_status(&self, customer: CustomerId) -> Result<Option<CustomerStatus>> {
        self.read_status(customer).await.map_err(store_error)
    }

    async fn halt(&self) -> Result<Option<Halt>> {
        self.read_halt().await.map_err(store_error)
    }

    async fn stop_charging(&self, note: &OperatorNote) -> Result<bool> {
        self.transact(PoolClass::Record, |tx| async move { steps::set_halt(&tx, true, note).await }).await
    }

    async fn start_charging(&self, note: &OperatorNote) -> Result<bool> {
        self.transact(PoolClass::Record, |tx| async move { steps::set_halt(&tx, false, note).await }).await
    }
}
