//! PostgreSQL behind the store contract, shared by any number of processes: each method is one transaction or one
//! statement, without names or session state, on the database's own clock. What a word means is decided in
//! `store::plan`, not here.

mod acknowledgements;
mod claims;
mod counts;
mod imports;
mod lists;
mod normal_form;
mod repairs;
mod rows;
mod runs;
mod schema;
mod settling;

use std::time::Duration;

use async_trait::async_trait;
use chassis::postgres::{Param, PgError, PoolClass, Postgres, Schema, Type, get};
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

/// What billing needs of a database.
pub const SCHEMA: Schema = Schema { service: "billing", steps: &schema::MIGRATIONS };

/// Made once, when nobody has yet.
const FIRST: &str = "
    INSERT INTO deployment (id) SELECT $1::text::uuid WHERE NOT EXISTS (SELECT 1 FROM deployment)
    ON CONFLICT DO NOTHING RETURNING 1";

/// Why the database cannot serve as this installation's store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another installation's.
    #[error(transparent)]
    OtherDeployment(#[from] OtherDeployment),
}

/// Billing's facts in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    database: Postgres,
    deployment: DeploymentId,
}

impl PostgresStore {
    /// Takes a database that has the schema. A new store gets the given deployment id, or the random one.
    ///
    /// # Errors
    /// When the database cannot be used, or belongs to another deployment than the given one.
    pub async fn open(
        database: Postgres,
        deployment: Option<DeploymentId>,
        random: Uuid,
    ) -> std::result::Result<Self, OpenError> {
        let first = deployment.map_or(random, |given| given.0);
        let stored = prepare(&database, first).await.map_err(store_error)?;
        normal_form::warn_of_pairs(&database).await.map_err(store_error)?;
        match deployment {
            Some(given) if given.0 != stored => Err(OtherDeployment { stored, given: given.0 }.into()),
            _ => Ok(Self { database, deployment: DeploymentId(stored) }),
        }
    }
}

impl PostgresStore {
    /// The deployment of a store, without opening it for charging. `None`: none yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn peek(database: &Postgres) -> Result<Option<DeploymentId>> {
        let rows = database.read(PoolClass::Record, "SELECT id::text FROM deployment", &[]).await;
        let rows = rows.map_err(store_error)?;
        let id = |row| rows::word(row, 0, |text| Uuid::parse_str(text).ok()).map(DeploymentId);
        rows.first().map(id).transpose().map_err(store_error)
    }
}

async fn prepare(database: &Postgres, first: Uuid) -> chassis::postgres::Result<Uuid> {
    let param: Param<'_> = (&first.to_string(), Type::TEXT);
    if !database.write(PoolClass::Record, FIRST, &[param]).await?.is_empty() {
        super::warn_of_new(first);
    }
    let rows = database.read(PoolClass::Record, "SELECT id::text FROM deployment", &[]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("{} deployments in one store", rows.len())));
    };
    rows::word(row, 0, |text| Uuid::parse_str(text).ok())
}

/// Data that break an invariant are the store's fault; all else may pass.
fn store_error(error: PgError) -> StoreError {
    match &error {
        PgError::Corrupt(_) | PgError::Constraint { .. } => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Unavailable(Box::new(error)),
    }
}

/// For SQL.
fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(super::plan::LEASE_NEVER)
}

#[async_trait]
impl Store for PostgresStore {
    fn is_shared(&self) -> bool {
        true
    }

    async fn deployment(&self) -> Result<DeploymentId> {
        Ok(self.deployment)
    }

    async fn ledger_id(&self) -> Result<Option<String>> {
        let sql = "SELECT ledger_id FROM deployment";
        let rows = self.database.read(PoolClass::Record, sql, &[]).await.map_err(store_error)?;
        rows.first().map_or(Ok(None), |row| get(row, 0)).map_err(store_error)
    }

    async fn ledger_seen(&self) -> Result<Option<LedgerSeen>> {
        counts::ledger_seen(&self.database).await.map_err(store_error)
    }

