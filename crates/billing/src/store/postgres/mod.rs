//! PostgreSQL as a store, shared by any number of processes. Each method is one transaction or one statement, without
//! prepared names or session state, on the database's own clock. Decides nothing: the steps of a transaction are in
//! `store::transaction`.

mod claims;
mod control;
mod dunning;
mod imports;
mod ledgers;
mod normal_form;
pub(super) mod runs;
mod subscriptions;
mod transaction;
mod virtual_clock;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use chassis::clock::Clock;
use chassis::postgres::{
    Param, PgError, PoolClass, Postgres, Result as PgResult, Row, Schema, ToSql, Tx, Type, get,
};
use uuid::Uuid;

use self::transaction::PostgresTransaction;
use super::changeset::LEASE_NEVER;
use super::reads::{Reader, Value};
use super::rows::{Columns, FromRow};
use super::transaction::{self as steps, PendingClaim};
use crate::invoice::{Attempt, InvoiceId, Run, RunId, RunProblem};
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::Settlement;
use crate::run_order::RunOrder;
use crate::store::ages::Ages;
use crate::store::subscriptions::SubscriptionStore;
use crate::store::subscriptions::statements::Sql;
use crate::store::{
    AcknowledgementStore, BATCH_MAX, ChargeStore, ClaimedPending, Counts, Evidence, ImportMode, ImportRow,
    Imported, LedgerAcceptance, LedgerAcknowledgement, LedgerAcknowledgementRow, LedgerFact, LedgerSeen,
    LedgerStore, OpenedRun, OperatorStore, OtherDeployment, Repaired, Resolution, Resolved, Result, RunStore,
    Settled, StoreError, UnbackedAcknowledgement, UnbackedAcknowledgementRow, migrations,
};

/// Billing's schema.
pub const SCHEMA: Schema = Schema { service: "billing", steps: &migrations::POSTGRES };

/// Inserts the deployment id once, from the first process.
const FIRST: &str = "
    INSERT INTO deployment (id) SELECT $1::text::uuid WHERE NOT EXISTS (SELECT 1 FROM deployment)
    ON CONFLICT DO NOTHING RETURNING 1";

const DEPLOYMENT: &str = "SELECT id::text FROM deployment";

/// Why the database cannot serve as this installation's store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database belongs to another installation.
    #[error(transparent)]
    OtherDeployment(#[from] OtherDeployment),
    /// The times in its rows come from the other kind of clock.
    #[error("{0}")]
    OtherClock(String),
}

/// Billing's facts in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    database: Postgres,
    deployment: DeploymentId,
}

impl PostgresStore {
    /// Opens a database that has the schema. A new store gets the given deployment id, or the random one.
    ///
    /// # Errors
    /// When the database cannot be used, has the other kind of clock, or belongs to another deployment than the given
    /// one.
    pub async fn open(
        database: Postgres,
        deployment: Option<DeploymentId>,
        random: Uuid,
        clock: &Clock,
    ) -> std::result::Result<Self, OpenError> {
        let prepared = virtual_clock::prepare(&database, clock).await.map_err(store_error)?;
        prepared.map_err(OpenError::OtherClock)?;
        let first = deployment.map_or(random, |given| given.0);
        let stored = prepare(&database, first).await.map_err(store_error)?;
        normal_form::warn_of_pairs(&database).await.map_err(store_error)?;
        match deployment {
            Some(given) if given.0 != stored => Err(OtherDeployment { stored, given: given.0 }.into()),
            _ => Ok(Self { database, deployment: DeploymentId(stored) }),
        }
    }

    /// Keeps the database at the time of a virtual clock, for ever; completes at once for another clock.
    pub fn follow_clock(&self, clock: Clock) -> impl Future<Output = ()> + Send + use<> {
        virtual_clock::follow(self.database.clone(), clock)
    }

