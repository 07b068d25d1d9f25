//! SQLite behind the store contract: one writer thread, two readers, the process's own clock.
//! Each method is one job; what a settlement means is decided in `store::plan`, not here.

mod acknowledgements;
mod claims;
mod counts;
mod imports;
mod normal_form;
mod repairs;
mod rows;
mod runs;
mod schema;
mod settling;

pub use claims::SCAN_MAX;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chassis::clock::{Clock, Random};
use chassis::sqlite::{Disk, Sqlite, SqliteError};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row, params};
use uuid::Uuid;

use crate::invoice::{
    Attempt, Customer, CustomerId, Invoice, InvoiceId, InvoiceState, Reference, Run, RunId, RunProblem,
};
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::Settlement;
use crate::store::{
    BATCH_MAX, Counts, ImportMode, ImportRow, Imported, LedgerAcceptance, LedgerAcknowledgement,
    LedgerAcknowledgementRow, LedgerFact, LedgerSeen, OtherDeployment, Repaired, Resolution, ResolutionRow,
    Resolved, Result, Settled, Store, StoreError,
};

/// Billing's facts in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    database: Sqlite,
    deployment: DeploymentId,
    clock: Clock,
    /// Whether other processes work with the same data: only in a simulation.
    is_shared: bool,
}

/// Why the file cannot serve as this installation's store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, its place or its schema.
    #[error(transparent)]
    Database(#[from] SqliteError),
    /// Another installation's.
    #[error(transparent)]
    OtherDeployment(#[from] OtherDeployment),
}

impl SqliteStore {
    /// Opens the file, made if missing. A new store gets the given deployment id, or a random one.
    ///
    /// # Errors
    /// When the file cannot be used, or belongs to another deployment than the given one.
    pub async fn open(
        path: &Path,
        deployment: Option<DeploymentId>,
        clock: Clock,
        random: &Random,
    ) -> std::result::Result<Self, OpenError> {
        Self::over(Sqlite::open(path, &schema::MIGRATIONS, &clock)?, deployment, clock, random).await
    }

    /// The deployment of a store that another process may be working with: read, and nothing else. `None`: none yet.
    ///
    /// # Errors
    /// When there is no store that can be read.
    pub async fn peek(path: &Path) -> std::result::Result<Option<DeploymentId>, SqliteError> {
        let sql = "SELECT id FROM deployment";
        let id = chassis::sqlite::peek(path, move |connection| {
            one(connection, sql, [], |row| rows::word(row, 0, |text| Uuid::parse_str(text).ok()))
        });
        Ok(id.await?.map(DeploymentId))
    }

    /// A fresh database for a simulation; `latency` draws how long its writes take.
    ///
    /// # Errors
    /// When the schema cannot be made.
    pub fn disk(clock: &Clock, latency: Random) -> std::result::Result<Disk, SqliteError> {
        Disk::new(&schema::MIGRATIONS, clock, latency)
    }

    /// The store on a simulation's disk, alone or as one of several replicas.
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

    /// Whether it accepts writes, from memory: for a readiness check.
    pub fn is_writable(&self) -> impl Fn() -> std::result::Result<(), String> + Send + Sync + use<> {
        self.database.is_writable()
    }

    async fn read<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.database.read(job).await.map_err(store_error)
    }

    /// For a few rows: does not wait behind lists.
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

    /// Now, and when a lease taken now ends. Taken in the caller's task: the writer thread knows no simulated time.
    fn lease(&self, lease: Duration) -> Lease {
        let now = self.clock.now_ms();
        Lease { now, until: later(now, lease) }
    }
}

/// When something happens and until when it holds, in milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Lease {
    now: i64,
    until: i64,
}

fn later(now: i64, by: Duration) -> i64 {
    now.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)).min(super::plan::LEASE_NEVER - 1)
}

/// On the writer, before any other job.
fn prepare(connection: &Connection, first: Uuid) -> rusqlite::Result<Uuid> {
    counts::take_over(connection)?;
    normal_form::take_over(connection)?;
    let made = connection.execute(
        "INSERT INTO deployment (id) SELECT ?1 WHERE NOT EXISTS (SELECT * FROM deployment)",
        [first.to_string()],
    )?;
    if made == 1 {
        super::warn_of_new(first);
    }
    connection.query_row("SELECT id FROM deployment", [], |row| {
        rows::word(row, 0, |text| Uuid::parse_str(text).ok())
    })
}

/// Data that break an invariant are the store's fault; all else may pass.
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

fn list<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(params, read).optional()
}

