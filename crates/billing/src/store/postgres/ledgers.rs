//! PostgreSQL's data about the provider's ledgers: the ledger that the store settles with, its last known row, and the
//! rows that operators have explained or accepted as lost.

use chassis::postgres::{Param, PgError, PoolClass, Postgres, Result, Tx, Type, get};

use super::changed;
use super::runs::SHARD;
use crate::store::rows::{self, FromRow};
use crate::store::{
    LedgerAcceptance, LedgerAcknowledgement, LedgerAcknowledgementRow, LedgerSeen, UnbackedAcknowledgement,
    UnbackedAcknowledgementRow,
};

pub(super) async fn current(database: &Postgres) -> Result<Option<String>> {
    let rows = database.read(PoolClass::Record, "SELECT ledger_id FROM deployment", &[]).await?;
    rows.first().map_or(Ok(None), |row| get(row, 0))
}

pub(super) async fn seen(database: &Postgres) -> Result<Option<LedgerSeen>> {
    let sql = "SELECT ledger_id, (SELECT coalesce(max(s.seq), 0) FROM ledger_seen AS s WHERE s.ledger_id = d.ledger_id)
         FROM deployment AS d WHERE d.ledger_id IS NOT NULL";
    let rows = database.read(PoolClass::Record, sql, &[]).await?;
    rows.first().map(LedgerSeen::from_row).transpose()
}

/// Records the last row seen of a ledger, which never decreases, in the shard of this connection, so that replicas do
/// not wait for each other. Written after every other counter.
pub(super) async fn see(tx: &Tx, seen: &LedgerSeen) -> Result<()> {
    let sql = format!(
        "INSERT INTO ledger_seen AS s (ledger_id, shard, seq) VALUES ($1, {SHARD}, $2)
         ON CONFLICT (ledger_id, shard) DO UPDATE SET seq = EXCLUDED.seq WHERE s.seq < EXCLUDED.seq"
    );
    let params: &[Param<'_>] = &[(&seen.ledger_id, Type::TEXT), (&seen.seq, Type::INT8)];
    tx.execute(&sql, params).await.map(drop)
}

pub(super) async fn remember(database: &Postgres, ledger_id: &str) -> Result<String> {
    let sql = "UPDATE deployment SET ledger_id = coalesce(ledger_id, $1) RETURNING ledger_id";
    let rows = database.write(PoolClass::Record, sql, &[(&ledger_id, Type::TEXT)]).await?;
    let row = rows.first().ok_or_else(|| PgError::Corrupt("a store has one deployment".to_owned()))?;
    get(row, 0)
}

pub(super) async fn accept(tx: Tx, acceptance: &LedgerAcceptance) -> Result<Option<String>> {
    let found = tx.query("SELECT ledger_id FROM deployment FOR UPDATE", &[]).await?;
    let Some(row) = found.first() else { return Err(PgError::Corrupt("no deployment".to_owned())) };
    let former: Option<String> = get(row, 0)?;
    let LedgerAcceptance { ledger_id, reason, actor } = acceptance;
    if former.as_ref() == Some(ledger_id) {
        return Ok(former);
    }
    let done = tx.execute("UPDATE deployment SET ledger_id = $1", &[(ledger_id, Type::TEXT)]).await?;
    changed(done, 1, "a store has one deployment")?;
    let sql = "INSERT INTO ledger_acceptances (ledger_from, ledger_to, reason, actor, created_at)
         VALUES ($1, $2, $3, $4, billing_now_ms())";
    let params: &[Param<'_>] =
        &[(&former, Type::TEXT), (ledger_id, Type::TEXT), (reason, Type::TEXT), (actor, Type::TEXT)];
    tx.execute(sql, params).await?;
    Ok(former)
}

pub(super) async fn acknowledge(
    database: &Postgres,
    acknowledgement: &LedgerAcknowledgement,
) -> Result<LedgerAcknowledgementRow> {
    let LedgerAcknowledgement { ledger_id, seq_first, seq_last, reason, actor } = acknowledgement;
    let sql = format!(
        "INSERT INTO ledger_acknowledgements (ledger_id, seq_first, seq_last, reason, actor, created_at)
         VALUES ($1, $2, $3, $4, $5, billing_now_ms()) RETURNING {}",
        rows::ACKNOWLEDGEMENT
    );
    let params: &[Param<'_>] = &[
        (ledger_id, Type::TEXT),
        (seq_first, Type::INT8),
        (seq_last, Type::INT8),
        (reason, Type::TEXT),
        (actor, Type::TEXT),
    ];
    let rows = database.write(PoolClass::Record, &sql, params).await?;
    let row = rows.first().ok_or_else(|| PgError::Corrupt("an acknowledgement is one row".to_owned()))?;
    LedgerAcknowledgementRow::from_row(row)
}

pub(super) async fn acknowledge_unbacked(
    database: &Postgres,
    acknowledgement: &UnbackedAcknowledgement,
) -> Result<Option<UnbackedAcknowledgementRow>> {
    let UnbackedAcknowledgement { ledger_id, reference, reason, actor } = acknowledgement;
    let sql = "INSERT INTO unbacked_acknowledgements (ledger_id, invoice_id, reason, actor, created_at)
         SELECT d.ledger_id, i.id, $3, $4, billing_now_ms() FROM deployment AS d, invoices AS i
         WHERE d.ledger_id = $1 AND i.reference = $2 AND i.state = 'PAID' AND i.paid_by = 'charge'
         RETURNING id, created_at";
    let reference = reference.as_str();
    let params: &[Param<'_>] =
        &[(ledger_id, Type::TEXT), (&reference, Type::TEXT), (reason, Type::TEXT), (actor, Type::TEXT)];
    let rows = database.write(PoolClass::Record, sql, params).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let acknowledgement = acknowledgement.clone();
    Ok(Some(UnbackedAcknowledgementRow { id: get(row, 0)?, acknowledgement, created_at: get(row, 1)? }))
}
