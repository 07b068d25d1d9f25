//! SQLite's data about the provider's ledgers: the ledger that the store settles with, its last known row, and the rows
//! that operators have explained or accepted as lost.

use rusqlite::{Connection, params};

use super::{one, one_row, read};
use crate::store::{
    LedgerAcceptance, LedgerAcknowledgement, LedgerAcknowledgementRow, LedgerSeen, UnbackedAcknowledgement,
    UnbackedAcknowledgementRow, rows,
};

pub(super) fn current(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT ledger_id FROM deployment", [], |row| row.get(0))
}

pub(super) fn seen(connection: &Connection) -> rusqlite::Result<Option<LedgerSeen>> {
    let sql = "SELECT d.ledger_id, coalesce(s.seq, 0) FROM deployment AS d
         LEFT JOIN ledger_seen AS s ON s.ledger_id = d.ledger_id WHERE d.ledger_id IS NOT NULL";
    one(connection, sql, [], read)
}

/// Records the last row seen of a ledger, which never decreases.
pub(super) fn see(connection: &Connection, seen: &LedgerSeen) -> rusqlite::Result<()> {
    let sql = "INSERT INTO ledger_seen (ledger_id, seq) VALUES (?1, ?2)
         ON CONFLICT (ledger_id) DO UPDATE SET seq = max(seq, excluded.seq)";
    connection.prepare_cached(sql)?.execute(params![seen.ledger_id, seen.seq]).map(drop)
}

pub(super) fn remember(connection: &Connection, ledger_id: &str) -> rusqlite::Result<String> {
    let sql = "UPDATE deployment SET ledger_id = coalesce(ledger_id, ?1) RETURNING ledger_id";
    connection.query_row(sql, [ledger_id], |row| row.get(0))
}

pub(super) fn accept(
    connection: &Connection,
    acceptance: &LedgerAcceptance,
    now: i64,
) -> rusqlite::Result<Option<String>> {
    let LedgerAcceptance { ledger_id: accepted, reason, actor } = acceptance;
    let former = current(connection)?;
    if former.as_ref() != Some(accepted) {
        let changed = connection.execute("UPDATE deployment SET ledger_id = ?1", [accepted])?;
        one_row(changed, "a store has one deployment")?;
        let sql = "INSERT INTO ledger_acceptances (ledger_from, ledger_to, reason, actor, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)";
        connection.execute(sql, params![former, accepted, reason, actor, now])?;
    }
    Ok(former)
}

pub(super) fn acknowledge(
    connection: &Connection,
    acknowledgement: &LedgerAcknowledgement,
    now: i64,
) -> rusqlite::Result<LedgerAcknowledgementRow> {
    let LedgerAcknowledgement { ledger_id, seq_first, seq_last, reason, actor } = acknowledgement;
    let sql = format!(
        "INSERT INTO ledger_acknowledgements (ledger_id, seq_first, seq_last, reason, actor, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING {}",
        rows::ACKNOWLEDGEMENT
    );
    connection.query_row(&sql, params![ledger_id, seq_first, seq_last, reason, actor, now], read)
}

pub(super) fn acknowledge_unbacked(
    connection: &Connection,
    acknowledgement: &UnbackedAcknowledgement,
    now: i64,
) -> rusqlite::Result<Option<UnbackedAcknowledgementRow>> {
    let UnbackedAcknowledgement { ledger_id, reference, reason, actor } = acknowledgement;
    let sql = "INSERT INTO unbacked_acknowledgements (ledger_id, invoice_id, reason, actor, created_at)
         SELECT d.ledger_id, i.id, ?3, ?4, ?5 FROM deployment AS d, invoices AS i
         WHERE d.ledger_id = ?1 AND i.reference = ?2 AND i.state = 'PAID' AND i.paid_by = 'charge' RETURNING id";
    let id =
        one(connection, sql, params![ledger_id, reference.as_str(), reason, actor, now], |row| row.get(0));
    let row =
        |id| UnbackedAcknowledgementRow { id, acknowledgement: acknowledgement.clone(), created_at: now };
    Ok(id?.map(row))
}
