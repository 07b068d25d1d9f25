//! The routes of the invoice-app, byte for byte: its list, its pay call and its health. Knows what existing clients
//! read; must not know how a charge is made, nor the rules of `/v1`.

use std::fmt::Write as _;

use axum::extract::{Extension, State};
use axum::response::Response;
use http::StatusCode;

use super::error::{legacy_failure_response, log_failure};
use super::list::List;
use super::{AppState, antaeus, json, pay};
use crate::invoice::{Invoice, InvoiceId, InvoiceState};

const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// Health paths of the invoice-app and of known forks of these services; all answer alike.
pub(super) const HEALTH_PATHS: [&str; 8] = [
    "/healthz",
    "/health",
    "/healthcheck",
    "/liveness",
    "/readiness",
    "/v1/healthz",
    "/rest/ready",
    "/rest/alive",
];

/// `GET` of any of [`HEALTH_PATHS`].
pub(super) async fn healthz() -> Response {
    json(StatusCode::OK, CONTENT_TYPE, r#"{"status":"ok"}"#)
}

/// `GET /invoices`: all invoices, by id, each under its reference.
pub(super) async fn invoices(State(state): State<AppState>) -> Response {
    let list = List {
        content_type: CONTENT_TYPE,
        fetch: |store, after, limit| store.invoices(None, InvoiceId(after), limit),
        is_shown: antaeus::is_legacy_invoice,
        id: |invoice: &Invoice| invoice.id.0,
        write: write_invoice,
    };
    list.answer(state.store).await.unwrap_or_else(|error| legacy_failure_response(&error))
}

/// `POST /invoices/pay`: `{}`, also when some invoices were refused; 502 only when no request reached the provider.
pub(super) async fn pay(
    State(state): State<AppState>,
    Extension(waiting): Extension<pay::Waiting>,
) -> Response {
    match pay::pay(&state, &waiting, pay::INVOICE_APP_WAIT).await {
        Ok(paid) if paid.reached || paid.all => json(StatusCode::OK, CONTENT_TYPE, "{}"),
        Ok(_) => {
            let body = r#"{"Error":"the payment provider could not be reached"}"#;
            json(StatusCode::BAD_GATEWAY, CONTENT_TYPE, body)
        }
        Err(error) => {
            log_failure(&error);
            antaeus::bool_response(StatusCode::SERVICE_UNAVAILABLE, false)
        }
    }
}

fn write_invoice(out: &mut String, invoice: &Invoice) {
    let reference = serde_json::Value::from(invoice.reference.as_str());
    write!(
        out,
        r#"{{"InvoiceId":{reference},"Value":{},"Currency":"{}","IsPaid":{}}}"#,
        invoice.money.amount().legacy(),
        invoice.money.currency,
        invoice.state == InvoiceState::Paid,
    )
    .expect("a String takes any text");
}
