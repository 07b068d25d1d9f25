//! `/v1/invoices/{reference}/hold|release|cancel`, `/v1/customers/{id}/hold|release|instrument-changed|network` and
//! `/v1/charging`: operators stop and resume charging. Knows the fields of an action, not what it does to an attempt.

use api::billing::{Charging, Customer, NetworkRequest, NoteRequest};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use http::StatusCode;

use super::attempts::validate_reason_and_actor;
use super::invoices;
use super::page::{format_timestamp, json_response};
use super::{body, not_found_problem};
use crate::http::error::problem_of;
use crate::http::{AppState, path};
use crate::invoice::{CustomerId, Reference};
use crate::store::StoreError;
use crate::store::control::{Controlled, CustomerAction, Halt, InvoiceAction, OperatorNote};

/// The halt in one line, for operators.
#[must_use]
pub fn stopped_line(halt: &Halt) -> String {
    let Halt { note: OperatorNote { reason, actor }, since } = halt;
    let line = |text: &str| text.replace(char::is_control, " ");
    format!("charging stopped by {} since {}: {}", line(actor), format_timestamp(*since), line(reason))
}

fn parse_note(body: Body) -> Result<OperatorNote, Problem> {
    let NoteRequest { reason, actor } = body::read(&body::bytes(body)?, r#"{"reason","actor"}"#)?;
    validate_reason_and_actor(&reason, &actor)?;
    Ok(OperatorNote { reason, actor })
}

fn store_problem(error: StoreError) -> Problem {
    problem_of(&error)
}

/// The problem for an action that changed nothing. An action whose effect exists already is no problem.
fn check_controlled(controlled: Controlled, what: &str) -> Result<(), Problem> {
    let conflict = |name, title| Problem::named(StatusCode::CONFLICT, name, title);
    match controlled {
        Controlled::Applied | Controlled::Unchanged => Ok(()),
        Controlled::Unknown => Err(not_found_problem(what)),
        Controlled::AttemptOpen => Err(conflict("attempt-open", "An attempt is open")
            .detail("a charge may be on its way; wait until it is settled, or resolve it, then try again")),
        Controlled::Charged => Err(conflict("invoice-charged", "The invoice is charged")
            .detail("an attempt of this invoice is CHARGED: resolve it before anything else")),
        Controlled::Final(state) => Err(conflict("invoice-final", "The invoice is final")
            .detail(format!("the invoice is {state}; nothing was changed"))),
    }
}

type PathText = Result<Path<String>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;
type Answer = Result<Response, Problem>;

/// `POST /v1/invoices/{reference}/hold`
pub(in crate::http) async fn hold_invoice(
    State(state): State<AppState>,
    path: PathText,
    body: Body,
) -> Answer {
    control_invoice(&state, path, body, InvoiceAction::Hold).await
}

/// `POST /v1/invoices/{reference}/release`
pub(in crate::http) async fn release_invoice(
    State(state): State<AppState>,
    path: PathText,
    body: Body,
) -> Answer {
    control_invoice(&state, path, body, InvoiceAction::Release).await
}

/// `POST /v1/invoices/{reference}/cancel`
pub(in crate::http) async fn cancel_invoice(
    State(state): State<AppState>,
    path: PathText,
    body: Body,
) -> Answer {
    control_invoice(&state, path, body, InvoiceAction::Cancel).await
}

/// `POST /v1/customers/{id}/hold`
pub(in crate::http) async fn hold_customer(
    State(state): State<AppState>,
    path: PathText,
    body: Body,
) -> Answer {
    control_customer(&state, path, parse_note(body)?, CustomerAction::Hold).await
}

/// `POST /v1/customers/{id}/release`
pub(in crate::http) async fn release_customer(
    State(state): State<AppState>,
    path: PathText,
    body: Body,
) -> Answer {
    control_customer(&state, path, parse_note(body)?, CustomerAction::Release).await
}

/// `POST /v1/customers/{id}/instrument-changed`
pub(in crate::http) async fn change_instrument(
    State(state): State<AppState>,
    path: PathText,
    body: Body,
) -> Answer {
    control_customer(&state, path, parse_note(body)?, CustomerAction::InstrumentChanged).await
}

/// `POST /v1/customers/{id}/network`
pub(in crate::http) async fn set_network(
    State(state): State<AppState>,
    path: PathText,
    body: Body,
) -> Answer {
    let NetworkRequest { network, reason, actor } =
        body::read(&body::bytes(body)?, r#"{"network","reason","actor"}"#)?;
    let network = network.parse().map_err(|_| {
        let allowed = "must be none, visa, mastercard or sepa";
        Problem::validation(vec![FieldError::new("network", allowed)])
    })?;
    validate_reason_and_actor(&reason, &actor)?;
    control_customer(&state, path, OperatorNote { reason, actor }, CustomerAction::SetNetwork(network)).await
}

/// Answers 200 with the invoice, also when the effect of the action exists already.
async fn control_invoice(state: &AppState, path: PathText, body: Body, action: InvoiceAction) -> Answer {
    let asked = path.ok().and_then(|Path(text)| Reference::stored(text).ok());
    let asked = asked.ok_or_else(|| not_found_problem("invoice"))?;
    let note = parse_note(body)?;
    let find = async || state.store.invoice_by_reference(&asked).await.map_err(store_problem);
    // The stored spelling, which may differ from the caller's.
    let stored = find().await?.ok_or_else(|| not_found_problem("invoice"))?.reference;
    let controlled = state.store.control_invoice(&stored, action, &note).await.map_err(store_problem)?;
    check_controlled(controlled, "invoice")?;
    let invoice = find().await?.ok_or_else(|| not_found_problem("invoice"))?;
    tracing::info!(
        action = action.as_str(),
        invoice.id = invoice.id.0,
        actor = note.actor,
        "operator action"
    );
    Ok(json_response(StatusCode::OK, &invoices::to_item(&invoice)))
}

/// Answers 200 with the customer, also when the effect of the action exists already.
async fn control_customer(
    state: &AppState,
    path: PathText,
    note: OperatorNote,
    action: CustomerAction,
) -> Answer {
    let id = path.ok().and_then(|Path(text)| path::parse_id(&text)).map(CustomerId);
    let id = id.ok_or_else(|| not_found_problem("customer"))?;
    let controlled = state.store.control_customer(id, action, &note).await.map_err(store_problem)?;
    check_controlled(controlled, "customer")?;
    tracing::info!(action = action.as_str(), customer.id = id.0, actor = note.actor, "operator action");
    let customer = state
        .store
        .customer(id)
        .await
        .map_err(store_problem)?
        .ok_or_else(|| not_found_problem("customer"))?;
    let status = state
        .store
        .customer_status(id)
        .await
        .map_err(store_problem)?
        .ok_or_else(|| not_found_problem("customer"))?;
    let item = Customer {
        id: id.0,
        currency: customer.currency.code().into(),
        held: status.held,
        network: Some(status.network.as_str().into()),
        instrument_changed_at: status.instrument_changed_at.map(format_timestamp),
    };
    Ok(json_response(StatusCode::OK, &item))
}

/// `POST /v1/charging/stop`
pub(in crate::http) async fn stop(State(state): State<AppState>, body: Body) -> Answer {
    state.engine.stop_charging(&parse_note(body)?).await.map_err(store_problem)?;
    show(State(state)).await
}

/// `POST /v1/charging/start`
pub(in crate::http) async fn start(State(state): State<AppState>, body: Body) -> Answer {
    state.engine.start_charging(&parse_note(body)?).await.map_err(store_problem)?;
    show(State(state)).await
}

/// `GET /v1/charging`
pub(in crate::http) async fn show(State(state): State<AppState>) -> Answer {
    let halt = state.store.halt().await.map_err(store_problem)?;
    let item = match halt {
        None => Charging { stopped: false, reason: None, actor: None, since: None },
        Some(Halt { note: OperatorNote { reason, actor }, since }) => Charging {
            stopped: true,
            reason: Some(reason),
            actor: Some(actor),
            since: Some(format_timestamp(since)),
        },
    };
    Ok(json_response(StatusCode::OK, &item))
}
