//! `/v1/invoices`: the list, optionally by state, and one invoice by its reference. Reads only; knows no SQL and no
//! rule of charging.

use api::billing::Invoice as Item;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use chassis::problem::Problem;
use http::{StatusCode, Uri};

use super::not_found_problem;
use super::page::{Params, format_timestamp, json_response, page};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::{Dunning, Invoice, InvoiceId, Reference};

pub(super) fn to_item(invoice: &Invoice) -> Item {
    Item {
        id: invoice.id.0,
        reference: invoice.reference.as_str().to_owned(),
        customer_id: invoice.customer_id.0,
        currency: invoice.money.currency.code().into(),
        amount_minor: invoice.money.amount_minor,
        exponent: invoice.money.currency.exponent(),
        state: invoice.state.as_str().into(),
        paid_by: invoice.paid_by.map(|by| by.as_str().into()),
        attention_reason: invoice.attention_reason.map(|reason| reason.as_str().into()),
        due_at: invoice.due_at.map(format_timestamp),
        next_attempt_at: invoice.next_attempt_at.map(format_timestamp),
        dunning: invoice.dunning.map(|dunning| dunning.as_str().into()),
        exhausted: invoice.dunning == Some(Dunning::Exhausted),
        created_at: format_timestamp(invoice.created_at),
        updated_at: format_timestamp(invoice.updated_at),
        held: invoice.held,
    }
}

/// `GET /v1/invoices?state=&after=&limit=`: invoices by id.
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let only = params.choice(
        "state",
        |state| state.parse().ok(),
        "PENDING, CHARGING, PAID, ATTENTION and CANCELLED",
    );
    let after = InvoiceId(params.after().unwrap_or(i64::MIN));
    let limit = params.limit();
    params.finish()?;
    let rows = state.store.invoices(only, after, limit).await.map_err(|error| problem_of(&error))?;
    let cursor = |invoice: &Invoice| invoice.id.0.to_string();
    Ok(json_response(StatusCode::OK, &page(&rows, limit, to_item, cursor)))
}

/// `GET /v1/invoices/{reference}`; the case of the reference matters.
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    reference: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let reference = reference.ok().and_then(|Path(text)| Reference::stored(text).ok());
    let reference = reference.ok_or_else(|| not_found_problem("invoice"))?;
    let found = state.store.invoice_by_reference(&reference).await.map_err(|error| problem_of(&error))?;
    let invoice = found.ok_or_else(|| not_found_problem("invoice"))?;
    Ok(json_response(StatusCode::OK, &to_item(&invoice)))
}
