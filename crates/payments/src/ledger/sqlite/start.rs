//! The start of a SQLite ledger, step by step: sidecar pending, database, sidecar confirmed. After a crash between two
//! steps the next start continues; it refuses a copied or restored database. Knows no row of the ledger.

use std::path::Path;

use chassis::clock::Random;
use chassis::crash_point;
use chassis::sqlite::Sqlite;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::sidecar::{self, Notes};
use super::to_ledger_error;
use crate::ledger::incarnation::{Copied, Incarnation, Sidecar, Stage, next};
use crate::ledger::{LedgerError, LedgerId, Result};

/// Adds the columns of the incarnation to the ledger's one row in `ledger_meta`.
pub(super) const MIGRATION: &str = "ALTER TABLE ledger_meta ADD COLUMN incarnation_id TEXT; \
    ALTER TABLE ledger_meta ADD COLUMN incarnation_start INTEGER";

/// Whether the database is the one that was served last.
pub(super) enum Started {
    /// The database is that one, and its rows are noted from now on.
    Serving(Notes),
    /// The database is another one, for this reason.
    NotServing(String),
}

/// Compares the database with its sidecar, and writes this start into both if they agree. Otherwise it changes nothing.
pub(super) async fn start(path: &Path, sqlite: &Sqlite, random: &Random) -> Result<Started> {
    let beside = sidecar::path_of(path);
    let (known, last_seq) = stored(sqlite).await?;
    let found = sidecar::read(&beside).map_err(|error| sidecar_error(&beside, &error))?.transpose();
    let found = found.map_err(Copied::SidecarUnreadable);
    let incarnation = match found.and_then(|found| next(known, last_seq, found, random.uuid())) {
        Ok(incarnation) => incarnation,
        Err(copied) => return Ok(Started::NotServing(advice(path, &copied))),
    };
    write(&beside, sqlite, Sidecar { incarnation, stage: Stage::Pending, last_seq }, None).await?;
    Notes::open(&beside, last_seq).map(Started::Serving).map_err(|error| sidecar_error(&beside, &error))
}

/// Gives the ledger a new id and makes this database the one that is served, regardless of its sidecar.
pub(super) async fn renew(path: &Path, sqlite: &Sqlite, random: &Random, id: LedgerId) -> Result<()> {
    let (_, last_seq) = stored(sqlite).await?;
    let incarnation = Incarnation::first(random.uuid());
    let renewed = Sidecar { incarnation, stage: Stage::Renewing, last_seq };
    write(&sidecar::path_of(path), sqlite, renewed, Some(id)).await
}

/// Writes sidecar, database and sidecar, always in this order.
async fn write(beside: &Path, sqlite: &Sqlite, first: Sidecar, id: Option<LedgerId>) -> Result<()> {
    put(beside, first).await?;
    let Incarnation { id: incarnation, start } = first.incarnation;
    let store = move |sql: &Connection| {
        let id = id.map(|id| id.to_string());
        let update = "UPDATE ledger_meta SET incarnation_id = ?1, incarnation_start = ?2, \
            ledger_id = coalesce(?3, ledger_id)";
        sql.execute(update, params![incarnation.hyphenated().to_string(), start, id])
    };
    match sqlite.write(store).await.map_err(to_ledger_error)? {
        1 => {}
        rows => return Err(LedgerError::Corrupt(format!("ledger_meta has {rows} rows"))),
    }
    crash_point!("incarnation-stored");
    put(beside, Sidecar { stage: Stage::Confirmed, ..first }).await
}

async fn put(beside: &Path, sidecar: Sidecar) -> Result<()> {
    let path = beside.to_owned();
    let written = tokio::task::spawn_blocking(move || sidecar::write(&path, &sidecar)).await;
    let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    written.map_err(|error| sidecar_error(beside, &error))
}

/// The incarnation in the database, and its last position.
async fn stored(sqlite: &Sqlite) -> Result<(Option<Incarnation>, i64)> {
    let read = |sql: &Connection| {
        let query = "SELECT incarnation_id, incarnation_start, (SELECT coalesce(max(seq), 0) FROM ledger) \
            FROM ledger_meta";
        sql.query_row(query, [], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, i64>(2)?))
        })
    };
    let (id, start, last_seq) = sqlite.read_short(read).await.map_err(to_ledger_error)?;
    let (Some(id), Some(start)) = (id, start) else { return Ok((None, last_seq)) };
    let id = Uuid::parse_str(&id).map_err(|_| LedgerError::Corrupt(format!("incarnation_id {id:?}")))?;
    Ok((Some(Incarnation { id, start }), last_seq))
}

fn advice(path: &Path, copied: &Copied) -> String {
    format!(
        "{} does not execute charges: {copied}. Rows may be missing, and a charge whose row is missing would be \
         executed again. Stop payments, run `payments new-ledger-id`, start it again, and go on as docs/how-to/runbook.md \
         says",
        path.display()
    )
}

fn sidecar_error(beside: &Path, error: &std::io::Error) -> LedgerError {
    LedgerError::Unavailable(format!("the sidecar file {}: {error}", beside.display()).into())
}
