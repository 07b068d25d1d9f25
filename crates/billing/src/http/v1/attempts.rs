//! `/v1/attempts`: the journal in the order of its invoices, and an operator's decision on an attempt. Knows which
//! fields a decision needs, not what it does to an invoice.

use std::str::FromStr;

use api::billing::{Attempt as Item, Decision, REASON_BYTES_MAX, ResolveRequest};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use http::{StatusCode, Uri};

use super::body;
use super::not_found_problem;
use super::page::{Params, format_timestamp, json_response, page};
use crate::charge::{ResolveError, ResolveOutcome};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::{Attempt, AttemptState, InvoiceId};
use crate::protocol::key::Key;
use crate::store::Resolution;

/// The longest body of a resolve call, in bytes.
pub(in crate::http) const RESOLVE_BODY_BYTES_MAX: usize = 16 * 1024;

fn to_item(attempt: &Attempt) -> Item {
    let decline = attempt.decline.as_ref();
    Item {
        key: attempt.key.to_string(),
        invoice_id: attempt.invoice_id.0,
        reference: attempt.reference.as_str().to_owned(),
        number: attempt.number,
        customer_id: attempt.customer_id.0,
        currency: attempt.money.currency.code().into(),
        amount_minor: attempt.money.amount_minor,
        exponent: attempt.money.currency.exponent(),
        state: attempt.state.as_str().into(),
        sends: attempt.sends,
        run_id: attempt.run_id.0,
        lease_until: format_timestamp(attempt.lease_until),
        created_at: format_timestamp(attempt.created_at),
        settled_at: attempt.settled_at.map(format_timestamp),
        decline_class: decline.map(|decline| decline.class.as_str().into()),
        decline_code: decline.and_then(|decline| decline.code.as_ref()).map(|code| code.as_str().to_owned()),
    }
}

/// The position after which a page of attempts starts, written `invoice.number`.
struct Cursor(InvoiceId, u32);

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (invoice, number) = text.split_once('.').ok_or(())?;
        Ok(Self(InvoiceId(invoice.parse().map_err(drop)?), number.parse().map_err(drop)?))
    }
}

/// `GET /v1/attempts?after=&limit=`: attempts by invoice and number.
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let Cursor(invoice, number) = params.after().unwrap_or(Cursor(InvoiceId(i64::MIN), 0));
    let limit = params.limit();
    params.finish()?;
    let rows = state.store.attempts((invoice, number), limit).await.map_err(|error| problem_of(&error))?;
    let cursor = |attempt: &Attempt| format!("{}.{}", attempt.invoice_id.0, attempt.number);
    Ok(json_response(StatusCode::OK, &page(&rows, limit, to_item, cursor)))
}

/// `POST /v1/attempts/{key}/resolve`: records an operator's decision on an attempt; 200 with the attempt.
pub(in crate::http) async fn resolve(
    State(state): State<AppState>,
    key: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let key =
        key.ok().and_then(|Path(text)| Key::parse(&text)).ok_or_else(|| not_found_problem("attempt"))?;
    let resolution = parse_resolution(key.clone(), &body::bytes(body)?)?;
    let charged = resolution.charged;
    let outcome = state.engine.resolve(resolution).await.map_err(resolve_error_problem)?;
    match outcome {
        ResolveOutcome::Unknown => return Err(not_found_problem("attempt")),
        ResolveOutcome::Final(state) if charged != (state == AttemptState::Charged) => {
            let detail = format!("the attempt is {state} already; nothing was changed");
            return Err(conflict_problem("attempt-final", "The attempt is final").detail(detail));
        }
        ResolveOutcome::Final(_) | ResolveOutcome::Applied => {}
    }
    let attempt = state.store.attempt(&key).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &to_item(&attempt.ok_or_else(|| not_found_problem("attempt"))?)))
}

fn parse_resolution(key: Key, body: &[u8]) -> Result<Resolution, Problem> {
    let decision: ResolveRequest = body::read(body, r#"{"decision","reason","actor"}"#)?;
    validate_reason_and_actor(&decision.reason, &decision.actor)?;
    let charged = decision.decision == Decision::Charged;
    Ok(Resolution { key, charged, reason: decision.reason, actor: decision.actor })
}

fn conflict_problem(name: &str, title: &'static str) -> Problem {
    Problem::named(StatusCode::CONFLICT, name, title)
}

/// The problem for a decision that the engine rejected.
fn resolve_error_problem(error: ResolveError) -> Problem {
    match error {
        ResolveError::Store(error) => problem_of(&error),
        ResolveError::ReasonMissing => {
            Problem::validation(vec![FieldError::new("reason", "is needed where no key can be voided")])
        }
        ResolveError::TooEarly(left) => {
            let detail = format!("a request may still be alive; ask again in {} s", left.as_secs() + 1);
            conflict_problem("attempt-alive", "The attempt may still be executed").detail(detail)
        }
        ResolveError::ChargedThere => {
            conflict_problem("attempt-charged", "The provider has charged this attempt")
                .detail("the ledger holds a charge under this key; decide `charged`")
        }
        ResolveError::OtherCharged => conflict_problem("invoice-charged", "The invoice is charged already")
            .detail(
                "another attempt of this invoice is charged: pay this one back, then decide `not_charged`",
            ),
        ResolveError::NotVoided(cause) => {
            tracing::error!(cause, "the provider did not void a key");
            Problem::named(StatusCode::BAD_GATEWAY, "key-not-voided", "The provider did not void the key")
                .detail("nothing was changed; see the log, and try again")
        }
    }
}

/// Validates the reason and the actor of a decision.
pub(super) fn validate_reason_and_actor(reason: &str, actor: &str) -> Result<(), Problem> {
    let errors: Vec<FieldError> = [("reason", reason), ("actor", actor)]
        .into_iter()
        .filter(|(_, words)| words.trim().is_empty() || words.len() > REASON_BYTES_MAX)
        .map(|(field, _)| FieldError::new(field, format!("must have 1 to {REASON_BYTES_MAX} bytes")))
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
}
