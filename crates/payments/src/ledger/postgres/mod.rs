//! The ledger in PostgreSQL, for several processes at once: the key, unique in its account, decides between them; callers
//! of one process share statements. Knows no HTTP; what a repeated key means is decided by the caller.

mod batch_writer;
mod controls;
mod deployments;
mod placement;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chassis::clock::Random;
use chassis::crash_point;
use chassis::postgres::{PgError, PoolClass, Postgres, Schema, Tx, Type, get};
use chassis::schema::Migration;
use uuid::Uuid;

use self::batch_writer::{BatchWriter, Writer};
use self::placement::Placement;
use self::rows::{BY_KEYS, IS_BLOCKED, PAGE, read_row};
use super::failover::Failover;
use super::{
    Entry, Found, Ledger, LedgerError, LedgerId, PAGE_MAX, Page, Recorded, Result, Row, Seq, Void, Voided,
};
use crate::deployments::{Admission, Declaration, DeclareOutcome, DeploymentId, DeploymentRow};
use crate::keys::Key;

/// Finds a page of one account's rows among many others. Charges wait while the index is built. In a ledger with too
/// many rows for that, an operator builds it before, by this name and `CONCURRENTLY`.
const BY_ACCOUNT: &str = "CREATE INDEX IF NOT EXISTS ledger_by_account ON ledger (account, seq)";

/// The index for entries of [`Entry::is_once`]; other ledgers do not need it. Charges wait while it is built. In a
/// ledger with too many rows for that, an operator builds it before, by this name and `CONCURRENTLY`.
const INDEX_REFERENCES: &str = "CREATE INDEX IF NOT EXISTS ledger_charged_references ON ledger (account, reference) \
    WHERE state = 'CHARGED'";

/// Advisory lock under which replicas that start at once build an index one after the other; `refs` in ASCII.
const LOCK_INDEX: i64 = 0x7265_6673;

/// The schema, step by step; steps are only ever appended.
pub const SCHEMA: Schema = Schema {
    service: "payments",
    steps: &[
        Migration { name: "ledger", sql: include_str!("0001_ledger.sql"), breaks_older: true },
        Migration { name: "ledger by account", sql: BY_ACCOUNT, breaks_older: false },
        Migration { name: "deployments", sql: include_str!("0003_deployments.sql"), breaks_older: false },
        Migration { name: "ledger placement", sql: placement::MIGRATION, breaks_older: false },
        Migration { name: "requests", sql: include_str!("0005_requests.sql"), breaks_older: false },
        Migration {
            name: "keys per account",
            sql: include_str!("0006_keys_per_account.sql"),
            breaks_older: false,
        },
        Migration { name: "declines", sql: include_str!("0007_declines.sql"), breaks_older: false },
        Migration { name: "fault counts", sql: include_str!("0008_fault_counts.sql"), breaks_older: false },
        Migration { name: "only charges", sql: include_str!("0009_only_charges.sql"), breaks_older: false },
        Migration { name: "write ids", sql: include_str!("0010_write_ids.sql"), breaks_older: false },
    ],
};

/// Pause between tries to open an unavailable database.
const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// A ledger in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresLedger {
    database: Postgres,
    id: LedgerId,
    placement: Arc<Placement>,
    writer: BatchWriter,
}

impl PostgresLedger {
    /// Waits until the database can be used, however long that takes, gives the ledger an id if it has none, and
    /// executes charges unless the ledger moved since it was written.
    ///
    /// # Errors
    /// When the database holds no valid ledger.
    pub async fn open(database: Postgres, random: &Random, failover: Failover) -> Result<Self> {
        loop {
            database.wait_until_usable().await;
            match begin(&database, random, failover).await {
                Ok((id, placement)) => {
                    let writer = Writer { database: database.clone(), id, placement: Arc::clone(&placement) };
                    let writer = BatchWriter::new(writer, random.clone());
                    return Ok(Self { database, id, placement, writer });
                }
                Err(
                    error @ (PgError::Unavailable(_)
                    | PgError::Busy
                    | PgError::InDoubt(_)
                    | PgError::Denied(_)
                    | PgError::NotDurable),
                ) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "opening the ledger failed, retrying"
                    );
                    tokio::time::sleep(OPEN_PAUSE).await;
                }
                Err(error) => return Err(to_ledger_error(error)),
            }
        }
    }

    /// Whether the ledger executes charges, from memory: for a readiness check.
    pub fn is_serving(&self) -> impl Fn() -> std::result::Result<(), String> + Send + Sync + use<> {
        self.placement.is_serving()
    }

    async fn row(&self, account: &str, key: &Key) -> Result<Option<Row>> {
        let (keys, accounts) = ([key.as_str()], [account]);
        let asked =
            [(&keys.as_slice() as _, Type::TEXT_ARRAY), (&accounts.as_slice() as _, Type::TEXT_ARRAY)];
        let rows = self.database.read(PoolClass::Claim, BY_KEYS, &asked).await;
        rows.map_err(to_ledger_error)?.first().map(read_row).transpose().map_err(to_ledger_error)
    }

    /// Ends when the ledger has got another id: this process would continue with the old one.
    pub fn id_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.placement.id_changed()
    }
}

async fn begin(
    database: &Postgres,
    random: &Random,
    failover: Failover,
) -> std::result::Result<(LedgerId, Arc<Placement>), PgError> {
    let id = name(database, random).await?;
    Ok((id, Placement::open(database, id, failover).await?))
}

async fn name(database: &Postgres, random: &Random) -> std::result::Result<LedgerId, PgError> {
    let first = random.uuid().hyphenated().to_string();
    let insert = "INSERT INTO ledger_meta (ledger_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING 1";
    if !database.write(PoolClass::Record, insert, &[(&first, Type::TEXT)]).await?.is_empty() {
        super::warn_of_new(&first);
    }
    read_id(database).await
}

