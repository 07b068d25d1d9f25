//! Subscriptions and their schedule in SQLite: the statements of `store::subscriptions` on the writer's connection.

use std::future::{Ready, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use rusqlite::{Row, params_from_iter};

use super::transaction::{SqliteTransaction, add_state_counts};
use super::{Columns, SqliteStore, list, read, run, store_error};
use crate::invoice::{InvoiceState, Reference};
use crate::schedule::Holidays;
use crate::store::Result;
use crate::store::changeset::StateCountDeltas;
use crate::store::reads::Value;
use crate::store::rows::FromRow;
use crate::store::subscriptions::statements::{Sql, Statements};
use crate::store::subscriptions::{
    GenerateBatch, Generated, ScheduleDecision, SubscriptionChange, SubscriptionChanged,
    SubscriptionImported, SubscriptionStore,
};
use crate::store::subscriptions::{import, steps};
use crate::subscription::NewSubscription;

type Done<T> = Ready<rusqlite::Result<T>>;

#[expect(refining_impl_trait_internal, reason = "SQLite does nothing that would be waited for")]
impl Statements for SqliteTransaction<'_> {
    type Error = rusqlite::Error;

    const SQL: Sql = Sql::Sqlite;

    fn now_ms(&self) -> Done<i64> {
        ready(Ok(self.lease.now))
    }

    fn rows<T: FromRow>(&self, sql: String, params: Vec<Value>) -> Done<Vec<T>> {
        ready(list(self.connection, &sql, params_from_iter(params), read))
    }

    fn change(&self, sql: String, params: Vec<Value>) -> Done<u64> {
        let changed = || self.connection.prepare_cached(&sql)?.execute(params_from_iter(params));
        ready(changed().map(|rows| u64::try_from(rows).unwrap_or(u64::MAX)))
    }

    fn count_pending(&self, inserted: i64) -> Done<()> {
        let mut counts = StateCountDeltas::default();
        counts.add_created(InvoiceState::Pending, inserted);
        ready(add_state_counts(self.connection, &counts))
    }

    fn corrupt(&self, problem: String) -> rusqlite::Error {
        Row::corrupt(0, problem)
    }

    /// Does not happen with one writer.
    fn conflict(&self) -> rusqlite::Error {
        Row::corrupt(0, "rows that were not there a moment ago are there".to_owned())
    }
}

#[async_trait]
impl SubscriptionStore for SqliteStore {
    async fn import_subscriptions(
        &self,
        batch: &[NewSubscription],
        dry_run: bool,
    ) -> Result<Vec<SubscriptionImported>> {
        let batch = batch.to_vec();
        let import = move |tx: &SqliteTransaction<'_>| import::import(tx, &batch, dry_run).now_or_never();
        if dry_run {
            let lease = self.lease(Duration::ZERO);
            let job = move |connection: &rusqlite::Connection| {
                run(&SqliteTransaction { connection, lease }, import)
            };
            return self.database.read(job).await.map_err(store_error);
        }
        self.transact(Duration::ZERO, import).await
    }

    async fn change_subscription(
        &self,
        reference: &Reference,
        change: &SubscriptionChange,
        holidays: &Holidays,
    ) -> Result<SubscriptionChanged> {
        let (reference, change, holidays) = (reference.clone(), change.clone(), holidays.clone());
        let steps = move |tx: &SqliteTransaction<'_>| {
            steps::change(tx, &reference, &change, &holidays).now_or_never()
        };
        self.transact(Duration::ZERO, steps).await
    }

    async fn now_ms(&self) -> Result<i64> {
        Ok(self.clock.now_ms())
    }

    async fn put_schedule_run(&self, decision: &ScheduleDecision) -> Result<()> {
        let decision = decision.clone();
        self.transact(Duration::ZERO, move |tx| steps::put_run(tx, &decision).now_or_never()).await
    }

    async fn generate(&self, batch: &GenerateBatch<'_>) -> Result<Generated> {
        let GenerateBatch { on, limit, latest_until, .. } = *batch;
        let holidays = batch.holidays.clone();
        let steps = move |tx: &SqliteTransaction<'_>| {
            steps::generate(tx, &GenerateBatch { on, limit, latest_until, holidays: &holidays })
                .now_or_never()
        };
        self.transact(Duration::ZERO, steps).await
    }
}
