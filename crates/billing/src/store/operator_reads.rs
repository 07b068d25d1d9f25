//! What an operator looks at beside single rows: each read is a few steps in an index and has a limit. Changes nothing.
//! Knows no driver.

use async_trait::async_trait;

use super::Result;
use super::reads::{Reader, Value, at_most, attempts_where, invoices_where};
use super::subscriptions::OperatorAction;
use super::subscriptions::rows::OPERATOR_ACTION;
use crate::invoice::{Attempt, CustomerId, Invoice};

/// Of what actions are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActedOn {
    Invoice,
    Customer,
    Subscription,
}

impl ActedOn {
    /// How the names of its actions begin.
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

    /// The last declines of a customer, newest first.
    async fn last_declines(&self, customer: CustomerId, limit: usize) -> Result<Vec<Attempt>>;
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

    async fn last_declines(&self, customer: CustomerId, limit: usize) -> Result<Vec<Attempt>> {
        let sql = attempts_where(
            "a.customer_id = $1 AND a.state = 'REFUSED' ORDER BY a.settled_at DESC, a.key LIMIT $2",
        );
        self.page(sql, vec![Value::Integer(customer.0), at_most(limit)]).await
    }
}
