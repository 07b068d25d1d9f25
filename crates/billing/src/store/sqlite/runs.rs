//! Runs in SQLite: at most one is unfinished, which a partial unique index holds besides.

use rusqlite::{Connection, params};

use super::{Lease, counts, one, rows};
use crate::invoice::{Run, RunId, RunProblem};
use crate::store::VERSION;

pub(super) fn unfinished(connection: &Connection) -> rusqlite::Result<Option<Run>> {
    let sql = format!("SELECT {} FROM runs WHERE state = 'running'", rows::RUN);
    one(connection, &sql, [], rows::run)
}

pub(super) fn is_running(connection: &Connection, run: RunId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM runs WHERE id = ?1 AND state = 'running'";
    connection.prepare_cached(sql)?.exists([run.0])
}

pub(super) fn open(connection: &Connection, lease: Lease) -> rusqlite::Result<(Run, bool)> {
    if let Some(run) = join(connection)? {
        return Ok((run, true));
    }
    let counts = counts::read(connection)?;
    let total = counts.pending + counts.charging + counts.attention;
    let sql = format!(
        "INSERT INTO runs (state, started_at, lease_until, begun_by, total) VALUES ('running', ?1, ?2, ?3, ?4)
         RETURNING {}",
        rows::RUN
    );
    let started = connection
        .prepare_cached(&sql)?
        .query_row(params![lease.now, lease.until, VERSION, total], rows::run)?;
    Ok((started, false))
}

/// Makes the driver of the unfinished run look again before it ends.
pub(super) fn join(connection: &Connection) -> rusqlite::Result<Option<Run>> {
    let sql = format!("UPDATE runs SET joins = joins + 1 WHERE state = 'running' RETURNING {}", rows::RUN);
    one(connection, &sql, [], rows::run)
}

pub(super) fn adopt(connection: &Connection, lease: Lease) -> rusqlite::Result<Option<Run>> {
    let sql = format!(
        "UPDATE runs SET lease_until = ?2 WHERE state = 'running' AND lease_until <= ?1 RETURNING {}",
        rows::RUN
    );
    one(connection, &sql, params![lease.now, lease.until], rows::run)
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
