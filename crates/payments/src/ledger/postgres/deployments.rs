//! The list of deployments in PostgreSQL: reads the facts and writes as `crate::deployments` decides, under a lock that
//! all replicas take, so that of two first deployments one wins.

use chassis::postgres::{NOW_MS, Param, PgError, PoolClass, Postgres, Result, Row as SqlRow, Tx, Type, get};
use uuid::Uuid;

use crate::deployments::{
    Admission, COMPARE_ROWS_MAX, DEPLOYMENTS_MAX, Declaration, DeclareOutcome, DeploymentId, DeploymentRow,
    Facts, How, SCAN_ROWS_MAX, admit, is_key_of,
};
use crate::keys::Key;

/// Advisory lock of a transaction that changes the list; `deployments` in ASCII.
const LOCK: i64 = 0x6465_706c_6f79;

const COLUMNS: &str = "deployment_id, account, how, why, actor, created_at";

const KNOWN: &str = "SELECT coalesce(bool_or(account = $1 AND deployment_id = $2), false), \
    coalesce(bool_or(account <> $1 AND EXISTS ( \
      SELECT 1 FROM ledger WHERE account = known.account AND key IS NOT NULL AND state = 'CHARGED')), false), \
    coalesce(bool_or(account = $1 AND deployment_id <> $2), false) \
    FROM ledger_deployments AS known WHERE account = $1 OR deployment_id = $2";

const HAS_KEYED_ROWS: &str = "SELECT EXISTS ( \
    SELECT 1 FROM ledger WHERE account = $1 AND key IS NOT NULL AND state <> 'VOIDED')";

/// Takes the lock. Its holder may act on what it reads.
async fn lock_deployments(tx: &Tx) -> Result<()> {
    tx.query(&format!("SELECT pg_advisory_xact_lock({LOCK})"), &[]).await.map(drop)
}

pub(super) async fn admit_one(
    database: &Postgres,
    account: &str,
    deployment: DeploymentId,
) -> Result<Admission> {
    let id = deployment.0.to_string();
    let id = id.as_str();
    // Rows of the list are permanent: only a possible record needs the lock.
    let listed = facts_listed(&database.read(PoolClass::Claim, KNOWN, &params_of(&account, &id)).await?)?;
    if listed.is_known || listed.is_elsewhere || listed.has_others {
        return Ok(admit(listed));
    }
    database
        .brief_transaction(PoolClass::Claim, |tx| async move {
            lock_deployments(&tx).await?;
            let admission = admit(facts(&tx, account, deployment, id).await?);
            if let Admission::Record(how) = admission {
                insert(&tx, id, account, how, None).await?;
            }
            Ok(admission)
        })
        .await
}

fn params_of<'a>(account: &'a &str, id: &'a &str) -> [Param<'a>; 2] {
    [(account, Type::TEXT), (id, Type::TEXT)]
}

/// The facts that are in the list.
fn facts_listed(rows: &[SqlRow]) -> Result<Facts> {
    let [row] = rows else { return Err(PgError::Corrupt("a sum has no row".to_owned())) };
    Ok(Facts {
        is_known: get(row, 0)?,
        is_elsewhere: get(row, 1)?,
        has_others: get(row, 2)?,
        ..Facts::default()
    })
}

async fn facts(tx: &Tx, account: &str, deployment: DeploymentId, id: &str) -> Result<Facts> {
    let mut facts = facts_listed(&tx.query(KNOWN, &params_of(&account, &id)).await?)?;
    // Only a ledger that is older than its list is searched for rows.
    if !facts.is_known && !facts.is_elsewhere && !facts.has_others {
        let rows = tx.query(HAS_KEYED_ROWS, &[(&account, Type::TEXT)]).await?;
        facts.has_keyed_rows = rows.first().map_or(Ok(false), |row| get(row, 0))?;
        facts.has_own_row = facts.has_keyed_rows && has_own_row(tx, account, deployment).await?;
    }
    Ok(facts)
}

