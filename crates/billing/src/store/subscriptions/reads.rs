//! Plain reads of subscriptions and of their schedule, once for every database. Changes nothing.

use async_trait::async_trait;
use jiff::civil::Date;

use super::rows::{CurrencySum, OPERATOR_ACTION, SCHEDULE_RUN, UnixMillis};
use super::steps::{limit_of, subscriptions_where, text};
use super::{DueDate, OperatorAction, SubscriptionReads};
use crate::invoice::Reference;
use crate::schedule::run::{SCHEDULE, ScheduleRun, ScheduleRunState, Sums};
use crate::store::Result;
use crate::store::reads::{Reader, Value};
use crate::subscription::{Subscription, SubscriptionState};

/// The date as text; without a date an empty text, which sorts before every date.
fn date_text(on: Option<Date>) -> Value {
    text(on.map_or(String::new(), |on| on.to_string()))
}

#[async_trait]
impl<S: Reader> SubscriptionReads for S {
    async fn subscriptions(
        &self,
        state: Option<SubscriptionState>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Subscription>> {
        let state = state.map_or(String::new(), |state| format!("s.state = '{}' AND", state.as_str()));
        let sql = subscriptions_where(S::SQL, &format!("{state} s.id > $1 ORDER BY s.id LIMIT $2"));
        self.page(sql, vec![Value::Integer(after), limit_of(limit)]).await
    }

    async fn subscription(&self, reference: &Reference) -> Result<Option<Subscription>> {
        self.row(subscriptions_where(S::SQL, "s.reference = $1"), vec![text(reference.as_str())]).await
    }

    async fn subscription_actions(
        &self,
        reference: &Reference,
        after: i64,
        limit: usize,
    ) -> Result<Vec<OperatorAction>> {
        let sql = format!(
            "SELECT {OPERATOR_ACTION} FROM operator_actions WHERE subject = $1 AND action LIKE 'subscription-%'
                 AND id > $2 ORDER BY id LIMIT $3"
        );
        self.page(sql, vec![text(reference.as_str()), Value::Integer(after), limit_of(limit)]).await
    }

    async fn next_due_date(&self, after: Option<Date>) -> Result<Option<DueDate>> {
        // One step in the index, however many periods are due.
        let sql = "SELECT next_on, next_at FROM subscriptions
             WHERE state = 'active' AND next_on IS NOT NULL AND next_on > $1 ORDER BY next_on, next_at LIMIT 1";
        self.row(sql.to_owned(), vec![date_text(after)]).await
    }

    async fn left_on(&self, on: Date) -> Result<Sums> {
        // No GROUP BY, for which SQLite would sort every row of the date in memory.
        let due =
            "FROM subscriptions AS s WHERE s.state = 'active' AND s.next_on IS NOT NULL AND s.next_on = $1";
        let sql = format!(
            "SELECT c.currency, (SELECT count(*) {due} AND s.currency = c.currency),
                 (SELECT CAST(sum((SELECT p.amount_minor FROM prices AS p
                     WHERE p.subscription_id = s.id AND p.from_on <= s.next_on ORDER BY p.from_on DESC LIMIT 1)) AS bigint)
                  {due} AND s.currency = c.currency)
             FROM (SELECT DISTINCT s.currency {due}) AS c ORDER BY c.currency"
        );
        let sums: Vec<CurrencySum> = self.page(sql, vec![date_text(Some(on))]).await?;
        Ok(sums.into_iter().map(|CurrencySum(currency, sum)| (currency, sum)).collect())
    }

    async fn schedule_runs(
        &self,
        state: Option<ScheduleRunState>,
        after: Option<Date>,
        limit: usize,
    ) -> Result<Vec<ScheduleRun>> {
        let state = state.map_or(String::new(), |state| format!("state = '{}' AND", state.as_str()));
        let sql = format!(
            "SELECT {SCHEDULE_RUN} FROM schedule_runs WHERE {state} schedule = '{SCHEDULE}' AND period_on > $1
             ORDER BY period_on LIMIT $2"
        );
        self.page(sql, vec![date_text(after), limit_of(limit)]).await
    }

    async fn next_attempt_at(&self) -> Result<Option<i64>> {
        // The same conditions as in claims: otherwise runs that claim nothing would be started again and again.
        let sql = "SELECT i.next_attempt_at FROM invoices AS i WHERE i.state = 'PENDING'
             AND i.next_attempt_at IS NOT NULL AND i.due_at IS NOT NULL AND NOT i.held
             AND NOT EXISTS (SELECT 1 FROM halt)
             AND NOT EXISTS (SELECT 1 FROM customers AS c WHERE c.id = i.customer_id AND c.held)
             AND i.customer_id NOT IN (SELECT a.customer_id FROM attempts AS a CROSS JOIN customers AS c
                 WHERE a.state IN ('INTENT', 'IN_DOUBT') AND c.id = a.customer_id AND c.network <> 'none')
             ORDER BY i.next_attempt_at LIMIT 1";
        Ok(self.row::<UnixMillis>(sql.to_owned(), Vec::new()).await?.map(|UnixMillis(at)| at))
    }
}
