//! `/v1/repairs`: pages of the provider's ledger in, as that shows them; what the store had forgotten is known again.
//! Knows how a row is spelled, not what it changes.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use chassis::currency::EXPONENT_OF_HUNDREDTHS;
use chassis::problem::Problem;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::body;
use super::page::answer;
use crate::charge::RepairError;
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::{CustomerId, Reference};
use crate::money::{Currency, Money};
use crate::protocol::key::Key;
use crate::protocol::transition::Outcome;
use crate::store::{BATCH_MAX, LedgerFact, Repaired};

/// The longest body: a page of the most rows with the longest references.
pub(in crate::http) const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A page of a ledger. Its unknown fields are ignored, unlike those of other bodies: it is passed on as payments sent it, and
/// a later version of payments adds fields.
#[derive(Deserialize)]
struct LedgerPage {
    ledger_id: String,
    items: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    key: Option<String>,
    reference: Option<String>,
    customer_id: Option<i64>,
    currency: Option<String>,
    amount_minor: Option<i64>,
    /// Decimals of the amount; hundredths in a ledger of an earlier version.
    #[serde(default = "hundredths")]
    exponent: u8,
    state: EntryState,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum EntryState {
    Charged,
    Refused,
    Voided,
}

impl Row {
    /// `None` for a row without a key of ours.
    fn fact(self) -> Option<LedgerFact> {
        let currency = self.currency.as_deref().and_then(Currency::from_code);
        Some(LedgerFact {
            key: Key::parse(&self.key?)?,
            reference: self.reference.and_then(|text| Reference::stored(text).ok()),
            // The ledger writes 0 for a route that names no customer.
            customer_id: self.customer_id.filter(|&id| id != 0).map(CustomerId),
            money: currency.zip(self.amount_minor).map(|(currency, minor)| Money {
                amount_minor: in_units(minor, self.exponent, currency),
                currency,
            }),
            outcome: match self.state {
                EntryState::Charged => Outcome::Charged,
                EntryState::Refused => Outcome::Refused,
                EntryState::Voided => Outcome::Voided,
            },
        })
    }
}

fn hundredths() -> u8 {
    EXPONENT_OF_HUNDREDTHS
}

/// The amount in minor units of its currency. One that has none, such as half a yen, is no amount of any invoice.
fn in_units(minor: i64, exponent: u8, currency: Currency) -> i64 {
    const NO_AMOUNT: i64 = i64::MIN;
    let places = |places: u8| 10_i64.checked_pow(places.into());
    let units = match currency.exponent().checked_sub(exponent) {
        Some(more) => places(more).and_then(|factor| minor.checked_mul(factor)),
        None => places(exponent - currency.exponent())
            .and_then(|factor| minor.checked_rem(factor).filter(|rest| *rest == 0).map(|_| minor / factor)),
    };
    units.unwrap_or(NO_AMOUNT)
}

/// Counts of a repair, in rows.
#[derive(Default, Serialize)]
struct Report {
    known: usize,
    settled: usize,
    adopted: usize,
    conflicts: usize,
    unknown: usize,
}

/// `POST /v1/repairs`: takes in one page of the ledger; 200 with counts.
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let page: LedgerPage = body::read(&body::bytes(body)?, "a page of GET /v1/ledger")?;
    if page.items.len() > BATCH_MAX {
        let detail = format!("a page has at most {BATCH_MAX} rows");
        return Err(Problem::validation(Vec::new()).detail(detail));
    }
    let rows = page.items.len();
    let facts: Vec<LedgerFact> = page.items.into_iter().filter_map(Row::fact).collect();
    let repaired = state.engine.repair(&page.ledger_id, &facts).await.map_err(refusal)?;
    let mut report = Report { unknown: rows - facts.len(), ..Report::default() };
    for became in repaired {
        *match became {
            Repaired::Known => &mut report.known,
            Repaired::Settled => &mut report.settled,
            Repaired::Adopted => &mut report.adopted,
            Repaired::Conflict => &mut report.conflicts,
            Repaired::Unknown => &mut report.unknown,
        } += 1;
    }
    Ok(answer(StatusCode::OK, &report))
}

fn refusal(error: RepairError) -> Problem {
    match error {
        RepairError::Store(error) => problem_of(&error),
        RepairError::OtherLedger(remembered) => {
            Problem::named(StatusCode::CONFLICT, "ledger-mismatch", "This is another ledger")
                .detail(format!("this store settles with ledger {remembered}; nothing was changed"))
        }
    }
}
