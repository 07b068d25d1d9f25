//! SQLite as a store: one writer thread, two readers, the process's own clock. Each method is one job. Decides nothing:
//! the steps of a transaction are in `store::transaction`.

mod charged_days;
mod claims;
mod columns;
mod control;
mod dunning;
mod imports;
mod keys;
mod ledgers;
mod normal_form;
pub(super) mod runs;
mod subscriptions;
mod transaction;

pub use claims::SCAN_MAX;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chassis::clock::{Clock, Random};
use chassis::sqlite::{Disk, Sqlite, SqliteError};
use futures_util::FutureExt;
use rusqlite::{Connection, ErrorCode, Row, params_from_iter};
use uuid::Uuid;

use self::columns::{list, one, one_row, read};
use self::transaction::SqliteTransaction;
use super::changeset::LEASE_NEVER;
use super::reads::{Reader, Value};
use super::rows::{Columns, FromRow, UNSENT};
use super::transaction::{self as steps, PendingClaim};
use crate::invoice::{Attempt, InvoiceId, Run, RunId, RunProblem};
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::Settlement;
use crate::run_order::RunOrder;
use crate::store::ages::Ages;
use crate::store::lease::AHEAD_MAX_MS;
use crate::store::subscriptions::statements::Sql;
use crate::store::{
    AcknowledgementStore, BATCH_MAX, ChargeStore, ClaimedPending, Counts, Evidence, ImportMode, ImportRow,
    Imported, LedgerAcceptance, LedgerAcknowledgement, LedgerAcknowledgementRow, LedgerFact, LedgerSeen,
    LedgerStore, OpenedRun, OperatorStore, OtherDeployment, Repaired, Resolution, Resolved, Result, RunStore,
    Settled, StoreError, UnbackedAcknowledgement, UnbackedAcknowledgementRow, migrations,
};

/// How long a caller's write may wait for the writer: existing clients give up after 5 s. The same as on PostgreSQL.
const BEGIN_WITHIN: Duration = Duration::from_secs(4);

/// Billing's facts in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    database: Sqlite,
    deployment: DeploymentId,
    clock: Clock,
    /// Whether other processes use the same data, which happens only in a simulation.
    is_shared: bool,
}

