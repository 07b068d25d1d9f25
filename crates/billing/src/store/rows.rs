//! Rows of a database as billing's own types, once for every database. A text that is no value of its type is an error
//! of the row, never a default. Knows columns, not databases.

use std::str::FromStr;

use crate::invoice::{
    Attempt, Customer, CustomerId, Decline, DeclineCode, Invoice, InvoiceId, Reference, Run, RunCounters,
    RunId, RunProblem,
};
use crate::money::{Currency, Money};
use crate::protocol::key::Key;
use crate::run_order::{InvoiceFacts, RunFilter, RunLimits, RunOrder};
use crate::store::changeset::CustomersAndAmounts;
use crate::store::transaction::{Candidate, ClaimOrder};
use crate::store::{
    LedgerAcknowledgement, LedgerAcknowledgementRow, LedgerSeen, Resolution, ResolutionRow,
    UnbackedAcknowledgement, UnbackedAcknowledgementRow,
};

/// A row that a database returned.
pub(super) trait Columns {
    /// The error of the database.
    type Error;

    fn integer(&self, column: usize) -> Result<i64, Self::Error>;
    fn optional_integer(&self, column: usize) -> Result<Option<i64>, Self::Error>;
    /// An integer that is narrower where the database has narrower integers.
    fn count(&self, column: usize) -> Result<u32, Self::Error>;
    fn flag(&self, column: usize) -> Result<bool, Self::Error>;
    fn optional_text(&self, column: usize) -> Result<Option<&str>, Self::Error>;
    /// The error for a row that breaks an invariant; becomes
    /// [`StoreError::Corrupt`](crate::store::StoreError::Corrupt).
    fn corrupt(column: usize, problem: String) -> Self::Error;

    /// A text that `parse` accepts, or NULL.
    fn optional<T>(
        &self,
        column: usize,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Self::Error> {
        let Some(text) = self.optional_text(column)? else { return Ok(None) };
        match parse(text) {
            None => Err(Self::corrupt(column, format!("{text:?} is no value of this column"))),
            parsed => Ok(parsed),
        }
    }

    /// A text that `parse` accepts.
    fn parsed<T>(&self, column: usize, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Self::Error> {
        self.optional(column, parse)?.ok_or_else(|| Self::corrupt(column, "is NULL".to_owned()))
    }

    fn optional_value<T: FromStr>(&self, column: usize) -> Result<Option<T>, Self::Error> {
        self.optional(column, |text| text.parse().ok())
    }

    fn value<T: FromStr>(&self, column: usize) -> Result<T, Self::Error> {
        self.parsed(column, |text| text.parse().ok())
    }

    fn text(&self, column: usize) -> Result<String, Self::Error> {
        self.parsed(column, |text| Some(text.to_owned()))
    }

    fn reference(&self, column: usize) -> Result<Reference, Self::Error> {
        Reference::stored(self.text(column)?).map_err(|error| Self::corrupt(column, error.to_string()))
    }

    /// The currency in `column` and the minor units in the next column.
    fn money(&self, column: usize) -> Result<Money, Self::Error> {
        let currency = self.parsed(column, Currency::from_code)?;
        Ok(Money { amount_minor: self.integer(column + 1)?, currency })
    }
}

/// A type that is read from a row; a constant beside it lists its columns.
pub(super) trait FromRow: Sized + Send + 'static {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error>;
}

/// Columns of `customers`.
pub(super) const CUSTOMER: &str = "id, currency";

impl FromRow for Customer {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self { id: CustomerId(row.integer(0)?), currency: row.parsed(1, Currency::from_code)? })
    }
}

/// Columns of an invoice, from `invoices AS i`.
pub(super) const INVOICE: &str = "i.id, i.reference, i.customer_id, i.currency, i.amount_minor, i.state, i.paid_by, \
     i.attention_reason, i.created_at, i.updated_at, i.due_at, i.next_attempt_at, i.held, i.dunning";

