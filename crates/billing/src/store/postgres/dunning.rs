//! Reads and writes ladders and instruments in PostgreSQL. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chassis::postgres::{Param, Result, Row, Tx, Type, get};

use super::changed;
use crate::invoice::{Attempt, CustomerId, Dunning, InvoiceId, Network};
use crate::protocol::dunning::{DECLINES_MAX, InstrumentHistory, LOOK_BACK_MS, OpenAttempt};
use crate::protocol::key::Key;
use crate::store::changeset::dunning::{self as changeset, LadderFacts, Postponed};
use crate::store::rows::{self, Columns};

/// The states are conditions of the sums and not of the rows: otherwise the planner, without statistics, would read all
/// declines in the table instead of the attempts of the invoice.
const LADDER_FACTS_SQL: &str = "
    SELECT i.id, c.network, of_invoice.soft, of_invoice.classes[1], of_invoice.times[1], i.state = 'PENDING', i.due_at,
        i.dunning, i.next_attempt_at
    FROM invoices AS i JOIN customers AS c ON c.id = i.customer_id CROSS JOIN LATERAL (
        SELECT (count(*) FILTER (WHERE a.state = 'REFUSED' AND a.decline_class = 'soft'
                AND a.created_at > coalesce(c.instrument_changed_at, -1)))::integer AS soft,
            array_agg(a.decline_class ORDER BY a.number DESC) FILTER (WHERE a.state = 'REFUSED'
                AND a.settled_at > coalesce(c.instrument_changed_at, -1)) AS classes,
            array_agg(a.settled_at ORDER BY a.number DESC) FILTER (WHERE a.state = 'REFUSED'
                AND a.settled_at > coalesce(c.instrument_changed_at, -1)) AS times
        FROM attempts AS a WHERE a.invoice_id = i.id AND a.customer_id = i.customer_id) AS of_invoice
    WHERE i.id = ANY($1)";

pub(super) async fn ladders(
    tx: &Tx,
    invoices: &BTreeSet<InvoiceId>,
) -> Result<BTreeMap<InvoiceId, LadderFacts>> {
    let ids: Vec<i64> = invoices.iter().map(|invoice| invoice.0).collect();
    let mut ladders = BTreeMap::new();
    for row in &tx.query(LADDER_FACTS_SQL, &[(&ids, Type::INT8_ARRAY)]).await? {
        let class = row.optional_value(3)?;
        let facts = LadderFacts {
            is_pending: row.flag(5)?,
            network: row.value(1)?,
            soft_declines: row.count(2)?,
            last: row.optional_integer(4)?.map(|at| (class, at)),
            due_at: row.optional_integer(6)?,
            dunning: row.optional_value(7)?,
            next_attempt_at: row.optional_integer(8)?,
        };
        ladders.insert(InvoiceId(get(row, 0)?), facts);
    }
    Ok(ladders)
}

/// Locked until the claim ends, so that no other claim counts the same attempts. Only claims lock several customers,
/// always in the order of their numbers.
const INSTRUMENTS_SQL: &str = "
    SELECT id, network, instrument_changed_at FROM customers WHERE id = ANY($1) AND network <> 'none' ORDER BY id";
const LOCK: &str = " FOR NO KEY UPDATE";

const ANY_NETWORK: &str = "SELECT 1 FROM customers WHERE network <> 'none' LIMIT 1";

/// The open attempts of these customers, and whether an operator must decide.
const OPEN_ATTEMPTS_SQL: &str = "
    SELECT a.customer_id, i.state <> 'CHARGING' FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND a.customer_id = ANY($1)";

const DECLINED_AT_SQL: &str = "
    SELECT u.id, d.settled_at FROM unnest($1::bigint[]) AS u (id) CROSS JOIN LATERAL (
        SELECT a.settled_at FROM attempts AS a
        WHERE a.customer_id = u.id AND a.state = 'REFUSED' AND a.settled_at > $2
        ORDER BY a.settled_at DESC LIMIT $3) AS d
    ORDER BY u.id, d.settled_at DESC";

const HARD_DECLINED_AT_SQL: &str = "
    SELECT customer_id, max(settled_at) FROM attempts
    WHERE decline_class = 'hard' AND state = 'REFUSED' AND customer_id = ANY($1) GROUP BY customer_id";

fn customer(row: &Row) -> Result<CustomerId> {
    get(row, 0).map(CustomerId)
}

pub(super) async fn is_any_network_known(tx: &Tx) -> Result<bool> {
    Ok(!tx.query(ANY_NETWORK, &[]).await?.is_empty())
}