/// Why the file cannot serve as this installation's store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, its directory or its schema cannot be used.
    #[error(transparent)]
    Database(#[from] SqliteError),
    /// The file belongs to another installation.
    #[error(transparent)]
    OtherDeployment(#[from] OtherDeployment),
}

impl SqliteStore {
    /// Opens the file, which is created if missing. A new store gets the given deployment id, or a random one.
    ///
    /// # Errors
    /// When the file cannot be used, or belongs to another deployment than the given one.
    pub async fn open(
        path: &Path,
        deployment: Option<DeploymentId>,
        clock: Clock,
        random: &Random,
    ) -> std::result::Result<Self, OpenError> {
        Self::over(Sqlite::open(path, &migrations::SQLITE, &clock)?, deployment, clock, random).await
    }

    /// The deployment id of a store that another process may be using; reads nothing else. `None` if it has none yet.
    ///
    /// # Errors
    /// When no store can be read there.
    pub async fn peek(path: &Path) -> std::result::Result<Option<DeploymentId>, SqliteError> {
        let id = chassis::sqlite::peek(path, |connection| one(connection, DEPLOYMENT, [], deployment_id));
        Ok(id.await?.map(DeploymentId))
    }

    /// A fresh database for a simulation; `latency` draws the duration of its writes.
    ///
    /// # Errors
    /// When the schema cannot be created.
    pub fn disk(clock: &Clock, latency: Random) -> std::result::Result<Disk, SqliteError> {
        Disk::new(&migrations::SQLITE, clock, latency)
    }

    /// Opens the store on a simulation's disk, alone or as one of several replicas.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn on(
        disk: &Disk,
        is_shared: bool,
        clock: Clock,
        random: &Random,
    ) -> std::result::Result<Self, OpenError> {
        let store = Self::over(Sqlite::on(disk), None, clock, random).await?;
        Ok(Self { is_shared, ..store })
    }

    async fn over(
        database: Sqlite,
        deployment: Option<DeploymentId>,
        clock: Clock,
        random: &Random,
    ) -> std::result::Result<Self, OpenError> {
        let first = deployment.map_or_else(|| random.uuid(), |given| given.0);
        let stored = database.write(move |connection| prepare(connection, first)).await?;
        match deployment {
            Some(given) if given.0 != stored => Err(OtherDeployment { stored, given: given.0 }.into()),
            _ => Ok(Self { database, deployment: DeploymentId(stored), clock, is_shared: false }),
        }
    }

    /// Whether the store accepts writes, known without a query: for a readiness check.
    pub fn is_writable(&self) -> impl Fn() -> std::result::Result<(), String> + Send + Sync + use<> {
        self.database.is_writable()
    }

    /// Reads a few rows; does not wait behind lists.
    async fn read_short<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.database.read_short(job).await.map_err(store_error)
    }

    async fn write<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.database.write(job).await.map_err(store_error)
    }

    /// Writes for a caller's request; not begun once the caller has given up.
    async fn write_asked<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.database.write_within(BEGIN_WITHIN, job).await.map_err(store_error)
    }

    /// Like [`Self::transact`], for a caller's request.
    async fn transact_asked<T, F>(&self, steps: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteTransaction<'_>) -> Option<rusqlite::Result<T>> + Send + 'static,
    {
        let lease = self.lease(Duration::ZERO);
        self.write_asked(move |connection| run(&SqliteTransaction { connection, lease }, steps)).await
    }

    /// Runs the steps of a transaction, which SQLite finishes without waiting; attempts that they claim get this lease.
    async fn transact<T, F>(&self, lease: Duration, steps: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&SqliteTransaction<'_>) -> Option<rusqlite::Result<T>> + Send + 'static,
    {
        let lease = self.lease(lease);
        self.write(move |connection| run(&SqliteTransaction { connection, lease }, steps)).await
    }

    /// The present time, and the end of a lease that begins now. Read in the caller's task: the writer thread knows no
    /// simulated time.
    fn lease(&self, lease: Duration) -> Lease {
        let now = self.clock.now_ms();
        Lease { now, until: later(now, lease) }
    }
}

fn run<T>(
    tx: &SqliteTransaction<'_>,
    steps: impl FnOnce(&SqliteTransaction<'_>) -> Option<rusqlite::Result<T>>,
) -> rusqlite::Result<T> {
    steps(tx).expect("each primitive of SQLite is ready at once")
}

/// A time and the end of a lease, in milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Lease {
    now: i64,
    until: i64,
}

fn later(now: i64, by: Duration) -> i64 {
    now.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)).min(LEASE_NEVER - 1)
}

/// Prepares the store, on the writer before any other job.
fn prepare(connection: &Connection, first: Uuid) -> rusqlite::Result<Uuid> {
    runs::disable_triggers(connection)?;
    normal_form::fill_normal_forms(connection)?;
    charged_days::recount_if_behind(connection)?;
    keys::name_invoices(connection)?;
    let made = connection.execute(
        "INSERT INTO deployment (id) SELECT ?1 WHERE NOT EXISTS (SELECT * FROM deployment)",
        [first.to_string()],
    )?;
    if made == 1 {
        super::warn_of_new(first);
    }
    connection.query_row(DEPLOYMENT, [], deployment_id)
}

const DEPLOYMENT: &str = "SELECT id FROM deployment";

fn deployment_id(row: &Row<'_>) -> rusqlite::Result<Uuid> {
    row.parsed(0, |text| Uuid::parse_str(text).ok())
}

/// Data that break an invariant are the store's fault; any other error may be temporary.
fn store_error(error: SqliteError) -> StoreError {
    match &error {
        SqliteError::Job(source) if is_corrupt(source) => StoreError::Corrupt(source.to_string()),
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..))
        || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