impl FromRow for Invoice {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            id: InvoiceId(row.integer(0)?),
            reference: row.reference(1)?,
            customer_id: CustomerId(row.integer(2)?),
            money: row.money(3)?,
            state: row.value(5)?,
            paid_by: row.optional_value(6)?,
            attention_reason: row.optional_value(7)?,
            created_at: row.integer(8)?,
            updated_at: row.integer(9)?,
            due_at: row.optional_integer(10)?,
            next_attempt_at: row.optional_integer(11)?,
            held: row.flag(12)?,
            dunning: row.optional_value(13)?,
        })
    }
}

/// Number of columns of [`INVOICE`].
pub(super) const INVOICE_COLUMNS: usize = 14;

/// The query for open attempts that were not sent; uses the index of open attempts.
pub(super) const UNSENT: &str =
    "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT') AND sends = 0";

/// Columns of an attempt, from `attempts AS a` and `invoices AS i`.
pub(super) const ATTEMPT: &str = "a.key, a.invoice_id, i.reference, a.number, a.customer_id, a.currency, \
     a.amount_minor, a.state, a.sends, a.run_id, a.lease_until, a.created_at, a.settled_at, a.decline_class, a.decline_code";

impl FromRow for Attempt {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            key: row.parsed(0, Key::parse)?,
            invoice_id: InvoiceId(row.integer(1)?),
            reference: row.reference(2)?,
            number: row.count(3)?,
            customer_id: CustomerId(row.integer(4)?),
            money: row.money(5)?,
            state: row.value(7)?,
            sends: row.count(8)?,
            run_id: RunId(row.integer(9)?),
            lease_until: row.integer(10)?,
            created_at: row.integer(11)?,
            settled_at: row.optional_integer(12)?,
            decline: match row.optional_value(13)? {
                Some(class) => Some(Decline { class, code: row.optional(14, DeclineCode::new)? }),
                None => None,
            },
        })
    }
}

/// Reads `id, state, started_at, finished_at, lease_until, joins, total, attempted, paid, refused, rejected, in_doubt,
/// not_sent, begun_by, problem, problem_status, problem_count, filter, count_left, amounts_left, reason`. Each database
/// has its own table of counters.
impl FromRow for Run {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            id: RunId(row.integer(0)?),
            state: row.value(1)?,
            started_at: row.integer(2)?,
            finished_at: row.optional_integer(3)?,
            lease_until: row.integer(4)?,
            joins: row.integer(5)?,
            counters: RunCounters {
                total: row.integer(6)?,
                attempted: row.integer(7)?,
                paid: row.integer(8)?,
                refused: row.integer(9)?,
                rejected: row.integer(10)?,
                in_doubt: row.integer(11)?,
                not_sent: row.integer(12)?,
            },
            begun_by: row.optional_value(13)?,
            problem: match row.optional_value(14)? {
                Some(reason) => {
                    Some(RunProblem { reason, status: row.optional_integer(15)?, count: row.integer(16)? })
                }
                None => None,
            },
            order: RunOrder {
                filter: row.optional(17, |text| serde_json::from_str(text).ok())?.unwrap_or_default(),
                limits: RunLimits {
                    count: row.optional_integer(18)?,
                    amounts: row.optional(19, |text| serde_json::from_str(text).ok())?,
                },
                reason: row.optional(20, |text| Some(text.to_owned()))?,
            },
        })
    }
}

/// Reads `filter, count_left, amounts_left` of a run.
pub(super) fn claim_order<R: Columns>(row: &R, now_ms: i64) -> Result<ClaimOrder, R::Error> {
    let json = |column: usize| row.optional_text(column);
    let unreadable = |column: usize| R::corrupt(column, "is not what this version writes".to_owned());
    let filter = match json(0)? {
        None => RunFilter::default(),
        Some(text) => serde_json::from_str(text).map_err(|_| unreadable(0))?,
    };
    let amounts = match json(2)? {
        None => None,
        Some(text) => Some(serde_json::from_str(text).map_err(|_| unreadable(2))?),
    };
    Ok(ClaimOrder { filter, limits: RunLimits { count: row.optional_integer(1)?, amounts }, now_ms })
}

/// Columns of a decision, from `resolutions AS r JOIN invoices AS i`.
pub(super) const RESOLUTION: &str = "r.id, r.key, r.charged, r.reason, r.actor, i.reference, r.attempt_from, \
     r.attempt_to, r.invoice_from, r.invoice_to, r.created_at";

