//! Claims in SQLite: journal the next attempt of a PENDING invoice, or lease an open attempt again.

use chassis::crash_point;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::counts::Moves;
use super::{Lease, is_corrupt, list, one, rows, runs};
use crate::invoice::{Attempt, AttemptState, CustomerId, InvoiceId, InvoiceState, Reference, RunId};
use crate::money::Money;
use crate::protocol::key::{DeploymentId, Key};
use crate::store::plan::LEASE_NEVER;

/// PENDING invoices that one job looks at: a run that goes on after a restart passes those that it has refused
/// already, and must not hold the writer up meanwhile.
pub const SCAN_MAX: i64 = 10_000;

/// What a fresh claim needs to know.
#[derive(Clone, Copy)]
pub(super) struct Fresh {
    pub(super) deployment: DeploymentId,
    pub(super) run: RunId,
    pub(super) after: InvoiceId,
    pub(super) limit: usize,
    pub(super) lease: Lease,
}

/// What one job claimed.
pub(super) struct Claimed {
    pub(super) attempts: Vec<Attempt>,
    /// Set when the job stopped before it had seen every PENDING invoice: the last one that it saw.
    pub(super) go_on_after: Option<InvoiceId>,
}

/// Candidates by id: those whose last attempt is of this run are passed over.
pub(super) const CANDIDATES: &str = "
    SELECT id, reference, customer_id, currency, amount_minor FROM invoices INDEXED BY invoices_unpaid
    WHERE state = 'PENDING' AND state <> 'PAID' AND id > ?1 ORDER BY id LIMIT ?2";

pub(super) const LAST_ATTEMPT: &str =
    "SELECT number, run_id FROM attempts WHERE invoice_id = ?1 ORDER BY number DESC LIMIT 1";

pub(super) fn fresh(connection: &Connection, claim: Fresh) -> rusqlite::Result<Claimed> {
    let mut claimed = Claimed { attempts: Vec::new(), go_on_after: None };
    if !runs::is_running(connection, claim.run)? {
        return Ok(claimed);
    }
    let mut seen = 0;
    let mut last_attempt = connection.prepare_cached(LAST_ATTEMPT)?;
    let mut candidates = connection.prepare_cached(CANDIDATES)?;
    let mut found = candidates.query(params![claim.after.0, SCAN_MAX])?;
    while claimed.attempts.len() < claim.limit {
        let Some(row) = found.next()? else { break };
        seen += 1;
        let invoice = InvoiceId(row.get(0)?);
        claimed.go_on_after = Some(invoice);
        let last = last_attempt
            .query_row([invoice.0], |row| Ok((row.get::<_, u32>(0)?, RunId(row.get(1)?))))
            .optional()?;
        let number = match last {
            Some((_, run)) if run == claim.run => continue,
            Some((number, _)) => number + 1,
            None => 1,
        };
        let attempt = Candidate::read(row, invoice).map(|candidate| candidate.attempt(number, claim));
        match attempt {
            Ok(attempt) => claimed.attempts.push(attempt),
            Err(error) => pass_over(invoice, error)?,
        }
    }
    drop(found);
    let found_any = !claimed.attempts.is_empty();
    claimed.attempts = journal(connection, claimed.attempts)?;
    let all_spoilt = found_any && claimed.attempts.is_empty();
    if seen < SCAN_MAX && !all_spoilt {
        claimed.go_on_after = None;
    }
    let mut moves = Moves::default();
    moves.change(InvoiceState::Pending, InvoiceState::Charging, claimed.attempts.len() as i64);
    moves.record(connection)?;
    count_attempted(connection, Some(claim.run), claimed.attempts.len())?;
    crash_point!("K1");
    Ok(claimed)
}

struct Candidate {
    id: InvoiceId,
    reference: Reference,
    customer_id: CustomerId,
    money: Money,
}

impl Candidate {
    fn read(row: &Row<'_>, id: InvoiceId) -> rusqlite::Result<Self> {
        Ok(Self {
            id,
            reference: rows::reference(row, 1)?,
            customer_id: CustomerId(row.get(2)?),
            money: rows::money(row, 3)?,
        })
    }

