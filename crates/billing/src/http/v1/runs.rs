//! `/v1/runs`: start or join a run, and follow its progress.
//! Knows what a run shows, not how it charges.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chassis::problem::Problem;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};

use super::body;
use super::page::{answer, time};
use super::unknown;
use crate::charge;
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::{Run, RunId, RunProblem};
use crate::provider::answer::Reason;
use crate::store::{self, StoreError};

/// A run as `/v1` shows it.
#[derive(Serialize)]
struct RunItem {
    id: i64,
    state: &'static str,
    joined: bool,
    started_at: String,
    finished_at: Option<String>,
    begun_by: Option<String>,
    total: i64,
    attempted: i64,
    paid: i64,
    refused: i64,
    rejected: i64,
    in_doubt: i64,
    not_sent: i64,
    all_paid: bool,
    last_problem: Option<ProblemItem>,
}

/// The body of a start: there is nothing to choose. A field that were ignored, such as `dry_run`, would charge.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// What kept a run from charging.
#[derive(Serialize)]
pub(super) struct ProblemItem {
    reason: String,
    status: Option<i64>,
    count: i64,
    hint: &'static str,
}

impl ProblemItem {
    pub(super) fn of(problem: RunProblem) -> Self {
        let RunProblem { reason, status, count } = problem;
        let hint = reason.parse::<Reason>().ok().map_or("see billing's log", Reason::hint);
        Self { reason, status, count, hint }
    }
}

impl RunItem {
    fn of(run: &Run, joined: bool, all_paid: bool) -> Self {
        let counters = run.counters;
        Self {
            id: run.id.0,
            state: run.state.as_str(),
            joined,
            started_at: time(run.started_at),
            finished_at: run.finished_at.map(time),
            begun_by: run.begun_by.clone(),
            total: counters.total,
            attempted: counters.attempted,
            paid: counters.paid,
            refused: counters.refused,
            rejected: counters.rejected,
            in_doubt: counters.in_doubt,
            not_sent: counters.not_sent,
            all_paid,
            last_problem: None,
        }
    }
}

/// `POST /v1/runs`: starts a run, or joins the unfinished one; 202 with `Location`.
pub(in crate::http) async fn start(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body::bytes(body)?;
    if !body.trim_ascii().is_empty() {
        let NoFields {} = body::read(&body, "empty or {}")?;
    }
    let begin = async || {
        let started = state.engine.pay().await?;
        let Some(item) = read(&state, started.run, started.joined).await? else {
            return Err(StoreError::Corrupt(format!("run {} is gone as soon as it began", started.run.0)));
        };
        Ok(item)
    };
    let item = begin().await.map_err(|error: StoreError| problem_of(&error))?;
    let location = [(header::LOCATION, format!("/v1/runs/{}", item.id))];
    Ok((location, answer(StatusCode::ACCEPTED, &item)).into_response())
}

/// `GET /v1/runs/{id}`.
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(|| unknown("run"))?;
    let found = read(&state, RunId(id), false).await.map_err(|error| problem_of(&error))?;
    Ok(answer(StatusCode::OK, &found.ok_or_else(|| unknown("run"))?))
}

async fn read(state: &AppState, id: RunId, joined: bool) -> store::Result<Option<RunItem>> {
    let Some(run) = state.store.run(id).await? else { return Ok(None) };
    let all_paid = state.store.counts().await?.all_paid();
    // What a driver of this process met is newer than what was kept.
    let met = state.engine.last_problem(id).map(charge::Problem::stored);
    let last_problem = met.or(run.problem.clone()).map(ProblemItem::of);
    Ok(Some(RunItem { last_problem, ..RunItem::of(&run, joined, all_paid) }))
}
