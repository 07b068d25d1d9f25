//! `POST /payments/pay`, as the payment-provider had it: the answer is the id that was sent. The original had no
//! response for "refused"; this one is 402. Knows no other wire format.

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::App;
use super::deliver::{Decision, Inbound, Invalid, RouteFormat, deliver};
use super::fields::{self, Fields};
use crate::amount::Decimal;
use crate::charge::Charge;

const FORMAT: RouteFormat =
    RouteFormat { route: "/payments/pay", content_type: "application/json; charset=utf-8", read, encode };

const UNREADABLE: Invalid = Invalid::Body(r#"{"error":"failed to process payment request parameters"}"#);
const NO_ID: Invalid = Invalid::Body(r#"{"error":"could not retrieve payment id"}"#);
const NO_VALUE: Invalid = Invalid::Body(r#"{"error":"could not retrieve payment value"}"#);
const NO_CURRENCY: Invalid = Invalid::Body(r#"{"error":"could not retrieve payment currency"}"#);

/// `POST /payments/pay`
pub(super) async fn pay(State(app): State<App>, request: Request) -> Response {
    deliver(&app, &FORMAT, request).await
}

fn read(inbound: &Inbound<'_>) -> Result<Charge, Invalid> {
    let fields = Fields::parse(inbound.body).map_err(|_| UNREADABLE)?;
    let id = fields.id.map(fields::text).transpose().map_err(|_| UNREADABLE)?;
    // Only a text is accepted: the object that a client's JSON library makes of an enumeration belongs to the other
    // routes.
    let currency = fields.currency.map(fields::text).transpose().map_err(|_| UNREADABLE)?;
    let customer_id = fields.customer_id.map(fields::integer).transpose().map_err(|_| UNREADABLE)?;
    let value = fields.value.map(|raw| Decimal::parse(raw.get()).ok_or(UNREADABLE)).transpose()?;
    let id = id.filter(|id| !id.is_empty()).ok_or(NO_ID)?;
    // A payment below zero is invalid, although the original accepted it. So is one that rounds to zero.
    let value = value.filter(|value| !value.is_zero() && !value.is_negative()).ok_or(NO_VALUE)?;
    let of = currency.as_deref().unwrap_or_default();
    let amount =
        Some(inbound.amount(&value, of, UNREADABLE)?).filter(|minor| minor.units > 0).ok_or(NO_VALUE)?;
    let currency = currency.filter(|currency| !currency.is_empty()).ok_or(NO_CURRENCY)?;
    Ok(Charge { customer_id: customer_id.unwrap_or(0), currency, amount, reference: Some(id) })
}

#[derive(Serialize)]
struct PaymentReply<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

fn encode(decision: &Decision<'_>) -> (StatusCode, String) {
    let error = (!decision.charged).then_some("payment was refused");
    let status = if decision.charged { StatusCode::OK } else { StatusCode::PAYMENT_REQUIRED };
    let reply = PaymentReply { id: decision.reference.unwrap_or_default(), error };
    (status, serde_json::to_string(&reply).expect("a struct of texts is JSON"))
}
