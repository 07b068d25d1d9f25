//! Acknowledged ledger rows in SQLite: appended, never changed. Decides nothing.

use rusqlite::{Connection, Row, params};

use super::rows;
use crate::store::{LedgerAcknowledgement, LedgerAcknowledgementRow};

/// The table.
pub(super) const SCHEMA: &str = "
CREATE TABLE ledger_acknowledgements (
    id INTEGER PRIMARY KEY,
    ledger_id TEXT NOT NULL,
    seq_first INTEGER NOT NULL CHECK (seq_first >= 1),
    seq_last INTEGER NOT NULL CHECK (seq_last >= seq_first),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
";

/// Columns of a row.
pub(super) const COLUMNS: &str = "id, ledger_id, seq_first, seq_last, reason, actor, created_at";

pub(super) fn row(row: &Row<'_>) -> rusqlite::Result<LedgerAcknowledgementRow> {
    Ok(LedgerAcknowledgementRow {
        id: row.get(0)?,
        acknowledgement: LedgerAcknowledgement {
            ledger_id: row.get(1)?,
            seq_first: row.get(2)?,
            seq_last: row.get(3)?,
            reason: row.get(4)?,
            actor: row.get(5)?,
        },
        created_at: row.get(6)?,
    })
}

pub(super) fn record(
    connection: &Connection,
    acknowledgement: &LedgerAcknowledgement,
    now: i64,
) -> rusqlite::Result<LedgerAcknowledgementRow> {
    let LedgerAcknowledgement { ledger_id, seq_first, seq_last, reason, actor } = acknowledgement;
    let sql =
        "INSERT INTO ledger_acknowledgements (ledger_id, seq_first, seq_last, reason, actor, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let written = connection.execute(sql, params![ledger_id, seq_first, seq_last, reason, actor, now])?;
    rows::one_row(written, "an acknowledgement is one row")?;
    let id = connection.last_insert_rowid();
    Ok(LedgerAcknowledgementRow { id, acknowledgement: acknowledgement.clone(), created_at: now })
}
