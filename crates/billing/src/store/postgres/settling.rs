//! Settlements and resolutions in PostgreSQL: locks the invoices in order of their numbers, reads what stands, asks
//! `store::sheet`, writes it all at once, and checks each row count.

use chassis::crash_point;
use chassis::postgres::{Param, Result, Tx, Type, get};

use super::{counts, ms, rows};
use crate::invoice::{AttemptState, AttentionReason, InvoiceId, InvoiceState, PaidBy, RunId};
use crate::protocol::key::Key;
use crate::protocol::transition::Settlement;
use crate::store::plan::LEASE_NEVER;
use crate::store::sheet::{Again, AttemptFact, Sheet};
use crate::store::{LedgerSeen, Resolution, Resolved, Settled};

/// Whoever changes the state of an attempt holds its invoice; all take invoices in this order.
const LOCK: &str = "
    SELECT i.id, i.state FROM invoices AS i
    WHERE i.id = ANY(ARRAY(SELECT a.invoice_id FROM attempts AS a WHERE a.key = ANY($1)) || $2)
    ORDER BY i.id FOR UPDATE";

/// Read after the lock, so that it is what stands.
const FACTS: &str = "
    SELECT a.key, a.invoice_id, a.run_id, a.state FROM attempts AS a
    WHERE a.invoice_id = ANY($1) AND (a.state IN ('INTENT', 'IN_DOUBT', 'CHARGED') OR a.key = ANY($2))";

const SET_ATTEMPTS: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    UPDATE attempts AS a SET state = u.after, sends = greatest(a.sends - u.unsend, 0),
        lease_until = CASE WHEN u.again_ms IS NULL THEN a.lease_until WHEN u.again_ms < 0 THEN $7
            ELSE least(now.ms + u.again_ms, $7 - 1) END,
        settled_at = CASE WHEN u.closes THEN now.ms ELSE a.settled_at END
    FROM now, unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $6::boolean[])
        AS u (key, before, after, unsend, again_ms, closes)
    WHERE a.key = u.key AND a.state = u.before";

const SET_INVOICES: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    UPDATE invoices AS i SET state = u.after, paid_by = u.paid_by, attention_reason = u.reason, updated_at = now.ms
    FROM now, unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
        AS u (id, before, after, paid_by, reason)
    WHERE i.id = u.id AND i.state = u.before";

const AUDIT: &str = "
    INSERT INTO resolutions (key, charged, reason, actor, created_at, attempt_from, attempt_to, invoice_from,
        invoice_to) VALUES ($1, $2, $3, $4, billing_now_ms(), $5, $6, $7, $8)";

/// Waits for a person.
const NEVER_MS: i64 = -1;

pub(super) async fn settle(
    tx: Tx,
    run: Option<RunId>,
    settlements: &[Settlement],
    seen: Option<&LedgerSeen>,
) -> Result<Vec<Settled>> {
    let keys: Vec<&Key> = settlements.iter().map(|settlement| &settlement.key).collect();
    let mut sheet = read(&tx, &keys, &[]).await?;
    let settled = settlements.iter().map(|settlement| sheet.settle(settlement)).collect();
    write(&tx, &sheet).await?;
    counts::settled(&tx, run, &sheet).await?;
    if let Some(seen) = seen {
        counts::see(&tx, seen).await?;
    }
    crash_point!("K8");
    Ok(settled)
}

pub(super) async fn resolve(tx: Tx, resolution: &Resolution) -> Result<Resolved> {
    let mut sheet = read(&tx, &[&resolution.key], &[]).await?;
    let audit = match sheet.resolve(&resolution.key, resolution.charged) {
        Ok(audit) => audit,
        Err(answer) => return Ok(answer),
    };
    write(&tx, &sheet).await?;
    let params: &[Param<'_>] = &[
        (&resolution.key.as_str(), Type::TEXT),
        (&resolution.charged, Type::BOOL),
        (&resolution.reason, Type::TEXT),
        (&resolution.actor, Type::TEXT),
        (&audit.attempt.0.as_str(), Type::TEXT),
        (&audit.attempt.1.as_str(), Type::TEXT),
        (&audit.invoice.0.as_str(), Type::TEXT),
        (&audit.invoice.1.as_str(), Type::TEXT),
    ];
    tx.execute(AUDIT, params).await?;
    counts::settled(&tx, None, &sheet).await?;
    Ok(Resolved::Applied)
}