fn invoices(
    connection: &Connection,
    state: Option<InvoiceState>,
    after: InvoiceId,
    limit: usize,
) -> rusqlite::Result<Vec<Invoice>> {
    let columns = rows::INVOICE;
    let limit = limit.min(BATCH_MAX) as i64;
    match state {
        None => {
            let sql = format!("SELECT {columns} FROM invoices WHERE id > ?1 ORDER BY id LIMIT ?2");
            list(connection, &sql, params![after.0, limit], rows::invoice)
        }
        Some(InvoiceState::Paid) => {
            let sql = format!(
                "SELECT {columns} FROM invoices WHERE state = 'PAID' AND id > ?1 ORDER BY id LIMIT ?2"
            );
            list(connection, &sql, params![after.0, limit], rows::invoice)
        }
        Some(state) => {
            let sql = format!(
                "SELECT {columns} FROM invoices INDEXED BY invoices_unpaid
                 WHERE state = ?1 AND state <> 'PAID' AND id > ?2 ORDER BY id LIMIT ?3"
            );
            list(connection, &sql, params![state.as_str(), after.0, limit], rows::invoice)
        }
    }
}

fn ledger_seen(connection: &Connection) -> rusqlite::Result<Option<LedgerSeen>> {
    let sql = "SELECT d.ledger_id, coalesce(s.seq, 0) FROM deployment AS d
         LEFT JOIN ledger_seen AS s ON s.ledger_id = d.ledger_id WHERE d.ledger_id IS NOT NULL";
    one(connection, sql, [], |row| Ok(LedgerSeen { ledger_id: row.get(0)?, seq: row.get(1)? }))
}

fn remember_ledger(connection: &Connection, ledger_id: &str) -> rusqlite::Result<String> {
    connection.execute("UPDATE deployment SET ledger_id = ?1 WHERE ledger_id IS NULL", [ledger_id])?;
    connection.query_row("SELECT ledger_id FROM deployment", [], |row| row.get(0))
}

#[async_trait]
impl Store for SqliteStore {
    async fn deployment(&self) -> Result<DeploymentId> {
        Ok(self.deployment)
    }

    async fn ledger_id(&self) -> Result<Option<String>> {
        let sql = "SELECT ledger_id FROM deployment";
        self.read_short(move |connection| connection.query_row(sql, [], |row| row.get(0))).await
    }

    async fn ledger_seen(&self) -> Result<Option<LedgerSeen>> {
        self.read_short(ledger_seen).await
    }

    async fn remember_ledger(&self, ledger_id: &str) -> Result<String> {
        let ledger_id = ledger_id.to_owned();
        self.write(move |connection| remember_ledger(connection, &ledger_id)).await
    }

    async fn customers(&self, after: CustomerId, limit: usize) -> Result<Vec<Customer>> {
        let sql = format!("SELECT {} FROM customers WHERE id > ?1 ORDER BY id LIMIT ?2", rows::CUSTOMER);
        let limit = limit.min(BATCH_MAX) as i64;
        self.read(move |connection| list(connection, &sql, params![after.0, limit], rows::customer)).await
    }

    async fn customer(&self, id: CustomerId) -> Result<Option<Customer>> {
        let sql = format!("SELECT {} FROM customers WHERE id = ?1", rows::CUSTOMER);
        self.read_short(move |connection| one(connection, &sql, [id.0], rows::customer)).await
    }

    async fn invoices(
        &self,
        state: Option<InvoiceState>,
        after: InvoiceId,
        limit: usize,
    ) -> Result<Vec<Invoice>> {
        self.read(move |connection| invoices(connection, state, after, limit)).await
    }

    async fn invoice(&self, id: InvoiceId) -> Result<Option<Invoice>> {
        let sql = format!("SELECT {} FROM invoices WHERE id = ?1", rows::INVOICE);
        self.read_short(move |connection| one(connection, &sql, [id.0], rows::invoice)).await
    }

    async fn invoice_by_reference(&self, reference: &Reference) -> Result<Option<Invoice>> {
        let sql = format!("SELECT {} FROM invoices WHERE {}", rows::INVOICE, normal_form::MATCHES);
        let names = [reference.as_str().to_owned(), reference.nfc().to_owned()];
        self.read_short(move |connection| one(connection, &sql, names, rows::invoice)).await
    }

    async fn attempts(&self, after: (InvoiceId, u32), limit: usize) -> Result<Vec<Attempt>> {
        let sql = format!(
            "SELECT {} FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
             WHERE (a.invoice_id, a.number) > (?1, ?2) ORDER BY a.invoice_id, a.number LIMIT ?3",
            rows::ATTEMPT
        );
        let limit = limit.min(BATCH_MAX) as i64;
        let (InvoiceId(invoice), number) = after;
        self.read(move |connection| list(connection, &sql, params![invoice, number, limit], rows::attempt))
            .await
    }

    async fn attempt(&self, key: &Key) -> Result<Option<Attempt>> {
        let sql = format!(
            "SELECT {} FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id WHERE a.key = ?1",
            rows::ATTEMPT
        );
        let key = key.clone();
        self.read_short(move |connection| one(connection, &sql, [key.as_str()], rows::attempt)).await
    }

