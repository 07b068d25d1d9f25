//! `/v1/resolutions`: the audit trail of operators' decisions, oldest first. Read-only; `attempts` has the route that
//! writes decisions.

use api::billing::{Decision, Resolution};
use axum::extract::State;
use axum::response::Response;
use chassis::problem::Problem;
use http::{StatusCode, Uri};

use super::page::{Params, format_timestamp, json_response, page};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::store::ResolutionRow;

fn to_resolution(row: &ResolutionRow) -> Resolution {
    let decision = if row.resolution.charged { Decision::Charged } else { Decision::NotCharged };
    Resolution {
        id: row.id,
        key: row.resolution.key.to_string(),
        reference: row.reference.as_str().to_owned(),
        decision: decision.as_str().into(),
        attempt_from: row.attempt.map(|(from, _)| from.as_str().into()),
        attempt_to: row.attempt.map(|(_, to)| to.as_str().into()),
        invoice_from: row.invoice.map(|(from, _)| from.as_str().into()),
        invoice_to: row.invoice.map(|(_, to)| to.as_str().into()),
        reason: row.resolution.reason.clone(),
        actor: row.resolution.actor.clone(),
        created_at: format_timestamp(row.created_at),
    }
}

/// `GET /v1/resolutions?after=&limit=`
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let rows = state.store.resolutions(after, limit).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &page(&rows, limit, to_resolution, |row| row.id.to_string())))
}
