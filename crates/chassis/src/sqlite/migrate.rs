//! Brings a database's schema up to date: ordered migrations, each whole or not at all, each recorded.
//! Knows no migration's meaning.

use rusqlite::{Connection, TransactionBehavior, params};

use super::SqliteError;
use crate::clock::Clock;

/// One step of a schema. Its version is its place in the list, from 1; steps are only ever appended.
#[derive(Debug)]
pub struct Migration {
    /// Recorded with the version, and compared: a list that was reordered is refused.
    pub name: &'static str,
    /// Statements, run in one transaction.
    pub sql: &'static str,
    /// Whether programs that do not know this step must not use the database any more.
    pub breaks_older: bool,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    breaks_older INTEGER NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// Applies what is missing; refuses a schema that contradicts the list.
pub(super) fn apply(
    connection: &mut Connection,
    migrations: &[Migration],
    clock: &Clock,
) -> Result<(), SqliteError> {
    connection.execute_batch(TABLE).map_err(SqliteError::Job)?;
    let applied = applied(connection).map_err(SqliteError::Job)?;
    let known = check(&applied, migrations)?;
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

struct Applied {
    version: u32,
    name: String,
    breaks_older: bool,
}

fn applied(connection: &Connection) -> rusqlite::Result<Vec<Applied>> {
    let mut statement =
        connection.prepare("SELECT version, name, breaks_older FROM migrations ORDER BY version")?;
    let rows = statement.query_map([], |row| {
        Ok(Applied { version: row.get(0)?, name: row.get(1)?, breaks_older: row.get(2)? })
    })?;
    rows.collect()
}

/// How many steps of the list the database has.
fn check(applied: &[Applied], migrations: &[Migration]) -> Result<usize, SqliteError> {
    for step in applied {
        let known = (1..).zip(migrations).find(|(version, _)| *version == step.version);
        match known {
            Some((_, known)) if known.name == step.name => {}
            Some((_, known)) => {
                return Err(SqliteError::Schema(format!(
                    "the database's schema step {} is {:?}, this program's is {:?}: not the same service?",
                    step.version, step.name, known.name
                )));
            }
            None if step.breaks_older => {
                return Err(SqliteError::Schema(format!(
                    "the database was made incompatible by a newer program (schema step {}, {:?}): use that one",
                    step.version, step.name
                )));
            }
            None => {}
        }
    }
    Ok(applied.len())
}
