//! `POST /payments`, as the payments app of the challenge had it: JSON, a form or a query; results are booleans.
//! Knows no other wire format.

use std::borrow::Cow;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use sha2::{Digest, Sha256};

use super::App;
use super::deliver::{Decision, Inbound, Invalid, RouteFormat, deliver};
use super::fields::{self, Currency, Field, Fields, TEXT_LEN_MAX};
use crate::amount::Decimal;
use crate::charge::Charge;
use crate::keys::hex;

const FORMAT: RouteFormat =
    RouteFormat { route: "/payments", content_type: "application/json", read, encode };

const MISSING: Invalid = Invalid::Body(r#"{"result":false,"message":"missing parameter"}"#);
const INVALID: Invalid = Invalid::Body(r#"{"result":false,"message":"invalid value"}"#);

/// Bytes of a payment's id, which is written in hex digits.
const ID_BYTES: usize = 10;

/// `POST /payments`
pub(super) async fn pay(State(app): State<App>, request: Request) -> Response {
    deliver(&app, &FORMAT, request).await
}

/// The parameters as texts, from any kind of request.
#[derive(Debug, Default)]
struct Parameters<'a> {
    customer_id: Option<Cow<'a, str>>,
    currency: Option<Currency>,
    value: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
}

fn read(inbound: &Inbound<'_>) -> Result<Charge, Invalid> {
    let mut parameters = Parameters::default();
    parameters.add_form(inbound.query.unwrap_or_default().as_bytes())?;
    if inbound.body.trim_ascii_start().starts_with(b"{") {
        parameters.add_json(inbound.body)?;
    } else {
        parameters.add_form(inbound.body)?;
    }
    let customer_id = parameters.customer_id.ok_or(MISSING)?;
    let currency = parameters.currency.and_then(Currency::into_ledger_text).ok_or(MISSING)?;
    let value = parameters.value.ok_or(MISSING)?;
    let customer_id = customer_id.parse().ok().filter(|id: &i64| *id >= 0).ok_or(INVALID)?;
    let value = Decimal::parse(&value).filter(|value| !value.is_negative()).ok_or(INVALID)?;
    let amount = inbound.amount(&value, &currency, INVALID)?;
    let reference = parameters.id.map(Cow::into_owned);
    let is_unfit = |text: &str| text.len() > TEXT_LEN_MAX || text.contains('\0');
    if is_unfit(&currency) || reference.as_deref().is_some_and(is_unfit) {
        return Err(INVALID);
    }
    Ok(Charge { customer_id, currency, amount, reference })
}

impl<'a> Parameters<'a> {
    fn add_json(&mut self, body: &'a [u8]) -> Result<(), Invalid> {
        let fields = Fields::parse(body).map_err(|_| MISSING)?;
        put(&mut self.customer_id, json_text(fields.customer_id)?)?;
        put(&mut self.value, json_text(fields.value)?)?;
        put(&mut self.id, json_text(fields.id)?)?;
        put(&mut self.currency, fields.currency.map(fields::currency).transpose().map_err(|_| INVALID)?)
    }

    fn add_form(&mut self, form: &'a [u8]) -> Result<(), Invalid> {
        for (name, value) in form_urlencoded::parse(form) {
            let value = Some(value).filter(|value| !value.is_empty());
            match name.to_ascii_lowercase().as_str() {
                "customer_id" => put(&mut self.customer_id, value)?,
                "value" => put(&mut self.value, value)?,
                "id" => put(&mut self.id, value)?,
                "currency" => {
                    put(&mut self.currency, value.map(|text| Currency::Text(text.into_owned())))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Stores a parameter; one that is given twice is an error.
fn put<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Invalid> {
    match (&slot, value) {
        (Some(_), Some(_)) => Err(INVALID),
        (None, value @ Some(_)) => {
            *slot = value;
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

/// The text of a number or a text, as a form would have it.
fn json_text(field: Field<'_>) -> Result<Option<Cow<'_, str>>, Invalid> {
    let Some(raw) = field else { return Ok(None) };
    match raw.get().as_bytes() {
        [b'"', ..] => fields::text(raw).map(|text| Some(Cow::Owned(text))).map_err(|_| INVALID),
        [b'-' | b'0'..=b'9', ..] => Ok(Some(Cow::Borrowed(raw.get()))),
        _ => Err(INVALID),
    }
}

/// The id of a payment, derived from ledger and row, so that a replay returns the same one.
fn payment_id(decision: &Decision<'_>) -> String {
    let mut hash = Sha256::new();
    hash.update(decision.ledger_id.0.as_bytes());
    hash.update(decision.seq.0.to_be_bytes());
    hex(&hash.finalize()[..ID_BYTES])
}

fn encode(decision: &Decision<'_>) -> (StatusCode, String) {
    if decision.charged {
        (StatusCode::CREATED, format!(r#"{{"id":"{}","result":true}}"#, payment_id(decision)))
    } else {
        let refused = r#"{"result":false,"message":"cannot process payment"}"#;
        (StatusCode::UNPROCESSABLE_ENTITY, refused.to_owned())
    }
}
