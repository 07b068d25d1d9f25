//! Brings a database's schema up to date: ordered migrations, each whole or not at all, each recorded.
//! Knows no migration's meaning.

use rusqlite::{Connection, TransactionBehavior, params};

use super::SqliteError;
use crate::clock::Clock;
use crate::schema::{Applied, Migration, check};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    breaks_older INTEGER NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// Applies missing migrations; rejects a schema that contradicts the list.
pub(super) fn apply(
    connection: &mut Connection,
    migrations: &[Migration],
    clock: &Clock,
) -> Result<(), SqliteError> {
    connection.execute_batch(TABLE).map_err(SqliteError::Job)?;
    let applied = applied(connection).map_err(SqliteError::Job)?;
    let known = check(&applied, migrations).map_err(SqliteError::Schema)?;
    for (version, migration) in (1..).zip(migrations).skip(known) {
        apply_one(connection, version, migration, clock).map_err(SqliteError::Job)?;
        tracing::info!(version, name = migration.name, "schema migrated");
    }
    Ok(())
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

fn applied(connection: &Connection) -> rusqlite::Result<Vec<Applied>> {
    let mut statement =
        connection.prepare("SELECT version, name, breaks_older FROM migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| {
        Ok(Applied { version: row.get(0)?, name: row.get(1)?, breaks_older: row.get(2)? })
    })?;
    rows.collect()
}
