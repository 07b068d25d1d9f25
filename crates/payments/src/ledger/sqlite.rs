//! The ledger in one SQLite file: a charge is one INSERT; the key, unique in its account, detects every repetition. A
//! SELECT before it detects a charge of the key by another account.
//! Knows no HTTP; what a repeated key means is decided by the caller.

mod controls;
mod deployments;
mod sidecar;
mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use chassis::clock::{Clock, Random};
use chassis::crash_point;
use chassis::sqlite::{Disk, Migration, Sqlite, SqliteError};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use uuid::Uuid;

use self::sidecar::Notes;
use self::start::Started;
use super::{
    Entry, Found, Ledger, LedgerError, LedgerId, PAGE_MAX, Page, Recorded, Result, Row, Seq, State, Void,
    Voided,
};
use crate::amount::Minor;
use crate::declines::Decline;
use crate::deployments::{Admission, Declaration, DeclareOutcome, DeploymentId, DeploymentRow};
use crate::keys::{Fingerprint, FingerprintVersion, Key};

/// The schema, step by step; steps are only ever appended.
const MIGRATIONS: &[Migration] = &[
    Migration { name: "ledger", sql: include_str!("sqlite/0001_ledger.sql"), breaks_older: true },
    Migration { name: "ledger by account", sql: BY_ACCOUNT, breaks_older: false },
    Migration { name: "deployments", sql: include_str!("sqlite/0003_deployments.sql"), breaks_older: false },
    Migration { name: "ledger incarnation", sql: start::MIGRATION, breaks_older: false },
    Migration { name: "requests", sql: include_str!("sqlite/0005_requests.sql"), breaks_older: false },
    Migration { name: "declines", sql: include_str!("sqlite/0006_declines.sql"), breaks_older: false },
    Migration {
        name: "fault counts",
        sql: include_str!("sqlite/0007_fault_counts.sql"),
        breaks_older: false,
    },
];

/// Finds a page of one account's rows among many others; each entry ends with the row's number.
const BY_ACCOUNT: &str = "CREATE INDEX ledger_by_account ON ledger (account)";

/// The insert has no conflict target: the key is unique in its account, and in an older ledger over all accounts. It
/// takes its row from VALUES: for an INSERT from a SELECT, even of one row, SQLite opens a statement journal and copies
/// each page that it changes.
const INSERT: &str = "INSERT INTO ledger \
    (key, account, fingerprint, reference, customer_id, currency, amount_minor, state, route, created_at, \
     fingerprint_version, exponent, decline_class, decline_code) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT DO NOTHING";

/// Whether another account charged a key, for a caller that may be the same client: see [`Recorded::Foreign`].
const CHARGED_BY_OTHER: &str = "SELECT 1 FROM ledger AS other \
    WHERE other.key = ?1 AND other.account <> ?2 AND other.state = 'CHARGED' \
      AND (?3 IS NULL OR EXISTS (SELECT 1 FROM ledger_deployments AS theirs \
        WHERE theirs.account = other.account AND theirs.deployment_id = ?3))";

/// The index for entries of [`Entry::is_once`]; other ledgers do not need it.
const INDEX_REFERENCES: &str = "CREATE INDEX IF NOT EXISTS ledger_charged_references ON ledger (account, reference) \
    WHERE state = 'CHARGED'";

/// The first charge of a reference under another key.
const CHARGED_REFERENCE: &str = "SELECT seq, key, account, fingerprint, reference, customer_id, currency, \
    amount_minor, state, route, created_at, fingerprint_version, exponent, decline_class, decline_code FROM ledger \
    WHERE account = ?1 AND reference = ?2 AND state = 'CHARGED' AND key IS NOT ?3 ORDER BY seq LIMIT 1";

/// Makes keys unique per account in a ledger whose keys are unique over all accounts.
const KEYS_PER_ACCOUNT: &str = include_str!("sqlite/keys_per_account.sql");

