//! The `/v1` API: rows as stored, pages with cursors, problem+json for errors. Knows no legacy route and no SQL; names
//! and shapes are public and change only by addition.

use api::billing::{Counts, Deployment};
use axum::extract::State;
use axum::response::Response;
use chassis::problem::Problem;
use http::StatusCode;

use super::AppState;
use super::error::problem_of;
use crate::charge;
use crate::invoice::RunState;
use crate::store;

pub(super) mod acknowledgements;
pub(super) mod attempts;
mod body;
pub(super) mod control;
pub(super) mod imports;
pub(super) mod invoices;
pub(super) mod ledgers;
mod look_alikes;
mod ndjson;
mod page;
pub(super) mod repairs;
pub(super) mod resolutions;
mod row;
pub(super) mod runs;
pub(super) mod schedule;
pub(super) mod subscriptions;
pub(super) mod unbacked;

/// `GET /v1/deployment`: the store's deployment id, the ledger that it settles with, whether a run is unfinished, and
/// the number of invoices in each state.
pub(super) async fn deployment(State(state): State<AppState>) -> Result<Response, Problem> {
    let read = async || -> store::Result<Deployment> {
        let counts = state.store.counts().await?;
        let latest = state.store.latest_run().await?;
        let unfinished = latest.as_ref().filter(|run| run.state == RunState::Running);
        let met = state.engine.latest_problem().map(charge::Problem::stored);
        Ok(Deployment {
            deployment_id: state.store.deployment().await?.0.to_string(),
            ledger_id: state.store.ledger_id().await?,
            unfinished_run: unfinished.map(|run| run.id.0),
            last_problem: met
                .or(latest.as_ref().and_then(|run| run.problem.clone()))
                .map(runs::to_problem_item),
            charging_unsent: state.store.unsent_attempts().await?,
            counts: Counts {
                pending: counts.pending,
                charging: counts.charging,
                paid: counts.paid,
                attention: counts.attention,
                cancelled: counts.cancelled,
            },
        })
    };
    let shown = read().await.map_err(|error| problem_of(&error))?;
    Ok(page::json_response(StatusCode::OK, &shown))
}

/// `GET /v1/openapi.json`: the description of this API for programs; needs no token.
pub(super) async fn openapi() -> Response {
    super::json(StatusCode::OK, "application/json", super::OPENAPI)
}

/// The problem for a path that no route of this API has.
pub(super) fn unknown_path_problem() -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail("no route has this path")
}

/// The problem for a known path with an unknown method; the router adds `Allow`.
pub(super) async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED).detail("this path takes other methods; see Allow")
}

/// The problem for a row that does not exist.
fn not_found_problem(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail(format!("no {what} has this name"))
}
