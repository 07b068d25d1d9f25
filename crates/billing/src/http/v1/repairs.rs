//! `/v1/repairs`: takes pages of the provider's ledger in the form in which the ledger serves them, and restores what
//! the store has forgotten. Knows how a row is spelled, not what it changes.

use api::billing::{EntryState, RepairPage, RepairReport, RepairRow};
use api::payments::LEDGER_PAGE_JSON_BYTES_MAX;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use chassis::currency::EXPONENT_OF_HUNDREDTHS;
use chassis::problem::Problem;
use chassis::server::Connection;
use http::StatusCode;

use super::body;
use super::page::json_response;
use crate::charge::RepairError;
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::{CustomerId, Reference};
use crate::money::{Currency, Money};
use crate::protocol::key::Key;
use crate::protocol::transition::Outcome;
use crate::provider::decline;
use crate::store::{BATCH_MAX, LedgerFact, Repaired};

/// The longest body: the longest page that payments sends.
pub(in crate::http) const BODY_BYTES_MAX: usize = LEDGER_PAGE_JSON_BYTES_MAX;

/// Raises the server's lower limit of a body before the body is read.
pub(in crate::http) async fn expect_page(request: Request, next: Next) -> Response {
    if let Some(connection) = request.extensions().get::<Connection>() {
        connection.expect_long_body(BODY_BYTES_MAX as u64);
    }
    next.run(request).await
}

/// A row as a fact; `None` for a row without a key of ours.
fn to_fact(row: RepairRow) -> Option<LedgerFact> {
    let currency = row.currency.as_deref().and_then(Currency::from_code);
    let exponent = row.exponent.unwrap_or(EXPONENT_OF_HUNDREDTHS);
    Some(LedgerFact {
        key: Key::parse(&row.key?)?,
        reference: row.reference.and_then(|text| Reference::stored(text).ok()),
        // The ledger writes 0 for a route that names no customer.
        customer_id: row.customer_id.filter(|&id| id != 0).map(CustomerId),
        money: currency.zip(row.amount_minor).map(|(currency, minor)| Money {
            amount_minor: rescale_to_currency(minor, exponent, currency),
            currency,
        }),
        decline: (row.state == EntryState::Refused)
            .then(|| decline::of_row(row.decline_class.as_deref(), row.decline_code.as_deref())),
        outcome: match row.state {
            EntryState::Charged => Outcome::Charged,
            EntryState::Refused => Outcome::Refused,
            EntryState::Voided => Outcome::Voided,
        },
    })
}

/// The amount in minor units of its currency. An amount without such units, such as half a yen, becomes one that no
/// invoice has.
fn rescale_to_currency(minor: i64, exponent: u8, currency: Currency) -> i64 {
    const NO_AMOUNT: i64 = i64::MIN;
    let places = |places: u8| 10_i64.checked_pow(places.into());
    let units = match currency.exponent().checked_sub(exponent) {
        Some(more) => places(more).and_then(|factor| minor.checked_mul(factor)),
        None => places(exponent - currency.exponent())
            .and_then(|factor| minor.checked_rem(factor).filter(|rest| *rest == 0).map(|_| minor / factor)),
    };
    units.unwrap_or(NO_AMOUNT)
}

/// `POST /v1/repairs`: applies one page of the ledger; 200 with counts.
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let page: RepairPage = body::read(&body::bytes(body)?, "a page of GET /v1/ledger")?;
    if page.items.len() > BATCH_MAX {
        let detail = format!("a page has at most {BATCH_MAX} rows");
        return Err(Problem::validation(Vec::new()).detail(detail));
    }
    let rows = page.items.len() as u64;
    let facts: Vec<LedgerFact> = page.items.into_iter().filter_map(to_fact).collect();
    let repaired = state.engine.repair(&page.ledger_id, &facts).await.map_err(repair_error_problem)?;
    let mut report = RepairReport { unknown: rows - facts.len() as u64, ..RepairReport::default() };
    for became in repaired {
        *match became {
            Repaired::Known => &mut report.known,
            Repaired::Settled => &mut report.settled,
            Repaired::Adopted => &mut report.adopted,
            Repaired::Conflict => &mut report.conflicts,
            Repaired::Unknown => &mut report.unknown,
        } += 1;
    }
    Ok(json_response(StatusCode::OK, &report))
}

fn repair_error_problem(error: RepairError) -> Problem {
    match error {
        RepairError::Store(error) => problem_of(&error),
        RepairError::OtherLedger(remembered) => {
            Problem::named(StatusCode::CONFLICT, "ledger-mismatch", "This is another ledger")
                .detail(format!("this store settles with ledger {remembered}; nothing was changed"))
        }
    }
}
