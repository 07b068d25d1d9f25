//! Claims in SQLite: PENDING invoices that a run has not attempted, first sends, and leases of open attempts.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Columns, Lease, is_corrupt, list, one, one_row, read};
use crate::invoice::{Attempt, InvoiceId, RunId};
use crate::store::changeset::{LEASE_NEVER, next_number};
use crate::store::lease::AHEAD_MAX_MS;
use crate::store::rows;
use crate::store::transaction::{Candidates, ClaimOrder, PendingClaim, log_unclaimable};

/// The most PENDING invoices that one job examines: a run that continues after a restart passes those that it has
/// attempted already, and must not block the writer meanwhile.
pub const SCAN_MAX: i64 = 10_000;

/// The query for claimable invoices, by an index and its condition.
macro_rules! candidates {
    ($index:literal, $condition:literal) => {
        concat!(
            "SELECT id, reference, customer_id, currency, amount_minor, due_at, next_attempt_at, dunning
             FROM invoices INDEXED BY ",
            $index,
            " WHERE state = 'PENDING' AND ",
            $condition,
            " AND id > ?1 AND held = 0
                AND NOT EXISTS (SELECT 1 FROM customers AS c INDEXED BY customers_held
                    WHERE c.id = invoices.customer_id AND c.held <> 0)
             ORDER BY id LIMIT ?2"
        )
    };
}

pub(super) const CANDIDATES: &str = candidates!("invoices_unpaid", "state <> 'PAID'");

/// Query of a scheduled run, which reads no imported invoices, however many wait.
pub(super) const SCHEDULED: &str = candidates!("invoices_scheduled_by_id", "next_attempt_at IS NOT NULL");

pub(super) const LAST_ATTEMPT: &str =
    "SELECT number, run_id FROM attempts WHERE invoice_id = ?1 ORDER BY number DESC LIMIT 1";

pub(super) fn candidates(
    connection: &Connection,
    claim: &PendingClaim,
    order: &ClaimOrder,
) -> rusqlite::Result<Candidates> {
    let mut candidates = Candidates { invoices: Vec::new(), examined: None };
    let mut examined = 0;
    let mut last_attempt = connection.prepare_cached(LAST_ATTEMPT)?;
    let mut select =
        connection.prepare_cached(if order.filter.scheduled { SCHEDULED } else { CANDIDATES })?;
    let mut found = select.query(params![claim.after.0, SCAN_MAX])?;
    while candidates.invoices.len() < claim.window {
        let Some(row) = found.next()? else {
            candidates.examined = candidates.examined.filter(|_| examined == SCAN_MAX);
            break;
        };
        examined += 1;
        let id = InvoiceId(row.get(0)?);
        candidates.examined = Some(id);
        if !rows::is_admitted(row, order)? {
            continue;
        }
        let last = last_attempt.query_row([id.0], |row| Ok((row.count(0)?, RunId(row.integer(1)?))));
        let Some(number) = next_number(last.optional()?, claim.run) else { continue };
        match rows::candidate(row, id, number) {
            Ok(candidate) => candidates.invoices.push(candidate),
            Err(error) => pass_over(id, error)?,
        }
    }
    Ok(candidates)
}

const INSERT: &str = "
    INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
        lease_until, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'INTENT', 1, ?7, ?8, ?9)";

pub(super) fn insert(
    connection: &Connection,
    attempts: Vec<Attempt>,
    lease: Lease,
) -> rusqlite::Result<Vec<Attempt>> {
    let mut insert = connection.prepare_cached(INSERT)?;
    let mut inserted = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let attempt = Attempt { lease_until: lease.until, created_at: lease.now, ..attempt };
        let done = insert.execute(params![
            attempt.key.as_str(),
            attempt.invoice_id.0,
            attempt.number,
            attempt.customer_id.0,
            attempt.money.currency.code(),
            attempt.money.amount_minor,
            attempt.run_id.0,
            attempt.lease_until,
            attempt.created_at,
        ]);
        match done {
            Ok(_) => inserted.push(attempt),
            Err(error) => pass_over(attempt.invoice_id, error)?,
        }
    }
    Ok(inserted)
}

