//! Plain reads by SQL that both databases understand: pages by cursor, and single rows. Changes nothing. Knows no
//! driver.

use async_trait::async_trait;

use super::rows::{self, FromRow};
use super::subscriptions::statements::Sql;
use crate::invoice::{Attempt, Customer, CustomerId, Invoice, InvoiceId, InvoiceState, Reference};
use crate::protocol::key::Key;
use crate::store::{BATCH_MAX, InvoiceReads, Result};

/// A parameter of a read.
pub(super) enum Value {
    Integer(i64),
    /// An integer that is narrower where the database has narrower integers.
    Count(u32),
    Text(String),
    OptionalInteger(Option<i64>),
    OptionalText(Option<String>),
}

/// A database that executes reads. Parameters are `$1`, `$2` and so on, in the order of their first use.
pub(super) trait Reader: Send + Sync + 'static {
    /// Text after the table's name that makes a query find unpaid invoices by their own index.
    const BY_UNPAID_INDEX: &'static str;
    /// Conditions that find `a` by its key `$1`, tried in order: first by the index of some keys, then by reading all.
    const BY_KEY: &'static [&'static str];
    /// The condition that finds `i` by the text `$1` or by the NFC form `$2`.
    const MATCHES: &'static str;
    /// The database's variant of SQL.
    const SQL: Sql;

    /// Reads a page of a long list; must not delay reads that others wait for.
    fn page<T: FromRow>(
        &self,
        sql: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Vec<T>>> + Send;

    /// The texts among these that are references, in exactly this spelling.
    fn stored_among(&self, texts: Vec<String>) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Reads one row.
    fn row<T: FromRow>(
        &self,
        sql: String,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Option<T>>> + Send;
}

/// The end of a search by reference: a store may have two references that were distinct before NFC.
pub(super) const EQUAL_TEXT_FIRST: &str = "ORDER BY i.reference <> $1, i.id LIMIT 1";

pub(super) fn at_most(limit: usize) -> Value {
    Value::Integer(i64::try_from(limit.min(BATCH_MAX)).unwrap_or(i64::MAX))
}

pub(super) fn invoices_where(condition: &str) -> String {
    format!("SELECT {} FROM invoices AS i WHERE {condition}", rows::INVOICE)
}

pub(super) fn attempts_where(condition: &str) -> String {
    let columns = rows::ATTEMPT;
    format!("SELECT {columns} FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id WHERE {condition}")
}

#[async_trait]
impl<S: Reader> InvoiceReads for S {
    async fn stored_among(&self, texts: Vec<String>) -> Result<Vec<String>> {
        if texts.is_empty() { Ok(texts) } else { Reader::stored_among(self, texts).await }
    }

    async fn customers(&self, after: CustomerId, limit: usize) -> Result<Vec<Customer>> {
        let sql = format!("SELECT {} FROM customers WHERE id > $1 ORDER BY id LIMIT $2", rows::CUSTOMER);
        self.page(sql, vec![Value::Integer(after.0), at_most(limit)]).await
    }

    async fn customer(&self, id: CustomerId) -> Result<Option<Customer>> {
        let sql = format!("SELECT {} FROM customers WHERE id = $1", rows::CUSTOMER);
        self.row(sql, vec![Value::Integer(id.0)]).await
    }

    async fn invoices(
        &self,
        state: Option<InvoiceState>,
        after: InvoiceId,
        limit: usize,
    ) -> Result<Vec<Invoice>> {
        // The state is part of the text, not a parameter, so that the planner can use the partial index.
        let (index, condition) = match state {
            None => ("", String::new()),
            Some(InvoiceState::Paid) => ("", "i.state = 'PAID' AND".to_owned()),
            Some(state) => (S::BY_UNPAID_INDEX, format!("i.state = '{state}' AND i.state <> 'PAID' AND")),
        };
        let columns = rows::INVOICE;
        let sql = format!(
            "SELECT {columns} FROM invoices AS i {index} WHERE {condition} i.id > $1 ORDER BY i.id LIMIT $2"
        );
        self.page(sql, vec![Value::Integer(after.0), at_most(limit)]).await
    }

    async fn invoice(&self, id: InvoiceId) -> Result<Option<Invoice>> {
        self.row(invoices_where("i.id = $1"), vec![Value::Integer(id.0)]).await
    }

    async fn invoice_by_reference(&self, reference: &Reference) -> Result<Option<Invoice>> {
        let sql = invoices_where(&format!("{} {EQUAL_TEXT_FIRST}", S::MATCHES));
        let names = [reference.as_str(), reference.nfc()].map(|name| Value::Text(name.to_owned()));
        self.row(sql, names.into()).await
    }

    async fn attempts(&self, after: (InvoiceId, u32), limit: usize) -> Result<Vec<Attempt>> {
        let sql =
            attempts_where("(a.invoice_id, a.number) > ($1, $2) ORDER BY a.invoice_id, a.number LIMIT $3");
        let (InvoiceId(invoice), number) = after;
        self.page(sql, vec![Value::Integer(invoice), Value::Count(number), at_most(limit)]).await
    }

    async fn attempt(&self, key: &Key) -> Result<Option<Attempt>> {
        for condition in S::BY_KEY {
            // Runs as a list: it may read all attempts, and must not delay reads that others wait for.
            let params = vec![Value::Text(key.as_str().to_owned())];
            let found = self.page(attempts_where(condition), params).await?.pop();
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
