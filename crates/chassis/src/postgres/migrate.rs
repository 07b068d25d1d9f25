//! Brings a database's schema up to date: ordered steps, each whole or not at all, each recorded; a lock that ends
//! with the transaction makes several migrators at once safe, also through a pooler. Knows no step's meaning.

use tokio_postgres::types::Type;

use super::{NOW_MS, PgError, PoolClass, Postgres, Result, Tx, get};
use crate::schema::{Applied, check};

/// The only encoding that holds every reference. A database in another encoding would refuse single rows, for ever.
pub(super) const ENCODING: &str = "UTF8";

/// Checks a database's encoding, and says why another one is not accepted.
pub(super) fn check_encoding(encoding: &str) -> std::result::Result<(), String> {
    if encoding == ENCODING {
        return Ok(());
    }
    Err(format!(
        "its encoding is {encoding}, and references need {ENCODING}: create the database again with ENCODING '{ENCODING}' \
         TEMPLATE template0, then migrate"
    ))
}

/// Name of the table that records the steps that a database has.
pub(super) fn table(service: &str) -> String {
    format!("{service}_migrations")
}

/// The steps that the database has; the table must exist.
pub(super) async fn read_applied(database: &Postgres) -> Result<Vec<Applied>> {
    let rows = database.read(PoolClass::Claim, &list(database.0.schema.service), &[]).await?;
    rows.iter().map(read).collect()
}

/// Applies the missing migrations, each in a transaction of its own.
pub(super) async fn apply(database: &Postgres) -> Result<usize> {
    let rows = database.read(PoolClass::Claim, "SELECT current_setting('server_encoding')", &[]).await?;
    let encoding: &str = rows.first().map_or(Ok(""), |row| get(row, 0))?;
    check_encoding(encoding).map_err(PgError::Schema)?;
    loop {
        let (found, is_done) = database
            .run_transaction(&database.0.begin.migrate, PoolClass::Claim, true, |tx| step(database, tx))
            .await?;
        if is_done {
            database.0.trouble.notify_one();
            return Ok(found);
        }
    }
}

/// Applies one step, if one is missing. Returns how many steps the database has then, and whether that is all.
async fn step(database: &Postgres, tx: Tx) -> Result<(usize, bool)> {
    let schema = database.0.schema;
    let table = table(schema.service);
    // Waits until another migrator has ended, however long that takes.
    tx.batch(&format!("SELECT pg_advisory_xact_lock(hashtext('{table}'))")).await?;
    tx.batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (version integer PRIMARY KEY, name text NOT NULL, \
         breaks_older boolean NOT NULL, applied_at bigint NOT NULL)"
    ))
    .await?;
    let rows = tx.query(&list(schema.service), &[]).await?;
    let applied: Vec<Applied> = rows.iter().map(read).collect::<Result<_>>()?;
    let found = check(&applied, schema.steps).map_err(PgError::Schema)?;
    let Some(missing) = schema.steps.get(found) else { return Ok((found, true)) };
    tx.batch(missing.sql).await?;
    let version = i32::try_from(found + 1).expect("a schema has few steps");
    let record = format!(
        "INSERT INTO {table} (version, name, breaks_older, applied_at) VALUES ($1, $2, $3, {NOW_MS})"
    );
    let params: &[super::Param<'_>] =
        &[(&version, Type::INT4), (&missing.name, Type::TEXT), (&missing.breaks_older, Type::BOOL)];
    tx.execute(&record, params).await?;
    crate::crash_point!("migration");
    tracing::info!(version, name = missing.name, "schema migrated");
    Ok((found + 1, found + 1 == schema.steps.len()))
}

fn list(service: &str) -> String {
    format!("SELECT version, name, breaks_older FROM {} ORDER BY version", table(service))
}

fn read(row: &tokio_postgres::Row) -> Result<Applied> {
    let version: i32 = get(row, 0)?;
    let version = u32::try_from(version).map_err(|_| PgError::Corrupt(format!("schema step {version}")))?;
    Ok(Applied { version, name: get(row, 1)?, breaks_older: get(row, 2)? })
}