const HAS_KEYS_PER_ACCOUNT: &str = "SELECT 1 FROM sqlite_schema WHERE name = 'ledger_key_of_account'";

const BY_KEY: &str = "SELECT seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, \
    state, route, created_at, fingerprint_version, exponent, decline_class, decline_code FROM ledger WHERE key = ?1 AND account = ?2";

/// Whether a row of another account blocks a key: only while keys are unique over all accounts.
const IS_BLOCKED: &str = "SELECT 1 FROM ledger WHERE key = ?1 \
    AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'ledger_key_of_account')";

const PAGE: &str = "SELECT seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, \
    state, route, created_at, fingerprint_version, exponent, decline_class, decline_code \
    FROM ledger WHERE seq > ?1 AND account = ?2 ORDER BY seq LIMIT ?3";

/// A ledger in an open SQLite file.
#[derive(Debug)]
pub struct SqliteLedger {
    sqlite: Sqlite,
    clock: Clock,
    random: Random,
    /// The highest position that is known to have a row. Rows are written in the order of their positions and only this
    /// process writes the file, so that no row below it is missing.
    written: Arc<AtomicI64>,
    /// `None` on a simulation's disk, which is never copied.
    path: Option<PathBuf>,
    serving: Serving,
}

/// Whether charges are executed.
#[derive(Debug)]
enum Serving {
    /// Charges are executed; rows are noted in the sidecar, if there is one.
    Yes(Option<Notes>),
    /// Charges are not executed, for this reason.
    No(String),
}

impl SqliteLedger {
    /// Opens the file, brings its schema up to date, gives the ledger an id if it has none, and executes charges unless
    /// the file is a copy of the one that was served last.
    ///
    /// # Errors
    /// When the file or its sidecar cannot be used; the source has the reason.
    pub async fn open(path: &Path, clock: Clock, random: Random) -> Result<Self> {
        let ledger = Self::attach(path, clock, random).await?;
        let serving = match start::start(ledger.place()?, &ledger.sqlite, &ledger.random).await? {
            Started::Serving(notes) => Serving::Yes(Some(notes)),
            Started::NotServing(why) => {
                tracing::error!(why, "the ledger does not execute charges");
                Serving::No(why)
            }
        };
        Ok(Self { serving, ..ledger })
    }