    async fn remember_ledger(&self, ledger_id: &str) -> Result<String> {
        let sql = "UPDATE deployment SET ledger_id = coalesce(ledger_id, $1) RETURNING ledger_id";
        let rows = self.database.write(PoolClass::Record, sql, &[(&ledger_id, Type::TEXT)]).await;
        let rows = rows.map_err(store_error)?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("a store has one deployment".to_owned()))?;
        get(row, 0).map_err(store_error)
    }

    async fn customers(&self, after: CustomerId, limit: usize) -> Result<Vec<Customer>> {
        lists::customers(&self.database, after, limit).await.map_err(store_error)
    }

    async fn customer(&self, id: CustomerId) -> Result<Option<Customer>> {
        lists::customer(&self.database, id).await.map_err(store_error)
    }

    async fn invoices(
        &self,
        state: Option<InvoiceState>,
        after: InvoiceId,
        limit: usize,
    ) -> Result<Vec<Invoice>> {
        lists::invoices(&self.database, state, after, limit).await.map_err(store_error)
    }

    async fn invoice(&self, id: InvoiceId) -> Result<Option<Invoice>> {
        lists::invoice(&self.database, id).await.map_err(store_error)
    }

    async fn invoice_by_reference(&self, reference: &Reference) -> Result<Option<Invoice>> {
        lists::invoice_by_reference(&self.database, reference).await.map_err(store_error)
    }

    async fn attempts(&self, after: (InvoiceId, u32), limit: usize) -> Result<Vec<Attempt>> {
        lists::attempts(&self.database, after, limit).await.map_err(store_error)
    }

    async fn attempt(&self, key: &Key) -> Result<Option<Attempt>> {
        lists::attempt(&self.database, key).await.map_err(store_error)
    }

    async fn counts(&self) -> Result<Counts> {
        counts::invoices(&self.database).await.map_err(store_error)
    }

    async fn open_run(&self, lease: Duration) -> Result<(Run, bool)> {
        runs::open(&self.database, lease).await.map_err(store_error)
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

    async fn run(&self, run: RunId) -> Result<Option<Run>> {
        runs::find(&self.database, run).await.map_err(store_error)
    }

    async fn unfinished_run(&self) -> Result<Option<Run>> {
        runs::unfinished(&self.database).await.map_err(store_error)
    }

    async fn claim_pending(
        &self,
        run: RunId,
        after: InvoiceId,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Attempt>> {
        let limit = limit.min(BATCH_MAX);
        let claim = claims::Fresh { deployment: self.deployment, run, after, limit, lease };
        claims::fresh(&self.database, claim).await.map_err(store_error)
    }

    async fn claim_open(&self, run: Option<RunId>, limit: usize, lease: Duration) -> Result<Vec<Attempt>> {
        claims::open(&self.database, run, limit.min(BATCH_MAX), lease).await.map_err(store_error)
    }

    async fn next_open_in(&self) -> Result<Option<Duration>> {
        claims::next_due(&self.database).await.map_err(store_error)
    }

    /// Nothing is this process's alone: leases end by themselves.
    async fn recover(&self) -> Result<u64> {
        Ok(0)
    }

    async fn settle_and_see(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
        seen: Option<&LedgerSeen>,
    ) -> Result<Vec<Settled>> {
        let job = |tx| settling::settle(tx, run, settlements, seen);
        self.database.transaction(PoolClass::Record, job).await.map_err(store_error)
    }

    async fn note_problem(&self, run: RunId, problem: &RunProblem) -> Result<()> {
        runs::note_problem(&self.database, run, problem).await.map_err(store_error)
    }

    async fn import(&self, rows: &[ImportRow], mode: ImportMode) -> Result<Vec<Imported>> {
        let job = |tx| imports::import(tx, rows, mode);
        self.database.transaction(PoolClass::Claim, job).await.map_err(store_error)
    }

    async fn resolve(&self, resolution: &Resolution) -> Result<Resolved> {
        let job = |tx| settling::resolve(tx, resolution);
        self.database.transaction(PoolClass::Record, job).await.map_err(store_error)
    }

    async fn accept_ledger(&self, acceptance: &LedgerAcceptance) -> Result<Option<String>> {
        let job = |tx| repairs::accept_ledger(tx, acceptance);
        self.database.transaction(PoolClass::Record, job).await.map_err(store_error)
    }

    async fn resolutions(&self, after: i64, limit: usize) -> Result<Vec<ResolutionRow>> {
        lists::resolutions(&self.database, after, limit).await.map_err(store_error)
    }

    async fn acknowledge(&self, acknowledgement: &LedgerAcknowledgement) -> Result<LedgerAcknowledgementRow> {
        acknowledgements::record(&self.database, acknowledgement).await.map_err(store_error)
    }

    async fn ledger_acknowledgements(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<LedgerAcknowledgementRow>> {
        acknowledgements::list(&self.database, after, limit).await.map_err(store_error)
    }

    async fn repair(&self, facts: &[LedgerFact]) -> Result<Vec<Repaired>> {
        let job = |tx| repairs::repair(tx, self.deployment, facts);
        self.database.transaction(PoolClass::Claim, job).await.map_err(store_error)
    }
}
