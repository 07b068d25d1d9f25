//! Claims in PostgreSQL: PENDING invoices that a run has not attempted, first sends, and leases of open attempts. Rows
//! that another claim has locked are skipped. A claim whose commit is in doubt is read back by its id.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chassis::postgres::{Param, PgError, PoolClass, Postgres, Result, Row, Tx, Type, get};
use tokio::time::Instant;

use super::transaction::{PostgresTransaction, number};
use super::{changed, ms};
use crate::invoice::{Attempt, InvoiceId, RunId};
use crate::run_order::RunFilter;
use crate::store::changeset::{LEASE_NEVER, next_number};
use crate::store::lease::AHEAD_MAX_MS;
use crate::store::rows::{self, Columns, FromRow};
use crate::store::transaction::{Candidates, ClaimOrder, Claimed, PendingClaim, log_unclaimable};

/// The pause between two tries to read back a claim.
const READ_BACK_EVERY: Duration = Duration::from_millis(100);

/// The claim id alone is not enough: a previous version claims without an id and leaves an older one, but increments
/// `sends`.
const READ_BACK: &str = "
    SELECT a.key FROM unnest($1::text[], $2::integer[], $4::bigint[], $5::integer[]) AS u (key, sends, invoice_id, number)
    JOIN attempts AS a ON a.invoice_id = u.invoice_id AND a.number = u.number AND a.key = u.key
    WHERE a.claim_id = $3 AND a.sends = u.sends AND a.state IN ('INTENT', 'IN_DOUBT')";

/// Runs a claim. If its commit is in doubt, reads the claim back while the result can be of use: otherwise no process
/// would send the claimed attempts until their leases have ended.
pub(super) async fn claim<F, Fut>(database: &Postgres, lease: Duration, steps: F) -> Result<Claimed>
where
    F: Fn(PostgresTransaction) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Claimed>> + Send,
{
    let began = Instant::now();
    let claim_id = database.random_id();
    let last = Mutex::new(Claimed::default());
    let (steps, last, id) = (&steps, &last, &claim_id);
    let noted = |tx: Tx| async move {
        tx.find_by_index().await?;
        let claimed = steps(PostgresTransaction::new(tx, lease, id.clone())).await?;
        last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&claimed);
        Ok(claimed)
    };
    let in_doubt = match database.transaction(PoolClass::Claim, noted).await {
        Err(in_doubt @ PgError::InDoubt(_)) => in_doubt,
        known => return known,
    };
    let claimed = std::mem::take(&mut *last.lock().unwrap_or_else(PoisonError::into_inner));
    let keys: Vec<&str> = claimed.attempts.iter().map(|attempt| attempt.key.as_str()).collect();
    let sends: Vec<i32> = claimed.attempts.iter().map(|attempt| number(attempt.sends)).collect();
    let invoices: Vec<i64> = claimed.attempts.iter().map(|attempt| attempt.invoice_id.0).collect();
    let numbers: Vec<i32> = claimed.attempts.iter().map(|attempt| number(attempt.number)).collect();
    while began.elapsed() < lease / 2 {
        let params: &[Param<'_>] = &[
            (&keys, Type::TEXT_ARRAY),
            (&sends, Type::INT4_ARRAY),
            (id, Type::TEXT),
            (&invoices, Type::INT8_ARRAY),
            (&numbers, Type::INT4_ARRAY),
        ];
        let Ok(found) = database.read(PoolClass::Claim, READ_BACK, params).await else {
            tokio::time::sleep(READ_BACK_EVERY).await;
            continue;
        };
        tracing::warn!(
            claimed = keys.len(),
            kept = found.len(),
            "the response to a claim was lost, read the claim back"
        );
        return if found.len() == keys.len() { Ok(claimed) } else { Err(in_doubt) };
    }
    Err(in_doubt)
}

/// The most PENDING invoices that one statement of a claim examines, if its filter has no index.
const SCAN_MAX: i64 = 2_000;

/// The last invoice that such a statement examines; no row if fewer wait.
const SCAN_END: &str = "
    SELECT i.id FROM invoices AS i WHERE i.state = 'PENDING' AND i.id > $1 ORDER BY i.id OFFSET $2 LIMIT 1";