    /// The deployment id of a store that is not opened for charging; `None` if it has none yet.
    ///
    /// # Errors
    /// When the id cannot be read.
    pub async fn peek(database: &Postgres) -> Result<Option<DeploymentId>> {
        let rows = database.read(PoolClass::Record, DEPLOYMENT, &[]).await.map_err(store_error)?;
        let id = rows.first().map(deployment_id).transpose().map_err(store_error)?;
        Ok(id.map(DeploymentId))
    }

    /// Runs the steps of a transaction that claims nothing.
    async fn transact<T, F, Fut>(&self, class: PoolClass, steps: F) -> Result<T>
    where
        T: Send,
        F: Fn(PostgresTransaction) -> Fut + Send + Sync,
        Fut: Future<Output = PgResult<T>> + Send,
    {
        let steps = &steps;
        let job = |tx: Tx| async move {
            tx.find_by_index().await?;
            steps(PostgresTransaction::new(tx, Duration::ZERO, String::new())).await
        };
        self.database.transaction(class, job).await.map_err(store_error)
    }
}

async fn prepare(database: &Postgres, first: Uuid) -> PgResult<Uuid> {
    let param: Param<'_> = (&first.to_string(), Type::TEXT);
    if !database.write(PoolClass::Record, FIRST, &[param]).await?.is_empty() {
        super::warn_of_new(first);
    }
    let rows = database.read(PoolClass::Record, DEPLOYMENT, &[]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("{} deployments in one store", rows.len())));
    };
    deployment_id(row)
}

fn deployment_id(row: &Row) -> PgResult<Uuid> {
    row.parsed(0, |text| Uuid::parse_str(text).ok())
}

/// Data that break an invariant are the store's fault; any other error may be temporary.
fn store_error(error: PgError) -> StoreError {
    match &error {
        PgError::Corrupt(_) | PgError::Constraint { .. } => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// Milliseconds for SQL.
fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(LEASE_NEVER)
}

impl Columns for Row {
    type Error = PgError;

    fn integer(&self, column: usize) -> PgResult<i64> {
        get(self, column)
    }

    fn optional_integer(&self, column: usize) -> PgResult<Option<i64>> {
        get(self, column)
    }

    fn count(&self, column: usize) -> PgResult<u32> {
        let number: i32 = get(self, column)?;
        u32::try_from(number).map_err(|error| Self::corrupt(column, error.to_string()))
    }

    fn flag(&self, column: usize) -> PgResult<bool> {
        get(self, column)
    }

    fn optional_text(&self, column: usize) -> PgResult<Option<&str>> {
        get(self, column)
    }

    fn corrupt(column: usize, problem: String) -> PgError {
        PgError::Corrupt(format!("column {column}: {problem}"))
    }
}

/// Fails unless a conditional statement changed this many rows.
fn changed(rows: u64, expected: usize, what: &'static str) -> PgResult<()> {
    if usize::try_from(rows) == Ok(expected) {
        return Ok(());
    }
    Err(PgError::Corrupt(format!("{what}: {rows} rows instead of {expected}")))
}

pub(super) type Boxed = (Box<dyn ToSql + Sync + Send>, Type);

/// The value as a parameter of the driver.
pub(super) fn boxed(value: Value) -> Boxed {
    match value {
        Value::Integer(integer) => (Box::new(integer), Type::INT8),
        Value::Count(count) => (Box::new(transaction::number(count)), Type::INT4),
        Value::Text(text) => (Box::new(text), Type::TEXT),
        Value::OptionalInteger(integer) => (Box::new(integer), Type::INT8),
        Value::OptionalText(text) => (Box::new(text), Type::TEXT),
    }
}

pub(super) fn params_of(boxed: &[Boxed]) -> Vec<Param<'_>> {
    boxed.iter().map(|(value, kind)| (&**value as _, kind.clone())).collect()
}

