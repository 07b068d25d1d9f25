//! Rows of PostgreSQL as billing's own types; a word that no type has is an error of the row, never a default.

use std::fmt::Display;

use chassis::postgres::{PgError, Result, Row, get};

use crate::invoice::{
    Attempt, AttemptState, AttentionReason, Customer, CustomerId, Invoice, InvoiceId, InvoiceState, PaidBy,
    Reference, Run, RunCounters, RunId, RunProblem, RunState,
};
use crate::money::{Currency, Money};
use crate::protocol::key::Key;
use crate::store::{Resolution, ResolutionRow};

pub(super) const CUSTOMER: &str = "id, currency";

pub(super) fn customer(row: &Row) -> Result<Customer> {
    Ok(Customer { id: CustomerId(get(row, 0)?), currency: word(row, 1, Currency::from_code)? })
}

/// Of `invoices AS i`.
pub(super) const INVOICE: &str = "i.id, i.reference, i.customer_id, i.currency, i.amount_minor, i.state, i.paid_by, \
     i.attention_reason, i.created_at, i.updated_at";

pub(super) fn invoice(row: &Row) -> Result<Invoice> {
    Ok(Invoice {
        id: InvoiceId(get(row, 0)?),
        reference: reference(row, 1)?,
        customer_id: CustomerId(get(row, 2)?),
        money: money(row, 3)?,
        state: word(row, 5, |text| text.parse::<InvoiceState>().ok())?,
        paid_by: optional_word(row, 6, |text| text.parse::<PaidBy>().ok())?,
        attention_reason: optional_word(row, 7, |text| text.parse::<AttentionReason>().ok())?,
        created_at: get(row, 8)?,
        updated_at: get(row, 9)?,
    })
}

/// Of `attempts AS a` and `invoices AS i`.
pub(super) const ATTEMPT: &str = "a.key, a.invoice_id, i.reference, a.number, a.customer_id, a.currency, \
     a.amount_minor, a.state, a.sends, a.run_id, a.lease_until, a.created_at, a.settled_at";

pub(super) fn attempt(row: &Row) -> Result<Attempt> {
    Ok(Attempt {
        key: word(row, 0, Key::parse)?,
        invoice_id: InvoiceId(get(row, 1)?),
        reference: reference(row, 2)?,
        number: count(row, 3)?,
        customer_id: CustomerId(get(row, 4)?),
        money: money(row, 5)?,
        state: word(row, 7, |text| text.parse::<AttemptState>().ok())?,
        sends: count(row, 8)?,
        run_id: RunId(get(row, 9)?),
        lease_until: get(row, 10)?,
        created_at: get(row, 11)?,
        settled_at: get(row, 12)?,
    })
}

/// Of `runs AS r` and the sums `c` of its counters, by [`RUN_COUNTS`].
pub(super) const RUN: &str = "r.id, r.state, r.started_at, r.finished_at, r.lease_until, r.joins, r.total, \
     c.attempted, c.paid, c.refused, c.rejected, c.in_doubt, c.not_sent, r.begun_by, r.problem, \
     r.problem_status, r.problem_count";

/// Joined to `r`, it has one row for each run.
pub(super) const RUN_COUNTS: &str = "
    LEFT JOIN LATERAL (SELECT coalesce(sum(attempted), 0)::bigint AS attempted,
        coalesce(sum(paid), 0)::bigint AS paid, coalesce(sum(refused), 0)::bigint AS refused,
        coalesce(sum(rejected), 0)::bigint AS rejected, coalesce(sum(in_doubt), 0)::bigint AS in_doubt,
        coalesce(sum(not_sent), 0)::bigint AS not_sent
        FROM run_counts WHERE run_id = r.id) AS c ON true";

pub(super) fn run(row: &Row) -> Result<Run> {
    Ok(Run {
        id: RunId(get(row, 0)?),
        state: word(row, 1, |text| text.parse::<RunState>().ok())?,
        started_at: get(row, 2)?,
        finished_at: get(row, 3)?,
        lease_until: get(row, 4)?,
        joins: get(row, 5)?,
        counters: RunCounters {
            total: get(row, 6)?,
            attempted: get(row, 7)?,
            paid: get(row, 8)?,
            refused: get(row, 9)?,
            rejected: get(row, 10)?,
            in_doubt: get(row, 11)?,
            not_sent: get(row, 12)?,
        },
        begun_by: get(row, 13)?,
        problem: match get(row, 14)? {
            Some(reason) => Some(RunProblem { reason, status: get(row, 15)?, count: get(row, 16)? }),
            None => None,
        },
    })
}

/// Of `resolutions AS r JOIN attempts AS a JOIN invoices AS i`.
pub(super) const RESOLUTION: &str = "r.id, r.key, r.charged, r.reason, r.actor, i.reference, r.attempt_from, \
     r.attempt_to, r.invoice_from, r.invoice_to, r.created_at";

pub(super) fn resolution(row: &Row) -> Result<ResolutionRow> {
    let attempt = |column| optional_word(row, column, |text| text.parse::<AttemptState>().ok());
    let invoice = |column| optional_word(row, column, |text| text.parse::<InvoiceState>().ok());
    Ok(ResolutionRow {
        id: get(row, 0)?,
        resolution: Resolution {
            key: word(row, 1, Key::parse)?,
            charged: get(row, 2)?,
            reason: get(row, 3)?,
            actor: get(row, 4)?,
        },
        reference: reference(row, 5)?,
        attempt: attempt(6)?.zip(attempt(7)?),
        invoice: invoice(8)?.zip(invoice(9)?),
        created_at: get(row, 10)?,
    })
}

/// An `integer` that is never negative.
pub(super) fn count(row: &Row, column: usize) -> Result<u32> {
    let number: i32 = get(row, column)?;
    u32::try_from(number).map_err(|error| broken(column, error))
}

/// Currency at `column`, minor units at the next.
pub(super) fn money(row: &Row, column: usize) -> Result<Money> {
    let currency = word(row, column, Currency::from_code)?;
    Ok(Money { amount_minor: get(row, column + 1)?, currency })
}

pub(super) fn reference(row: &Row, column: usize) -> Result<Reference> {
    Reference::stored(get::<&str>(row, column)?).map_err(|error| broken(column, error))
}

pub(super) fn word<T>(row: &Row, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
    let text = get(row, column)?;
    parse(text).ok_or_else(|| broken(column, format!("no such word here: {text:?}")))
}

fn optional_word<T>(row: &Row, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
    match get::<Option<&str>>(row, column)? {
        None => Ok(None),
        Some(_) => word(row, column, parse).map(Some),
    }
}

/// The data breaks an invariant; becomes [`StoreError::Corrupt`](crate::store::StoreError::Corrupt).
fn broken(column: usize, what: impl Display) -> PgError {
    PgError::Corrupt(format!("column {column}: {what}"))
}

/// A conditional statement must have touched this many rows.
pub(super) fn changed(rows: u64, expected: usize, what: &'static str) -> Result<()> {
    if usize::try_from(rows) == Ok(expected) {
        return Ok(());
    }
    Err(PgError::Corrupt(format!("{what}: {rows} rows instead of {expected}")))
}
