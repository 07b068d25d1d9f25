//! Lists for operators, besides single rows: each read is a few steps in an index and has a limit. Changes nothing.
//! Knows no driver.

use async_trait::async_trait;

use super::charged_days::{CHARGED_DAYS, ChargedDay};
use super::reads::{Reader, Value, at_most, attempts_where, invoices_where};
use super::subscriptions::OperatorAction;
use super::subscriptions::rows::OPERATOR_ACTION;
use super::{LedgerAcknowledgementRow, ResolutionRow, Result, UnbackedAcknowledgementRow, rows};
use crate::invoice::{Attempt, CustomerId, Invoice, InvoiceId};

/// The subject of the requested actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActedOn {
    Invoice,
    Customer,
    Subscription,
}

impl ActedOn {
    /// The prefix of the names of these actions.
    fn pattern(self) -> &'static str {
        match self {
            Self::Invoice => "invoice-%",
            Self::Customer => "customer-%",
            Self::Subscription => "subscription-%",
        }
    }
}

/// Lists for an operator.
#[async_trait]
pub trait OperatorReads: Send + Sync + 'static {
    /// The last actions of operators on the thing with this name, newest first.
    async fn last_actions(&self, on: ActedOn, subject: &str, limit: usize) -> Result<Vec<OperatorAction>>;

    /// Invoices of a customer that a decline holds back, by id.
    async fn declined_invoices(&self, customer: CustomerId, limit: usize) -> Result<Vec<Invoice>>;

    /// Invoices of a customer with `id < before`, newest first.
    async fn invoices_of_customer(
        &self,
        customer: CustomerId,
        before: InvoiceId,
        limit: usize,
    ) -> Result<Vec<Invoice>>;

    /// The sums charged on each UTC day from `since` on, by currency, newest day first. Days and currencies without a
    /// charge are left out.
    async fn charged_days(&self, since: i64, limit: usize) -> Result<Vec<ChargedDay>>;

    /// The last declines of a customer, newest first.
    async fn last_declines(&self, customer: CustomerId, limit: usize) -> Result<Vec<Attempt>>;

    /// Recorded decisions with `id > after`, by id, at most `limit`.
    async fn resolutions(&self, after: i64, limit: usize) -> Result<Vec<ResolutionRow>>;

    /// Acknowledgements of ledger rows with `id > after`, by id, at most `limit`.
    async fn ledger_acknowledgements(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<LedgerAcknowledgementRow>>;

    /// Acceptances of lost rows with `id > after`, by id, at most `limit`.
    async fn unbacked_acknowledgements(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<UnbackedAcknowledgementRow>>;
}

#[async_trait]
impl<S: Reader> OperatorReads for S {
    async fn last_actions(&self, on: ActedOn, subject: &str, limit: usize) -> Result<Vec<OperatorAction>> {
        let sql = format!(
            "SELECT {OPERATOR_ACTION} FROM operator_actions WHERE subject = $1 AND action LIKE '{}'
             ORDER BY id DESC LIMIT $2",
            on.pattern()
        );
        self.page(sql, vec![Value::Text(subject.to_owned()), at_most(limit)]).await
    }

    async fn declined_invoices(&self, customer: CustomerId, limit: usize) -> Result<Vec<Invoice>> {
        let sql =
            invoices_where("i.customer_id = $1 AND i.dunning IS NOT NULL ORDER BY i.dunning, i.id LIMIT $2");
        self.page(sql, vec![Value::Integer(customer.0), at_most(limit)]).await
    }

    async fn invoices_of_customer(
        &self,
        customer: CustomerId,
        before: InvoiceId,
        limit: usize,
    ) -> Result<Vec<Invoice>> {
        let sql = invoices_where("i.customer_id = $1 AND i.id < $2 ORDER BY i.id DESC LIMIT $3");
        self.page(sql, vec![Value::Integer(customer.0), Value::Integer(before.0), at_most(limit)]).await
    }

    async fn charged_days(&self, since: i64, limit: usize) -> Result<Vec<ChargedDay>> {
        let days: Vec<ChargedDay> =
            self.page(CHARGED_DAYS.to_owned(), vec![Value::Integer(since), at_most(limit)]).await?;
        // Statements typed by hand may have removed the last charge of a day.
        Ok(days.into_iter().filter(|day| day.charges != 0).collect())
    }

    async fn last_declines(&self, customer: CustomerId, limit: usize) -> Result<Vec<Attempt>> {
        let sql = attempts_where(
            "a.customer_id = $1 AND a.state = 'REFUSED' ORDER BY a.settled_at DESC, a.key LIMIT $2",
        );
        self.page(sql, vec![Value::Integer(customer.0), at_most(limit)]).await
    }

    /// A replica of the previous version writes decisions without an invoice.
    async fn resolutions(&self, after: i64, limit: usize) -> Result<Vec<ResolutionRow>> {
        let columns = rows::RESOLUTION;
        let sql = format!(
            "SELECT {columns} FROM resolutions AS r JOIN invoices AS i ON i.id = coalesce(r.invoice_id,
                 (SELECT a.invoice_id FROM attempts AS a WHERE a.key = r.key)) WHERE r.id > $1 ORDER BY r.id LIMIT $2"
        );
        self.page(sql, vec![Value::Integer(after), at_most(limit)]).await
    }

    async fn ledger_acknowledgements(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<LedgerAcknowledgementRow>> {
        let columns = rows::ACKNOWLEDGEMENT;
        let sql = format!("SELECT {columns} FROM ledger_acknowledgements WHERE id > $1 ORDER BY id LIMIT $2");
        self.page(sql, vec![Value::Integer(after), at_most(limit)]).await
    }

    async fn unbacked_acknowledgements(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<UnbackedAcknowledgementRow>> {
        let columns = rows::UNBACKED_ACKNOWLEDGEMENT;
        let sql = format!(
            "SELECT {columns} FROM unbacked_acknowledgements AS u JOIN invoices AS i ON i.id = u.invoice_id
             WHERE u.id > $1 ORDER BY u.id LIMIT $2"
        );
        self.page(sql, vec![Value::Integer(after), at_most(limit)]).await
    }
}
