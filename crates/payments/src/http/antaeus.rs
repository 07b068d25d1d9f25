//! `POST /`, as the payment service of Antaeus had it: results are the texts "true" and "false".
//! Knows no other wire format.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;

use super::App;
use super::deliver::{Decision, Inbound, Invalid, RouteFormat, deliver};
use super::fields::{self, Currency, Fields};
use crate::amount::Decimal;
use crate::charge::Charge;

const FORMAT: RouteFormat = RouteFormat { route: "/", content_type: "application/json", read, encode };

const INVALID: Invalid = Invalid::Body(r#"{"error":"Invalid Request","result":"false"}"#);
const FAULTY: Invalid =
    Invalid::Body(r#"{"error":"Invalid Request. Missing or faulty fields","result":"false"}"#);

/// `POST /` and `POST //`
pub(super) async fn pay(State(app): State<App>, request: Request) -> Response {
    deliver(&app, &FORMAT, request).await
}

fn read(inbound: &Inbound<'_>) -> Result<Charge, Invalid> {
    let fields = Fields::parse(inbound.body).map_err(|_| INVALID)?;
    let customer_id = fields.customer_id.map(fields::integer).transpose().map_err(|_| INVALID)?;
    let currency = fields.currency.map(fields::currency).transpose().map_err(|_| INVALID)?;
    let value = fields.value.map(|raw| Decimal::parse(raw.get()).ok_or(INVALID)).transpose()?;
    let value = value.unwrap_or(Decimal::ZERO);
    if value.is_negative() {
        return Err(FAULTY);
    }
    let currency = currency.and_then(Currency::into_ledger_text);
    let amount = inbound.amount(&value, currency.as_deref().unwrap_or_default(), INVALID)?;
    let currency = currency.ok_or(FAULTY)?;
    let customer_id = customer_id.filter(|id| *id >= 1).ok_or(FAULTY)?;
    // Legacy clients never had this field, so that no value of it is an error.
    let reference = fields.id.and_then(|raw| fields::text(raw).ok()).filter(|text| !text.is_empty());
    Ok(Charge { customer_id, currency, amount, reference })
}

fn encode(decision: &Decision<'_>) -> (StatusCode, String) {
    let body = if decision.charged { r#"{"result":"true"}"# } else { r#"{"result":"false"}"# };
    (StatusCode::OK, body.to_owned())
}
