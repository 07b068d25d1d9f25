//! Counters in PostgreSQL: invoices by state, which triggers keep, and what runs have done. Each is the sum of its
//! shards, of which a transaction changes one, last of all.

use chassis::postgres::{Param, PgError, PoolClass, Postgres, Result, Tx, Type, get};

use super::schema::SHARD;
use crate::invoice::RunId;
use crate::store::sheet::Sheet;
use crate::store::{Counts, LedgerSeen};

pub(super) const INVOICES: &str = "
    SELECT coalesce(sum(pending), 0)::bigint, coalesce(sum(charging), 0)::bigint, coalesce(sum(paid), 0)::bigint,
        coalesce(sum(attention), 0)::bigint
    FROM invoice_counts";

pub(super) async fn invoices(database: &Postgres) -> Result<Counts> {
    let rows = database.read(PoolClass::Record, INVOICES, &[]).await?;
    let Some(row) = rows.first() else { return Err(PgError::Corrupt("a sum has no row".to_owned())) };
    Ok(Counts { pending: get(row, 0)?, charging: get(row, 1)?, paid: get(row, 2)?, attention: get(row, 3)? })
}

/// What is added to the counters of one run.
#[derive(Clone, Copy, Default)]
struct More {
    run: i64,
    attempted: i64,
    paid: i64,
    refused: i64,
    rejected: i64,
    in_doubt: i64,
    not_sent: i64,
}

/// Claims belong to a run, or to none.
pub(super) async fn attempted(tx: &Tx, run: Option<RunId>, count: usize) -> Result<()> {
    let Some(run) = run.filter(|_| count > 0) else { return Ok(()) };
    let attempted = i64::try_from(count).unwrap_or(i64::MAX);
    add(tx, &[More { run: run.0, attempted, ..More::default() }]).await
}

/// What words came to is counted at the run that settles, if there is one; doubt at the run that made the attempt.
pub(super) async fn settled(tx: &Tx, run: Option<RunId>, sheet: &Sheet) -> Result<()> {
    let counted = sheet.counted;
    let mut more: Vec<More> = sheet
        .doubts()
        .into_iter()
        .map(|(run, in_doubt)| More { run: run.0, in_doubt, ..More::default() })
        .collect();
    if let Some(run) = run {
        let place = more.iter().position(|more| more.run >= run.0).unwrap_or(more.len());
        if more.get(place).is_none_or(|more| more.run != run.0) {
            more.insert(place, More { run: run.0, ..More::default() });
        }
        let own = &mut more[place];
        (own.paid, own.refused) = (counted.paid, counted.refused);
        (own.rejected, own.not_sent) = (counted.rejected, counted.not_sent);
    }
    add(tx, &more).await
}

/// Runs in ascending order, so that no two transactions wait for each other.
async fn add(tx: &Tx, more: &[More]) -> Result<()> {
    if more.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO run_counts AS c (run_id, shard, attempted, paid, refused, rejected, in_doubt, not_sent)
         SELECT u.run_id, {SHARD}, u.attempted, u.paid, u.refused, u.rejected, u.in_doubt, u.not_sent
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
             AS u (run_id, attempted, paid, refused, rejected, in_doubt, not_sent)
         ON CONFLICT (run_id, shard) DO UPDATE SET attempted = c.attempted + EXCLUDED.attempted,
             paid = c.paid + EXCLUDED.paid, refused = c.refused + EXCLUDED.refused,
             rejected = c.rejected + EXCLUDED.rejected, in_doubt = c.in_doubt + EXCLUDED.in_doubt,
             not_sent = c.not_sent + EXCLUDED.not_sent"
    );
    let column = |of: fn(&More) -> i64| more.iter().map(of).collect::<Vec<i64>>();
    let columns = [
        column(|more| more.run),
        column(|more| more.attempted),
        column(|more| more.paid),
        column(|more| more.refused),
        column(|more| more.rejected),
        column(|more| more.in_doubt),
        column(|more| more.not_sent),
    ];
    let params: Vec<Param<'_>> = columns.iter().map(|column| (column as _, Type::INT8_ARRAY)).collect();
    tx.execute(&sql, &params).await.map(drop)
}

/// How far a ledger goes, never less than before; in the shard of this connection, so that replicas do not wait for
/// each other. After every other counter.
pub(super) async fn see(tx: &Tx, seen: &LedgerSeen) -> Result<()> {
    let sql = format!(
        "INSERT INTO ledger_seen AS s (ledger_id, shard, seq) VALUES ($1, {SHARD}, $2)
         ON CONFLICT (ledger_id, shard) DO UPDATE SET seq = EXCLUDED.seq WHERE s.seq < EXCLUDED.seq"
    );
    let params: &[Param<'_>] = &[(&seen.ledger_id, Type::TEXT), (&seen.seq, Type::INT8)];
    tx.execute(&sql, params).await.map(drop)
}

pub(super) async fn ledger_seen(database: &Postgres) -> Result<Option<LedgerSeen>> {
    let sql = "SELECT ledger_id, (SELECT coalesce(max(s.seq), 0) FROM ledger_seen AS s WHERE s.ledger_id = d.ledger_id)
         FROM deployment AS d WHERE d.ledger_id IS NOT NULL";
    let rows = database.read(PoolClass::Record, sql, &[]).await?;
    let seen = |row| Ok(LedgerSeen { ledger_id: get(row, 0)?, seq: get(row, 1)? });
    rows.first().map(seen).transpose()
}
