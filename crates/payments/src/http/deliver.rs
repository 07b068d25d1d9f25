//! The shared part of all legacy routes: one delivery from head to response, with key, ledger check, faults and the
//! echoed key. Knows no wire format: each route provides functions that read a body and encode a decision.

use api::payments::ReferenceCharged;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use chassis::caller::Account;
use chassis::currency::{EXPONENT_OF_HUNDREDTHS, exponent_of};
use chassis::problem::{CONTENT_TYPE as PROBLEM, FieldError, Problem};
use chassis::server::{Connection, NOT_EXECUTED, NotExecuted, Shed};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{App, half, pieces};
use crate::amount::{BadAmount, Decimal, Minor};
use crate::charge::{self, Answer, Charge, ChargeReply, ResponseFault};
use crate::declines::Decline;
use crate::faults::script::StatusFault;
use crate::keys::Key;
use crate::ledger::{LedgerId, Seq};

mod preconditions;

pub(super) use preconditions::{behind, check_deployment, check_ledger, not_executed, read_seen};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Header of a keyed answer: why a charge was refused.
const DECLINE: HeaderName = HeaderName::from_static("decline");
/// Header of a keyed answer: the row from which it was given.
pub(super) const LEDGER_SEQ: HeaderName = HeaderName::from_static("ledger-seq");
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// Maximum size of a charge's body; real ones have a few hundred bytes. The server's own limit applies first.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Maximum number of bytes of a body that the log shows.
const LOGGED_BYTES_MAX: usize = 2048;

/// A legacy route.
pub(super) struct RouteFormat {
    pub(super) route: &'static str,
    /// Content type of its responses.
    pub(super) content_type: &'static str,
    /// Decodes a request.
    pub(super) read: fn(&Inbound<'_>) -> Result<Charge, Invalid>,
    /// Encodes a decision.
    pub(super) encode: fn(&Decision<'_>) -> (StatusCode, String),
}

/// The request that a route reads.
pub(super) struct Inbound<'a> {
    pub(super) body: &'a [u8],
    pub(super) query: Option<&'a str>,
    /// Whether the amount must be exact: true with a key; legacy clients' amounts are rounded.
    exact: bool,
}

/// The decision that a route encodes.
pub(super) struct Decision<'a> {
    pub(super) charged: bool,
    pub(super) seq: Seq,
    pub(super) ledger_id: LedgerId,
    pub(super) reference: Option<&'a str>,
}

/// Why a request is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// The response has the route's own body.
    Body(&'static str),
    /// A keyed amount has more decimals than its currency; the value is the currency's decimals.
    TooPrecise(u8),
}

impl Inbound<'_> {
    /// A number in minor units: with a key those of its currency, else hundredths. `too_large` is the route's error for
    /// an amount that no ledger holds.
    pub(super) fn amount(
        &self,
        value: &Decimal,
        currency: &str,
        too_large: Invalid,
    ) -> Result<Minor, Invalid> {
        let exponent = if self.exact { exponent_of(currency) } else { EXPONENT_OF_HUNDREDTHS };
        let units = if self.exact { value.minor_exact(exponent) } else { value.minor_rounded() };
        let units = units.map_err(|bad| match bad {
            BadAmount::TooLarge => too_large,
            BadAmount::TooPrecise => Invalid::TooPrecise(exponent),
        })?;
        Ok(Minor { units, exponent })
    }
}

/// Handles one delivery; every keyed answer echoes its key.
pub(super) async fn deliver(app: &App, format: &'static RouteFormat, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let key = match read_key(&head.headers) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let echo = key.as_ref().map(|key| HeaderValue::from_str(key.as_str()).expect("a key is visible ASCII"));
    let mut response = match admit(app, format, &head, key, body).await {
        // The body, the caller's deployment and a place may have been waited for.
        Ok(_) if head.extensions.get::<Connection>().is_some_and(Connection::is_abandoned) => {
            Shed::default().answer(&head.uri, NotExecuted::CallerGone)
        }
        Ok(request) => execute(app, format, &head, request).await,
        Err(refusal) => refusal,
    };
    if let Some(echo) = echo {
        response.headers_mut().insert(IDEMPOTENCY_KEY, echo);
    }
    response
}

