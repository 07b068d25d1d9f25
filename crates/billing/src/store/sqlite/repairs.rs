//! Repairs in SQLite: what the provider's ledger says of a key, taken in by a store that may have forgotten it.
//! What it means is decided in `store::plan`; nothing is sent from here.

use rusqlite::{Connection, OptionalExtension, params};

use super::settling::{Book, SET_INVOICE, Tally, others_of, settle_one};
use super::{one, rows, runs};
use crate::invoice::{AttentionReason, CustomerId, Invoice, PaidBy};
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::Settlement;
use crate::store::plan::{self, InvoicePlan};
use crate::store::{LedgerAcceptance, LedgerFact, REPAIR_NUMBERS_MAX, Repaired, Settled};

/// No attempt has this row.
const NO_ROW: i64 = -1;

pub(super) fn repair(
    connection: &Connection,
    deployment: DeploymentId,
    facts: &[LedgerFact],
    now: i64,
) -> rusqlite::Result<Vec<Repaired>> {
    let mut book = Book::open(connection)?;
    let mut tally = Tally::default();
    let mut repaired = Vec::with_capacity(facts.len());
    for fact in facts {
        let settlement =
            Settlement { key: fact.key.clone(), outcome: fact.outcome, again_in: std::time::Duration::ZERO };
        let has_same_terms = has_same_terms(connection, fact)?;
        repaired.push(match settle_one(&mut book, &settlement, has_same_terms, now, &mut tally)? {
            Settled::Applied => Repaired::Settled,
            Settled::Same => Repaired::Known,
            Settled::Conflict(_) => Repaired::Conflict,
            Settled::Unknown => adopt(connection, deployment, fact, now, &mut tally)?,
        });
    }
    tally.record(connection, None)?;
    if repaired.iter().any(|became| became.changed()) {
        runs::join(connection)?;
    }
    Ok(repaired)
}

/// Whether the row has the terms of the attempt under its key and of that attempt's invoice; true without one.
fn has_same_terms(connection: &Connection, fact: &LedgerFact) -> rusqlite::Result<bool> {
    let sql = "SELECT a.customer_id, a.currency, a.amount_minor, i.customer_id, i.currency, i.amount_minor
         FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id WHERE a.key = ?1";
    let terms = one(connection, sql, [fact.key.as_str()], |row| {
        let attempt = (CustomerId(row.get(0)?), rows::money(row, 1)?);
        let invoice = (CustomerId(row.get(3)?), rows::money(row, 4)?);
        Ok([attempt, invoice])
    })?;
    Ok(terms.is_none_or(|both| both.iter().all(|(customer_id, money)| fact.has_terms(*customer_id, *money))))
}

pub(super) fn accept_ledger(
    connection: &Connection,
    acceptance: &LedgerAcceptance,
    now: i64,
) -> rusqlite::Result<Option<String>> {
    let LedgerAcceptance { ledger_id, reason, actor } = acceptance;
    let former: Option<String> =
        connection.query_row("SELECT ledger_id FROM deployment", [], |row| row.get(0))?;
    if former.as_ref() != Some(ledger_id) {
        let changed = connection.execute("UPDATE deployment SET ledger_id = ?1", [ledger_id])?;
        rows::one_row(changed, "a store has one deployment")?;
        let sql = "INSERT INTO ledger_acceptances (ledger_from, ledger_to, reason, actor, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)";
        connection.execute(sql, params![former, ledger_id, reason, actor, now])?;
    }
    Ok(former)
}

/// Writes the attempt that the store has forgotten, if the key is one of ours.
fn adopt(
    connection: &Connection,
    deployment: DeploymentId,
    fact: &LedgerFact,
    now: i64,
    tally: &mut Tally,
) -> rusqlite::Result<Repaired> {
    let Some((invoice, number)) = owner(connection, deployment, fact)? else { return Ok(Repaired::Unknown) };
    let as_invoiced = fact.has_terms(invoice.customer_id, invoice.money);
    let others = others_of(connection, invoice.id.0, NO_ROW)?;
    let Some((state, plan)) = plan::adopt(invoice.state, others, as_invoiced, fact.outcome) else {
        return Ok(Repaired::Unknown);
    };
    let (customer, money) =
        (fact.customer_id.unwrap_or(invoice.customer_id), fact.money.unwrap_or(invoice.money));
    let sql =
        "INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends,
             run_id, lease_until, created_at, settled_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?9, ?9)";
    connection.prepare_cached(sql)?.execute(params![
        fact.key.as_str(),
        invoice.id.0,
        number,
        customer.0,
        money.currency.code(),
        money.amount_minor,
        state.as_str(),
        a_run(connection, now)?,
        now,
    ])?;
    let Some(plan) = plan.filter(|plan| plan.state != invoice.state) else { return Ok(Repaired::Adopted) };
    set_invoice(connection, &invoice, plan, now)?;
    tally.moves.change(invoice.state, plan.state, 1);
    Ok(if plan.attention.is_some() { Repaired::Conflict } else { Repaired::Adopted })
}

/// Whose attempt this is, and which: found by making the keys anew, as they were made when it was sent.
fn owner(
    connection: &Connection,
    deployment: DeploymentId,
    fact: &LedgerFact,
) -> rusqlite::Result<Option<(Invoice, u32)>> {
    let Some(reference) = &fact.reference else { return Ok(None) };
    let sql = format!("SELECT {} FROM invoices WHERE reference = ?1", rows::INVOICE);
    let Some(invoice) = one(connection, &sql, [reference.as_str()], rows::invoice)? else { return Ok(None) };
    let sql = "SELECT max(number) FROM attempts WHERE invoice_id = ?1";
    let last: Option<u32> = connection.prepare_cached(sql)?.query_row([invoice.id.0], |row| row.get(0))?;
    let numbers = 1..=last.unwrap_or(0).saturating_add(REPAIR_NUMBERS_MAX);
    let mut numbers = numbers.filter(|&number| Key::new(deployment, reference, number) == fact.key);
    Ok(numbers.next().map(|number| (invoice, number)))
}

/// An attempt belongs to a run.
fn a_run(connection: &Connection, now: i64) -> rusqlite::Result<i64> {
    let last = connection
        .prepare_cached("SELECT id FROM runs ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    if let Some(run) = last {
        return Ok(run);
    }
    let sql =
        "INSERT INTO runs (state, started_at, finished_at, lease_until) VALUES ('finished', ?1, ?1, ?1)";
    connection.prepare_cached(sql)?.execute([now])?;
    Ok(connection.last_insert_rowid())
}

fn set_invoice(
    connection: &Connection,
    invoice: &Invoice,
    plan: InvoicePlan,
    now: i64,
) -> rusqlite::Result<()> {
    let changed = connection.prepare_cached(SET_INVOICE)?.execute(params![
        invoice.id.0,
        plan.state.as_str(),
        plan.paid_by.map(PaidBy::as_str),
        plan.attention.map(AttentionReason::as_str),
        now,
        invoice.state.as_str(),
    ])?;
    rows::one_row(changed, "an invoice that is repaired stands as it was read")
}