/// Accepts only the first open attempt of a customer whose network is known. Several may be open if the network was set
/// later.
macro_rules! is_its_turn {
    () => {
        "NOT (EXISTS (SELECT 1 FROM customers AS c INDEXED BY customers_network
            WHERE c.id = a.customer_id AND c.network <> 'none')
        AND EXISTS (SELECT 1 FROM attempts AS o INDEXED BY attempts_open WHERE o.state IN ('INTENT', 'IN_DOUBT')
            AND o.invoice_id < a.invoice_id AND o.customer_id = a.customer_id))"
    };
}

/// Due open attempts of CHARGING invoices; those in ATTENTION need manual resolution first.
pub(super) const DUE: &str = concat!(
    "SELECT a.rowid FROM attempts AS a INDEXED BY attempts_due CROSS JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until <= ?1 AND i.state = 'CHARGING' AND ",
    is_its_turn!(),
    " ORDER BY a.lease_until LIMIT ?2"
);

pub(super) fn lease_due(
    connection: &Connection,
    limit: usize,
    lease: Lease,
) -> rusqlite::Result<Vec<Attempt>> {
    let due: Vec<i64> = list(connection, DUE, params![lease.now, limit as i64], |row| row.get(0))?;
    let update = "UPDATE attempts SET sends = sends + 1, lease_until = ?2
         WHERE rowid = ?1 AND state IN ('INTENT', 'IN_DOUBT')";
    let select = format!(
        "SELECT {} FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id WHERE a.rowid = ?1",
        rows::ATTEMPT
    );
    let mut attempts = Vec::with_capacity(due.len());
    for rowid in due {
        let changed = connection.prepare_cached(update)?.execute([rowid, lease.until])?;
        one_row(changed, "an attempt that is claimed is open")?;
        match connection.prepare_cached(&select)?.query_row([rowid], read) {
            Ok(attempt) => attempts.push(attempt),
            Err(error) => take_back_send(connection, rowid, error)?,
        }
    }
    Ok(attempts)
}

fn pass_over(invoice: InvoiceId, error: rusqlite::Error) -> rusqlite::Result<()> {
    if !is_corrupt(&error) {
        return Err(error);
    }
    log_unclaimable(invoice, &error);
    Ok(())
}

/// Subtracts the send of an unreadable attempt, which is not sent and is examined again when its new lease has ended.
fn take_back_send(connection: &Connection, rowid: i64, error: rusqlite::Error) -> rusqlite::Result<()> {
    if !is_corrupt(&error) {
        return Err(error);
    }
    let sql = "UPDATE attempts SET sends = sends - 1 WHERE rowid = ?1 RETURNING invoice_id";
    let invoice: i64 = connection.prepare_cached(sql)?.query_row([rowid], |row| row.get(0))?;
    pass_over(InvoiceId(invoice), error)
}

pub(super) const NEXT_DUE: &str = concat!(
    "SELECT a.lease_until FROM attempts AS a INDEXED BY attempts_due CROSS JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until < ?1 AND i.state = 'CHARGING' AND ",
    is_its_turn!(),
    " ORDER BY a.lease_until LIMIT 1"
);

pub(super) fn next_due(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    one(connection, NEXT_DUE, [LEASE_NEVER], |row| row.get(0))
}

/// Ends leases so far ahead that a wrong clock must have set them.
pub(super) fn end_wrong_leases(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE attempts SET lease_until = ?1
         WHERE state IN ('INTENT', 'IN_DOUBT') AND lease_until > ?2 AND lease_until < ?3";
    let ended = connection.execute(sql, [now, now.saturating_add(AHEAD_MAX_MS), LEASE_NEVER])?;
    tracing::warn!(attempts = ended, "leases ended too far ahead: the clock was wrong when they were taken");
    Ok(())
}

pub(super) fn recover(connection: &Connection, now: i64) -> rusqlite::Result<u64> {
    connection.execute(
        "UPDATE attempts SET lease_until = ?1
         WHERE state IN ('INTENT', 'IN_DOUBT') AND lease_until > ?1 AND lease_until < ?2",
        [now, LEASE_NEVER],
    )?;
    connection
        .execute("UPDATE runs SET lease_until = ?1 WHERE state = 'running' AND lease_until > ?1", [now])?;
    let open = "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";
    let open: i64 = connection.query_row(open, [], |row| row.get(0))?;
    Ok(u64::try_from(open).unwrap_or(0))
}