/// Makes every decision that comes before the execution.
async fn admit(
    app: &App,
    format: &'static RouteFormat,
    head: &Parts,
    key: Option<Key>,
    body: Body,
) -> Result<charge::Request, Response> {
    check_ledger(app, &head.headers).map_err(not_executed)?;
    let seen = read_seen(&head.headers).map_err(IntoResponse::into_response)?;
    let account =
        head.extensions.get::<Account>().cloned().expect("the guard lets no one in without an account");
    let deployment = check_deployment(app, &head.headers, &account).await?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE).into_response())?;
    let shown = &body[..body.len().min(LOGGED_BYTES_MAX)];
    tracing::debug!("{}", String::from_utf8_lossy(shown));
    let inbound = Inbound { body: &body, query: head.uri.query(), exact: key.is_some() };
    let charge = (format.read)(&inbound).map_err(|invalid| match invalid {
        Invalid::Body(body) => answer(format, StatusCode::BAD_REQUEST, body),
        Invalid::TooPrecise(most) => {
            let rule = format!("has more decimals than its currency ({most}); with a key nothing is rounded");
            Problem::validation(vec![FieldError::new("value", rule)]).into_response()
        }
    })?;
    Ok(charge::Request { account, key, charge, route: format.route, deployment, seen })
}

async fn execute(
    app: &App,
    format: &'static RouteFormat,
    head: &Parts,
    request: charge::Request,
) -> Response {
    let reference = request.charge.reference.clone();
    let is_keyed = request.key.is_some();
    let ChargeReply { answer, response_fault } = app.0.charger.charge(request).await;
    let row = answer.row();
    let mut response = match answer {
        Answer::Decided { seq, charged, decline, replayed } => {
            let ledger_id = app.0.ledger_id;
            let reference = reference.as_deref();
            let (status, body) = (format.encode)(&Decision { charged, seq, ledger_id, reference });
            let mut response = decision_response(format, status, body, replayed, response_fault.as_ref());
            if is_keyed && !charged {
                add_decline_header(&mut response, decline);
            }
            response
        }
        Answer::Nothing => Problem::new(StatusCode::INTERNAL_SERVER_ERROR).into_response(),
        Answer::Overloaded | Answer::NotDurable => {
            ([(NOT_EXECUTED, "true")], unavailable_response()).into_response()
        }
        Answer::KeyInFlight => {
            let problem = Problem::named(
                StatusCode::CONFLICT,
                "key-in-flight",
                "Another delivery of this key is being executed",
            );
            ([(header::RETRY_AFTER, RETRY_AFTER_S)], problem).into_response()
        }
        Answer::KeyForeign => key_foreign_response(),
        Answer::KeyVoided(_) => {
            Problem::named(StatusCode::GONE, "key-voided", "This key was voided and will never be charged")
                .into_response()
        }
        Answer::KeyReused(_) => Problem::named(
            StatusCode::UNPROCESSABLE_ENTITY,
            "key-reused",
            "This key came with another customer, currency, amount or reference before",
        )
        .into_response(),
        Answer::ReferenceCharged(_, key) => reference_charged_response(key.as_ref()),
        Answer::LedgerBehind => behind(),
        Answer::NotServing => not_serving_response(),
        Answer::Unavailable => unavailable_response(),
    };
    if let (true, Some(Seq(seq))) = (is_keyed, row) {
        response.headers_mut().insert(LEDGER_SEQ, HeaderValue::from(seq));
    }
    apply_response_fault(app, head, response, response_fault).await
}

