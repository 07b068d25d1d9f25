//! `/v1/ledger/accept`: an operator's decision to accept another ledger after the provider's was replaced.
//! Knows the fields of the decision, not its effect.

use api::billing::{AcceptRequest, Accepted};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use http::StatusCode;
use uuid::Uuid;

use super::attempts::validate_reason_and_actor;
use super::body;
use super::page::json_response;
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::store::LedgerAcceptance;

/// `POST /v1/ledger/accept`
pub(in crate::http) async fn accept(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let asked: AcceptRequest = body::read(&body::bytes(body)?, r#"{"ledger_id","reason","actor"}"#)?;
    let ledger_id = Uuid::parse_str(&asked.ledger_id)
        .map_err(|_| Problem::validation(vec![FieldError::new("ledger_id", "must be a UUID")]))?;
    validate_reason_and_actor(&asked.reason, &asked.actor)?;
    let ledger_id = ledger_id.to_string();
    ensure_exists(&state, &ledger_id).await?;
    let acceptance = LedgerAcceptance { ledger_id, reason: asked.reason, actor: asked.actor };
    let former = state.engine.accept_ledger(&acceptance).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &Accepted { ledger_from: former, ledger_to: acceptance.ledger_id }))
}

/// Accepting an id of no ledger would stop charging until the next acceptance.
async fn ensure_exists(state: &AppState, ledger_id: &str) -> Result<(), Problem> {
    let unknown = |status, detail| {
        Err(Problem::named(status, "ledger-unknown", "The provider does not have this ledger").detail(detail))
    };
    match state.engine.provider_ledger().await {
        Ok(Some(named)) if named == ledger_id => Ok(()),
        Ok(Some(named)) => {
            unknown(StatusCode::CONFLICT, format!("the provider's ledger is {named}; nothing was changed"))
        }
        Ok(None) => {
            unknown(StatusCode::CONFLICT, "the provider names no ledger; nothing was changed".to_owned())
        }
        Err(why) => {
            tracing::warn!(error = why, "the provider could not be asked for its ledger");
            let detail =
                "the provider did not respond, so its ledger is not known; nothing was changed, try again";
            unknown(StatusCode::BAD_GATEWAY, detail.to_owned())
        }
    }
}
