//! Reads and writes ladders and instruments in SQLite. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::{Connection, params};

use super::{Columns, list, one, one_row};
use crate::invoice::{Attempt, CustomerId, Dunning, InvoiceId, Network};
use crate::protocol::dunning::{DECLINES_MAX, InstrumentHistory, LOOK_BACK_MS, OpenAttempt};
use crate::protocol::key::Key;
use crate::store::changeset::dunning::{self as changeset, LadderFacts, Postponed};
use crate::store::rows;

/// Uses the index of an invoice's attempts.
pub(super) const LADDER_FACTS_SQL: &str = "
    SELECT c.network, (SELECT count(*) FROM attempts AS a WHERE a.invoice_id = i.id AND a.customer_id = i.customer_id
        AND a.state = 'REFUSED' AND a.decline_class = 'soft' AND a.created_at > coalesce(c.instrument_changed_at, -1)),
        last.decline_class, last.settled_at, i.state = 'PENDING', i.due_at, i.dunning, i.next_attempt_at
    FROM invoices AS i JOIN customers AS c ON c.id = i.customer_id
    LEFT JOIN attempts AS last ON last.invoice_id = i.id AND last.number = (SELECT max(a.number) FROM attempts AS a
        WHERE a.invoice_id = i.id AND a.customer_id = i.customer_id AND a.state = 'REFUSED'
        AND a.settled_at > coalesce(c.instrument_changed_at, -1))
    WHERE i.id = ?1";

pub(super) fn ladders(
    connection: &Connection,
    invoices: &BTreeSet<InvoiceId>,
) -> rusqlite::Result<BTreeMap<InvoiceId, LadderFacts>> {
    let mut ladders = BTreeMap::new();
    for &invoice in invoices {
        let found = one(connection, LADDER_FACTS_SQL, [invoice.0], |row| {
            let class = row.optional_value(2)?;
            Ok(LadderFacts {
                is_pending: row.flag(4)?,
                network: row.value(0)?,
                soft_declines: row.count(1)?,
                last: row.optional_integer(3)?.map(|at| (class, at)),
                due_at: row.optional_integer(5)?,
                dunning: row.optional_value(6)?,
                next_attempt_at: row.optional_integer(7)?,
            })
        })?;
        ladders.extend(found.map(|facts| (invoice, facts)));
    }
    Ok(ladders)
}

const ANY_NETWORK: &str =
    "SELECT 1 FROM customers INDEXED BY customers_network WHERE network <> 'none' LIMIT 1";

pub(super) const INSTRUMENT_SQL: &str = "
    SELECT network, instrument_changed_at FROM customers INDEXED BY customers_network
    WHERE id = ?1 AND network <> 'none'";

/// Reads all open attempts, which are few, in one pass instead of one for each customer; and whether an operator must
/// decide.
pub(super) const OPEN_ATTEMPTS_SQL: &str = "
    SELECT a.customer_id, i.state <> 'CHARGING' FROM attempts AS a INDEXED BY attempts_open
    CROSS JOIN customers AS c INDEXED BY customers_network ON c.id = a.customer_id
    CROSS JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.state IN ('INTENT', 'IN_DOUBT') AND c.network <> 'none'";

pub(super) const DECLINED_AT_SQL: &str = "
    SELECT settled_at FROM attempts INDEXED BY attempts_refused
    WHERE customer_id = ?1 AND state = 'REFUSED' AND settled_at > ?2 ORDER BY settled_at DESC LIMIT ?3";

pub(super) const HARD_DECLINED_AT_SQL: &str = "
    SELECT max(settled_at) FROM attempts INDEXED BY attempts_hard
    WHERE customer_id = ?1 AND decline_class = 'hard' AND state = 'REFUSED'";