/// Locked rows are checked again in their locked state. `conditions` come from a filter and only reduce the rows that
/// are read and locked; [`RunFilter::admits`] decides.
fn candidates_sql(conditions: &str, locks: bool) -> String {
    let (of_customers, lock) = if locks { ("", LOCK) } else { (NETWORK_KNOWN, "") };
    format!(
        "SELECT i.id, i.reference, i.customer_id, i.currency, i.amount_minor, i.due_at, i.next_attempt_at,
              i.dunning
         FROM invoices AS i
         WHERE i.state = 'PENDING' AND i.id > $1 AND NOT i.held {conditions} {of_customers}
             AND NOT EXISTS (SELECT 1 FROM customers AS c WHERE c.id = i.customer_id AND c.held)
             AND EXISTS (SELECT 1 FROM runs WHERE id = $2 AND state = 'running')
             AND (SELECT a.run_id FROM attempts AS a WHERE a.invoice_id = i.id ORDER BY a.number DESC LIMIT 1)
                 IS DISTINCT FROM $2
         ORDER BY i.id LIMIT $3 {lock}"
    )
}

const LOCK: &str = "FOR UPDATE OF i SKIP LOCKED";

const NETWORK_KNOWN: &str =
    "AND EXISTS (SELECT 1 FROM customers AS n WHERE n.id = i.customer_id AND n.network <> 'none')";

/// Condition of a scheduled run: the predicate of the index `invoices_scheduled_by_id`, so that no other invoice is
/// read.
const SCHEDULED: &str = "AND i.next_attempt_at IS NOT NULL AND i.next_attempt_at <= $4";

/// Condition of a run with another filter, within one scan. No index may serve it, because the rows would have to be
/// sorted by id.
const FILTERED: &str = "AND i.id <= $4 AND ($5::bigint IS NULL OR i.customer_id = $5)
    AND ($6::text IS NULL OR starts_with(i.reference, $6)) AND ($7::bigint IS NULL OR i.due_at < $7)
    AND (NOT $8 OR i.next_attempt_at IS NOT NULL)";

/// Read after the lock, because another claim may have committed in between.
const LAST_ATTEMPTS: &str = "
    SELECT DISTINCT ON (invoice_id) invoice_id, number, run_id FROM attempts WHERE invoice_id = ANY($1)
    ORDER BY invoice_id, number DESC";

/// The rows that a filter admits, and the last row examined.
async fn filtered(
    tx: &Tx,
    claim: &PendingClaim,
    order: &ClaimOrder,
    locks: bool,
) -> Result<(Vec<Row>, Option<i64>)> {
    let window = i64::try_from(claim.window).unwrap_or(i64::MAX);
    let RunFilter { scheduled, customer_id, reference_prefix, due_before, .. } = &order.filter;
    let mut params: Vec<Param<'_>> =
        vec![(&claim.after.0, Type::INT8), (&claim.run.0, Type::INT8), (&window, Type::INT8)];
    if customer_id.is_none() && reference_prefix.is_none() && due_before.is_none() {
        let mut conditions = "";
        if *scheduled {
            conditions = SCHEDULED;
            params.push((&order.now_ms, Type::INT8));
        }
        return Ok((tx.query(&candidates_sql(conditions, locks), &params).await?, None));
    }
    // Read before the scan: an invoice that becomes PENDING meanwhile is not skipped unseen.
    let end = tx.query(SCAN_END, &[(&claim.after.0, Type::INT8), (&(SCAN_MAX - 1), Type::INT8)]).await?;
    let end: Option<i64> = end.first().map(|row| get(row, 0)).transpose()?;
    let through = end.unwrap_or(i64::MAX);
    params.extend::<[Param<'_>; 5]>([
        (&through, Type::INT8),
        (customer_id, Type::INT8),
        (reference_prefix, Type::TEXT),
        (due_before, Type::INT8),
        (scheduled, Type::BOOL),
    ]);
    Ok((tx.query(&candidates_sql(FILTERED, locks), &params).await?, end))
}

