//! Runs in SQLite, of which a partial unique index allows one unfinished, and the number of invoices in each state.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Columns, Lease, list, one, read};
use crate::invoice::{InvoiceState, Run, RunId, RunProblem};
use crate::run_order::{RunLimits, RunOrder};
use crate::store::ages::{AGES, Ages};
use crate::store::lease::AHEAD_MAX_MS;
use crate::store::rows::claim_order;
use crate::store::transaction::ClaimOrder;
use crate::store::{Counts, OpenedRun, VERSION};

const RUN: &str = "id, state, started_at, finished_at, lease_until, joins, total, attempted, paid, refused, rejected, \
     in_doubt, not_sent, begun_by, problem, problem_status, problem_count, filter, count_left, amounts_left, reason";

pub(super) fn find(connection: &Connection, run: RunId) -> rusqlite::Result<Option<Run>> {
    one(connection, &format!("SELECT {RUN} FROM runs WHERE id = ?1"), [run.0], read)
}

pub(super) fn unfinished(connection: &Connection) -> rusqlite::Result<Option<Run>> {
    one(connection, &format!("SELECT {RUN} FROM runs WHERE state = 'running'"), [], read)
}

pub(super) fn latest(connection: &Connection) -> rusqlite::Result<Option<Run>> {
    one(connection, &format!("SELECT {RUN} FROM runs ORDER BY id DESC LIMIT 1"), [], read)
}

pub(in crate::store) fn list_sql() -> String {
    format!("SELECT {RUN} FROM runs WHERE id > ?1 ORDER BY id LIMIT ?2")
}

pub(super) fn list_after(connection: &Connection, after: RunId, limit: i64) -> rusqlite::Result<Vec<Run>> {
    list(connection, &list_sql(), [after.0, limit], read)
}

/// The order of a run; `None` also while charging is stopped.
pub(super) fn order(
    connection: &Connection,
    run: RunId,
    now_ms: i64,
) -> rusqlite::Result<Option<ClaimOrder>> {
    let sql = "SELECT filter, count_left, amounts_left FROM runs
         WHERE id = ?1 AND state = 'running' AND NOT EXISTS (SELECT 1 FROM halt)";
    one(connection, sql, [run.0], |row| claim_order(row, now_ms))
}

pub(super) fn save_limits(connection: &Connection, run: RunId, limits: &RunLimits) -> rusqlite::Result<()> {
    let sql = "UPDATE runs SET count_left = ?2, amounts_left = ?3 WHERE id = ?1";
    let params = params![run.0, limits.count, limits.amounts_stored()];
    connection.prepare_cached(sql)?.execute(params).map(drop)
}

