//! `/v1/invoices`: the list, by state if asked, and one invoice by its reference.
//! Reads only; knows no SQL and no rule of charging.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use chassis::problem::Problem;
use http::{StatusCode, Uri};
use serde::Serialize;

use super::page::{Page, Params, answer, time};
use super::unknown;
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::{Invoice, InvoiceId, Reference};

/// An invoice as `/v1` shows it: the columns of its row.
#[derive(Serialize)]
pub(super) struct InvoiceItem {
    id: i64,
    reference: String,
    customer_id: i64,
    currency: &'static str,
    amount_minor: i64,
    exponent: u8,
    state: &'static str,
    paid_by: Option<&'static str>,
    attention_reason: Option<&'static str>,
    due_at: Option<String>,
    next_attempt_at: Option<String>,
    created_at: String,
    updated_at: String,
    held: bool,
}

impl InvoiceItem {
    pub(super) fn of(invoice: &Invoice) -> Self {
        Self {
            id: invoice.id.0,
            reference: invoice.reference.as_str().to_owned(),
            customer_id: invoice.customer_id.0,
            currency: invoice.money.currency.code(),
            amount_minor: invoice.money.amount_minor,
            exponent: invoice.money.currency.exponent(),
            state: invoice.state.as_str(),
            paid_by: invoice.paid_by.map(|by| by.as_str()),
            attention_reason: invoice.attention_reason.map(|reason| reason.as_str()),
            due_at: invoice.due_at.map(time),
            next_attempt_at: invoice.next_attempt_at.map(time),
            created_at: time(invoice.created_at),
            updated_at: time(invoice.updated_at),
            held: invoice.held,
        }
    }
}

/// `GET /v1/invoices?state=&after=&limit=`, by id.
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
    Ok(answer(StatusCode::OK, &Page::new(&rows, limit, InvoiceItem::of, cursor)))
}

/// `GET /v1/invoices/{reference}`; the reference in its own case.
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    reference: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let reference = reference.ok().and_then(|Path(text)| Reference::stored(text).ok());
    let reference = reference.ok_or_else(|| unknown("invoice"))?;
    let found = state.store.invoice_by_reference(&reference).await.map_err(|error| problem_of(&error))?;
    let invoice = found.ok_or_else(|| unknown("invoice"))?;
    Ok(answer(StatusCode::OK, &InvoiceItem::of(&invoice)))
}
