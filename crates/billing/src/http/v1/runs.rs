//! `/v1/runs`: start or join a run, see what it would claim, list runs, and follow their progress.
//! Knows what a run shows, not how it charges.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chassis::problem::{FieldError, Problem};
use http::{StatusCode, Uri, header};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::body;
use super::page::{Page, Params, answer, time};
use super::unknown;
use crate::charge::{self, StartedRun};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::import_row;
use crate::invoice::{InvoiceId, InvoiceState, Run, RunId, RunProblem};
use crate::money::Currency;
use crate::provider::answer::Reason;
use crate::run_order::{InvoiceFacts, RunFilter, RunLimits, RunOrder};
use crate::schedule::calendar::parse_date;
use crate::store::{self, BATCH_MAX, Store, StoreError};
use crate::subscription::{minor_text, price_minor};

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
    scheduled: bool,
    customer_id: Option<i64>,
    reference_prefix: Option<String>,
    due_before: Option<String>,
    /// What its limits leave.
    count_left: Option<i64>,
    amounts_left: Option<BTreeMap<&'static str, String>>,
    reason: Option<String>,
}

/// The body of a start. A field that were ignored, such as `dry_run`, would charge.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    dry_run: bool,
    max_count: Option<i64>,
    max_amount: Option<BTreeMap<String, String>>,
    customer_id: Option<i64>,
    reference_prefix: Option<String>,
    due_before: Option<String>,
    reason: Option<String>,
}

const SHAPE: &str = "empty or {\"dry_run\",\"max_count\",\"max_amount\",\"customer_id\",\"reference_prefix\",\
     \"due_before\",\"reason\"}";

/// The longest reason of a run.
const REASON_BYTES_MAX: usize = 1000;

impl Request {
    /// Every mistake is named.
    fn order(self) -> Result<RunOrder, Problem> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, message: String| errors.push(FieldError::new(field, message));
        if self.max_count.is_some_and(|count| count < 1) {
            wrong("max_count", "must be at least 1".to_owned());
        }
        if self.customer_id.is_some_and(|id| id < 1) {
            wrong("customer_id", "must be at least 1".to_owned());
        }
        if self.reference_prefix.as_ref().is_some_and(|prefix| prefix.is_empty() || prefix.len() > 200) {
            wrong("reference_prefix", "must have 1 to 200 bytes".to_owned());
        }
        if self.reason.as_ref().is_some_and(|text| text.trim().is_empty() || text.len() > REASON_BYTES_MAX) {
            wrong("reason", format!("must have 1 to {REASON_BYTES_MAX} bytes"));
        }
        let mut amounts = BTreeMap::new();
        for (code, amount) in self.max_amount.iter().flatten() {
            let read = import_row::currency(code)
                .and_then(|currency| Ok((currency, price_minor(currency, amount)?)))
                .map(|(currency, most)| amounts.insert(currency, most));
            if let Err(message) = read {
                wrong(&format!("max_amount.{code}"), message);
            }
        }
        let due_before = match self.due_before.as_deref().map(|text| parse_date("due_before", text)) {
            Some(Err(bad)) => {
                wrong("due_before", bad.problem);
                None
            }
            date => date.and_then(Result::ok).and_then(start_of_day_ms),
        };
        if !errors.is_empty() {
            return Err(Problem::validation(errors));
        }
        let Self { max_count, max_amount, customer_id, reference_prefix, reason, .. } = self;
        let filter = RunFilter { scheduled: false, customer_id, reference_prefix, due_before };
        let limits = RunLimits { count: max_count, amounts: max_amount.map(|_| amounts) };
        Ok(RunOrder { filter, limits, reason })
    }
}

/// In UTC.
fn start_of_day_ms(date: Date) -> Option<i64> {
    TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight())).ok().map(Timestamp::as_millisecond)
}

/// What a run would claim now.
#[derive(Serialize)]
struct DryRun {
    dry_run: bool,
    count: i64,
    sums: BTreeMap<&'static str, String>,
}

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