pub(super) fn open(connection: &Connection, order: &RunOrder, lease: Lease) -> rusqlite::Result<OpenedRun> {
    if let Some(unfinished) = unfinished(connection)? {
        return match order.may_join(&unfinished.order) {
            true => {
                let joined = join_as(connection, order)?;
                Ok(joined.map_or(OpenedRun::Busy(unfinished.id), OpenedRun::Joined))
            }
            false => Ok(OpenedRun::Busy(unfinished.id)),
        };
    }
    let counts = counts(connection)?;
    let total = counts.pending + counts.charging + counts.attention;
    let sql = format!(
        "INSERT INTO runs (state, started_at, lease_until, begun_by, total, filter, count_left, amounts_left, reason)
         VALUES ('running', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING {RUN}"
    );
    let RunOrder { filter, limits, reason } = order;
    let (filter, amounts) = (filter.stored(), limits.amounts_stored());
    let params = params![lease.now, lease.until, VERSION, total, filter, limits.count, amounts, reason];
    connection.prepare_cached(&sql)?.query_row(params, read).map(OpenedRun::Started)
}

/// Makes the driver of the unfinished run check for new work before it ends. A run that is joined for all invoices
/// claims all invoices from then on.
fn join_as(connection: &Connection, order: &RunOrder) -> rusqlite::Result<Option<Run>> {
    let sql = format!(
        "UPDATE runs SET joins = joins + 1, filter = CASE WHEN ?1 THEN NULL ELSE filter END
         WHERE state = 'running' RETURNING {RUN}"
    );
    one(connection, &sql, [order.filter.is_all()], read)
}

pub(super) fn join(connection: &Connection) -> rusqlite::Result<Option<Run>> {
    let sql = format!("UPDATE runs SET joins = joins + 1 WHERE state = 'running' RETURNING {RUN}");
    one(connection, &sql, [], read)
}

pub(super) fn ages(connection: &Connection) -> rusqlite::Result<Ages> {
    connection.prepare_cached(AGES)?.query_row([], |row| {
        Ok(Ages {
            oldest_pending_at: row.get(0)?,
            oldest_in_doubt_at: row.get(1)?,
            run_started_at: row.get(2)?,
            run_succeeded_at: row.get(3)?,
            overdue: row.get(4)?,
        })
    })
}

pub(super) fn adopt(connection: &Connection, lease: Lease) -> rusqlite::Result<Option<Run>> {
    let sql = format!(
        "UPDATE runs SET lease_until = ?2 WHERE state = 'running' AND (lease_until <= ?1 OR lease_until > ?3)
         RETURNING {RUN}"
    );
    let wrong_after = lease.now.saturating_add(AHEAD_MAX_MS);
    one(connection, &sql, params![lease.now, lease.until, wrong_after], read)
}

pub(super) fn renew(connection: &Connection, run: RunId, lease: Lease) -> rusqlite::Result<bool> {
    let sql = "UPDATE runs SET lease_until = ?2 WHERE id = ?1 AND state = 'running'";
    Ok(connection.prepare_cached(sql)?.execute(params![run.0, lease.until])? == 1)
}

pub(super) fn finish(connection: &Connection, run: RunId, joins: i64, now: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE runs SET state = 'finished', finished_at = ?3
         WHERE id = ?1 AND joins = ?2 AND state = 'running'";
    Ok(connection.prepare_cached(sql)?.execute(params![run.0, joins, now])? == 1)
}

pub(super) fn note_problem(
    connection: &Connection,
    run: RunId,
    problem: &RunProblem,
) -> rusqlite::Result<()> {
    let sql = "UPDATE runs SET problem = ?2, problem_status = ?3, problem_count = ?4 WHERE id = ?1";
    let RunProblem { reason, status, count } = problem;
    connection.prepare_cached(sql)?.execute(params![run.0, reason, status, count]).map(drop)
}

/// A run for attempts whose own run the store does not know.
pub(super) fn latest_or_insert_finished(connection: &Connection, now: i64) -> rusqlite::Result<RunId> {
    let latest = "SELECT id FROM runs ORDER BY id DESC LIMIT 1";
    let latest = connection.query_row(latest, [], |row| row.get(0)).optional()?;
    if let Some(run) = latest {
        return Ok(RunId(run));
    }
    let sql =
        "INSERT INTO runs (state, started_at, finished_at, lease_until) VALUES ('finished', ?1, ?1, ?1)";
    connection.execute(sql, [now])?;
    Ok(RunId(connection.last_insert_rowid()))
}

/// Turns off the triggers of this connection, whose jobs count by themselves: triggers make each single-row statement
/// copy the pages that it changes. The triggers stay for statements typed by hand.
pub(super) fn disable_triggers(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map(drop)
}

pub(super) fn counts(connection: &Connection) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    let mut statement = connection.prepare_cached("SELECT state, invoices FROM invoice_counts")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let count = match row.value::<InvoiceState>(0)? {
            InvoiceState::Pending => &mut counts.pending,
            InvoiceState::Charging => &mut counts.charging,
            InvoiceState::Paid => &mut counts.paid,
            InvoiceState::Attention => &mut counts.attention,
            InvoiceState::Cancelled => &mut counts.cancelled,
        };
        *count = row.get(1)?;
    }
    Ok(counts)
}
