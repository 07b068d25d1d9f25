//! `payments backup FILE`: a checked copy of the ledger while it is served, marked so that it cannot serve instead of
//! the original before `new-ledger-id`. Knows the ledger's tables; starts nothing.

use std::path::Path;

use anyhow::Context;
use chassis::clock::Random;
use chassis::config::DatabaseUrl;
use chassis::sqlite::back_up;
use rusqlite::Connection;

/// The contents of a copy.
struct Copied {
    ledger_id: String,
    rows: i64,
    last_seq: i64,
}

/// Writes the backup and logs its contents.
pub(crate) fn command(url: &DatabaseUrl, to: &Path) -> anyhow::Result<()> {
    let path = url.file_to_back_up().map_err(anyhow::Error::msg)?;
    // No start ever writes this id into a sidecar: any sidecar beside a restored copy differs from it.
    let mark = Random::system().uuid().hyphenated().to_string();
    let copied = back_up(path, to, |copy| mark_and_read(copy, &mark)).context("there is no backup")?;
    tracing::info!(
        file = %to.display(),
        ledger.id = copied.ledger_id,
        rows = copied.rows,
        last_seq = copied.last_seq,
        "the backup is complete and was checked"
    );
    Ok(())
}

fn mark_and_read(copy: &Connection, mark: &str) -> rusqlite::Result<Copied> {
    // A ledger of a version without incarnations lacks these columns: its copy is refused here.
    copy.execute("UPDATE ledger_meta SET incarnation_id = ?1, incarnation_start = 0", [mark])?;
    let ledger_id = copy.query_row("SELECT ledger_id FROM ledger_meta", [], |row| row.get(0))?;
    let rows = copy.query_row("SELECT count(*), coalesce(max(seq), 0) FROM ledger", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    })?;
    Ok(Copied { ledger_id, rows: rows.0, last_seq: rows.1 })
}
