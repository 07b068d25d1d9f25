//! Runs in PostgreSQL: at most one is unfinished, which a partial unique index holds; whoever comes second joins.

use std::time::Duration;

use chassis::postgres::{Param, PgError, PoolClass, Postgres, Result, Tx, Type};

use super::{ms, rows};
use crate::invoice::{Run, RunId, RunProblem};
use crate::store::VERSION;

/// How often one looks again when a run ends or begins while one looks.
const LOOKS_MAX: usize = 8;

const JOIN: &str = "UPDATE runs SET joins = joins + 1 WHERE state = 'running'";

fn select(condition: &str) -> String {
    format!("SELECT {} FROM runs AS r {} WHERE {condition}", rows::RUN, rows::RUN_COUNTS)
}

/// The run that a statement changed, with its counters.
fn after(change: &str) -> String {
    format!("WITH r AS ({change} RETURNING *) SELECT {} FROM r {}", rows::RUN, rows::RUN_COUNTS)
}

async fn one(database: &Postgres, sql: &str, params: &[Param<'_>], writes: bool) -> Result<Option<Run>> {
    let found = match writes {
        true => database.write(PoolClass::Record, sql, params).await?,
        false => database.read(PoolClass::Record, sql, params).await?,
    };
    found.first().map(rows::run).transpose()
}

pub(super) async fn find(database: &Postgres, run: RunId) -> Result<Option<Run>> {
    one(database, &select("r.id = $1"), &[(&run.0, Type::INT8)], false).await
}

pub(super) async fn unfinished(database: &Postgres) -> Result<Option<Run>> {
    one(database, &select("r.state = 'running'"), &[], false).await
}

pub(super) async fn open(database: &Postgres, lease: Duration) -> Result<(Run, bool)> {
    let start = after(
        "WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
         INSERT INTO runs (state, started_at, lease_until, begun_by, total)
         SELECT 'running', now.ms, now.ms + $1, $2,
             (SELECT coalesce(sum(pending + charging + attention), 0)::bigint FROM invoice_counts)
         FROM now ON CONFLICT (state) WHERE state = 'running' DO NOTHING",
    );
    for _ in 0..LOOKS_MAX {
        if let Some(run) = one(database, &after(JOIN), &[], true).await? {
            return Ok((run, true));
        }
        if let Some(run) =
            one(database, &start, &[(&ms(lease), Type::INT8), (&VERSION, Type::TEXT)], true).await?
        {
            return Ok((run, false));
        }
    }
    Err(PgError::Conflict("runs begin and end too fast".into()))
}

/// Within a transaction: makes the drivers of the unfinished run look again before it ends.
pub(super) async fn join(tx: &Tx) -> Result<()> {
    tx.execute(JOIN, &[]).await.map(drop)
}

pub(super) async fn adopt(database: &Postgres, lease: Duration) -> Result<Option<Run>> {
    let sql = after(
        "UPDATE runs SET lease_until = billing_now_ms() + $1
         WHERE state = 'running' AND lease_until <= billing_now_ms()",
    );
    one(database, &sql, &[(&ms(lease), Type::INT8)], true).await
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