    /// Opens as [`Self::open`] does, but only to read the ledger or to give it a new id: executes nothing, and is no
    /// start of the ledger.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn attach(path: &Path, clock: Clock, random: Random) -> Result<Self> {
        let sqlite = Sqlite::open(path, MIGRATIONS, &clock).map_err(to_ledger_error)?;
        // All names of the file share one sidecar.
        let path = std::fs::canonicalize(path).map_err(|error| LedgerError::Unavailable(error.into()))?;
        let serving = Serving::No("the ledger was not opened to execute charges".to_owned());
        Self::over(sqlite, clock, random, Some(path), serving).await
    }

    /// A fresh database for a simulation; `latency` draws how long its writes take.
    ///
    /// # Errors
    /// When the schema cannot be created.
    pub fn disk(clock: &Clock, latency: Random) -> Result<Disk> {
        Disk::new(MIGRATIONS, clock, latency).map_err(to_ledger_error)
    }

    /// The ledger on a simulation's disk.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn on(disk: &Disk, clock: Clock, random: Random) -> Result<Self> {
        Self::over(Sqlite::on(disk), clock, random, None, Serving::Yes(None)).await
    }

    async fn over(
        sqlite: Sqlite,
        clock: Clock,
        random: Random,
        path: Option<PathBuf>,
        serving: Serving,
    ) -> Result<Self> {
        let ledger = Self { sqlite, clock, random, path, serving, written: Arc::default() };
        let id = ledger.random.uuid().hyphenated().to_string();
        let name = "INSERT INTO ledger_meta (ledger_id) VALUES (?1) ON CONFLICT DO NOTHING";
        let shown = id.clone();
        let begin = move |sql: &Connection| {
            // An empty ledger is not open in a process that needs the index over all accounts: one process owns the
            // file.
            if !sql.prepare("SELECT 1 FROM ledger")?.exists([])? {
                keys_per_account(sql)?;
            }
            sql.execute(name, [id])
        };
        if ledger.sqlite.write(begin).await.map_err(to_ledger_error)? == 1 {
            super::warn_of_new(&shown);
        }
        Ok(ledger)
    }

    /// Makes keys unique per account, also in an older ledger; earlier versions can no longer open it then.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn make_keys_per_account(&self) -> Result<()> {
        self.sqlite.write(keys_per_account).await.map_err(to_ledger_error)
    }

    /// Records that the row of a response is durable.
    fn note_written(&self, notes: Option<&Notes>, recorded: &Recorded) {
        let seq = match recorded {
            Recorded::New(seq) => *seq,
            Recorded::Known(row) | Recorded::ReferenceCharged(row) => row.seq,
            Recorded::Foreign | Recorded::Behind => return,
        };
        self.written.fetch_max(seq.0, Ordering::Relaxed);
        if let Some(notes) = notes {
            notes.record_durable(seq.0);
        }
    }

    /// Whether the ledger executes charges and accepts writes, from memory: for a readiness check.
    pub fn is_writable(&self) -> impl Fn() -> std::result::Result<(), String> + Send + Sync + use<> {
        let serving = match &self.serving {
            Serving::Yes(_) => Ok(()),
            Serving::No(why) => Err(why.clone()),
        };
        let is_writable = self.sqlite.is_writable();
        move || serving.clone().and_then(|()| is_writable())
    }

    fn place(&self) -> Result<&Path> {
        let none = || LedgerError::Unavailable("a simulation's ledger lies in no file".into());
        self.path.as_deref().ok_or_else(none)
    }

    fn notes(&self) -> Result<Option<&Notes>> {
        match &self.serving {
            Serving::Yes(notes) => Ok(notes.as_ref()),
            Serving::No(why) => Err(LedgerError::NotServing(why.clone())),
        }
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn id(&self) -> Result<LedgerId> {
        let read = |sql: &Connection| {
            sql.query_row("SELECT ledger_id FROM ledger_meta", [], |row| row.get::<_, String>(0))
        };
        let text = self.sqlite.read_short(read).await.map_err(to_ledger_error)?;
        let id = Uuid::parse_str(&text).map_err(|_| LedgerError::Corrupt(format!("ledger_id {text:?}")))?;
        Ok(LedgerId(id))
    }

    async fn renew_id(&self) -> Result<LedgerId> {
        let id = LedgerId(self.random.uuid());
        start::renew(self.place()?, &self.sqlite, &self.random, id).await.map(|()| id)
    }

    async fn record(&self, entry: &Arc<Entry>) -> Result<Recorded> {
        let notes = self.notes()?;
        let entry = Arc::clone(entry);
        let clock = self.clock.clone();
        let written = self.written.load(Ordering::Relaxed);
        let job = move |sql: &Connection| record(sql, &entry, written, clock.now_ms());
        let recorded = self.sqlite.write_one_statement(job).await;
        // Crash point: on disk and not yet reported.
        crash_point!("P3");
        let recorded = recorded.map_err(to_ledger_error)?;
        self.note_written(notes, &recorded);
        Ok(recorded)
    }

    async fn index_references(&self) -> Result<()> {
        self.sqlite.write(|sql| sql.execute_batch(INDEX_REFERENCES)).await.map_err(to_ledger_error)
    }

    async fn look_up(&self, account: &str, key: &Key) -> Result<Found> {
        let (account, key) = (account.to_owned(), key.clone());
        self.sqlite.read_short(move |sql| look_up(sql, &account, &key)).await.map_err(to_ledger_error)
    }

    async fn page(&self, account: &str, after: Seq, limit: usize) -> Result<Page> {
        let account = account.to_owned();
        let limit = limit.min(PAGE_MAX);
        let read = move |sql: &Connection| page(sql, &account, after, limit);
        self.sqlite.read(read).await.map_err(to_ledger_error)
    }

    async fn void(&self, void: &Void) -> Result<Voided> {
        let tombstone = Entry::tombstone(void);
        let notes = self.notes()?;
        let (account, key) = (void.account.clone(), void.key.clone());
        let clock = self.clock.clone();
        let written = self.written.load(Ordering::Relaxed);
        let void = move |sql: &Connection| match record(sql, &tombstone, written, clock.now_ms())? {
            Recorded::Behind => Ok(Voided::Behind),
            // A tombstone names no reference.
            Recorded::Foreign | Recorded::ReferenceCharged(_) => Ok(Voided::Foreign),
            Recorded::Known(row) => Ok(Voided::Row(row)),
            Recorded::New(_) => {
                by_key(sql, &account, &key)?.map(Voided::Row).ok_or(rusqlite::Error::QueryReturnedNoRows)
            }
        };
        let voided = self.sqlite.write(void).await.map_err(to_ledger_error)?;
        if let (Some(notes), Voided::Row(row)) = (notes, &voided) {
            notes.record_durable(row.seq.0);
        }
        Ok(voided)
    }

    async fn admit_deployment(&self, account: &str, deployment: DeploymentId) -> Result<Admission> {
        self.notes()?;
        let (account, now_ms) = (account.to_owned(), self.clock.now_ms());
        let admit = move |sql: &Connection| deployments::admit_one(sql, &account, deployment, now_ms);
        self.sqlite.write(admit).await.map_err(to_ledger_error)
    }

    async fn declare_deployment(&self, declaration: &Declaration) -> Result<DeclareOutcome> {
        self.notes()?;
        let (declaration, now_ms) = (declaration.clone(), self.clock.now_ms());
        let declare = move |sql: &Connection| deployments::declare(sql, &declaration, now_ms);
        self.sqlite.write(declare).await.map_err(to_ledger_error)
    }

    async fn deployments(&self, account: &str) -> Result<Vec<DeploymentRow>> {
        let account = account.to_owned();
        self.sqlite.read(move |sql| deployments::list(sql, &account)).await.map_err(to_ledger_error)
    }
}

