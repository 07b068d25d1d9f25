//! `/v1/ledger/accept`: an operator's decision to accept another ledger after the provider's was replaced.
//! Knows the fields of the decision, not its effect.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::attempts::validate_reason_and_actor;
use super::page::answer;
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::store::LedgerAcceptance;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptRequest {
    ledger_id: String,
    reason: String,
    actor: String,
}

#[derive(Serialize)]
struct Accepted {
    ledger_from: Option<String>,
    ledger_to: String,
}

/// `POST /v1/ledger/accept`
pub(in crate::http) async fn accept(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|error| Problem::new(error.status()).detail("the body could not be read"))?;
    let asked: AcceptRequest = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("the body must be {{\"ledger_id\",\"reason\",\"actor\"}}: {error}");
        Problem::validation(Vec::new()).detail(detail)
    })?;
    let ledger_id = Uuid::parse_str(&asked.ledger_id)
        .map_err(|_| Problem::validation(vec![FieldError::new("ledger_id", "must be a UUID")]))?;
    validate_reason_and_actor(&asked.reason, &asked.actor)?;
    let ledger_id = ledger_id.to_string();
    let acceptance = LedgerAcceptance { ledger_id, reason: asked.reason, actor: asked.actor };
    let former = state.engine.accept_ledger(&acceptance).await.map_err(|error| problem_of(&error))?;
    Ok(answer(StatusCode::OK, &Accepted { ledger_from: former, ledger_to: acceptance.ledger_id }))
}