impl Reader for SqliteStore {
    const BY_UNPAID_INDEX: &'static str = "INDEXED BY invoices_unpaid";
    const BY_KEY: &'static [&'static str] = keys::BY_KEY;
    const MATCHES: &'static str = normal_form::MATCHES;
    const SQL: Sql = Sql::Sqlite;

    async fn page<T: FromRow>(&self, sql: String, params: Vec<Value>) -> Result<Vec<T>> {
        let job = move |connection: &Connection| list(connection, &sql, params_from_iter(params), read);
        self.database.read(job).await.map_err(store_error)
    }

    async fn stored_among(&self, texts: Vec<String>) -> Result<Vec<String>> {
        self.read_short(move |connection| normal_form::stored_among(connection, texts)).await
    }

    async fn row<T: FromRow>(&self, sql: String, params: Vec<Value>) -> Result<Option<T>> {
        self.read_short(move |connection| one(connection, &sql, params_from_iter(params), read)).await
    }
}

#[async_trait]
impl LedgerStore for SqliteStore {
    fn is_shared(&self) -> bool {
        self.is_shared
    }

    async fn deployment(&self) -> Result<DeploymentId> {
        Ok(self.deployment)
    }

    async fn ledger_id(&self) -> Result<Option<String>> {
        self.read_short(ledgers::current).await
    }

    async fn ledger_seen(&self) -> Result<Option<LedgerSeen>> {
        self.read_short(ledgers::seen).await
    }

    async fn remember_ledger(&self, ledger_id: &str) -> Result<String> {
        let ledger_id = ledger_id.to_owned();
        self.write(move |connection| ledgers::remember(connection, &ledger_id)).await
    }

    async fn accept_ledger(&self, acceptance: &LedgerAcceptance) -> Result<Option<String>> {
        let acceptance = acceptance.clone();
        let now = self.clock.now_ms();
        self.write_asked(move |connection| ledgers::accept(connection, &acceptance, now)).await
    }
}

#[async_trait]
impl RunStore for SqliteStore {
    async fn counts(&self) -> Result<Counts> {
        self.read_short(runs::counts).await
    }

    async fn ages(&self) -> Result<Ages> {
        self.read_short(runs::ages).await
    }

    async fn open_ordered_run(&self, order: &RunOrder, lease: Duration) -> Result<OpenedRun> {
        let (order, lease) = (order.clone(), self.lease(lease));
        self.write_asked(move |connection| runs::open(connection, &order, lease)).await
    }

    async fn runs(&self, after: RunId, limit: usize) -> Result<Vec<Run>> {
        let limit = i64::try_from(limit.min(BATCH_MAX)).unwrap_or(i64::MAX);
        self.read_short(move |connection| runs::list_after(connection, after, limit)).await
    }

    async fn adopt_run(&self, lease: Duration) -> Result<Option<Run>> {
        let lease = self.lease(lease);
        self.write(move |connection| runs::adopt(connection, lease)).await
    }

    async fn renew_run(&self, run: RunId, lease: Duration) -> Result<bool> {
        let lease = self.lease(lease);
        self.write(move |connection| runs::renew(connection, run, lease)).await
    }

    async fn finish_run(&self, run: RunId, joins: i64) -> Result<bool> {
        let now = self.clock.now_ms();
        self.write(move |connection| runs::finish(connection, run, joins, now)).await
    }

    async fn note_problem(&self, run: RunId, problem: &RunProblem) -> Result<()> {
        let problem = problem.clone();
        self.write(move |connection| runs::note_problem(connection, run, &problem)).await
    }

    async fn unfinished_run(&self) -> Result<Option<Run>> {
        self.read_short(runs::unfinished).await
    }

    async fn latest_run(&self) -> Result<Option<Run>> {
        self.read_short(runs::latest).await
    }

    async fn unsent_attempts(&self) -> Result<i64> {
        self.read_short(|connection| connection.prepare_cached(UNSENT)?.query_row([], |row| row.get(0))).await
    }

    async fn run(&self, run: RunId) -> Result<Option<Run>> {
        self.read_short(move |connection| runs::find(connection, run)).await
    }
}

#[async_trait]
impl ChargeStore for SqliteStore {
    async fn claim_in_turn(
        &self,
        run: RunId,
        after: InvoiceId,
        limit: usize,
        lease: Duration,
    ) -> Result<ClaimedPending> {
        let once = |claim| self.transact(lease, move |tx| steps::claim_pending(tx, claim).now_or_never());
        PendingClaim::new(self.deployment, run, after, limit).repeat(once).await
    }

