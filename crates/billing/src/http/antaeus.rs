//! The routes of Antaeus, byte for byte: customers, invoices, and a pay call that answers a bare boolean. Knows what
//! existing clients read; must not know how a charge is made, nor the rules of `/v1`.

use std::fmt::Write as _;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use http::StatusCode;

use super::error::{legacy_failure_response, log_failure, not_found_response};
use super::list::List;
use super::{AppState, json, path, pay};
use crate::invoice::{Customer, CustomerId, Invoice, InvoiceId, InvoiceState};

/// Content type of these routes.
pub(super) const CONTENT_TYPE: &str = "application/json";

/// `GET /rest/health`.
pub(super) async fn health() -> Response {
    json(StatusCode::OK, CONTENT_TYPE, "\"ok\"")
}

/// `GET /rest/v1/customers`: all customers, by id.
pub(super) async fn customers(State(state): State<AppState>) -> Response {
    let list = List {
        content_type: CONTENT_TYPE,
        fetch: |store, after, limit| store.customers(CustomerId(after), limit),
        is_shown: |_| true,
        id: |customer: &Customer| customer.id.0,
        write: write_customer,
    };
    list.answer(state.store).await.unwrap_or_else(|error| legacy_failure_response(&error))
}

/// `GET /rest/v1/customers/{id}`.
pub(super) async fn customer(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Some(id) = id.ok().and_then(|Path(text)| path::parse_id(&text)) else { return not_found_response() };
    match state.store.customer(CustomerId(id)).await {
        Ok(found) => found_response(found.as_ref(), write_customer),
        Err(error) => legacy_failure_response(&error),
    }
}

/// `GET /rest/v1/invoices`: all invoices, by id.
pub(super) async fn invoices(State(state): State<AppState>) -> Response {
    let list = List {
        content_type: CONTENT_TYPE,
        fetch: |store, after, limit| store.invoices(None, InvoiceId(after), limit),
        is_shown: is_legacy_invoice,
        id: |invoice: &Invoice| invoice.id.0,
        write: write_invoice,
    };
    list.answer(state.store).await.unwrap_or_else(|error| legacy_failure_response(&error))
}

/// `GET /rest/v1/invoices/{id}`.
pub(super) async fn invoice(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Some(id) = id.ok().and_then(|Path(text)| path::parse_id(&text)) else { return not_found_response() };
    match state.store.invoice(InvoiceId(id)).await {
        Ok(found) => {
            found_response(found.as_ref().filter(|invoice| is_legacy_invoice(invoice)), write_invoice)
        }
        Err(error) => legacy_failure_response(&error),
    }
}

/// `POST /rest/v1/invoices/pay`: whether every invoice is paid now. Never a JSON object: a script executes the body.
pub(super) async fn pay(
    State(state): State<AppState>,
    Extension(waiting): Extension<pay::Waiting>,
) -> Response {
    match pay::pay(&state, &waiting, pay::ANTAEUS_WAIT).await {
        Ok(paid) => bool_response(StatusCode::OK, paid.all),
        Err(error) => {
            log_failure(&error);
            bool_response(StatusCode::SERVICE_UNAVAILABLE, false)
        }
    }
}

/// A bare JSON boolean.
pub(super) fn bool_response(status: StatusCode, value: bool) -> Response {
    json(status, CONTENT_TYPE, if value { "true" } else { "false" })
}

fn found_response<T>(found: Option<&T>, write: fn(&mut String, &T)) -> Response {
    let Some(row) = found else { return not_found_response() };
    let mut text = String::new();
    write(&mut text, row);
    json(StatusCode::OK, CONTENT_TYPE, text)
}

/// Whether existing clients see the invoice: they do not know cancelled ones.
pub(super) fn is_legacy_invoice(invoice: &Invoice) -> bool {
    invoice.state != InvoiceState::Cancelled
}

fn write_customer(out: &mut String, customer: &Customer) {
    write!(out, r#"{{"id":{},"currency":"{}"}}"#, customer.id.0, customer.currency)
        .expect("a String takes any text");
}

fn write_invoice(out: &mut String, invoice: &Invoice) {
    let status = match invoice.state {
        InvoiceState::Paid => "PAID",
        _ => "PENDING",
    };
    write!(
        out,
        r#"{{"id":{},"customerId":{},"amount":{{"value":{},"currency":"{}"}},"status":"{status}"}}"#,
        invoice.id.0,
        invoice.customer_id.0,
        invoice.money.amount().legacy(),
        invoice.money.currency,
    )
    .expect("a String takes any text");
}