async fn read_id(database: &Postgres) -> std::result::Result<LedgerId, PgError> {
    let rows = database.read(PoolClass::Claim, "SELECT ledger_id FROM ledger_meta", &[]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("ledger_meta has {} rows", rows.len())));
    };
    let text: &str = get(row, 0)?;
    let id = Uuid::parse_str(text).map_err(|_| PgError::Corrupt(format!("ledger_id {text:?}")))?;
    Ok(LedgerId(id))
}

/// Gives the ledger in this database a new id; processes that serve it end then, and must be started again.
///
/// # Errors
/// When the id could not be written, or when the outcome is unknown.
pub async fn renew_id(database: &Postgres, random: &Random) -> Result<LedgerId> {
    let id = LedgerId(random.uuid());
    match placement::store_new_id(database, id).await.map_err(to_ledger_error)? {
        1 => Ok(id),
        rows => Err(LedgerError::Corrupt(format!("ledger_meta has {rows} rows"))),
    }
}

/// Makes keys unique per account in an older ledger. Earlier versions can no longer use it then. Charges wait
/// meanwhile.
///
/// # Errors
/// When the schema could not be written, or when the outcome is unknown.
pub async fn make_keys_per_account(database: &Postgres) -> Result<()> {
    let statements = [
        "LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE",
        "CREATE UNIQUE INDEX IF NOT EXISTS ledger_key_of_account ON ledger (key, account)",
        "ALTER TABLE ledger DROP CONSTRAINT IF EXISTS ledger_key_key",
        "UPDATE payments_migrations SET breaks_older = true WHERE name = 'requests'",
    ];
    let change = |tx: Tx| async move {
        for statement in statements {
            tx.execute(statement, &[]).await?;
        }
        Ok(())
    };
    database.transaction(PoolClass::Record, change).await.map_err(to_ledger_error)
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn id(&self) -> Result<LedgerId> {
        Ok(self.id)
    }

    async fn renew_id(&self) -> Result<LedgerId> {
        renew_id(&self.database, &Random::system()).await
    }

    async fn record(&self, entry: &Arc<Entry>) -> Result<Recorded> {
        self.placement.serve()?;
        let recorded = self.writer.record(Arc::clone(entry)).await;
        // Crash point: on disk and not yet reported.
        crash_point!("P3");
        recorded
    }

    async fn index_references(&self) -> Result<()> {
        let lock = format!("SELECT pg_advisory_xact_lock({LOCK_INDEX})");
        let lock = lock.as_str();
        let build = |tx: Tx| async move {
            tx.query(lock, &[]).await?;
            tx.execute(INDEX_REFERENCES, &[]).await.map(drop)
        };
        self.database.transaction(PoolClass::Claim, build).await.map_err(to_ledger_error)
    }

    async fn look_up(&self, account: &str, key: &Key) -> Result<Found> {
        if let Some(row) = self.row(account, key).await? {
            return Ok(Found::Row(row));
        }
        let asked = [(&key.as_str() as _, Type::TEXT)];
        let blocking =
            self.database.read(PoolClass::Claim, IS_BLOCKED, &asked).await.map_err(to_ledger_error)?;
        Ok(if blocking.is_empty() { Found::Absent } else { Found::Foreign })
    }

    async fn page(&self, account: &str, after: Seq, limit: usize) -> Result<Page> {
        let limit = limit.min(PAGE_MAX);
        let bound = batch_writer::read_settled_position(&self.database).await.map_err(to_ledger_error)?;
        let one_more = i64::try_from(limit + 1).expect("a page's length fits an i64");
        let asked = [
            (&after.0 as _, Type::INT8),
            (&bound as _, Type::INT8),
            (&account as _, Type::TEXT),
            (&one_more as _, Type::INT8),
        ];
        let found = self.database.read(PoolClass::Claim, PAGE, &asked).await.map_err(to_ledger_error)?;
        let rows =
            found.iter().map(read_row).collect::<std::result::Result<_, _>>().map_err(to_ledger_error)?;
        Ok(Page::of(rows, limit))
    }

    async fn void(&self, void: &Void) -> Result<Voided> {
        self.placement.serve()?;
        match self.writer.record(Arc::new(Entry::tombstone(void))).await? {
            Recorded::Behind => Ok(Voided::Behind),
            // A tombstone names no reference.
            Recorded::Foreign | Recorded::ReferenceCharged(_) => Ok(Voided::Foreign),
            Recorded::Known(row) => Ok(Voided::Row(row)),
            Recorded::New(_) => {
                let row = self.row(&void.account, &void.key).await?;
                row.map(Voided::Row)
                    .ok_or_else(|| LedgerError::Corrupt(format!("no row has key {}", void.key)))
            }
        }
    }

    async fn admit_deployment(&self, account: &str, deployment: DeploymentId) -> Result<Admission> {
        self.placement.serve()?;
        deployments::admit_one(&self.database, account, deployment).await.map_err(to_ledger_error)
    }

    async fn declare_deployment(&self, declaration: &Declaration) -> Result<DeclareOutcome> {
        self.placement.serve()?;
        deployments::declare(&self.database, declaration).await.map_err(to_ledger_error)
    }

    async fn deployments(&self, account: &str) -> Result<Vec<DeploymentRow>> {
        deployments::list(&self.database, account).await.map_err(to_ledger_error)
    }
}

fn to_ledger_error(error: PgError) -> LedgerError {
    match error {
        PgError::Corrupt(what) => LedgerError::Corrupt(what),
        PgError::NotDurable => LedgerError::NotDurable(Box::new(error)),
        other => LedgerError::Unavailable(Box::new(other)),
    }
}