/// The instruments of those customers whose network is known. Costs one step in an index while there are none.
pub(super) fn instruments(
    connection: &Connection,
    customers: &BTreeSet<CustomerId>,
    now: i64,
) -> rusqlite::Result<HashMap<CustomerId, InstrumentHistory>> {
    let mut instruments = HashMap::new();
    if customers.is_empty() || one(connection, ANY_NETWORK, [], |_| Ok(()))?.is_none() {
        return Ok(instruments);
    }
    for &customer in customers {
        let found: Option<(Network, Option<i64>)> = one(connection, INSTRUMENT_SQL, [customer.0], |row| {
            Ok((row.value(0)?, row.optional_integer(1)?))
        })?;
        let Some((network, changed_at)) = found else { continue };
        let newest = i64::try_from(DECLINES_MAX).unwrap_or(i64::MAX);
        let since = now.saturating_sub(LOOK_BACK_MS);
        let declined_at =
            list(connection, DECLINED_AT_SQL, params![customer.0, since, newest], |row| row.get(0))?;
        let hard_declined_at =
            one(connection, HARD_DECLINED_AT_SQL, [customer.0], |row| row.optional_integer(0))?.flatten();
        let history = InstrumentHistory { network, changed_at, hard_declined_at, declined_at, open: None };
        instruments.insert(customer, history);
    }
    if !instruments.is_empty() {
        let open: Vec<(i64, bool)> =
            list(connection, OPEN_ATTEMPTS_SQL, [], |row| Ok((row.integer(0)?, row.flag(1)?)))?;
        for (customer, needs_operator) in open {
            if let Some(instrument) = instruments.get_mut(&CustomerId(customer)) {
                instrument.occupy(OpenAttempt::of(needs_operator));
            }
        }
    }
    Ok(instruments)
}

pub(super) fn to_withdraw(
    connection: &Connection,
    attempts: &[Attempt],
    now: i64,
) -> rusqlite::Result<HashSet<Key>> {
    let customers = attempts.iter().map(|attempt| attempt.customer_id).collect();
    let invoices = attempts.iter().map(|attempt| attempt.invoice_id).collect();
    let (instruments, ladders) = (instruments(connection, &customers, now)?, ladders(connection, &invoices)?);
    Ok(changeset::to_withdraw(attempts, &instruments, &ladders, now))
}

pub(super) fn postpone(connection: &Connection, postponed: &[Postponed]) -> rusqlite::Result<()> {
    let sql = "UPDATE invoices SET dunning = ?2, next_attempt_at = ?3 WHERE id = ?1 AND state = 'PENDING'";
    for invoice in postponed {
        let changed = connection.prepare_cached(sql)?.execute(params![
            invoice.id.0,
            invoice.dunning.map(Dunning::as_str),
            invoice.next_attempt_at,
        ])?;
        one_row(changed, "an invoice that is postponed is PENDING")?;
    }
    Ok(())
}

pub(super) fn retried(
    connection: &Connection,
    customer: CustomerId,
) -> rusqlite::Result<BTreeSet<InvoiceId>> {
    let sql = format!(
        "SELECT id FROM invoices INDEXED BY invoices_of_customer WHERE customer_id = ?1 AND {}",
        rows::IS_RETRIED
    );
    Ok(list(connection, &sql, [customer.0], |row| row.get(0))?.into_iter().map(InvoiceId).collect())
}

pub(super) fn change_instrument(
    connection: &Connection,
    customer: CustomerId,
    now: i64,
) -> rusqlite::Result<()> {
    let sql = "UPDATE customers SET instrument_changed_at = ?2 WHERE id = ?1";
    let changed = connection.execute(sql, params![customer.0, now])?;
    one_row(changed, "a customer whose instrument changes is there")
}

pub(super) fn set_network(
    connection: &Connection,
    customer: CustomerId,
    network: Network,
) -> rusqlite::Result<()> {
    let sql = "UPDATE customers SET network = ?2 WHERE id = ?1";
    let changed = connection.execute(sql, params![customer.0, network.as_str()])?;
    one_row(changed, "a customer who gets a network is there")
}