fn to_ledger_error(error: SqliteError) -> LedgerError {
    LedgerError::Unavailable(Box::new(error))
}

fn record(sql: &Connection, entry: &Entry, written: i64, now_ms: i64) -> rusqlite::Result<Recorded> {
    if let Some(Seq(seen)) = entry.seen
        && seen > written
        && !sql.prepare_cached("SELECT 1 FROM ledger WHERE seq = ?1")?.exists([seen])?
    {
        return Ok(Recorded::Behind);
    }
    // One writer: no other charge of the reference can come in between.
    if let (true, Some(key)) = (entry.is_once, &entry.key)
        && let Some(first) = charged_reference(sql, entry, key)?
    {
        let own = by_key(sql, &entry.account, key)?;
        return Ok(own.map_or(Recorded::ReferenceCharged(first), Recorded::Known));
    }
    // One writer: no other account can charge the key in between.
    let inserted = if is_charged_by_other(sql, entry)? { 0 } else { insert(sql, entry, now_ms)? };
    crash_point!("P2");
    if inserted == 1 {
        return Ok(Recorded::New(Seq(sql.last_insert_rowid())));
    }
    let key = entry.key.as_ref().ok_or(rusqlite::Error::StatementChangedRows(inserted))?;
    Ok(by_key(sql, &entry.account, key)?.map_or(Recorded::Foreign, Recorded::Known))
}

