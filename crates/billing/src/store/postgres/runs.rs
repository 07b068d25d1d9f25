//! Runs in PostgreSQL, of which a partial unique index allows one unfinished, and the number of invoices in each state.
//! Each counter is the sum of its shards; a transaction changes one shard, after all other rows.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::postgres::{Param, PgError, PoolClass, Postgres, Result, Row, Tx, Type, get};

use super::ms;
use crate::invoice::{Run, RunId, RunProblem};
use crate::run_order::{RunFilter, RunLimits, RunOrder};
use crate::store::ages::{AGES, Ages};
use crate::store::changeset::CounterDeltas;
use crate::store::lease::AHEAD_MAX_MS;
use crate::store::rows::{FromRow, UNSENT, claim_order};
use crate::store::transaction::ClaimOrder;
use crate::store::{Counts, OpenedRun, VERSION};

/// Counters have 16 rows each, so that transactions seldom wait for each other. A connection always uses the same shard
/// and locks it last, so that no two can deadlock.
pub(super) const SHARD: &str = "(pg_backend_pid() % 16)";

/// Columns of a run, from `runs AS r` and the sums `c` of its counters by [`SUMS`].
const RUN: &str = "r.id, r.state, r.started_at, r.finished_at, r.lease_until, r.joins, r.total, \
     c.attempted, c.paid, c.refused, c.rejected, c.in_doubt, c.not_sent, r.begun_by, r.problem, \
     r.problem_status, r.problem_count, r.filter, r.count_left, r.amounts_left, r.reason";

/// Joined to `r`, this has one row for each run.
const SUMS: &str = "
    LEFT JOIN LATERAL (SELECT coalesce(sum(attempted), 0)::bigint AS attempted,
        coalesce(sum(paid), 0)::bigint AS paid, coalesce(sum(refused), 0)::bigint AS refused,
        coalesce(sum(rejected), 0)::bigint AS rejected, coalesce(sum(in_doubt), 0)::bigint AS in_doubt,
        coalesce(sum(not_sent), 0)::bigint AS not_sent
        FROM run_counts WHERE run_id = r.id) AS c ON true";

/// The most tries to join or start, if runs end and begin meanwhile.
const OPEN_TRIES_MAX: usize = 8;

const JOIN: &str = "UPDATE runs SET joins = joins + 1 WHERE state = 'running'";

/// Joins a run that claims all that this filter asks for, as [`RunOrder::may_join`] says. A run that is joined for all
/// invoices claims all invoices from then on.
const JOIN_SAME: &str = "UPDATE runs SET joins = joins + 1,
             filter = CASE WHEN $1::text IS NULL THEN NULL ELSE filter END
         WHERE state = 'running' AND (filter IS NULL OR filter = $1 OR $3 AND filter = $2)
             AND count_left IS NULL AND amounts_left IS NULL";

fn select_run(condition: &str) -> String {
    format!("SELECT {RUN} FROM runs AS r {SUMS} WHERE {condition}")
}

/// A query of the run that the statement `change` changed, with its counters.
fn select_changed_run(change: &str) -> String {
    format!("WITH r AS ({change} RETURNING *) SELECT {RUN} FROM r {SUMS}")
}

async fn fetch_run(
    database: &Postgres,
    sql: &str,
    params: &[Param<'_>],
    writes: bool,
) -> Result<Option<Run>> {
    let found = match writes {
        true => database.write(PoolClass::Record, sql, params).await?,
        false => database.read(PoolClass::Record, sql, params).await?,
    };
    found.first().map(Run::from_row).transpose()
}

pub(super) async fn find(database: &Postgres, run: RunId) -> Result<Option<Run>> {
    fetch_run(database, &select_run("r.id = $1"), &[(&run.0, Type::INT8)], false).await
}

pub(super) async fn unfinished(database: &Postgres) -> Result<Option<Run>> {
    fetch_run(database, &select_run("r.state = 'running'"), &[], false).await
}

pub(super) async fn latest(database: &Postgres) -> Result<Option<Run>> {
    fetch_run(database, &select_run("r.id = (SELECT max(id) FROM runs)"), &[], false).await
}

pub(super) async fn unsent_attempts(database: &Postgres) -> Result<i64> {
    let rows = database.read(PoolClass::Record, UNSENT, &[]).await?;
    rows.first().map_or(Ok(0), |row| get(row, 0))
}

pub(in crate::store) fn list_sql() -> String {
    select_run("r.id > $1 ORDER BY r.id LIMIT $2")
}

pub(super) async fn list_after(database: &Postgres, after: RunId, limit: usize) -> Result<Vec<Run>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows =
        database.read(PoolClass::Claim, &list_sql(), &[(&after.0, Type::INT8), (&limit, Type::INT8)]).await?;
    rows.iter().map(Run::from_row).collect()
}

