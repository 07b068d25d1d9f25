//! Imports in PostgreSQL: reads what a batch names, asks `store::imports` what it does, and writes that; a batch that
//! met another import half-way is begun anew. Customers, then references are taken in order.

use std::collections::{HashMap, HashSet};

use chassis::postgres::{Param, PgError, Result, Tx, Type, get};

use super::{normal_form, rows};
use crate::invoice::{CustomerId, InvoiceId, PaidBy, Reference};
use crate::money::Currency;
use crate::store::imports::{Intake, Known, decide, stands};
use crate::store::{ImportMode, ImportRow, Imported};

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
        state = u.state, paid_by = u.paid_by, attention_reason = NULL, updated_at = now.ms
    FROM now, unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[])
        AS u (id, customer_id, currency, amount_minor, state, paid_by)
    WHERE i.id = u.id AND i.state <> 'PAID'";

pub(super) async fn import(tx: Tx, batch: &[ImportRow], mode: ImportMode) -> Result<Vec<Imported>> {
    if mode.dry_run {
        tx.undo();
    }
    tx.find_by_index().await?;
    if !mode.dry_run {
        normal_form::wait_for_turn(&tx, batch).await?;
    }
    let known = known(&tx, batch, mode.update && !mode.dry_run).await?;
    let ids: HashMap<Reference, i64> =
        known.invoices.iter().map(|(reference, (stored, _))| (reference.clone(), stored.id.0)).collect();
    let intake = decide(batch, known, mode);
    if !mode.dry_run {
        write_customers(&tx, &intake).await?;
        write_created(&tx, &intake).await?;
        write_updated(&tx, &intake, &ids).await?;
    }
    Ok(intake.answers)
}

/// What may be changed is locked, in order of the numbers; attempts are read after that, so that they are what stands.
async fn known(tx: &Tx, batch: &[ImportRow], lock: bool) -> Result<Known> {
    let mut known = Known::default();
    let customers: HashSet<i64> = batch.iter().map(|row| row.customer_id.0).collect();
    let customers: Vec<i64> = customers.into_iter().collect();
    for row in tx.query(CUSTOMERS, &[(&customers, Type::INT8_ARRAY)]).await? {
        known.customers.insert(CustomerId(get(&row, 0)?), rows::word(&row, 1, Currency::from_code)?);
    }
    let references: HashSet<&str> = batch.iter().map(|row| row.reference.as_str()).collect();
    let texts: Vec<&str> = references.iter().copied().collect();
    let forms: HashSet<&str> = batch.iter().map(|row| row.reference.nfc()).collect();
    let forms: Vec<&str> = forms.into_iter().collect();
    let lock = if lock { "FOR UPDATE" } else { "" };
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
        let invoice = rows::invoice(row)?;
        let is_held = held.contains(&invoice.id);
        // A store may hold two that were told apart once: an equal text comes first.
        let is_equal_text = references.contains(invoice.reference.as_str());
        if is_equal_text || !known.invoices.contains_key(&invoice.reference) {
            known.invoices.insert(invoice.reference.clone(), (invoice, is_held));
        }
    }
    Ok(known)
}

async fn write_customers(tx: &Tx, intake: &Intake<'_>) -> Result<()> {
    if intake.customers.is_empty() {
        return Ok(());
    }
    let mut customers = intake.customers.clone();
    customers.sort_unstable_by_key(|(id, _)| *id);
    let ids: Vec<i64> = customers.iter().map(|(id, _)| id.0).collect();
    let currencies: Vec<&str> = customers.iter().map(|(_, currency)| currency.code()).collect();
    let params: &[Param<'_>] = &[(&ids, Type::INT8_ARRAY), (&currencies, Type::TEXT_ARRAY)];
    all_new(tx.execute(INSERT_CUSTOMERS, params).await?, ids.len())
}

/// Numbers follow the file, whatever order the references are taken in.
async fn write_created(tx: &Tx, intake: &Intake<'_>) -> Result<()> {
    if intake.created.is_empty() {
        return Ok(());
    }
    let count = i32::try_from(intake.created.len()).unwrap_or(i32::MAX);
    let ids = tx.query(IDS, &[(&count, Type::INT4)]).await?;
    let mut ids: Vec<i64> = ids.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    ids.sort_unstable();
    let mut created: Vec<(i64, &ImportRow)> = ids.into_iter().zip(intake.created.iter().copied()).collect();
    created.sort_unstable_by_key(|(_, row)| &row.reference);
    let ids: Vec<i64> = created.iter().map(|(id, _)| *id).collect();
    let rows: Vec<&ImportRow> = created.into_iter().map(|(_, row)| row).collect();
    let columns = Columns::of(&rows);
    let mut params: Vec<Param<'_>> = vec![(&ids, Type::INT8_ARRAY)];
    params.extend(columns.params());
    all_new(tx.execute(INSERT_INVOICES, &params).await?, rows.len())
}

/// The reference stays as it is stored, whichever form the row has.
async fn write_updated(tx: &Tx, intake: &Intake<'_>, ids: &HashMap<Reference, i64>) -> Result<()> {
    if intake.updated.is_empty() {
        return Ok(());
    }
    let updated: Vec<&ImportRow> = intake.updated.iter().map(|(row, _)| *row).collect();
    let ids: Vec<i64> = updated.iter().filter_map(|row| ids.get(&row.reference).copied()).collect();
    let columns = Columns::of(&updated);
    let mut params = columns.params();
    params[0] = (&ids, Type::INT8_ARRAY);
    let changed = tx.execute(UPDATE_INVOICES, &params).await?;
    rows::changed(changed, updated.len(), "an imported row is one invoice")
}

/// Another import was faster with some of these: what this one decided no longer holds.
fn all_new(written: u64, expected: usize) -> Result<()> {
    if usize::try_from(written) == Ok(expected) {
        return Ok(());
    }
    Err(PgError::Conflict("another import wrote the same rows meanwhile".into()))
}

/// Rows as arrays.
struct Columns<'a> {
    references: Vec<&'a str>,
    customers: Vec<i64>,
    currencies: Vec<&'static str>,
    amounts: Vec<i64>,
    states: Vec<&'static str>,
    paid_by: Vec<Option<&'static str>>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[&'a ImportRow]) -> Self {
        Self {
            references: rows.iter().map(|row| row.reference.as_str()).collect(),
            customers: rows.iter().map(|row| row.customer_id.0).collect(),
            currencies: rows.iter().map(|row| row.money.currency.code()).collect(),
            amounts: rows.iter().map(|row| row.money.amount_minor).collect(),
            states: rows.iter().map(|row| stands(row).0.as_str()).collect(),
            paid_by: rows.iter().map(|row| stands(row).1.map(PaidBy::as_str)).collect(),
        }
    }

    fn params(&self) -> [Param<'_>; 6] {
        [
            (&self.references, Type::TEXT_ARRAY),
            (&self.customers, Type::INT8_ARRAY),
            (&self.currencies, Type::TEXT_ARRAY),
            (&self.amounts, Type::INT8_ARRAY),
            (&self.states, Type::TEXT_ARRAY),
            (&self.paid_by, Type::TEXT_ARRAY),
        ]
    }
}