    async fn counts(&self) -> Result<Counts> {
        self.read_short(counts::read).await
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    async fn open_run(&self, lease: Duration) -> Result<(Run, bool)> {
        let lease = self.lease(lease);
        self.write(move |connection| runs::open(connection, lease)).await
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

    async fn unfinished_run(&self) -> Result<Option<Run>> {
        self.read_short(runs::unfinished).await
    }

    async fn run(&self, run: RunId) -> Result<Option<Run>> {
        let sql = format!("SELECT {} FROM runs WHERE id = ?1", rows::RUN);
        self.read_short(move |connection| one(connection, &sql, [run.0], rows::run)).await
    }

    async fn claim_pending(
        &self,
        run: RunId,
        after: InvoiceId,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Attempt>> {
        let deployment = self.deployment;
        let mut after = after;
        loop {
            let claim = claims::Fresh {
                deployment,
                run,
                after,
                limit: limit.min(BATCH_MAX),
                lease: self.lease(lease),
            };
            let claimed = self.write(move |connection| claims::fresh(connection, claim)).await?;
            match claimed.go_on_after {
                Some(seen) if claimed.attempts.is_empty() => after = seen,
                _ => return Ok(claimed.attempts),
            }
        }
    }

    async fn claim_open(&self, run: Option<RunId>, limit: usize, lease: Duration) -> Result<Vec<Attempt>> {
        let lease = self.lease(lease);
        self.write(move |connection| claims::open(connection, run, limit.min(BATCH_MAX), lease)).await
    }

    async fn next_open_in(&self) -> Result<Option<Duration>> {
        let now = self.clock.now_ms();
        let due = self.read_short(claims::next_due).await?;
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
        let now = self.clock.now_ms();
        self.write(move |connection| {
            let settled = settling::settle(connection, run, &settlements, now)?;
            seen.iter().try_for_each(|seen| settling::see(connection, seen))?;
            Ok(settled)
        })
        .await
    }

    async fn note_problem(&self, run: RunId, problem: &RunProblem) -> Result<()> {
        let problem = problem.clone();
        self.write(move |connection| runs::note_problem(connection, run, &problem)).await
    }

    async fn import(&self, batch: &[ImportRow], mode: ImportMode) -> Result<Vec<Imported>> {
        let batch = batch.to_vec();
        let now = self.clock.now_ms();
        if mode.dry_run {
            return self.read(move |connection| imports::import(connection, &batch, mode, now)).await;
        }
        self.write(move |connection| imports::import(connection, &batch, mode, now)).await
    }

    async fn resolve(&self, resolution: &Resolution) -> Result<Resolved> {
        let resolution = resolution.clone();
        let now = self.clock.now_ms();
        self.write(move |connection| settling::resolve(connection, &resolution, now)).await
    }

    async fn accept_ledger(&self, acceptance: &LedgerAcceptance) -> Result<Option<String>> {
        let acceptance = acceptance.clone();
        let now = self.clock.now_ms();
        self.write(move |connection| repairs::accept_ledger(connection, &acceptance, now)).await
    }

    async fn resolutions(&self, after: i64, limit: usize) -> Result<Vec<ResolutionRow>> {
        let sql = format!(
            "SELECT {} FROM resolutions AS r JOIN attempts AS a ON a.key = r.key
             JOIN invoices AS i ON i.id = a.invoice_id WHERE r.id > ?1 ORDER BY r.id LIMIT ?2",
            rows::RESOLUTION
        );
        let limit = limit.min(BATCH_MAX) as i64;
        self.read(move |connection| list(connection, &sql, params![after, limit], rows::resolution)).await
    }

    async fn acknowledge(&self, acknowledgement: &LedgerAcknowledgement) -> Result<LedgerAcknowledgementRow> {
        let acknowledgement = acknowledgement.clone();
        let now = self.clock.now_ms();
        self.write(move |connection| acknowledgements::record(connection, &acknowledgement, now)).await
    }

    async fn ledger_acknowledgements(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<LedgerAcknowledgementRow>> {
        let sql = format!(
            "SELECT {} FROM ledger_acknowledgements WHERE id > ?1 ORDER BY id LIMIT ?2",
            acknowledgements::COLUMNS
        );
        let limit = limit.min(BATCH_MAX) as i64;
        self.read(move |connection| list(connection, &sql, params![after, limit], acknowledgements::row))
            .await
    }

    async fn repair(&self, facts: &[LedgerFact]) -> Result<Vec<Repaired>> {
        let facts = facts.to_vec();
        let (deployment, now) = (self.deployment, self.clock.now_ms());
        self.write(move |connection| repairs::repair(connection, deployment, &facts, now)).await
    }
}

#[cfg(test)]
mod tests;