    /// Always false: with one writer a claim skips no invoice without reporting it.
    async fn has_claimable_left(&self, _: RunId) -> Result<bool> {
        Ok(false)
    }

    async fn claim_open(&self, run: Option<RunId>, limit: usize, lease: Duration) -> Result<Vec<Attempt>> {
        let limit = limit.min(BATCH_MAX);
        let claimed =
            self.transact(lease, move |tx| steps::claim_open(tx, run, limit).now_or_never()).await?;
        Ok(claimed.attempts)
    }

    async fn to_withdraw(&self, attempts: &[Attempt]) -> Result<HashSet<Key>> {
        let (attempts, now) = (attempts.to_vec(), self.clock.now_ms());
        self.read_short(move |connection| dunning::to_withdraw(connection, &attempts, now)).await
    }

    async fn next_open_in(&self) -> Result<Option<Duration>> {
        let now = self.clock.now_ms();
        let due = self.read_short(claims::next_due).await?;
        if due.is_some_and(|due| due > now.saturating_add(AHEAD_MAX_MS)) {
            self.write(move |connection| claims::end_wrong_leases(connection, now)).await?;
            return Ok(Some(Duration::ZERO));
        }
        Ok(due.map(|due| Duration::from_millis(u64::try_from(due - now).unwrap_or(0))))
    }

    async fn recover(&self) -> Result<u64> {
        if self.is_shared {
            return Ok(0);
        }
        let now = self.clock.now_ms();
        self.write(move |connection| claims::recover(connection, now)).await
    }

    async fn settle_and_see(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
        seen: Option<&LedgerSeen>,
    ) -> Result<Vec<Settled>> {
        let (settlements, seen) = (settlements.to_vec(), seen.cloned());
        let steps = move |tx: &SqliteTransaction<'_>| {
            steps::settle(tx, run, &settlements, seen.as_ref()).now_or_never()
        };
        self.transact(Duration::ZERO, steps).await
    }
}

#[async_trait]
impl OperatorStore for SqliteStore {
    async fn import(&self, batch: &[ImportRow], mode: ImportMode) -> Result<Vec<Imported>> {
        let batch = batch.to_vec();
        let steps = move |tx: &SqliteTransaction<'_>| steps::import(tx, &batch, mode).now_or_never();
        if mode.dry_run {
            let lease = self.lease(Duration::ZERO);
            let job = move |connection: &Connection| run(&SqliteTransaction { connection, lease }, steps);
            return self.database.read(job).await.map_err(store_error);
        }
        self.transact_asked(steps).await
    }

    async fn resolve_by(&self, resolution: &Resolution, evidence: &Evidence) -> Result<Resolved> {
        let (resolution, evidence) = (resolution.clone(), evidence.clone());
        let steps =
            move |tx: &SqliteTransaction<'_>| steps::resolve(tx, &resolution, &evidence).now_or_never();
        self.transact_asked(steps).await
    }

    async fn repair(&self, facts: &[LedgerFact]) -> Result<Vec<Repaired>> {
        let (deployment, facts) = (self.deployment, facts.to_vec());
        self.transact_asked(move |tx| steps::repair(tx, deployment, &facts).now_or_never()).await
    }
}

#[async_trait]
impl AcknowledgementStore for SqliteStore {
    async fn acknowledge(&self, acknowledgement: &LedgerAcknowledgement) -> Result<LedgerAcknowledgementRow> {
        let acknowledgement = acknowledgement.clone();
        let now = self.clock.now_ms();
        self.write_asked(move |connection| ledgers::acknowledge(connection, &acknowledgement, now)).await
    }

    async fn acknowledge_unbacked(
        &self,
        acknowledgement: &UnbackedAcknowledgement,
    ) -> Result<Option<UnbackedAcknowledgementRow>> {
        let (acknowledgement, now) = (acknowledgement.clone(), self.clock.now_ms());
        self.write_asked(move |connection| ledgers::acknowledge_unbacked(connection, &acknowledgement, now))
            .await
    }
}

#[cfg(test)]
mod tests;