impl Reader for PostgresStore {
    /// Empty: the planner finds the index by the condition.
    const BY_UNPAID_INDEX: &'static str = "";
    const BY_KEY: &'static [&'static str] = &["a.key = $1"];
    const MATCHES: &'static str = normal_form::MATCHES;
    const SQL: Sql = Sql::Postgres;

    /// Uses no connection that outcomes wait for.
    async fn page<T: FromRow>(&self, sql: String, params: Vec<Value>) -> Result<Vec<T>> {
        let boxed: Vec<_> = params.into_iter().map(boxed).collect();
        let found =
            self.database.page(PoolClass::Claim, &sql, &params_of(&boxed)).await.map_err(store_error)?;
        found.iter().map(T::from_row).collect::<PgResult<_>>().map_err(store_error)
    }

    async fn stored_among(&self, texts: Vec<String>) -> Result<Vec<String>> {
        let sql = "SELECT reference FROM invoices WHERE reference = ANY($1)";
        let params: &[Param<'_>] = &[(&texts, Type::TEXT_ARRAY)];
        let found = self.database.read(PoolClass::Record, sql, params).await.map_err(store_error)?;
        found.iter().map(|row| get(row, 0)).collect::<PgResult<_>>().map_err(store_error)
    }

    async fn row<T: FromRow>(&self, sql: String, params: Vec<Value>) -> Result<Option<T>> {
        let boxed: Vec<_> = params.into_iter().map(boxed).collect();
        let found =
            self.database.read(PoolClass::Record, &sql, &params_of(&boxed)).await.map_err(store_error)?;
        found.first().map(T::from_row).transpose().map_err(store_error)
    }
}

#[async_trait]
impl LedgerStore for PostgresStore {
    fn is_shared(&self) -> bool {
        true
    }

    async fn deployment(&self) -> Result<DeploymentId> {
        Ok(self.deployment)
    }

    async fn ledger_id(&self) -> Result<Option<String>> {
        ledgers::current(&self.database).await.map_err(store_error)
    }

    async fn ledger_seen(&self) -> Result<Option<LedgerSeen>> {
        ledgers::seen(&self.database).await.map_err(store_error)
    }

    async fn remember_ledger(&self, ledger_id: &str) -> Result<String> {
        ledgers::remember(&self.database, ledger_id).await.map_err(store_error)
    }

    async fn accept_ledger(&self, acceptance: &LedgerAcceptance) -> Result<Option<String>> {
        let steps = |tx| ledgers::accept(tx, acceptance);
        self.database.transaction(PoolClass::Record, steps).await.map_err(store_error)
    }
}

#[async_trait]
impl RunStore for PostgresStore {
    async fn counts(&self) -> Result<Counts> {
        runs::counts(&self.database).await.map_err(store_error)
    }

    async fn ages(&self) -> Result<Ages> {
        runs::ages(&self.database).await.map_err(store_error)
    }

    async fn open_ordered_run(&self, order: &RunOrder, lease: Duration) -> Result<OpenedRun> {
        runs::open(&self.database, order, lease).await.map_err(store_error)
    }

    async fn runs(&self, after: RunId, limit: usize) -> Result<Vec<Run>> {
        runs::list_after(&self.database, after, limit.min(BATCH_MAX)).await.map_err(store_error)
    }

    async fn adopt_run(&self, lease: Duration) -> Result<Option<Run>> {
        runs::adopt(&self.database, lease).await.map_err(store_error)
    }

    async fn renew_run(&self, run: RunId, lease: Duration) -> Result<bool> {
        runs::renew(&self.database, run, lease).await.map_err(store_error)
    }

    async fn finish_run(&self, run: RunId, joins: i64) -> Result<bool> {
        runs::finish(&self.database, run, joins).await.map_err(store_error)
    }

    async fn note_problem(&self, run: RunId, problem: &RunProblem) -> Result<()> {
        runs::note_problem(&self.database, run, problem).await.map_err(store_error)
    }

    async fn run(&self, run: RunId) -> Result<Option<Run>> {
        runs::find(&self.database, run).await.map_err(store_error)
    }

    async fn latest_run(&self) -> Result<Option<Run>> {
        runs::latest(&self.database).await.map_err(store_error)
    }

    async fn unsent_attempts(&self) -> Result<i64> {
        runs::unsent_attempts(&self.database).await.map_err(store_error)
    }