impl ProblemItem {
    fn stopped() -> Self {
        let hint = "an operator has stopped all charging: see `GET /v1/charging`; `tinjis start` ends it";
        Self { reason: "charging-stopped".to_owned(), status: None, count: 0, hint }
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
            scheduled: run.order.filter.scheduled,
            customer_id: run.order.filter.customer_id,
            reference_prefix: run.order.filter.reference_prefix.clone(),
            due_before: run.order.filter.due_before.map(time),
            count_left: run.order.limits.count,
            amounts_left: run.order.limits.amounts.as_ref().map(amounts),
            reason: run.order.reason.clone(),
        }
    }
}

fn amounts(minor: &BTreeMap<Currency, i64>) -> BTreeMap<&'static str, String> {
    minor.iter().map(sum_text).collect()
}

/// `POST /v1/runs`: starts a run, or joins the unfinished one if that claims all that is asked for; 202 with `Location`.
/// A dry run answers 200 with what would be claimed.
pub(in crate::http) async fn start(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body::bytes(body)?;
    let request: Request = match body.trim_ascii().is_empty() {
        true => Request::default(),
        false => body::read(&body, SHAPE)?,
    };
    let is_dry = request.dry_run;
    let order = request.order()?;
    if is_dry {
        let would = would_claim(state.store.as_ref(), order).await.map_err(|error| problem_of(&error))?;
        return Ok(answer(StatusCode::OK, &would));
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

/// `GET /v1/runs?after=&limit=`, by id.
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let read = async || -> store::Result<(Vec<Run>, bool)> {
        Ok((state.store.runs(RunId(after), limit).await?, state.store.counts().await?.all_paid()))
    };
    let (runs, all_paid) = read().await.map_err(|error| problem_of(&error))?;
    let rows: Vec<(Run, bool)> = runs.into_iter().map(|run| (run, all_paid)).collect();
    let item = |(run, all_paid): &(Run, bool)| {
        let last_problem = run.problem.clone().map(ProblemItem::of);
        RunItem { last_problem, ..RunItem::of(run, false, *all_paid) }
    };
    Ok(answer(StatusCode::OK, &Page::new(&rows, limit, item, |(run, _)| run.id.0.to_string())))
}

/// What a run with this order would claim, by the rule of the claims. Attempts in doubt are not counted.
async fn would_claim(store: &dyn Store, order: RunOrder) -> store::Result<DryRun> {
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
                None => store.is_customer_held(invoice.customer_id).await?.unwrap_or(false),
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
            };
            if filter.admits(&facts, now_ms) && limits.take(invoice.money) {
                count += 1;
                let sum = sums.entry(invoice.money.currency).or_default();
                *sum = sum.saturating_add(invoice.money.amount_minor);
            }
        }
        match page.last() {
            Some(last) if page.len() == BATCH_MAX && !limits.is_used_up() => after = last.id,
            _ => return Ok(DryRun { dry_run: true, count, sums: sums.iter().map(sum_text).collect() }),
        }
    }
}

fn sum_text((currency, minor): (&Currency, &i64)) -> (&'static str, String) {
    (currency.code(), minor_text(*currency, *minor))
}

async fn read(state: &AppState, id: RunId, joined: bool) -> store::Result<Option<RunItem>> {
    let Some(run) = state.store.run(id).await? else { return Ok(None) };
    let all_paid = state.store.counts().await?.all_paid();
    // What a driver of this process met is newer than what was kept.
    let met = state.engine.last_problem(id).map(charge::Problem::stored);
    let mut last_problem = met.or(run.problem.clone()).map(ProblemItem::of);
    if !all_paid && state.store.halt().await?.is_some() {
        last_problem = Some(ProblemItem::stopped());
    }
    Ok(Some(RunItem { last_problem, ..RunItem::of(&run, joined, all_paid) }))
}