/// The order of a run; `None` also while charging is stopped. A run with limits is locked: no other claim may subtract
/// from them meanwhile.
pub(super) async fn order(tx: &Tx, run: RunId) -> Result<Option<ClaimOrder>> {
    const ORDER: &str = "SELECT filter, count_left, amounts_left, billing_now_ms() FROM runs
         WHERE id = $1 AND state = 'running' AND NOT EXISTS (SELECT 1 FROM halt)";
    let params: &[Param<'_>] = &[(&run.0, Type::INT8)];
    let read = |rows: &[Row]| rows.first().map(|row| claim_order(row, get(row, 3)?)).transpose();
    let order = read(&tx.query(ORDER, params).await?)?;
    match order {
        Some(order) if !order.limits.is_unlimited() => {
            read(&tx.query(&format!("{ORDER} FOR UPDATE"), params).await?)
        }
        order => Ok(order),
    }
}

pub(super) async fn save_limits(tx: &Tx, run: RunId, limits: &RunLimits) -> Result<()> {
    let sql = "UPDATE runs SET count_left = $2, amounts_left = $3 WHERE id = $1";
    let amounts = limits.amounts_stored();
    let params: &[Param<'_>] = &[(&run.0, Type::INT8), (&limits.count, Type::INT8), (&amounts, Type::TEXT)];
    tx.execute(sql, params).await.map(drop)
}

pub(super) async fn open(database: &Postgres, order: &RunOrder, lease: Duration) -> Result<OpenedRun> {
    let RunOrder { filter, limits, reason } = order;
    let (filter, amounts) = (filter.stored(), limits.amounts_stored());
    let join = select_changed_run(JOIN_SAME);
    let (keeping_days, fits) = (RunFilter::keeping_days().stored(), order.may_join_keeping_days());
    let joins: [Param<'_>; 3] = [(&filter, Type::TEXT), (&keeping_days, Type::TEXT), (&fits, Type::BOOL)];
    let start = select_changed_run(
        "WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
         INSERT INTO runs (state, started_at, lease_until, begun_by, total, filter, count_left, amounts_left, reason)
         SELECT 'running', now.ms, now.ms + $1, $2,
             (SELECT coalesce(sum(pending + charging + attention), 0)::bigint FROM invoice_counts), $3, $4, $5, $6
         FROM now ON CONFLICT (state) WHERE state = 'running' DO NOTHING",
    );
    for _ in 0..OPEN_TRIES_MAX {
        if limits.is_unlimited()
            && let Some(run) = fetch_run(database, &join, &joins, true).await?
        {
            return Ok(OpenedRun::Joined(run));
        }
        let params: &[Param<'_>] = &[
            (&ms(lease), Type::INT8),
            (&VERSION, Type::TEXT),
            (&filter, Type::TEXT),
            (&limits.count, Type::INT8),
            (&amounts, Type::TEXT),
            (reason, Type::TEXT),
        ];
        if let Some(run) = fetch_run(database, &start, params, true).await? {
            return Ok(OpenedRun::Started(run));
        }
        if let Some(run) = unfinished(database).await?.filter(|run| !order.may_join(&run.order)) {
            return Ok(OpenedRun::Busy(run.id));
        }
    }
    Err(PgError::Conflict("runs begin and end too fast".into()))
}

/// Makes the driver of the unfinished run check for new work before it ends, in this transaction.
pub(super) async fn join(tx: &Tx) -> Result<()> {
    tx.execute(JOIN, &[]).await.map(drop)
}

pub(super) async fn ages(database: &Postgres) -> Result<Ages> {
    let rows = database.read(PoolClass::Record, AGES, &[]).await?;
    let Some(row) = rows.first() else {
        return Err(PgError::Corrupt("subqueries gave no row".to_owned()));
    };
    Ok(Ages {
        oldest_pending_at: get(row, 0)?,
        oldest_in_doubt_at: get(row, 1)?,
        run_started_at: get(row, 2)?,
        run_succeeded_at: get(row, 3)?,
        overdue: get(row, 4)?,
    })
}

pub(super) async fn adopt(database: &Postgres, lease: Duration) -> Result<Option<Run>> {
    let sql = select_changed_run(
        "UPDATE runs SET lease_until = billing_now_ms() + $1
         WHERE state = 'running' AND (lease_until <= billing_now_ms() OR lease_until > billing_now_ms() + $2)",
    );
    fetch_run(database, &sql, &[(&ms(lease), Type::INT8), (&AHEAD_MAX_MS, Type::INT8)], true).await
}

pub(super) async fn renew(database: &Postgres, run: RunId, lease: Duration) -> Result<bool> {
    let sql = "UPDATE runs SET lease_until = billing_now_ms() + $2 WHERE id = $1 AND state = 'running' RETURNING id";
    let params: &[Param<'_>] = &[(&run.0, Type::INT8), (&ms(lease), Type::INT8)];
    Ok(!database.write(PoolClass::Record, sql, params).await?.is_empty())
}

pub(super) async fn finish(database: &Postgres, run: RunId, joins: i64) -> Result<bool> {
    let sql = "UPDATE runs SET state = 'finished', finished_at = billing_now_ms()
         WHERE id = $1 AND joins = $2 AND state = 'running' RETURNING id";
    let params: &[Param<'_>] = &[(&run.0, Type::INT8), (&joins, Type::INT8)];
    Ok(!database.write(PoolClass::Record, sql, params).await?.is_empty())
}

pub(super) async fn note_problem(database: &Postgres, run: RunId, problem: &RunProblem) -> Result<()> {
    let sql = "UPDATE runs SET problem = $2, problem_status = $3, problem_count = $4 WHERE id = $1";
    let RunProblem { reason, status, count } = problem;
    let params: &[Param<'_>] =
        &[(&run.0, Type::INT8), (reason, Type::TEXT), (status, Type::INT8), (count, Type::INT8)];
    database.write(PoolClass::Record, sql, params).await.map(drop)
}

/// A run for attempts whose own run the store does not know.
pub(super) async fn latest_or_insert_finished(tx: &Tx) -> Result<RunId> {
    let mut found = tx.query("SELECT id FROM runs ORDER BY id DESC LIMIT 1", &[]).await?;
    if found.is_empty() {
        let sql = "INSERT INTO runs (state, started_at, finished_at, lease_until)
             SELECT 'finished', now.ms, now.ms, now.ms FROM (SELECT billing_now_ms() AS ms OFFSET 0) AS now RETURNING id";
        found = tx.query(sql, &[]).await?;
    }
    let row = found.first().ok_or_else(|| PgError::Corrupt("a run was not made".to_owned()))?;
    get(row, 0).map(RunId)
}

/// Adds to the counters of runs in ascending order, so that no two transactions wait for each other.
pub(super) async fn add(tx: &Tx, counters: &BTreeMap<RunId, CounterDeltas>) -> Result<()> {
    if counters.is_empty() {
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
    let runs: Vec<i64> = counters.keys().map(|run| run.0).collect();
    let column = |of: fn(&CounterDeltas) -> i64| counters.values().map(of).collect::<Vec<i64>>();
    let columns = [
        runs,
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

pub(super) async fn counts(database: &Postgres) -> Result<Counts> {
    let sql = "SELECT coalesce(sum(pending), 0)::bigint, coalesce(sum(charging), 0)::bigint,
         coalesce(sum(paid), 0)::bigint, coalesce(sum(attention), 0)::bigint,
         coalesce(sum(cancelled), 0)::bigint FROM invoice_counts";
    let rows = database.read(PoolClass::Record, sql, &[]).await?;
    let Some(row) = rows.first() else { return Err(PgError::Corrupt("a sum has no row".to_owned())) };
    Ok(Counts {
        pending: get(row, 0)?,
        charging: get(row, 1)?,
        paid: get(row, 2)?,
        attention: get(row, 3)?,
        cancelled: get(row, 4)?,
    })
}