/// The answer for a decision. A fault may split its body in two.
fn decision_response(
    format: &RouteFormat,
    status: StatusCode,
    mut body: String,
    replayed: bool,
    response_fault: Option<&ResponseFault>,
) -> Response {
    let mut response = if response_fault == Some(&ResponseFault::CutOff) {
        body.truncate(body.len() / 2);
        answer(format, StatusCode::OK, body)
    } else {
        answer(format, status, body)
    };
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Adds a header with the reason of a refusal.
fn add_decline_header(response: &mut Response, decline: Option<Decline>) {
    let text = decline.unwrap_or(Decline::GENERIC).to_string();
    response.headers_mut().extend(HeaderValue::from_str(&text).ok().map(|value| (DECLINE, value)));
}

/// Applies a fault to a response.
async fn apply_response_fault(
    app: &App,
    head: &Parts,
    response: Response,
    response_fault: Option<ResponseFault>,
) -> Response {
    let connection = head.extensions.get::<Connection>();
    match response_fault {
        None | Some(ResponseFault::CutOff) => return response,
        Some(ResponseFault::Replace(instead)) => return replacement_response(&instead),
        Some(ResponseFault::Slow(over)) => return pieces::send_slowly(response, over, &app.0.shutdown).await,
        Some(ResponseFault::Truncate) => return pieces::truncate_body(response).await,
        Some(ResponseFault::Hold(wait)) => {
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = app.0.shutdown.draining() => {}
            }
            return response;
        }
        Some(ResponseFault::Fail) => {}
        Some(ResponseFault::Lose) => connection.into_iter().for_each(Connection::close),
        Some(ResponseFault::Reset) => connection.into_iter().for_each(Connection::reset),
    }
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}

/// The answer of a script instead of the real one.
fn replacement_response(instead: &StatusFault) -> Response {
    let mut response = Response::new(Body::from(instead.body.clone()));
    *response.status_mut() = StatusCode::from_u16(instead.status).expect("a script's status was checked");
    let content_type = HeaderValue::from_str(&instead.content_type).ok();
    let retry_after = instead.retry_after_s.map(HeaderValue::from);
    let headers = response.headers_mut();
    headers.extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
    headers.extend(retry_after.map(|value| (header::RETRY_AFTER, value)));
    response
}

/// A response in the route's format.
fn answer(format: &RouteFormat, status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(half::body(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type));
    response
}

/// The answer for a reference that was charged, with the key of that charge.
fn reference_charged_response(key: Option<&Key>) -> Response {
    let status = StatusCode::CONFLICT;
    let title = "This reference was charged already; nothing was executed";
    let problem = Problem::named(status, "reference-charged", title);
    let detail =
        "`key` charged it (null: a request without a key did); a retry sends the key of the first try";
    let body = ReferenceCharged {
        type_: problem.type_,
        title: problem.title,
        status: status.as_u16(),
        detail: detail.into(),
        key: key.map(|key| key.as_str().to_owned()),
    };
    let body = serde_json::to_string(&body).expect("texts and a number are JSON");
    (status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response()
}

/// The answer for a key of another account: it contains nothing else.
pub(super) fn key_foreign_response() -> Response {
    Problem::named(StatusCode::FORBIDDEN, "key-foreign", "This key belongs to another account")
        .into_response()
}

/// The answer when the ledger failed. It is not marked as not executed, since a commit that seemed to fail may turn out
/// to have succeeded.
pub(super) fn unavailable_response() -> Response {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("the ledger cannot be used now");
    ([(header::RETRY_AFTER, RETRY_AFTER_S)], problem).into_response()
}

/// The answer of a ledger that may lack rows: nothing was executed, and nothing will be executed until an operator
/// acts.
pub(super) fn not_serving_response() -> Response {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .detail("the ledger was copied or restored and executes nothing; an operator must act: see /readyz");
    ([(header::RETRY_AFTER, RETRY_AFTER_S), (NOT_EXECUTED, HeaderValue::from_static("true"))], problem)
        .into_response()
}

fn read_key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let key = value.to_str().ok().and_then(Key::parse).filter(|_| given.next().is_none());
    match key {
        Some(key) => Ok(Some(key)),
        None => Err(bad_key_problem("Idempotency-Key")),
    }
}

/// The problem of an invalid key; `field` is where the request has it.
pub(super) fn bad_key_problem(field: &str) -> Problem {
    let rule = format!("is not one key of 1 to {} visible ASCII characters without quotes", Key::LEN_MAX);
    Problem::validation(vec![FieldError::new(field, rule)])
}
