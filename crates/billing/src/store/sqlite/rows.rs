//! Rows of SQLite as billing's own types; a word that no type has is an error of the row, never a default.

use std::fmt::Display;

use rusqlite::types::Type;
use rusqlite::{Error, Row};

use crate::invoice::{
    Attempt, AttemptState, AttentionReason, Customer, CustomerId, Invoice, InvoiceId, InvoiceState, PaidBy,
    Reference, Run, RunCounters, RunId, RunProblem, RunState,
};
use crate::money::{Currency, Money};
use crate::protocol::key::Key;
use crate::store::{Resolution, ResolutionRow};

pub(super) const CUSTOMER: &str = "id, currency";

pub(super) fn customer(row: &Row<'_>) -> rusqlite::Result<Customer> {
    Ok(Customer { id: CustomerId(row.get(0)?), currency: word(row, 1, Currency::from_code)? })
}

pub(super) const INVOICE: &str = "id, reference, customer_id, currency, amount_minor, state, paid_by, \
     attention_reason, created_at, updated_at";

pub(super) fn invoice(row: &Row<'_>) -> rusqlite::Result<Invoice> {
    Ok(Invoice {
        id: InvoiceId(row.get(0)?),
        reference: reference(row, 1)?,
        customer_id: CustomerId(row.get(2)?),
        money: money(row, 3)?,
        state: word(row, 5, |text| text.parse::<InvoiceState>().ok())?,
        paid_by: optional_word(row, 6, |text| text.parse::<PaidBy>().ok())?,
        attention_reason: optional_word(row, 7, |text| text.parse::<AttentionReason>().ok())?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
    })
}

/// Of `attempts AS a JOIN invoices AS i`.
pub(super) const ATTEMPT: &str = "a.key, a.invoice_id, i.reference, a.number, a.customer_id, a.currency, \
     a.amount_minor, a.state, a.sends, a.run_id, a.lease_until, a.created_at, a.settled_at";

pub(super) fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        key: word(row, 0, Key::parse)?,
        invoice_id: InvoiceId(row.get(1)?),
        reference: reference(row, 2)?,
        number: row.get(3)?,
        customer_id: CustomerId(row.get(4)?),
        money: money(row, 5)?,
        state: word(row, 7, |text| text.parse::<AttemptState>().ok())?,
        sends: row.get(8)?,
        run_id: RunId(row.get(9)?),
        lease_until: row.get(10)?,
        created_at: row.get(11)?,
        settled_at: row.get(12)?,
    })
}

pub(super) const RUN: &str = "id, state, started_at, finished_at, lease_until, joins, total, attempted, paid, \
     refused, rejected, in_doubt, not_sent, begun_by, problem, problem_status, problem_count";

pub(super) fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: RunId(row.get(0)?),
        state: word(row, 1, |text| text.parse::<RunState>().ok())?,
        started_at: row.get(2)?,
        finished_at: row.get(3)?,
        lease_until: row.get(4)?,
        joins: row.get(5)?,
        counters: RunCounters {
            total: row.get(6)?,
            attempted: row.get(7)?,
            paid: row.get(8)?,
            refused: row.get(9)?,
            rejected: row.get(10)?,
            in_doubt: row.get(11)?,
            not_sent: row.get(12)?,
        },
        begun_by: row.get(13)?,
        problem: match row.get(14)? {
            Some(reason) => Some(RunProblem { reason, status: row.get(15)?, count: row.get(16)? }),
            None => None,
        },
    })
}

/// Of `resolutions AS r JOIN attempts AS a JOIN invoices AS i`.
pub(super) const RESOLUTION: &str = "r.id, r.key, r.charged, r.reason, r.actor, i.reference, r.attempt_from, \
     r.attempt_to, r.invoice_from, r.invoice_to, r.created_at";

pub(super) fn resolution(row: &Row<'_>) -> rusqlite::Result<ResolutionRow> {
    let attempt = |column| optional_word(row, column, |text| text.parse::<AttemptState>().ok());
    let invoice = |column| optional_word(row, column, |text| text.parse::<InvoiceState>().ok());
    Ok(ResolutionRow {
        id: row.get(0)?,
        resolution: Resolution {
            key: word(row, 1, Key::parse)?,
            charged: row.get(2)?,
            reason: row.get(3)?,
            actor: row.get(4)?,
        },
        reference: reference(row, 5)?,
        attempt: attempt(6)?.zip(attempt(7)?),
        invoice: invoice(8)?.zip(invoice(9)?),
        created_at: row.get(10)?,
    })
}

/// Currency at `column`, minor units at the next.
pub(super) fn money(row: &Row<'_>, column: usize) -> rusqlite::Result<Money> {
    let currency = word(row, column, Currency::from_code)?;
    Ok(Money { amount_minor: row.get(column + 1)?, currency })
}

pub(super) fn reference(row: &Row<'_>, column: usize) -> rusqlite::Result<Reference> {
    let text: String = row.get(column)?;
    Reference::stored(text).map_err(|error| broken(column, error))
}

pub(super) fn word<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| broken(column, format!("no such word here: {text:?}")))
}

fn optional_word<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(text) => {
            let parsed = parse(text);
            parsed.map(Some).ok_or_else(|| broken(column, format!("no such word here: {text:?}")))
        }
    }
}

/// The data breaks an invariant; becomes [`StoreError::Corrupt`](crate::store::StoreError::Corrupt).
pub(super) fn broken(column: usize, what: impl Display) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, what.to_string().into())
}

/// A conditional statement must have touched exactly one row.
pub(super) fn one_row(changed: usize, what: &'static str) -> rusqlite::Result<()> {
    if changed == 1 { Ok(()) } else { Err(broken(0, format!("{what}: {changed} rows instead of one"))) }
}