pub(super) async fn candidates(
    tx: &Tx,
    claim: &PendingClaim,
    order: &ClaimOrder,
    locks: bool,
) -> Result<Candidates> {
    let (found, scanned) = filtered(tx, claim, order, locks).await?;
    let ids: Vec<i64> = found.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    let examined = ids.last().copied().or(scanned).map(InvoiceId);
    let mut candidates = Candidates { invoices: Vec::new(), examined };
    if ids.is_empty() {
        return Ok(candidates);
    }
    let mut last_attempts = HashMap::new();
    for row in &tx.query(LAST_ATTEMPTS, &[(&ids, Type::INT8_ARRAY)]).await? {
        last_attempts.insert(get::<i64>(row, 0)?, (row.count(1)?, RunId(get(row, 2)?)));
    }
    for (row, id) in found.iter().zip(ids) {
        let Some(number) = next_number(last_attempts.get(&id).copied(), claim.run) else { continue };
        let id = InvoiceId(id);
        if !rows::is_admitted(row, order)? {
            continue;
        }
        match rows::candidate(row, id, number) {
            Ok(candidate) => candidates.invoices.push(candidate),
            Err(error) => log_unclaimable(id, &error),
        }
    }
    Ok(candidates)
}

/// A row that the unique indexes reject is left out, and its invoice too.
const INSERT: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
        lease_until, created_at, claim_id)
    SELECT u.key, u.invoice_id, u.number, u.customer_id, u.currency, u.amount_minor, 'INTENT', 1, u.run_id,
        least(now.ms + $8, $9), now.ms, $10
    FROM now, unnest($1::text[], $2::bigint[], $3::integer[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[])
        AS u (key, invoice_id, number, customer_id, currency, amount_minor, run_id)
    ON CONFLICT DO NOTHING RETURNING key, lease_until, created_at";

pub(super) async fn insert(claim: &PostgresTransaction, attempts: Vec<Attempt>) -> Result<Vec<Attempt>> {
    if attempts.is_empty() {
        return Ok(attempts);
    }
    let keys: Vec<&str> = attempts.iter().map(|attempt| attempt.key.as_str()).collect();
    let invoices: Vec<i64> = attempts.iter().map(|attempt| attempt.invoice_id.0).collect();
    let numbers: Vec<i32> = attempts.iter().map(|attempt| number(attempt.number)).collect();
    let customers: Vec<i64> = attempts.iter().map(|attempt| attempt.customer_id.0).collect();
    let currencies: Vec<&str> = attempts.iter().map(|attempt| attempt.money.currency.code()).collect();
    let amounts: Vec<i64> = attempts.iter().map(|attempt| attempt.money.amount_minor).collect();
    let runs: Vec<i64> = attempts.iter().map(|attempt| attempt.run_id.0).collect();
    let params: &[Param<'_>] = &[
        (&keys, Type::TEXT_ARRAY),
        (&invoices, Type::INT8_ARRAY),
        (&numbers, Type::INT4_ARRAY),
        (&customers, Type::INT8_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&amounts, Type::INT8_ARRAY),
        (&runs, Type::INT8_ARRAY),
        (&ms(claim.lease), Type::INT8),
        (&(LEASE_NEVER - 1), Type::INT8),
        (&claim.claim_id, Type::TEXT),
    ];
    let inserted = claim.tx.query(INSERT, params).await?;
    let mut times = HashMap::with_capacity(inserted.len());
    for row in &inserted {
        times.insert(get::<&str>(row, 0)?, (get(row, 1)?, get(row, 2)?));
    }
    let with_times = |mut attempt: Attempt| {
        let Some(&(lease_until, created_at)) = times.get(attempt.key.as_str()) else {
            let refused = PgError::Corrupt("another attempt of it is open, or has this number".to_owned());
            log_unclaimable(attempt.invoice_id, &refused);
            return None;
        };
        (attempt.lease_until, attempt.created_at) = (lease_until, created_at);
        Some(attempt)
    };
    Ok(attempts.into_iter().filter_map(with_times).collect())
}

/// Accepts only the first open attempt of a customer whose network is known. Several may be open if the network was set
/// later.
macro_rules! is_its_turn {
    () => {
        "NOT (EXISTS (SELECT 1 FROM customers AS c WHERE c.id = a.customer_id AND c.network <> 'none')
        AND EXISTS (SELECT 1 FROM attempts AS o WHERE o.state IN ('INTENT', 'IN_DOUBT')
            AND o.invoice_id < a.invoice_id AND o.customer_id = a.customer_id))"
    };
}

