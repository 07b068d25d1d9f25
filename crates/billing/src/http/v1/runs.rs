//! `/v1/runs`: start or join a run, preview what it would claim, list runs, and follow their progress. Knows what a run
//! shows, not how it charges.

use std::collections::BTreeMap;

use api::Text;
use api::billing::{REASON_BYTES_MAX, Run as Item, RunDryRun, RunProblem as ProblemItem, RunRequest};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chassis::problem::{FieldError, Problem};
use http::{StatusCode, Uri, header};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::body;
use super::not_found_problem;
use super::page::{Params, format_timestamp, json_response, page};
use crate::charge::{self, StartedRun};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::import_row;
use crate::invoice::{InvoiceId, InvoiceState, Run, RunId, RunProblem, RunState};
use crate::money::Currency;
use crate::provider::answer::Reason;
use crate::run_order::{InvoiceFacts, RunFilter, RunLimits, RunOrder};
use crate::schedule::calendar::parse_date;
use crate::store::{self, BATCH_MAX, Store, StoreError};
use crate::subscription::{minor_text, price_minor};

const SHAPE: &str = "empty or {\"dry_run\",\"max_count\",\"max_amount\",\"customer_id\",\"reference_prefix\",\
     \"due_before\",\"reason\"}";

/// Parses a request into an order; the problem names every mistake.
fn parse_order(request: RunRequest) -> Result<RunOrder, Problem> {
    let mut errors = Vec::new();
    let mut wrong = |field: &str, message: String| errors.push(FieldError::new(field, message));
    if request.max_count.is_some_and(|count| count < 1) {
        wrong("max_count", "must be at least 1".to_owned());
    }
    if request.customer_id.is_some_and(|id| id < 1) {
        wrong("customer_id", "must be at least 1".to_owned());
    }
    if request.reference_prefix.as_ref().is_some_and(|prefix| prefix.is_empty() || prefix.len() > 200) {
        wrong("reference_prefix", "must have 1 to 200 bytes".to_owned());
    }
    if request.reason.as_ref().is_some_and(|text| text.trim().is_empty() || text.len() > REASON_BYTES_MAX) {
        wrong("reason", format!("must have 1 to {REASON_BYTES_MAX} bytes"));
    }
    let mut amounts = BTreeMap::new();
    for (code, amount) in request.max_amount.iter().flatten() {
        let read = import_row::parse_currency(code)
            .and_then(|currency| Ok((currency, price_minor(currency, amount)?)))
            .map(|(currency, most)| amounts.insert(currency, most));
        if let Err(message) = read {
            wrong(&format!("max_amount.{code}"), message);
        }
    }
    let due_before = match request.due_before.as_deref().map(|text| parse_date("due_before", text)) {
        Some(Err(bad)) => {
            wrong("due_before", bad.problem);
            None
        }
        date => date.and_then(Result::ok).and_then(start_of_day_ms),
    };
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let RunRequest { max_count, max_amount, customer_id, reference_prefix, reason, .. } = request;
    let filter = RunFilter { scheduled: false, keeps_days: true, customer_id, reference_prefix, due_before };
    let limits = RunLimits { count: max_count, amounts: max_amount.map(|_| amounts) };
    Ok(RunOrder { filter, limits, reason })
}

/// The start of a day in UTC.
fn start_of_day_ms(date: Date) -> Option<i64> {
    TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight())).ok().map(Timestamp::as_millisecond)
}

pub(super) fn to_problem_item(problem: RunProblem) -> ProblemItem {
    let RunProblem { reason, status, count } = problem;
    let hint = reason.parse::<Reason>().ok().map_or("see billing's log", Reason::hint);
    ProblemItem { reason, status, count, hint: hint.into() }
}

fn charging_stopped_problem() -> ProblemItem {
    let hint = "an operator has stopped all charging: see `GET /v1/charging`; `tinjis start` ends it";
    ProblemItem { reason: "charging-stopped".to_owned(), status: None, count: 0, hint: hint.into() }
}

fn to_item(run: &Run, joined: bool, all_paid: bool) -> Item {
    let counters = run.counters;
    Item {
        id: run.id.0,
        state: match run.state {
            RunState::Running => api::billing::RunState::Running,
            RunState::Finished => api::billing::RunState::Finished,
        },
        joined,
        started_at: format_timestamp(run.started_at),
        finished_at: run.finished_at.map(format_timestamp),
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
        scheduled: run.order.filter.scheduled,
        customer_id: run.order.filter.customer_id,
        reference_prefix: run.order.filter.reference_prefix.clone(),
        due_before: run.order.filter.due_before.map(format_timestamp),
        count_left: run.order.limits.count,
        amounts_left: run.order.limits.amounts.as_ref().map(format_amounts),
        reason: run.order.reason.clone(),
    }
}

fn format_amounts(minor: &BTreeMap<Currency, i64>) -> BTreeMap<Text, String> {
    minor.iter().map(sum_text).collect()
}

