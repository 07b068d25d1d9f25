//! Imports in PostgreSQL: loads the data that a batch names, and writes the plan of `changeset::import`, customers
//! first, then invoices in the order of their references. A batch that conflicts with another import starts again.

use std::collections::HashSet;

use chassis::postgres::{Param, PgError, Result, Tx, Type, get};

use super::{changed, normal_form};
use crate::invoice::{CustomerId, Invoice, InvoiceId, PaidBy};
use crate::money::Currency;
use crate::store::ImportRow;
use crate::store::changeset::import::{ImportPlan, KnownRows, status};
use crate::store::rows::{self, Columns, FromRow};

const CUSTOMERS: &str = "SELECT id, currency FROM customers WHERE id = ANY($1)";

const HELD: &str = "
    SELECT DISTINCT invoice_id FROM attempts
    WHERE invoice_id = ANY($1) AND state IN ('INTENT', 'IN_DOUBT', 'CHARGED')";

const INSERT_CUSTOMERS: &str = "
    INSERT INTO customers (id, currency) SELECT u.id, u.currency FROM unnest($1::bigint[], $2::text[]) AS u (id, currency)
    ON CONFLICT DO NOTHING";

const IDS: &str = "SELECT nextval(pg_get_serial_sequence('invoices', 'id')) FROM generate_series(1, $1)";

const INSERT_INVOICES: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    INSERT INTO invoices (id, reference, customer_id, currency, amount_minor, state, paid_by, created_at, updated_at)
    SELECT u.id, u.reference, u.customer_id, u.currency, u.amount_minor, u.state, u.paid_by, now.ms, now.ms
    FROM now, unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[])
        AS u (id, reference, customer_id, currency, amount_minor, state, paid_by)
    ON CONFLICT DO NOTHING";

const UPDATE_INVOICES: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    UPDATE invoices AS i SET customer_id = u.customer_id, currency = u.currency, amount_minor = u.amount_minor,
        state = u.state, paid_by = u.paid_by, attention_reason = NULL, updated_at = now.ms,
        next_attempt_at = CASE WHEN i.customer_id = u.customer_id OR i.dunning IS NULL THEN i.next_attempt_at END,
        dunning = CASE WHEN u.state = 'PENDING' AND i.customer_id = u.customer_id THEN i.dunning END
    FROM now, unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])
        AS u (id, customer_id, currency, amount_minor, state, paid_by)
    WHERE i.id = u.id AND i.state <> 'PAID'";

