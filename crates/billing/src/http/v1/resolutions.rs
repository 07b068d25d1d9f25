//! `/v1/resolutions`: the audit trail of operators' decisions, oldest first.
//! Read-only; `attempts` has the writing side.

use axum::extract::State;
use axum::response::Response;
use chassis::problem::Problem;
use http::{StatusCode, Uri};
use serde::Serialize;

use super::page::{Page, Params, answer, time};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::store::ResolutionRow;

/// A decision as `/v1` shows it.
#[derive(Serialize)]
struct Item {
    id: i64,
    key: String,
    reference: String,
    decision: &'static str,
    attempt_from: Option<&'static str>,
    attempt_to: Option<&'static str>,
    invoice_from: Option<&'static str>,
    invoice_to: Option<&'static str>,
    reason: String,
    actor: String,
    created_at: String,
}

impl Item {
    fn of(row: &ResolutionRow) -> Self {
        Self {
            id: row.id,
            key: row.resolution.key.to_string(),
            reference: row.reference.as_str().to_owned(),
            decision: if row.resolution.charged { "charged" } else { "not_charged" },
            attempt_from: row.attempt.map(|(from, _)| from.as_str()),
            attempt_to: row.attempt.map(|(_, to)| to.as_str()),
            invoice_from: row.invoice.map(|(from, _)| from.as_str()),
            invoice_to: row.invoice.map(|(_, to)| to.as_str()),
            reason: row.resolution.reason.clone(),
            actor: row.resolution.actor.clone(),
            created_at: time(row.created_at),
        }
    }
}

/// `GET /v1/resolutions?after=&limit=`
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let rows = state.store.resolutions(after, limit).await.map_err(|error| problem_of(&error))?;
    Ok(answer(StatusCode::OK, &Page::new(&rows, limit, Item::of, |row| row.id.to_string())))
}
