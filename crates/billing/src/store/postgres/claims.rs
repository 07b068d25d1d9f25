//! Claims in PostgreSQL: journal the next attempt of a PENDING invoice, or lease an open attempt again. What another
//! claimer has locked is passed over. A claim whose commit's answer was lost is read back by key.

use std::collections::HashMap;
use std::time::Duration;

use chassis::crash_point;
use chassis::postgres::{Param, PgError, PoolClass, Postgres, Result, Row, Tx, Type, get};
use tokio::time::Instant;

use super::{counts, ms, rows};
use crate::invoice::{Attempt, AttemptState, CustomerId, InvoiceId, Reference, RunId};
use crate::money::Money;
use crate::protocol::key::{DeploymentId, Key};
use crate::store::plan::LEASE_NEVER;

/// Between two tries to read back what a lost commit has done.
const READ_BACK_EVERY: Duration = Duration::from_millis(100);

/// Those whose last attempt is of this run are passed over. What was locked is looked at as it stands then.
const CANDIDATES: &str = "
    SELECT i.id, i.reference, i.customer_id, i.currency, i.amount_minor FROM invoices AS i
    WHERE i.state = 'PENDING' AND i.id > $1
        AND EXISTS (SELECT 1 FROM runs WHERE id = $2 AND state = 'running')
        AND (SELECT a.run_id FROM attempts AS a WHERE a.invoice_id = i.id ORDER BY a.number DESC LIMIT 1)
            IS DISTINCT FROM $2
    ORDER BY i.id LIMIT $3 FOR UPDATE OF i SKIP LOCKED";

const LAST_ATTEMPTS: &str = "
    SELECT DISTINCT ON (invoice_id) invoice_id, number, run_id FROM attempts WHERE invoice_id = ANY($1)
    ORDER BY invoice_id, number DESC";

/// A row that the guards refuse is left out, and its invoice with it.
const INSERT: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
        lease_until, created_at)
    SELECT u.key, u.invoice_id, u.number, u.customer_id, u.currency, u.amount_minor, 'INTENT', 1, $7,
        least(now.ms + $8, $9), now.ms
    FROM now, unnest($1::text[], $2::bigint[], $3::integer[], $4::bigint[], $5::text[], $6::bigint[])
        AS u (key, invoice_id, number, customer_id, currency, amount_minor)
    ON CONFLICT DO NOTHING RETURNING key, lease_until, created_at, xmin::text";

const TAKE: &str = "
    UPDATE invoices AS i SET state = 'CHARGING', updated_at = u.at
    FROM unnest($1::bigint[], $2::bigint[]) AS u (id, at) WHERE i.id = u.id AND i.state = 'PENDING'";

const OPEN: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms), due AS MATERIALIZED (
        SELECT a.key, i.reference FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
        WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until <= (SELECT ms FROM now) AND i.state = 'CHARGING'
        ORDER BY a.lease_until LIMIT $1 FOR UPDATE OF a, i SKIP LOCKED)
    UPDATE attempts AS a SET sends = a.sends + 1, lease_until = least(now.ms + $2, $3)
    FROM now, due AS i WHERE a.key = i.key";

const UNSEND: &str = "UPDATE attempts SET sends = sends - 1 WHERE key = ANY($1)";

/// What a transaction wrote last, and nobody since: its number is the row's.
const READ_BACK: &str = "SELECT key FROM attempts WHERE key = ANY($1) AND xmin::text = $2";

const NEXT_DUE: &str = "
    SELECT greatest(a.lease_until - billing_now_ms(), 0)
    FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until < $1 AND i.state = 'CHARGING'
    ORDER BY a.lease_until LIMIT 1";

/// What a fresh claim needs to know.
#[derive(Clone, Copy)]
pub(super) struct Fresh {
    pub(super) deployment: DeploymentId,
    pub(super) run: RunId,
    pub(super) after: InvoiceId,
    pub(super) limit: usize,
    pub(super) lease: Duration,
}

/// What one transaction claimed.
#[derive(Clone, Default)]
struct Claimed {
    attempts: Vec<Attempt>,
    /// The transaction's number, as its rows carry it.
    by: String,
    /// The last candidate that it saw.
    seen: Option<InvoiceId>,
}

pub(super) async fn fresh(database: &Postgres, claim: Fresh) -> Result<Vec<Attempt>> {
    let mut claim = claim;
    loop {
        let claimed = retry_until_stopped(database, claim.lease, |tx| fresh_once(tx, claim)).await?;
        match claimed.seen {
            // All of them were spoilt, or were tried by this run meanwhile.
            Some(seen) if claimed.attempts.is_empty() => claim.after = seen,
            _ => return Ok(claimed.attempts),
        }
    }
}

