//! `/v1/ledger/unbacked-acknowledgements`: invoices PAID by a charge whose row the provider's ledger has lost, with an
//! operator's acceptance. They are kept for ever, and `tinjis verify` no longer reports these invoices as unbacked in
//! that ledger. Knows no ledger: the caller must check whether the row is lost.

use api::billing::{UnbackedAcknowledgement as Item, UnbackedAcknowledgementRequest};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use http::{StatusCode, Uri};
use uuid::Uuid;

use super::attempts::validate_reason_and_actor;
use super::page::{Params, format_timestamp, json_response, page};
use super::{body, not_found_problem};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::Reference;
use crate::store::{UnbackedAcknowledgement, UnbackedAcknowledgementRow};

fn to_item(row: &UnbackedAcknowledgementRow) -> Item {
    let UnbackedAcknowledgement { ledger_id, reference, reason, actor } = row.acknowledgement.clone();
    let (reference, created_at) = (reference.as_str().to_owned(), format_timestamp(row.created_at));
    Item { id: row.id, ledger_id, reference, reason, actor, created_at }
}

/// `GET /v1/ledger/unbacked-acknowledgements?after=&limit=`
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let rows = state.store.unbacked_acknowledgements(after, limit).await;
    let rows = rows.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &page(&rows, limit, to_item, |row| row.id.to_string())))
}

/// `POST /v1/ledger/unbacked-acknowledgements`
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let UnbackedAcknowledgementRequest { ledger_id, reference, reason, actor } =
        body::read(&body::bytes(body)?, r#"{"ledger_id","reference","reason","actor"}"#)?;
    let ledger_id = Uuid::parse_str(&ledger_id)
        .map_err(|_| Problem::validation(vec![FieldError::new("ledger_id", "must be a UUID")]))?;
    validate_reason_and_actor(&reason, &actor)?;
    let reference = Reference::stored(reference).map_err(|_| not_found_problem("invoice"))?;
    let found = state.store.invoice_by_reference(&reference).await.map_err(|error| problem_of(&error))?;
    let reference = found.ok_or_else(|| not_found_problem("invoice"))?.reference;
    let acknowledgement =
        UnbackedAcknowledgement { ledger_id: ledger_id.to_string(), reference, reason, actor };
    let recorded = state.store.acknowledge_unbacked(&acknowledgement).await;
    let recorded = recorded.map_err(|error| problem_of(&error))?.ok_or_else(not_unbacked_problem)?;
    tracing::warn!(
        ledger.id = acknowledgement.ledger_id,
        invoice.reference = acknowledgement.reference.as_str(),
        actor = acknowledgement.actor,
        "an operator acknowledged an invoice whose charge the ledger has lost"
    );
    Ok(json_response(StatusCode::CREATED, &to_item(&recorded)))
}

fn not_unbacked_problem() -> Problem {
    Problem::named(StatusCode::CONFLICT, "not-unbacked", "The invoice cannot be unbacked in this ledger").detail(
        "only an invoice that is PAID by a charge can be, in the ledger that billing settles with; nothing was recorded",
    )
}