const LEASE_DUE: &str = concat!(
    "WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms), due AS MATERIALIZED (
        SELECT a.invoice_id, a.number, i.reference FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
        WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until <= (SELECT ms FROM now) AND i.state = 'CHARGING'
        AND ",
    is_its_turn!(),
    " ORDER BY a.lease_until LIMIT $1 FOR UPDATE OF a, i SKIP LOCKED)
    UPDATE attempts AS a SET sends = a.sends + 1, lease_until = least(now.ms + $2, $3), claim_id = $4
    FROM now, due AS i WHERE a.invoice_id = i.invoice_id AND a.number = i.number"
);

/// Subtracts the sends of unreadable attempts, which are not sent.
const TAKE_BACK_SENDS: &str = "
    UPDATE attempts AS a SET sends = a.sends - 1 FROM unnest($1::bigint[], $2::integer[]) AS u (invoice_id, number)
    WHERE a.invoice_id = u.invoice_id AND a.number = u.number";

pub(super) async fn lease_due(claim: &PostgresTransaction, limit: usize) -> Result<Vec<Attempt>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let sql = format!("{LEASE_DUE} RETURNING {}", rows::ATTEMPT);
    let params: &[Param<'_>] = &[
        (&limit, Type::INT8),
        (&ms(claim.lease), Type::INT8),
        (&(LEASE_NEVER - 1), Type::INT8),
        (&claim.claim_id, Type::TEXT),
    ];
    let due = claim.tx.query(&sql, params).await?;
    let mut attempts = Vec::with_capacity(due.len());
    let (mut invoices, mut numbers): (Vec<i64>, Vec<i32>) = (Vec::new(), Vec::new());
    for row in &due {
        match Attempt::from_row(row) {
            Ok(attempt) => attempts.push(attempt),
            Err(error) => {
                log_unclaimable(InvoiceId(get(row, 1)?), &error);
                invoices.push(get(row, 1)?);
                numbers.push(get(row, 3)?);
            }
        }
    }
    if !invoices.is_empty() {
        let params: &[Param<'_>] = &[(&invoices, Type::INT8_ARRAY), (&numbers, Type::INT4_ARRAY)];
        let done = claim.tx.execute(TAKE_BACK_SENDS, params).await?;
        changed(done, invoices.len(), "an attempt that is claimed is there")?;
    }
    Ok(attempts)
}

const NEXT_DUE: &str = concat!(
    "SELECT greatest(a.lease_until - billing_now_ms(), 0)
    FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until < $1 AND i.state = 'CHARGING' AND ",
    is_its_turn!(),
    " ORDER BY a.lease_until LIMIT 1"
);

/// Ends leases so far ahead that a wrong clock must have set them.
const END_WRONG_LEASES: &str = "
    UPDATE attempts SET lease_until = billing_now_ms()
    WHERE state IN ('INTENT', 'IN_DOUBT') AND lease_until > billing_now_ms() + $1 AND lease_until < $2 RETURNING 1";

pub(super) async fn next_due(database: &Postgres) -> Result<Option<Duration>> {
    let rows = database.read(PoolClass::Record, NEXT_DUE, &[(&LEASE_NEVER, Type::INT8)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let in_ms: i64 = get(row, 0)?;
    if in_ms > AHEAD_MAX_MS {
        let params: &[Param<'_>] = &[(&AHEAD_MAX_MS, Type::INT8), (&LEASE_NEVER, Type::INT8)];
        let ended = database.write(PoolClass::Record, END_WRONG_LEASES, params).await?.len();
        tracing::warn!(
            attempts = ended,
            "leases ended too far ahead: the clock was wrong when they were taken"
        );
        return Ok(Some(Duration::ZERO));
    }
    Ok(Some(Duration::from_millis(u64::try_from(in_ms).unwrap_or(0))))
}
