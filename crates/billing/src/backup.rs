//! `billing backup FILE`: a checked copy of the store while it is served, its deployment id included. Knows the store's
//! tables; starts nothing.

use std::path::Path;

use anyhow::Context;
use chassis::config::DatabaseUrl;
use chassis::sqlite::back_up;
use rusqlite::Connection;

/// The identity and the size of a backup, for the log.
struct Copied {
    deployment: String,
    invoices: i64,
    attempts: i64,
}

/// Writes the backup and logs what is in it.
pub(crate) fn command(url: &DatabaseUrl, to: &Path) -> anyhow::Result<()> {
    let path = url.file_to_back_up().map_err(anyhow::Error::msg)?;
    let copied = back_up(path, to, read).context("there is no backup")?;
    tracing::info!(
        file = %to.display(),
        deployment.id = copied.deployment,
        invoices = copied.invoices,
        attempts = copied.attempts,
        "the backup is complete and was checked"
    );
    Ok(())
}

/// Reads a backup; fails if it has no deployment id, because such a store cannot be used.
fn read(copy: &Connection) -> rusqlite::Result<Copied> {
    let count = |query: &str| copy.query_row(query, [], |row| row.get::<_, i64>(0));
    count("SELECT count(*) FROM customers")?;
    count("SELECT count(*) FROM runs")?;
    Ok(Copied {
        deployment: copy.query_row("SELECT id FROM deployment", [], |row| row.get(0))?,
        invoices: count("SELECT count(*) FROM invoices")?,
        attempts: count("SELECT count(*) FROM attempts")?,
    })
}
