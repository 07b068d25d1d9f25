//! The list of deployments in SQLite: reads the facts and writes as `crate::deployments` decides, in one job of the
//! only writer, so that of two first deployments one wins.

use rusqlite::{Connection, Row as SqlRow, params};
use uuid::Uuid;

use super::{read_key, unreadable_column};
use crate::deployments::{
    Admission, COMPARE_ROWS_MAX, DEPLOYMENTS_MAX, Declaration, DeclareOutcome, DeploymentId, DeploymentRow,
    Facts, How, SCAN_ROWS_MAX, admit, is_key_of,
};

const INSERT: &str = "INSERT INTO ledger_deployments (deployment_id, account, how, why, actor, created_at) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const HAS_KEYED_ROWS: &str =
    "SELECT 1 FROM ledger WHERE account = ?1 AND key IS NOT NULL AND state <> 'VOIDED' LIMIT 1";

pub(super) fn admit_one(
    sql: &Connection,
    account: &str,
    deployment: DeploymentId,
    now_ms: i64,
) -> rusqlite::Result<Admission> {
    let admission = admit(facts(sql, account, deployment)?);
    if let Admission::Record(how) = admission {
        let (none, id) = (None::<&str>, deployment.0.to_string());
        sql.prepare_cached(INSERT)?.execute(params![id, account, how.as_str(), none, none, now_ms])?;
    }
    Ok(admission)
}

fn facts(sql: &Connection, account: &str, deployment: DeploymentId) -> rusqlite::Result<Facts> {
    let id = deployment.0.to_string();
    let exists = |query: &str, of: &[&str]| sql.prepare_cached(query)?.exists(rusqlite::params_from_iter(of));
    let mut facts = Facts {
        is_known: exists(
            "SELECT 1 FROM ledger_deployments WHERE account = ?1 AND deployment_id = ?2",
            &[account, &id],
        )?,
        is_elsewhere: exists(
            "SELECT 1 FROM ledger_deployments AS theirs WHERE account <> ?1 AND deployment_id = ?2 AND EXISTS ( \
               SELECT 1 FROM ledger WHERE account = theirs.account AND key IS NOT NULL AND state = 'CHARGED')",
            &[account, &id],
        )?,
        has_others: exists(
            "SELECT 1 FROM ledger_deployments WHERE account = ?1 AND deployment_id <> ?2",
            &[account, &id],
        )?,
        ..Facts::default()
    };
    // Only a ledger that is older than its list is searched for rows.
    if !facts.is_known && !facts.is_elsewhere && !facts.has_others {
        facts.has_keyed_rows = exists(HAS_KEYED_ROWS, &[account])?;
        facts.has_own_row = facts.has_keyed_rows && has_own_row(sql, account, deployment)?;
    }
    Ok(facts)
}

fn has_own_row(sql: &Connection, account: &str, deployment: DeploymentId) -> rusqlite::Result<bool> {
    for order in ["ASC", "DESC"] {
        let query = format!(
            "SELECT key, reference FROM (SELECT seq, key, reference, state FROM ledger WHERE account = ?1 \
               ORDER BY seq {order} LIMIT {SCAN_ROWS_MAX}) \
             WHERE key IS NOT NULL AND reference IS NOT NULL AND state <> 'VOIDED' LIMIT {COMPARE_ROWS_MAX}"
        );
        let mut statement = sql.prepare_cached(&query)?;
        let mut rows = statement.query([account])?;
        while let Some(row) = rows.next()? {
            let (key, reference): (String, String) = (row.get(0)?, row.get(1)?);
            if is_key_of(deployment, &read_key(&key)?, &reference) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

pub(super) fn declare(
    sql: &Connection,
    declaration: &Declaration,
    now_ms: i64,
) -> rusqlite::Result<DeclareOutcome> {
    let Declaration { account, deployment, why, actor } = declaration;
    let known = list(sql, account)?;
    if let Some(row) = known.iter().find(|row| row.deployment == *deployment) {
        return Ok(DeclareOutcome::Known(row.clone()));
    }
    if known.len() >= DEPLOYMENTS_MAX {
        return Ok(DeclareOutcome::TooMany);
    }
    let how = How::Declared;
    let id = deployment.0.to_string();
    sql.prepare_cached(INSERT)?.execute(params![id, account, how.as_str(), why, actor, now_ms])?;
    Ok(DeclareOutcome::New(DeploymentRow {
        deployment: *deployment,
        account: account.clone(),
        how,
        why: Some(why.clone()),
        actor: Some(actor.clone()),
        created_at_ms: now_ms,
    }))
}

pub(super) fn list(sql: &Connection, account: &str) -> rusqlite::Result<Vec<DeploymentRow>> {
    let query = format!(
        "SELECT deployment_id, account, how, why, actor, created_at FROM ledger_deployments WHERE account = ?1 \
         ORDER BY id LIMIT {}",
        DEPLOYMENTS_MAX + 1
    );
    sql.prepare_cached(&query)?.query_map([account], read_row)?.collect()
}

fn read_row(row: &SqlRow<'_>) -> rusqlite::Result<DeploymentRow> {
    let (id, how): (String, String) = (row.get(0)?, row.get(2)?);
    let deployment =
        Uuid::parse_str(&id).map_err(|_| unreadable_column(0, &format!("deployment_id {id:?}")))?;
    Ok(DeploymentRow {
        deployment: DeploymentId(deployment),
        account: row.get(1)?,
        how: How::parse(&how).ok_or_else(|| unreadable_column(2, &format!("how {how:?}")))?,
        why: row.get(3)?,
        actor: row.get(4)?,
        created_at_ms: row.get(5)?,
    })
}
