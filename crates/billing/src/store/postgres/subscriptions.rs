//! Subscriptions and their schedule in PostgreSQL: the statements of `store::subscriptions` in one transaction each.

use async_trait::async_trait;
use chassis::postgres::{PgError, PoolClass, Result as PgResult, get};
use jiff::civil::Date;

use super::transaction::PostgresTransaction;
use super::{PostgresStore, boxed, params_of, store_error};
use crate::invoice::Reference;
use crate::schedule::Holidays;
use crate::schedule::run::{ScheduleRun, ScheduleRunState, Sums};
use crate::store::reads::Value;
use crate::store::rows::FromRow;
use crate::store::subscriptions::statements::{Sql, Statements};
use crate::store::subscriptions::steps::{self, Reads};
use crate::store::subscriptions::{
    DueDate, GenerateBatch, Generated, OperatorAction, ScheduleDecision, ScheduleStore, SubscriptionChange,
    SubscriptionChanged, SubscriptionImported, SubscriptionStore,
};
use crate::store::{Result, StoreError};
use crate::subscription::{NewSubscription, Subscription, SubscriptionState};

const NOW: &str = "SELECT billing_now_ms()";

impl Statements for PostgresTransaction {
    type Error = PgError;

    const SQL: Sql = Sql::Postgres;

    async fn now_ms(&self) -> PgResult<i64> {
        let rows = self.tx.query(NOW, &[]).await?;
        let row = rows.first().ok_or_else(|| PgError::Corrupt("a call gave no row".to_owned()))?;
        get(row, 0)
    }

    async fn rows<T: FromRow>(&self, sql: String, params: Vec<Value>) -> PgResult<Vec<T>> {
        let boxed: Vec<_> = params.into_iter().map(boxed).collect();
        self.tx.query(&sql, &params_of(&boxed)).await?.iter().map(T::from_row).collect()
    }

    async fn change(&self, sql: String, params: Vec<Value>) -> PgResult<u64> {
        let boxed: Vec<_> = params.into_iter().map(boxed).collect();
        self.tx.execute(&sql, &params_of(&boxed)).await
    }

    /// Triggers do.
    async fn count_pending(&self, _: i64) -> PgResult<()> {
        Ok(())
    }

    fn corrupt(&self, problem: String) -> PgError {
        PgError::Corrupt(problem)
    }

    fn conflict(&self) -> PgError {
        PgError::Conflict("another transaction wrote the same rows meanwhile".into())
    }
}

impl PostgresStore {
    fn reads(&self) -> Reads<'_, Self> {
        Reads(self, Sql::Postgres)
    }
}

#[async_trait]
impl SubscriptionStore for PostgresStore {
    async fn import_subscriptions(
        &self,
        batch: &[NewSubscription],
        dry_run: bool,
    ) -> Result<Vec<SubscriptionImported>> {
        let steps = |tx: PostgresTransaction| async move {
            if dry_run {
                tx.tx.undo();
            }
            steps::import(&tx, batch, dry_run).await
        };
        self.transact(PoolClass::Claim, steps).await
    }

    async fn subscriptions(
        &self,
        state: Option<SubscriptionState>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Subscription>> {
        self.reads().subscriptions(state, after, limit).await
    }

    async fn subscription(&self, reference: &Reference) -> Result<Option<Subscription>> {
        self.reads().subscription(reference).await
    }

    async fn change_subscription(
        &self,
        reference: &Reference,
        change: &SubscriptionChange,
        holidays: &Holidays,
    ) -> Result<SubscriptionChanged> {
        let steps =
            |tx: PostgresTransaction| async move { steps::change(&tx, reference, change, holidays).await };
        self.transact(PoolClass::Record, steps).await
    }

    async fn actions_on(&self, subject: &str, after: i64, limit: usize) -> Result<Vec<OperatorAction>> {
        self.reads().actions_on(subject, after, limit).await
    }
}

#[async_trait]
impl ScheduleStore for PostgresStore {
    async fn now_ms(&self) -> Result<i64> {
        let rows = self.database.read(PoolClass::Record, NOW, &[]).await.map_err(store_error)?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("a call gave no row".to_owned()))?;
        get(row, 0).map_err(store_error)
    }

    async fn next_due_date(&self, after: Option<Date>) -> Result<Option<DueDate>> {
        self.reads().next_due_date(after).await
    }

    async fn left_on(&self, on: Date) -> Result<Sums> {
        self.reads().left_on(on).await
    }

    async fn put_schedule_run(&self, decision: &ScheduleDecision) -> Result<()> {
        let steps = |tx: PostgresTransaction| async move { steps::put_run(&tx, decision).await };
        self.transact(PoolClass::Record, steps).await
    }

    async fn schedule_runs(
        &self,
        state: Option<ScheduleRunState>,
        after: Option<Date>,
        limit: usize,
    ) -> Result<Vec<ScheduleRun>> {
        self.reads().schedule_runs(state, after, limit).await
    }

    async fn generate(&self, batch: &GenerateBatch<'_>) -> Result<Generated> {
        self.transact(PoolClass::Claim, |tx| async move { steps::generate(&tx, batch).await }).await
    }

    async fn has_scheduled_invoice(&self) -> Result<bool> {
        let now_ms = ScheduleStore::now_ms(self).await?;
        self.reads().has_scheduled_invoice(now_ms).await
    }
}