async fn has_own_row(tx: &Tx, account: &str, deployment: DeploymentId) -> Result<bool> {
    for order in ["ASC", "DESC"] {
        let query = format!(
            "SELECT key, reference FROM (SELECT seq, key, reference, state FROM ledger WHERE account = $1 \
               ORDER BY seq {order} LIMIT {SCAN_ROWS_MAX}) AS scanned \
             WHERE key IS NOT NULL AND reference IS NOT NULL AND state <> 'VOIDED' \
             ORDER BY seq {order} LIMIT {COMPARE_ROWS_MAX}"
        );
        for row in &tx.query(&query, &[(&account, Type::TEXT)]).await? {
            let text: &str = get(row, 0)?;
            let key = Key::parse(text).ok_or_else(|| PgError::Corrupt(format!("key {text:?}")))?;
            if is_key_of(deployment, &key, get(row, 1)?) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn insert(
    tx: &Tx,
    id: &str,
    account: &str,
    how: How,
    declared: Option<(&str, &str)>,
) -> Result<DeploymentRow> {
    let sql = format!(
        "INSERT INTO ledger_deployments (deployment_id, account, how, why, actor, created_at) \
         VALUES ($1, $2, $3, $4, $5, {NOW_MS}) RETURNING {COLUMNS}"
    );
    let (why, actor) = declared.unzip();
    let params: [Param<'_>; 5] = [
        (&id, Type::TEXT),
        (&account, Type::TEXT),
        (&how.as_str(), Type::TEXT),
        (&why, Type::TEXT),
        (&actor, Type::TEXT),
    ];
    let rows = tx.query(&sql, &params).await?;
    read_row(rows.first().ok_or_else(|| PgError::Corrupt("a deployment was not recorded".to_owned()))?)
}

pub(super) async fn declare(database: &Postgres, declaration: &Declaration) -> Result<DeclareOutcome> {
    let Declaration { account, deployment, why, actor } = declaration;
    let id = deployment.0.to_string();
    let id = id.as_str();
    database
        .brief_transaction(PoolClass::Claim, |tx| async move {
            lock_deployments(&tx).await?;
            let rows = tx.query(&select_of_account_sql(), &[(account, Type::TEXT)]).await?;
            let known = rows.iter().map(read_row).collect::<Result<Vec<_>>>()?;
            if let Some(row) = known.iter().find(|row| row.deployment == *deployment) {
                return Ok(DeclareOutcome::Known(row.clone()));
            }
            if known.len() >= DEPLOYMENTS_MAX {
                return Ok(DeclareOutcome::TooMany);
            }
            insert(&tx, id, account, How::Declared, Some((why, actor))).await.map(DeclareOutcome::New)
        })
        .await
}

pub(super) async fn list(database: &Postgres, account: &str) -> Result<Vec<DeploymentRow>> {
    let rows = database.read(PoolClass::Claim, &select_of_account_sql(), &[(&account, Type::TEXT)]).await?;
    rows.iter().map(read_row).collect()
}

fn select_of_account_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM ledger_deployments WHERE account = $1 ORDER BY id LIMIT {}",
        DEPLOYMENTS_MAX + 1
    )
}

fn read_row(row: &SqlRow) -> Result<DeploymentRow> {
    let (id, how): (&str, &str) = (get(row, 0)?, get(row, 2)?);
    let deployment = Uuid::parse_str(id).map_err(|_| PgError::Corrupt(format!("deployment_id {id:?}")))?;
    Ok(DeploymentRow {
        deployment: DeploymentId(deployment),
        account: get(row, 1)?,
        how: How::parse(how).ok_or_else(|| PgError::Corrupt(format!("how {how:?}")))?,
        why: get(row, 3)?,
        actor: get(row, 4)?,
        created_at_ms: get(row, 5)?,
    })
}