/// Locks invoices that may be changed, in the order of their numbers, and reads attempts after that.
pub(super) async fn load(tx: &Tx, batch: &[ImportRow], for_update: bool) -> Result<KnownRows> {
    let mut known = KnownRows::default();
    let customers: HashSet<i64> = batch.iter().map(|row| row.customer_id.0).collect();
    let customers: Vec<i64> = customers.into_iter().collect();
    for row in tx.query(CUSTOMERS, &[(&customers, Type::INT8_ARRAY)]).await? {
        known.customers.insert(CustomerId(get(&row, 0)?), row.parsed(1, Currency::from_code)?);
    }
    let references: HashSet<&str> = batch.iter().map(|row| row.reference.as_str()).collect();
    let texts: Vec<&str> = references.iter().copied().collect();
    let forms: HashSet<&str> = batch.iter().map(|row| row.reference.nfc()).collect();
    let forms: Vec<&str> = forms.into_iter().collect();
    let lock = if for_update { "FOR UPDATE" } else { "" };
    let sql = format!(
        "SELECT {} FROM invoices AS i WHERE {} ORDER BY i.id {lock}",
        rows::INVOICE,
        normal_form::MATCHES_ANY
    );
    let params: &[Param<'_>] = &[(&texts, Type::TEXT_ARRAY), (&forms, Type::TEXT_ARRAY)];
    let stored = tx.query(&sql, params).await?;
    let ids: Vec<i64> = stored.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    let held = tx.query(HELD, &[(&ids, Type::INT8_ARRAY)]).await?;
    let held: HashSet<InvoiceId> =
        held.iter().map(|row| get(row, 0).map(InvoiceId)).collect::<Result<_>>()?;
    for row in &stored {
        let invoice = Invoice::from_row(row)?;
        let is_held = held.contains(&invoice.id);
        // A store may have two references that were distinct before NFC; an equal text comes first.
        let is_equal_text = references.contains(invoice.reference.as_str());
        if is_equal_text || !known.invoices.contains_key(&invoice.reference) {
            known.invoices.insert(invoice.reference.clone(), (invoice, is_held));
        }
    }
    Ok(known)
}

pub(super) async fn apply(tx: &Tx, plan: &ImportPlan<'_>) -> Result<()> {
    insert_customers(tx, plan).await?;
    insert_invoices(tx, plan).await?;
    update_invoices(tx, plan).await
}

async fn insert_customers(tx: &Tx, plan: &ImportPlan<'_>) -> Result<()> {
    if plan.customers.is_empty() {
        return Ok(());
    }
    let mut customers = plan.customers.clone();
    customers.sort_unstable_by_key(|(id, _)| *id);
    let ids: Vec<i64> = customers.iter().map(|(id, _)| id.0).collect();
    let currencies: Vec<&str> = customers.iter().map(|(_, currency)| currency.code()).collect();
    let params: &[Param<'_>] = &[(&ids, Type::INT8_ARRAY), (&currencies, Type::TEXT_ARRAY)];
    all_new(tx.execute(INSERT_CUSTOMERS, params).await?, ids.len())
}

/// Inserts invoices with ids in the order of the file.
async fn insert_invoices(tx: &Tx, plan: &ImportPlan<'_>) -> Result<()> {
    if plan.created.is_empty() {
        return Ok(());
    }
    let count = i32::try_from(plan.created.len()).unwrap_or(i32::MAX);
    let ids = tx.query(IDS, &[(&count, Type::INT4)]).await?;
    let mut ids: Vec<i64> = ids.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    ids.sort_unstable();
    let mut created: Vec<(i64, &ImportRow)> = ids.into_iter().zip(plan.created.iter().copied()).collect();
    created.sort_unstable_by_key(|(_, row)| &row.reference);
    let ids: Vec<i64> = created.iter().map(|(id, _)| *id).collect();
    let rows: Vec<&ImportRow> = created.into_iter().map(|(_, row)| row).collect();
    let arrays = Arrays::of(&rows);
    let references: Vec<&str> = rows.iter().map(|row| row.reference.as_str()).collect();
    let mut params: Vec<Param<'_>> = vec![(&ids, Type::INT8_ARRAY), (&references, Type::TEXT_ARRAY)];
    params.extend(arrays.params());
    all_new(tx.execute(INSERT_INVOICES, &params).await?, rows.len())
}

async fn update_invoices(tx: &Tx, plan: &ImportPlan<'_>) -> Result<()> {
    if plan.updated.is_empty() {
        return Ok(());
    }
    let (ids, rows): (Vec<i64>, Vec<&ImportRow>) = plan.updated.iter().map(|(id, row)| (id.0, *row)).unzip();
    let arrays = Arrays::of(&rows);
    let mut params: Vec<Param<'_>> = vec![(&ids, Type::INT8_ARRAY)];
    params.extend(arrays.params());
    let done = tx.execute(UPDATE_INVOICES, &params).await?;
    changed(done, rows.len(), "an imported row is one invoice")
}

/// Fails if another import has inserted some of these rows first: then the plan is out of date.
fn all_new(written: u64, expected: usize) -> Result<()> {
    if usize::try_from(written) == Ok(expected) {
        return Ok(());
    }
    Err(PgError::Conflict("another import wrote the same rows meanwhile".into()))
}

/// The imported data of invoices, as arrays.
struct Arrays {
    customers: Vec<i64>,
    currencies: Vec<&'static str>,
    amounts: Vec<i64>,
    states: Vec<&'static str>,
    paid_by: Vec<Option<&'static str>>,
}

impl Arrays {
    fn of(rows: &[&ImportRow]) -> Self {
        Self {
            customers: rows.iter().map(|row| row.customer_id.0).collect(),
            currencies: rows.iter().map(|row| row.money.currency.code()).collect(),
            amounts: rows.iter().map(|row| row.money.amount_minor).collect(),
            states: rows.iter().map(|row| status(row).state.as_str()).collect(),
            paid_by: rows.iter().map(|row| status(row).paid_by.map(PaidBy::as_str)).collect(),
        }
    }

    fn params(&self) -> [Param<'_>; 5] {
        [
            (&self.customers, Type::INT8_ARRAY),
            (&self.currencies, Type::TEXT_ARRAY),
            (&self.amounts, Type::INT8_ARRAY),
            (&self.states, Type::TEXT_ARRAY),
            (&self.paid_by, Type::TEXT_ARRAY),
        ]
    }
}