/// `POST /v1/runs`: starts a run, or joins the unfinished one if that claims all that is asked for; 202 with
/// `Location`. A dry run answers 200 with what would be claimed.
pub(in crate::http) async fn start(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body::bytes(body)?;
    let request: RunRequest = match body.trim_ascii().is_empty() {
        true => RunRequest::default(),
        false => body::read(&body, SHAPE)?,
    };
    let is_dry = request.dry_run;
    let order = parse_order(request)?;
    if is_dry {
        let would = would_claim(state.store.as_ref(), order).await.map_err(|error| problem_of(&error))?;
        return Ok(json_response(StatusCode::OK, &would));
    }
    let started = match state.engine.begin_run(order).await.map_err(|error| problem_of(&error))? {
        StartedRun::Started(started) => started,
        StartedRun::Busy(run) => {
            let busy = Problem::named(StatusCode::CONFLICT, "run-unfinished", "Another run is unfinished");
            let detail = format!(
                "run {} claims other invoices and is unfinished; start this one when it has ended",
                run.0
            );
            return Err(busy.detail(detail));
        }
    };
    let begin = async || {
        let Some(item) = read(&state, started.run, started.joined).await? else {
            return Err(StoreError::Corrupt(format!("run {} is gone as soon as it began", started.run.0)));
        };
        Ok(item)
    };
    let item = begin().await.map_err(|error: StoreError| problem_of(&error))?;
    let location = [(header::LOCATION, format!("/v1/runs/{}", item.id))];
    Ok((location, json_response(StatusCode::ACCEPTED, &item)).into_response())
}

/// `GET /v1/runs/{id}`.
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id.ok().and_then(|Path(text)| text.parse().ok()).ok_or_else(|| not_found_problem("run"))?;
    let found = read(&state, RunId(id), false).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &found.ok_or_else(|| not_found_problem("run"))?))
}

/// `GET /v1/runs?after=&limit=`: runs by id.
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let read = async || -> store::Result<(Vec<Run>, bool)> {
        Ok((state.store.runs(RunId(after), limit).await?, state.store.counts().await?.all_paid()))
    };
    let (runs, all_paid) = read().await.map_err(|error| problem_of(&error))?;
    let rows: Vec<(Run, bool)> = runs.into_iter().map(|run| (run, all_paid)).collect();
    let shown = |(run, all_paid): &(Run, bool)| {
        let last_problem = run.problem.clone().map(to_problem_item);
        Item { last_problem, ..to_item(run, false, *all_paid) }
    };
    Ok(json_response(StatusCode::OK, &page(&rows, limit, shown, |(run, _)| run.id.0.to_string())))
}

/// What a run with this order would claim, under the rules of the claims. Attempts in doubt are not counted.
async fn would_claim(store: &dyn Store, order: RunOrder) -> store::Result<RunDryRun> {
    let RunOrder { filter, mut limits, .. } = order;
    let now_ms = store.now_ms().await?;
    let is_stopped = store.halt().await?.is_some();
    let mut holds = BTreeMap::new();
    let (mut after, mut count, mut sums) = (InvoiceId(i64::MIN), 0, BTreeMap::<Currency, i64>::new());
    loop {
        let page = store.invoices(Some(InvoiceState::Pending), after, BATCH_MAX).await?;
        for invoice in page.iter().filter(|invoice| !is_stopped && !invoice.held) {
            let is_held = match holds.get(&invoice.customer_id) {
                Some(is_held) => *is_held,
                None => store.customer_status(invoice.customer_id).await?.is_some_and(|status| status.held),
            };
            if holds.len() < BATCH_MAX {
                holds.insert(invoice.customer_id, is_held);
            }
            if is_held {
                continue;
            }
            let facts = InvoiceFacts {
                reference: invoice.reference.as_str(),
                customer_id: invoice.customer_id,
                due_at: invoice.due_at,
                next_attempt_at: invoice.next_attempt_at,
                dunning: invoice.dunning,
            };
            if filter.admits(&facts, now_ms) && limits.take(invoice.money) {
                count += 1;
                let sum = sums.entry(invoice.money.currency).or_default();
                *sum = sum.saturating_add(invoice.money.amount_minor);
            }
        }
        match page.last() {
            Some(last) if page.len() == BATCH_MAX && !limits.is_used_up() => after = last.id,
            _ => return Ok(RunDryRun { dry_run: true, count, sums: sums.iter().map(sum_text).collect() }),
        }
    }
}

fn sum_text((currency, minor): (&Currency, &i64)) -> (Text, String) {
    (currency.code().into(), minor_text(*currency, *minor))
}

async fn read(state: &AppState, id: RunId, joined: bool) -> store::Result<Option<Item>> {
    let Some(run) = state.store.run(id).await? else { return Ok(None) };
    let all_paid = state.store.counts().await?.all_paid();
    // The problem that a driver in this process has is newer than the stored one.
    let met = state.engine.last_problem(id).map(charge::Problem::stored);
    let mut last_problem = met.or(run.problem.clone()).map(to_problem_item);
    if !all_paid && state.store.halt().await?.is_some() {
        last_problem = Some(charging_stopped_problem());
    }
    Ok(Some(Item { last_problem, ..to_item(&run, joined, all_paid) }))
}