fn is_charged_by_other(sql: &Connection, entry: &Entry) -> rusqlite::Result<bool> {
    let Some(key) = &entry.key else { return Ok(false) };
    let deployment = entry.deployment.map(|deployment| deployment.0.to_string());
    sql.prepare_cached(CHARGED_BY_OTHER)?.exists(params![key.as_str(), entry.account, deployment])
}

/// Inserts the row of an entry, unless its key has one; returns the number of rows.
fn insert(sql: &Connection, entry: &Entry, now_ms: i64) -> rusqlite::Result<usize> {
    sql.prepare_cached(INSERT)?.execute(params![
        entry.key.as_ref().map(Key::as_str),
        entry.account,
        entry.fingerprint.as_str(),
        entry.reference,
        entry.customer_id,
        entry.currency,
        entry.amount.units,
        entry.state.as_str(),
        entry.route,
        now_ms,
        FingerprintVersion::CURRENT.number(),
        entry.amount.exponent,
        entry.decline.as_ref().map(|decline| decline.class.as_str()),
        entry.decline.as_ref().map(|decline| &*decline.code),
    ])
}

fn look_up(sql: &Connection, account: &str, key: &Key) -> rusqlite::Result<Found> {
    if let Some(row) = by_key(sql, account, key)? {
        return Ok(Found::Row(row));
    }
    let is_blocked = sql.prepare_cached(IS_BLOCKED)?.exists([key.as_str()])?;
    Ok(if is_blocked { Found::Foreign } else { Found::Absent })
}

fn keys_per_account(sql: &Connection) -> rusqlite::Result<()> {
    if sql.prepare(HAS_KEYS_PER_ACCOUNT)?.exists([])? { Ok(()) } else { sql.execute_batch(KEYS_PER_ACCOUNT) }
}

fn by_key(sql: &Connection, account: &str, key: &Key) -> rusqlite::Result<Option<Row>> {
    sql.prepare_cached(BY_KEY)?.query_row([key.as_str(), account], read_row).optional()
}

fn charged_reference(sql: &Connection, entry: &Entry, key: &Key) -> rusqlite::Result<Option<Row>> {
    let asked = params![entry.account, entry.reference, key.as_str()];
    sql.prepare_cached(CHARGED_REFERENCE)?.query_row(asked, read_row).optional()
}

fn page(sql: &Connection, account: &str, after: Seq, limit: usize) -> rusqlite::Result<Page> {
    let one_more = i64::try_from(limit + 1).expect("a page's length fits an i64");
    let mut statement = sql.prepare_cached(PAGE)?;
    let found = statement.query_map(params![after.0, account, one_more], read_row)?;
    Ok(Page::of(found.collect::<rusqlite::Result<_>>()?, limit))
}

fn read_row(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let state: String = row.get(8)?;
    let version: i16 = row.get(11)?;
    Ok(Row {
        seq: Seq(row.get(0)?),
        key: row.get::<_, Option<String>>(1)?.map(|text| read_key(&text)).transpose()?,
        account: row.get(2)?,
        fingerprint: Fingerprint::from_store(row.get(3)?),
        fingerprint_version: FingerprintVersion::of_number(version)
            .ok_or_else(|| unreadable_column(11, &format!("fingerprint_version {version}")))?,
        reference: row.get(4)?,
        customer_id: row.get(5)?,
        currency: row.get(6)?,
        amount: Minor { units: row.get(7)?, exponent: row.get(12)? },
        state: state
            .parse::<State>()
            .ok()
            .ok_or_else(|| unreadable_column(8, &format!("state {state:?}")))?,
        decline: Decline::from_store(row.get::<_, Option<String>>(13)?.as_deref(), row.get(14)?),
        route: row.get(9)?,
        created_at_ms: row.get(10)?,
    })
}

fn read_key(text: &str) -> rusqlite::Result<Key> {
    Key::parse(text).ok_or_else(|| unreadable_column(1, &format!("key {text:?}")))
}

fn unreadable_column(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