impl FromRow for ResolutionRow {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let attempt = |column| row.optional_value(column);
        let invoice = |column| row.optional_value(column);
        Ok(Self {
            id: row.integer(0)?,
            resolution: Resolution {
                key: row.parsed(1, Key::parse)?,
                charged: row.flag(2)?,
                reason: row.text(3)?,
                actor: row.text(4)?,
            },
            reference: row.reference(5)?,
            attempt: attempt(6)?.zip(attempt(7)?),
            invoice: invoice(8)?.zip(invoice(9)?),
            created_at: row.integer(10)?,
        })
    }
}

/// Condition of an invoice whose flag and date may change with its customer's network or instrument: it has a flag, or
/// the schedule made it and it has no date.
pub(super) const IS_RETRIED: &str =
    "state = 'PENDING' AND (dunning IS NOT NULL OR due_at IS NOT NULL AND next_attempt_at IS NULL)";

/// Columns of an attempt's terms, from `attempts AS a JOIN invoices AS i`.
pub(super) const TERMS: &str = "a.key, a.customer_id, a.currency, a.amount_minor, \
     i.customer_id, i.currency, i.amount_minor";

impl FromRow for (Key, CustomersAndAmounts) {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let attempt = (CustomerId(row.integer(1)?), row.money(2)?);
        let invoice = (CustomerId(row.integer(4)?), row.money(5)?);
        Ok((row.parsed(0, Key::parse)?, [attempt, invoice]))
    }
}

/// Reads `ledger_id` and the last row seen of that ledger.
impl FromRow for LedgerSeen {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self { ledger_id: row.text(0)?, seq: row.integer(1)? })
    }
}

/// Columns of `ledger_acknowledgements`.
pub(super) const ACKNOWLEDGEMENT: &str = "id, ledger_id, seq_first, seq_last, reason, actor, created_at";

impl FromRow for LedgerAcknowledgementRow {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            id: row.integer(0)?,
            acknowledgement: LedgerAcknowledgement {
                ledger_id: row.text(1)?,
                seq_first: row.integer(2)?,
                seq_last: row.integer(3)?,
                reason: row.text(4)?,
                actor: row.text(5)?,
            },
            created_at: row.integer(6)?,
        })
    }
}

/// Columns of an acknowledgement, from `unbacked_acknowledgements AS u` and `invoices AS i`.
pub(super) const UNBACKED_ACKNOWLEDGEMENT: &str =
    "u.id, u.ledger_id, i.reference, u.reason, u.actor, u.created_at";

impl FromRow for UnbackedAcknowledgementRow {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            id: row.integer(0)?,
            acknowledgement: UnbackedAcknowledgement {
                ledger_id: row.text(1)?,
                reference: row.reference(2)?,
                reason: row.text(3)?,
                actor: row.text(4)?,
            },
            created_at: row.integer(5)?,
        })
    }
}

/// Whether a run's filter admits the invoice in a row of a claim: `id, reference, customer_id, currency, amount_minor,
/// due_at, next_attempt_at, dunning`. A filter that admits every invoice reads no columns.
pub(super) fn is_admitted<R: Columns>(row: &R, order: &ClaimOrder) -> Result<bool, R::Error> {
    let dunning = row.optional_value(7)?;
    if order.filter.is_all() && dunning.is_none() {
        return Ok(true);
    }
    let facts = InvoiceFacts {
        reference: row.optional_text(1)?.unwrap_or_default(),
        customer_id: CustomerId(row.integer(2)?),
        due_at: row.optional_integer(5)?,
        next_attempt_at: row.optional_integer(6)?,
        dunning,
    };
    Ok(order.filter.admits(&facts, order.now_ms))
}

/// Reads a candidate from the same row; `number` is that of its next attempt.
pub(super) fn candidate<R: Columns>(row: &R, id: InvoiceId, number: u32) -> Result<Candidate, R::Error> {
    let customer_id = CustomerId(row.integer(2)?);
    Ok(Candidate {
        id,
        reference: row.reference(1)?,
        customer_id,
        money: row.money(3)?,
        number,
        next_attempt_at: row.optional_integer(6)?,
        dunning: row.optional_value(7)?,
    })
}