/// The instruments of those customers whose network is known.
pub(super) async fn instruments(
    tx: &Tx,
    customers: &BTreeSet<CustomerId>,
    now: i64,
    locks: bool,
) -> Result<HashMap<CustomerId, InstrumentHistory>> {
    let mut instruments = HashMap::new();
    if customers.is_empty() {
        return Ok(instruments);
    }
    let ids: Vec<i64> = customers.iter().map(|customer| customer.0).collect();
    let sql = format!("{INSTRUMENTS_SQL}{}", if locks { LOCK } else { "" });
    for row in &tx.query(&sql, &[(&ids, Type::INT8_ARRAY)]).await? {
        let history = InstrumentHistory {
            network: row.value(1)?,
            changed_at: row.optional_integer(2)?,
            hard_declined_at: None,
            declined_at: Vec::new(),
            open: None,
        };
        instruments.insert(CustomerId(get(row, 0)?), history);
    }
    if instruments.is_empty() {
        return Ok(instruments);
    }
    let ids: Vec<i64> = instruments.keys().map(|customer| customer.0).collect();
    // Open attempts are read first: in the other order an attempt that is settled meanwhile would be missed.
    for row in &tx.query(OPEN_ATTEMPTS_SQL, &[(&ids, Type::INT8_ARRAY)]).await? {
        if let Some(instrument) = instruments.get_mut(&customer(row)?) {
            instrument.occupy(OpenAttempt::of(get(row, 1)?));
        }
    }
    let newest = i64::try_from(DECLINES_MAX).unwrap_or(i64::MAX);
    let since = now.saturating_sub(LOOK_BACK_MS);
    let params: &[Param<'_>] = &[(&ids, Type::INT8_ARRAY), (&since, Type::INT8), (&newest, Type::INT8)];
    for row in &tx.query(DECLINED_AT_SQL, params).await? {
        if let Some(instrument) = instruments.get_mut(&customer(row)?) {
            instrument.declined_at.push(get(row, 1)?);
        }
    }
    for row in &tx.query(HARD_DECLINED_AT_SQL, &[(&ids, Type::INT8_ARRAY)]).await? {
        if let Some(instrument) = instruments.get_mut(&customer(row)?) {
            instrument.hard_declined_at = row.optional_integer(1)?;
        }
    }
    Ok(instruments)
}

pub(super) async fn to_withdraw(tx: &Tx, attempts: &[Attempt], now: i64) -> Result<HashSet<Key>> {
    let customers = attempts.iter().map(|attempt| attempt.customer_id).collect();
    let invoices = attempts.iter().map(|attempt| attempt.invoice_id).collect();
    let instruments = instruments(tx, &customers, now, false).await?;
    Ok(changeset::to_withdraw(attempts, &instruments, &ladders(tx, &invoices).await?, now))
}

const POSTPONE: &str = "
    UPDATE invoices AS i SET dunning = u.dunning, next_attempt_at = u.at
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS u (id, dunning, at)
    WHERE i.id = u.id AND i.state = 'PENDING'";

pub(super) async fn postpone(tx: &Tx, postponed: &[Postponed]) -> Result<()> {
    if postponed.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = postponed.iter().map(|invoice| invoice.id.0).collect();
    let flags: Vec<Option<&str>> =
        postponed.iter().map(|invoice| invoice.dunning.map(Dunning::as_str)).collect();
    let dates: Vec<Option<i64>> = postponed.iter().map(|invoice| invoice.next_attempt_at).collect();
    let params: &[Param<'_>] =
        &[(&ids, Type::INT8_ARRAY), (&flags, Type::TEXT_ARRAY), (&dates, Type::INT8_ARRAY)];
    let done = tx.execute(POSTPONE, params).await?;
    changed(done, ids.len(), "an invoice that is postponed is PENDING")
}

/// Locks the invoices whose flag and date an operator's action may change, in the same order as settlements. Waits for
/// settlements under way, whose decisions by the former network or instrument the following statements see. A
/// settlement that begins meanwhile waits and reads the new one.
async fn lock_concerned(tx: &Tx, customer: CustomerId) -> Result<()> {
    let sql = format!(
        "SELECT 1 FROM invoices WHERE customer_id = $1 AND (state = 'CHARGING' OR {}) ORDER BY id FOR NO KEY UPDATE",
        rows::IS_RETRIED
    );
    tx.query(&sql, &[(&customer.0, Type::INT8)]).await.map(drop)
}

pub(super) async fn retried(tx: &Tx, customer: CustomerId) -> Result<BTreeSet<InvoiceId>> {
    let sql = format!("SELECT id FROM invoices WHERE customer_id = $1 AND {}", rows::IS_RETRIED);
    let found = tx.query(&sql, &[(&customer.0, Type::INT8)]).await?;
    found.iter().map(|row| get(row, 0).map(InvoiceId)).collect()
}

pub(super) async fn change_instrument(tx: &Tx, customer: CustomerId) -> Result<()> {
    lock_concerned(tx, customer).await?;
    let sql = "UPDATE customers SET instrument_changed_at = billing_now_ms() WHERE id = $1";
    let done = tx.execute(sql, &[(&customer.0, Type::INT8)]).await?;
    changed(done, 1, "a customer whose instrument changes is there")
}

pub(super) async fn set_network(tx: &Tx, customer: CustomerId, network: Network) -> Result<()> {
    lock_concerned(tx, customer).await?;
    let sql = "UPDATE customers SET network = $2 WHERE id = $1";
    let params: &[Param<'_>] = &[(&customer.0, Type::INT8), (&network.as_str(), Type::TEXT)];
    let done = tx.execute(sql, params).await?;
    changed(done, 1, "a customer who gets a network is there")
}