/// Locks the invoices of these keys, and these; then reads what words about them may need.
pub(super) async fn read(tx: &Tx, keys: &[&Key], invoices: &[i64]) -> Result<Sheet> {
    tx.find_by_index().await?;
    let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
    let locked = tx.query(LOCK, &[(&keys, Type::TEXT_ARRAY), (&invoices, Type::INT8_ARRAY)]).await?;
    let mut states = Vec::with_capacity(locked.len());
    let mut ids = Vec::with_capacity(locked.len());
    for row in &locked {
        let id = get(row, 0)?;
        ids.push(id);
        states.push((InvoiceId(id), rows::word(row, 1, |text| text.parse::<InvoiceState>().ok())?));
    }
    let found = tx.query(FACTS, &[(&ids, Type::INT8_ARRAY), (&keys, Type::TEXT_ARRAY)]).await?;
    let mut facts = Vec::with_capacity(found.len());
    for row in &found {
        facts.push(AttemptFact {
            key: rows::word(row, 0, Key::parse)?,
            invoice: InvoiceId(get(row, 1)?),
            run: RunId(get(row, 2)?),
            state: rows::word(row, 3, |text| text.parse::<AttemptState>().ok())?,
        });
    }
    Ok(Sheet::new(states, facts))
}

/// Attempts, then invoices, whose triggers count them.
pub(super) async fn write(tx: &Tx, sheet: &Sheet) -> Result<()> {
    write_attempts(tx, sheet).await?;
    write_invoices(tx, sheet).await
}

async fn write_attempts(tx: &Tx, sheet: &Sheet) -> Result<()> {
    let (mut keys, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unsend, mut again, mut closes) = (Vec::new(), Vec::new(), Vec::new());
    for line in sheet.attempts() {
        keys.push(line.read.key.as_str());
        before.push(line.read.state.as_str());
        after.push(line.state.as_str());
        unsend.push(line.unsend);
        again.push(line.again.map(|again| match again {
            Again::In(pause) => ms(pause),
            Again::Never => NEVER_MS,
        }));
        closes.push(line.closes());
    }
    if keys.is_empty() {
        return Ok(());
    }
    let params: &[Param<'_>] = &[
        (&keys, Type::TEXT_ARRAY),
        (&before, Type::TEXT_ARRAY),
        (&after, Type::TEXT_ARRAY),
        (&unsend, Type::INT4_ARRAY),
        (&again, Type::INT8_ARRAY),
        (&closes, Type::BOOL_ARRAY),
        (&LEASE_NEVER, Type::INT8),
    ];
    let changed = tx.execute(SET_ATTEMPTS, params).await?;
    rows::changed(changed, keys.len(), "attempts that are settled stand as they were read")
}

async fn write_invoices(tx: &Tx, sheet: &Sheet) -> Result<()> {
    let (mut ids, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let (mut paid_by, mut reasons) = (Vec::new(), Vec::new());
    for (id, read, plan) in sheet.invoices() {
        ids.push(id.0);
        before.push(read.as_str());
        after.push(plan.state.as_str());
        paid_by.push(plan.paid_by.map(PaidBy::as_str));
        reasons.push(plan.attention.map(AttentionReason::as_str));
    }
    if ids.is_empty() {
        return Ok(());
    }
    let params: &[Param<'_>] = &[
        (&ids, Type::INT8_ARRAY),
        (&before, Type::TEXT_ARRAY),
        (&after, Type::TEXT_ARRAY),
        (&paid_by, Type::TEXT_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
    ];
    let changed = tx.execute(SET_INVOICES, params).await?;
    rows::changed(changed, ids.len(), "invoices that are settled stand as they were read")
}