    async fn unfinished_run(&self) -> Result<Option<Run>> {
        runs::unfinished(&self.database).await.map_err(store_error)
    }
}

#[async_trait]
impl ChargeStore for PostgresStore {
    async fn claim_in_turn(
        &self,
        run: RunId,
        after: InvoiceId,
        limit: usize,
        lease: Duration,
    ) -> Result<ClaimedPending> {
        let once =
            |claim| {
                claims::claim(&self.database, lease, move |tx| async move {
                    steps::claim_pending(&tx, claim).await
                })
            };
        PendingClaim::new(self.deployment, run, after, limit).repeat(once).await.map_err(store_error)
    }

    async fn has_claimable_left(&self, run: RunId) -> Result<bool> {
        let claim = PendingClaim::new(self.deployment, run, InvoiceId(i64::MIN), BATCH_MAX);
        let steps = |tx: PostgresTransaction| async move {
            match dunning::is_any_network_known(&tx.tx).await? {
                true => steps::has_claimable_left(&tx.looking_on(), claim).await,
                false => Ok(false),
            }
        };
        self.transact(PoolClass::Claim, steps).await
    }

    async fn claim_open(&self, run: Option<RunId>, limit: usize, lease: Duration) -> Result<Vec<Attempt>> {
        let limit = limit.min(BATCH_MAX);
        let steps = |tx| async move { steps::claim_open(&tx, run, limit).await };
        let claimed = claims::claim(&self.database, lease, steps).await.map_err(store_error)?;
        Ok(claimed.attempts)
    }

    async fn to_withdraw(&self, attempts: &[Attempt]) -> Result<HashSet<Key>> {
        let now = SubscriptionStore::now_ms(self).await?;
        let steps =
            |tx: PostgresTransaction| async move { dunning::to_withdraw(&tx.tx, attempts, now).await };
        self.transact(PoolClass::Claim, steps).await
    }

    async fn next_open_in(&self) -> Result<Option<Duration>> {
        claims::next_due(&self.database).await.map_err(store_error)
    }

    /// Does nothing: no lease belongs to this process alone, and leases end by themselves.
    async fn recover(&self) -> Result<u64> {
        Ok(0)
    }

    async fn settle_and_see(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
        seen: Option<&LedgerSeen>,
    ) -> Result<Vec<Settled>> {
        self.transact(PoolClass::Record, |tx| async move { steps::settle(&tx, run, settlements, seen).await })
            .await
    }
}

#[async_trait]
impl OperatorStore for PostgresStore {
    async fn import(&self, rows: &[ImportRow], mode: ImportMode) -> Result<Vec<Imported>> {
        let steps = |tx: PostgresTransaction| async move {
            if mode.dry_run {
                tx.tx.undo();
            } else {
                normal_form::wait_for_turn(&tx.tx, rows).await?;
            }
            steps::import(&tx, rows, mode).await
        };
        self.transact(PoolClass::Claim, steps).await
    }

    async fn resolve_by(&self, resolution: &Resolution, evidence: &Evidence) -> Result<Resolved> {
        let steps = |tx| async move { steps::resolve(&tx, resolution, evidence).await };
        self.transact(PoolClass::Record, steps).await
    }

    async fn repair(&self, facts: &[LedgerFact]) -> Result<Vec<Repaired>> {
        let deployment = self.deployment;
        self.transact(PoolClass::Claim, |tx| async move { steps::repair(&tx, deployment, facts).await }).await
    }
}

#[async_trait]
impl AcknowledgementStore for PostgresStore {
    async fn acknowledge(&self, acknowledgement: &LedgerAcknowledgement) -> Result<LedgerAcknowledgementRow> {
        ledgers::acknowledge(&self.database, acknowledgement).await.map_err(store_error)
    }

    async fn acknowledge_unbacked(
        &self,
        acknowledgement: &UnbackedAcknowledgement,
    ) -> Result<Option<UnbackedAcknowledgementRow>> {
        ledgers::acknowledge_unbacked(&self.database, acknowledgement).await.map_err(store_error)
    }
}
