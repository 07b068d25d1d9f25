//! Brings a database's schema up to date: ordered migrations, each whole or not at all, each recorded.
//! Knows no migration's meaning.

use rusqlite::{Connection, TransactionBehavior, params};

use super::SqliteError;
use crate::clock::Clock;
use crate::schema::{Applied, Migration, check, check_clock};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    breaks_older INTEGER NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// The existence of this table shows that the database was created with a virtual clock.
const VIRTUAL_CLOCK: &str =
    "CREATE TABLE IF NOT EXISTS virtual_clock (one INTEGER PRIMARY KEY CHECK (one = 1)) STRICT";

const HAS_VIRTUAL_CLOCK: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'virtual_clock'";

/// Applies missing migrations; rejects a schema that contradicts the list, and a clock of the other kind.
pub(super) fn apply(
    connection: &mut Connection,
    migrations: &[Migration],
    clock: &Clock,
) -> Result<(), SqliteError> {
    connection.execute_batch(TABLE).map_err(SqliteError::Job)?;
    let applied = read_applied(connection).map_err(SqliteError::Job)?;
    let known = check(&applied, migrations).map_err(SqliteError::Schema)?;
    mark_virtual_clock(connection, applied.is_empty(), clock)?;
    for (version, migration) in (1..).zip(migrations).skip(known) {
        apply_one(connection, version, migration, clock).map_err(SqliteError::Job)?;
        tracing::info!(version, name = migration.name, "schema migrated");
    }
    Ok(())
}

/// Marks a new database if its clock is virtual. The mark comes before the first migration, so that a crash between the
/// two leaves no database that a service on the machine's clock would accept.
fn mark_virtual_clock(connection: &Connection, is_new: bool, clock: &Clock) -> Result<(), SqliteError> {
    let is_virtual = clock.as_virtual().is_some();
    if is_new && is_virtual {
        connection.execute_batch(VIRTUAL_CLOCK).map_err(SqliteError::Job)?;
    }
    let marks: i64 =
        connection.query_row(HAS_VIRTUAL_CLOCK, [], |row| row.get(0)).map_err(SqliteError::Job)?;
    check_clock(marks > 0, is_virtual).map_err(SqliteError::Clock)
}

fn apply_one(
    connection: &mut Connection,
    version: u32,
    migration: &Migration,
    clock: &Clock,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(migration.sql)?;
    transaction.execute(
        "INSERT INTO migrations (version, name, breaks_older, applied_at) VALUES (?1, ?2, ?3, ?4)",
        params![version, migration.name, migration.breaks_older, clock.now_ms()],
    )?;
    crate::crash_point!("migration");
    transaction.commit()
}

fn read_applied(connection: &Connection) -> rusqlite::Result<Vec<Applied>> {
    let mut statement =
        connection.prepare("SELECT version, name, breaks_older FROM migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| {
        Ok(Applied { version: row.get(0)?, name: row.get(1)?, breaks_older: row.get(2)? })
    })?;
    rows.collect()
}
