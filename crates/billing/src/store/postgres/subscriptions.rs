//! Subscriptions and their schedule in PostgreSQL: the statements of `store::subscriptions` in one transaction each.

use async_trait::async_trait;
use chassis::postgres::{PgError, PoolClass, Result as PgResult, get};

use super::transaction::PostgresTransaction;
use super::{PostgresStore, boxed, params_of, store_error};
use crate::invoice::Reference;
use crate::schedule::Holidays;
use crate::store::reads::Value;
use crate::store::rows::FromRow;
use crate::store::subscriptions::statements::{Sql, Statements};
use crate::store::subscriptions::{
    GenerateBatch, Generated, ScheduleDecision, SubscriptionChange, SubscriptionChanged,
    SubscriptionImported, SubscriptionStore,
};
use crate::store::subscriptions::{import, steps};
use crate::store::{Result, StoreError};
use crate::subscription::NewSubscription;

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

    /// Does nothing, because triggers count.
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
            import::import(&tx, batch, dry_run).await
        };
        self.transact(PoolClass::Claim, steps).await
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

    async fn now_ms(&self) -> Result<i64> {
        let rows = self.database.read(PoolClass::Record, NOW, &[]).await.map_err(store_error)?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("a call gave no row".to_owned()))?;
        get(row, 0).map_err(store_error)
    }

    async fn put_schedule_run(&self, decision: &ScheduleDecision) -> Result<()> {
        let steps = |tx: PostgresTransaction| async move { steps::put_run(&tx, decision).await };
        self.transact(PoolClass::Record, steps).await
    }

    async fn generate(&self, batch: &GenerateBatch<'_>) -> Result<Generated> {
        self.transact(PoolClass::Claim, |tx| async move { steps::generate(&tx, batch).await }).await
    }
}