pub(super) async fn open(
    database: &Postgres,
    run: Option<RunId>,
    limit: usize,
    lease: Duration,
) -> Result<Vec<Attempt>> {
    retry_until_stopped(database, lease, |tx| open_once(tx, run, limit, lease))
        .await
        .map(|claimed| claimed.attempts)
}

/// A claim whose answer was lost is asked after for as long as it may be of use: otherwise nobody would send what it
/// took until its lease has ended.
async fn retry_until_stopped<F, Fut>(database: &Postgres, lease: Duration, job: F) -> Result<Claimed>
where
    F: Fn(Tx) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Claimed>> + Send,
{
    let began = Instant::now();
    let last = std::sync::Mutex::new(Claimed::default());
    let (job, last) = (&job, &last);
    let noted = |tx: Tx| async move {
        let claimed = job(tx).await?;
        last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone_from(&claimed);
        Ok(claimed)
    };
    let lost = match database.transaction(PoolClass::Claim, noted).await {
        Err(lost @ PgError::InDoubt(_)) => lost,
        known => return known,
    };
    let claimed = std::mem::take(&mut *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let keys: Vec<&str> = claimed.attempts.iter().map(|attempt| attempt.key.as_str()).collect();
    while began.elapsed() < lease / 2 {
        let params: &[Param<'_>] = &[(&keys, Type::TEXT_ARRAY), (&claimed.by, Type::TEXT)];
        let Ok(found) = database.read(PoolClass::Claim, READ_BACK, params).await else {
            tokio::time::sleep(READ_BACK_EVERY).await;
            continue;
        };
        tracing::warn!(
            claimed = keys.len(),
            kept = found.len(),
            "the response to a claim was lost, read the claim back"
        );
        if found.len() == keys.len() {
            return Ok(claimed);
        }
        return Err(lost);
    }
    Err(lost)
}

async fn fresh_once(tx: Tx, claim: Fresh) -> Result<Claimed> {
    tx.find_by_index().await?;
    let limit = i64::try_from(claim.limit).unwrap_or(i64::MAX);
    let params: &[Param<'_>] =
        &[(&claim.after.0, Type::INT8), (&claim.run.0, Type::INT8), (&limit, Type::INT8)];
    let candidates = tx.query(CANDIDATES, params).await?;
    let ids: Vec<i64> = candidates.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    let Some(&seen) = ids.last() else { return Ok(Claimed::default()) };
    let tried = last_attempts(&tx, &ids).await?;
    let mut attempts = Vec::with_capacity(ids.len());
    for (row, id) in candidates.iter().zip(&ids) {
        let number = match tried.get(id) {
            Some((_, run)) if *run == claim.run => continue,
            Some((number, _)) => number + 1,
            None => 1,
        };
        match attempt(row, number, claim) {
            Ok(attempt) => attempts.push(attempt),
            Err(error) => pass_over(InvoiceId(*id), &error),
        }
    }
    let mut claimed = journal(&tx, attempts, claim).await?;
    claimed.seen = Some(InvoiceId(seen));
    crash_point!("K1");
    Ok(claimed)
}

async fn last_attempts(tx: &Tx, invoices: &[i64]) -> Result<HashMap<i64, (u32, RunId)>> {
    let rows = tx.query(LAST_ATTEMPTS, &[(&invoices, Type::INT8_ARRAY)]).await?;
    rows.iter().map(|row| Ok((get(row, 0)?, (rows::count(row, 1)?, RunId(get(row, 2)?))))).collect()
}

fn attempt(row: &Row, number: u32, claim: Fresh) -> Result<Attempt> {
    let reference: Reference = rows::reference(row, 1)?;
    let money: Money = rows::money(row, 3)?;
    Ok(Attempt {
        key: Key::new(claim.deployment, &reference, number),
        invoice_id: InvoiceId(get(row, 0)?),
        reference,
        number,
        customer_id: CustomerId(get(row, 2)?),
        money,
        state: AttemptState::Intent,
        sends: 1,
        run_id: claim.run,
        lease_until: 0,
        created_at: 0,
        settled_at: None,
    })
}

/// Writes them, takes their invoices, and answers those that could be written.
async fn journal(tx: &Tx, mut attempts: Vec<Attempt>, claim: Fresh) -> Result<Claimed> {
    if attempts.is_empty() {
        return Ok(Claimed::default());
    }
    let written = insert(tx, &attempts, claim).await?;
    let mut by = String::new();
    let mut kept = HashMap::with_capacity(written.len());
    for row in &written {
        by = get(row, 3)?;
        kept.insert(get::<&str>(row, 0)?, (get::<i64>(row, 1)?, get::<i64>(row, 2)?));
    }
    attempts.retain_mut(|attempt| match kept.get(attempt.key.as_str()) {
        Some(&(lease_until, created_at)) => {
            (attempt.lease_until, attempt.created_at) = (lease_until, created_at);
            true
        }
        None => {
            let what = PgError::Corrupt("another attempt of it is open, or has this number".to_owned());
            pass_over(attempt.invoice_id, &what);
            false
        }
    });
    let ids: Vec<i64> = attempts.iter().map(|attempt| attempt.invoice_id.0).collect();
    let at: Vec<i64> = attempts.iter().map(|attempt| attempt.created_at).collect();
    let taken = tx.execute(TAKE, &[(&ids, Type::INT8_ARRAY), (&at, Type::INT8_ARRAY)]).await?;
    rows::changed(taken, ids.len(), "invoices that are claimed are PENDING")?;
    counts::attempted(tx, Some(claim.run), attempts.len()).await?;
    Ok(Claimed { attempts, by, seen: None })
}

async fn insert(tx: &Tx, attempts: &[Attempt], claim: Fresh) -> Result<Vec<Row>> {
    let keys: Vec<&str> = attempts.iter().map(|attempt| attempt.key.as_str()).collect();
    let invoices: Vec<i64> = attempts.iter().map(|attempt| attempt.invoice_id.0).collect();
    let numbers: Vec<i32> =
        attempts.iter().map(|attempt| i32::try_from(attempt.number).unwrap_or(i32::MAX)).collect();
    let customers: Vec<i64> = attempts.iter().map(|attempt| attempt.customer_id.0).collect();
    let currencies: Vec<&str> = attempts.iter().map(|attempt| attempt.money.currency.code()).collect();
    let amounts: Vec<i64> = attempts.iter().map(|attempt| attempt.money.amount_minor).collect();
    let params: &[Param<'_>] = &[
        (&keys, Type::TEXT_ARRAY),
        (&invoices, Type::INT8_ARRAY),
        (&numbers, Type::INT4_ARRAY),
        (&customers, Type::INT8_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&amounts, Type::INT8_ARRAY),
        (&claim.run.0, Type::INT8),
        (&ms(claim.lease), Type::INT8),
        (&(LEASE_NEVER - 1), Type::INT8),
    ];
    tx.query(INSERT, params).await
}

async fn open_once(tx: Tx, run: Option<RunId>, limit: usize, lease: Duration) -> Result<Claimed> {
    tx.find_by_index().await?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = format!("{OPEN} RETURNING {}, a.xmin::text", rows::ATTEMPT);
    let params: &[Param<'_>] =
        &[(&limit, Type::INT8), (&ms(lease), Type::INT8), (&(LEASE_NEVER - 1), Type::INT8)];
    let due = tx.query(&sql, params).await?;
    let mut claimed = Claimed { attempts: Vec::with_capacity(due.len()), ..Claimed::default() };
    let mut spoilt = Vec::new();
    for row in &due {
        claimed.by = get(row, 13)?;
        match rows::attempt(row) {
            Ok(attempt) => claimed.attempts.push(attempt),
            Err(error) => {
                pass_over(InvoiceId(get(row, 1)?), &error);
                spoilt.push(get::<&str>(row, 0)?);
            }
        }
    }
    if !spoilt.is_empty() {
        let unsent = tx.execute(UNSEND, &[(&spoilt, Type::TEXT_ARRAY)]).await?;
        rows::changed(unsent, spoilt.len(), "an attempt that is claimed is there")?;
    }
    counts::attempted(&tx, run, claimed.attempts.len()).await?;
    crash_point!("K1");
    Ok(claimed)
}

/// One invoice that cannot be claimed must not hold back the others.
fn pass_over(invoice: InvoiceId, error: &PgError) {
    tracing::error!(
        invoice.id = invoice.0,
        error = error as &dyn std::error::Error,
        "the invoice has corrupt rows and cannot be claimed, operator action required"
    );
}

pub(super) async fn next_due(database: &Postgres) -> Result<Option<Duration>> {
    let rows = database.read(PoolClass::Record, NEXT_DUE, &[(&LEASE_NEVER, Type::INT8)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let in_ms: i64 = get(row, 0)?;
    Ok(Some(Duration::from_millis(u64::try_from(in_ms).unwrap_or(0))))
}
