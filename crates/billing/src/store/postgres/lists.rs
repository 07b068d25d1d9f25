//! Plain reads from PostgreSQL: lists by cursor and single rows. Changes nothing.

use chassis::postgres::{Param, PoolClass, Postgres, Result, Row, Type};

use super::{normal_form, rows};
use crate::invoice::{Attempt, Customer, CustomerId, Invoice, InvoiceId, InvoiceState, Reference};
use crate::protocol::key::Key;
use crate::store::{BATCH_MAX, ResolutionRow};

fn at_most(limit: usize) -> i64 {
    i64::try_from(limit.min(BATCH_MAX)).unwrap_or(i64::MAX)
}

/// Lists do not take connections that outcomes wait for.
async fn list<T>(
    database: &Postgres,
    sql: &str,
    params: &[Param<'_>],
    read: fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    database.page(PoolClass::Claim, sql, params).await?.iter().map(read).collect()
}

async fn one<T>(
    database: &Postgres,
    sql: &str,
    param: Param<'_>,
    read: fn(&Row) -> Result<T>,
) -> Result<Option<T>> {
    database.read(PoolClass::Record, sql, &[param]).await?.first().map(read).transpose()
}

pub(super) async fn customers(database: &Postgres, after: CustomerId, limit: usize) -> Result<Vec<Customer>> {
    let sql = format!("SELECT {} FROM customers WHERE id > $1 ORDER BY id LIMIT $2", rows::CUSTOMER);
    list(database, &sql, &[(&after.0, Type::INT8), (&at_most(limit), Type::INT8)], rows::customer).await
}

pub(super) async fn customer(database: &Postgres, id: CustomerId) -> Result<Option<Customer>> {
    let sql = format!("SELECT {} FROM customers WHERE id = $1", rows::CUSTOMER);
    one(database, &sql, (&id.0, Type::INT8), rows::customer).await
}

pub(super) async fn invoices(
    database: &Postgres,
    state: Option<InvoiceState>,
    after: InvoiceId,
    limit: usize,
) -> Result<Vec<Invoice>> {
    // A word in the text, not a parameter, so that the index of unpaid ones is known to serve.
    let condition = state.map(|state| format!("i.state = '{}' AND", state.as_str())).unwrap_or_default();
    let sql = format!(
        "SELECT {} FROM invoices AS i WHERE {condition} i.id > $1 ORDER BY i.id LIMIT $2",
        rows::INVOICE
    );
    list(database, &sql, &[(&after.0, Type::INT8), (&at_most(limit), Type::INT8)], rows::invoice).await
}

pub(super) async fn invoice(database: &Postgres, id: InvoiceId) -> Result<Option<Invoice>> {
    let sql = format!("SELECT {} FROM invoices AS i WHERE i.id = $1", rows::INVOICE);
    one(database, &sql, (&id.0, Type::INT8), rows::invoice).await
}

pub(super) async fn invoice_by_reference(
    database: &Postgres,
    reference: &Reference,
) -> Result<Option<Invoice>> {
    let sql = format!(
        "SELECT {} FROM invoices AS i WHERE {} ORDER BY i.reference <> ALL($1), i.id LIMIT 1",
        rows::INVOICE,
        normal_form::MATCHES_ANY
    );
    let (text, nfc) = (vec![reference.as_str()], vec![reference.nfc()]);
    let params: &[Param<'_>] = &[(&text, Type::TEXT_ARRAY), (&nfc, Type::TEXT_ARRAY)];
    database.read(PoolClass::Record, &sql, params).await?.first().map(rows::invoice).transpose()
}

pub(super) async fn attempts(
    database: &Postgres,
    after: (InvoiceId, u32),
    limit: usize,
) -> Result<Vec<Attempt>> {
    let sql = format!(
        "SELECT {} FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
         WHERE (a.invoice_id, a.number) > ($1, $2) ORDER BY a.invoice_id, a.number LIMIT $3",
        rows::ATTEMPT
    );
    let number = i32::try_from(after.1).unwrap_or(i32::MAX);
    let params: &[Param<'_>] =
        &[(&after.0.0, Type::INT8), (&number, Type::INT4), (&at_most(limit), Type::INT8)];
    list(database, &sql, params, rows::attempt).await
}

pub(super) async fn attempt(database: &Postgres, key: &Key) -> Result<Option<Attempt>> {
    let sql = format!(
        "SELECT {} FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id WHERE a.key = $1",
        rows::ATTEMPT
    );
    one(database, &sql, (&key.as_str(), Type::TEXT), rows::attempt).await
}

pub(super) async fn resolutions(database: &Postgres, after: i64, limit: usize) -> Result<Vec<ResolutionRow>> {
    let sql = format!(
        "SELECT {} FROM resolutions AS r JOIN attempts AS a ON a.key = r.key
         JOIN invoices AS i ON i.id = a.invoice_id WHERE r.id > $1 ORDER BY r.id LIMIT $2",
        rows::RESOLUTION
    );
    list(database, &sql, &[(&after, Type::INT8), (&at_most(limit), Type::INT8)], rows::resolution).await
}