    fn attempt(self, number: u32, claim: Fresh) -> Attempt {
        Attempt {
            key: Key::new(claim.deployment, &self.reference, number),
            invoice_id: self.id,
            reference: self.reference,
            number,
            customer_id: self.customer_id,
            money: self.money,
            state: AttemptState::Intent,
            sends: 1,
            run_id: claim.run,
            lease_until: claim.lease.until,
            created_at: claim.lease.now,
            settled_at: None,
        }
    }
}

const INSERT: &str = "
    INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
        lease_until, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'INTENT', 1, ?7, ?8, ?9)";

const TAKE: &str =
    "UPDATE invoices SET state = 'CHARGING', updated_at = ?2 WHERE id = ?1 AND state = 'PENDING'";

/// Answers those that could be written.
fn journal(connection: &Connection, attempts: Vec<Attempt>) -> rusqlite::Result<Vec<Attempt>> {
    let (mut insert, mut take) = (connection.prepare_cached(INSERT)?, connection.prepare_cached(TAKE)?);
    let mut written = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let inserted = insert.execute(params![
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
        if let Err(error) = inserted {
            pass_over(attempt.invoice_id, error)?;
            continue;
        }
        let changed = take.execute([attempt.invoice_id.0, attempt.created_at])?;
        rows::one_row(changed, "an invoice that is claimed is PENDING")?;
        written.push(attempt);
    }
    Ok(written)
}

/// Due open attempts by lease; those in ATTENTION wait for a person.
pub(super) const DUE: &str = "
    SELECT a.rowid FROM attempts AS a INDEXED BY attempts_due CROSS JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until <= ?1 AND i.state = 'CHARGING'
    ORDER BY a.lease_until LIMIT ?2";

pub(super) fn open(
    connection: &Connection,
    run: Option<RunId>,
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
        rows::one_row(changed, "an attempt that is claimed is open")?;
        match connection.prepare_cached(&select)?.query_row([rowid], rows::attempt) {
            Ok(attempt) => attempts.push(attempt),
            Err(error) => leave(connection, rowid, error)?,
        }
    }
    count_attempted(connection, run, attempts.len())?;
    crash_point!("K1");
    Ok(attempts)
}

/// One invoice that cannot be claimed must not hold back the others.
fn pass_over(invoice: InvoiceId, error: rusqlite::Error) -> rusqlite::Result<()> {
    if !is_corrupt(&error) {
        return Err(error);
    }
    let error = &error as &dyn std::error::Error;
    tracing::error!(
        invoice.id = invoice.0,
        error,
        "the invoice has corrupt rows and cannot be claimed, operator action required"
    );
    Ok(())
}

/// As [`pass_over`], of an open attempt: it is not sent, and is looked at again when its new lease has ended.
fn leave(connection: &Connection, rowid: i64, error: rusqlite::Error) -> rusqlite::Result<()> {
    if !is_corrupt(&error) {
        return Err(error);
    }
    let sql = "UPDATE attempts SET sends = sends - 1 WHERE rowid = ?1 RETURNING invoice_id";
    let invoice: i64 = connection.prepare_cached(sql)?.query_row([rowid], |row| row.get(0))?;
    pass_over(InvoiceId(invoice), error)
}

fn count_attempted(connection: &Connection, run: Option<RunId>, count: usize) -> rusqlite::Result<()> {
    let Some(run) = run.filter(|_| count > 0) else { return Ok(()) };
    let sql = "UPDATE runs SET attempted = attempted + ?2 WHERE id = ?1";
    let changed = connection.prepare_cached(sql)?.execute(params![run.0, count as i64])?;
    rows::one_row(changed, "claims belong to a run")
}

pub(super) const NEXT_DUE: &str = "
    SELECT a.lease_until FROM attempts AS a INDEXED BY attempts_due CROSS JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.lease_until < ?1 AND i.state = 'CHARGING'
    ORDER BY a.lease_until LIMIT 1";

pub(super) fn next_due(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    one(connection, NEXT_DUE, [LEASE_NEVER], |row| row.get(0))
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
