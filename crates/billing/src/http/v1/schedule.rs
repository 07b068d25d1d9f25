//! `/v1/schedule`: the state of the schedule and the dates that wait for an operator, its runs by date, and runs that
//! an operator starts. Knows what a run shows, not what it makes.

use std::collections::BTreeMap;

use api::Text;
use api::billing::{ScheduleRun as Item, ScheduleRunRequest, ScheduleRunResult, ScheduleStatus, WaitingDate};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use http::{StatusCode, Uri};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::attempts::validate_reason_and_actor;
use super::body;
use super::page::{Params, format_timestamp, json_response, page};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::schedule::calendar::parse_date;
use crate::schedule::run::{CatchUp, ScheduleRun, ScheduleRunState, Sums};
use crate::schedule::zone_data_version;
use crate::scheduler::{Charging, Done, RunUntil, ScheduleSettings, last_date};
use crate::store::{self, BATCH_MAX};
use crate::subscription::minor_text;

/// The approximate maximum of invoices that one call makes; the response says whether more are left.
const INVOICES_MAX: usize = 10_000;

/// The word for today's date, for a job that runs each day.
const TODAY: &str = "today";

fn to_item(run: &ScheduleRun) -> Item {
    Item {
        period_on: run.period_on.to_string(),
        state: run.state.as_str().into(),
        reason: run.reason.map(|reason| reason.as_str().into()),
        planned_count: run.planned.values().map(|sum| sum.count).sum(),
        planned_sums: format_sums(&run.planned),
        invoices: run.invoices,
        skipped: run.skipped,
        late_seconds: run.late_ms / 1000,
        zone_data: run.zone_data.clone(),
        confirmed_by: run.confirmed_by.clone(),
        created_at: format_timestamp(run.created_at),
        updated_at: format_timestamp(run.updated_at),
    }
}

fn format_sums(sums: &Sums) -> BTreeMap<Text, String> {
    sums.iter()
        .map(|(currency, sum)| (currency.code().into(), minor_text(*currency, sum.amount_minor)))
        .collect()
}

/// `GET /v1/schedule`
pub(in crate::http) async fn status(State(state): State<AppState>) -> Result<Response, Problem> {
    let ScheduleSettings { is_on, catch_up, .. } = state.scheduler.settings();
    let read = async || -> store::Result<ScheduleStatus> {
        let next = state.store.next_due_date(None).await?;
        let waiting = state.store.schedule_runs(Some(ScheduleRunState::Waiting), None, BATCH_MAX).await?;
        Ok(ScheduleStatus {
            schedule: if *is_on { "on" } else { "off" }.into(),
            catch_up: catch_up.as_str().into(),
            zone_data: zone_data_version().into(),
            next_on: next.map(|next| next.on.to_string()),
            next_charge_at: next.map(|next| format_timestamp(next.first_at)),
            next_attempt_at: state.store.next_attempt_at().await?.map(format_timestamp),
            now: format_timestamp(state.store.now_ms().await?),
            waiting: waiting.iter().map(to_item).collect(),
        })
    };
    let shown = read().await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &shown))
}

/// `GET /v1/schedule/runs?state=&after=&limit=`: schedule runs by date.
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let only: Option<ScheduleRunState> =
        params.choice("state", |text| text.parse().ok(), "waiting, running and finished");
    let (after, limit) = (params.after(), params.limit());
    params.finish()?;
    let rows = state.store.schedule_runs(only, after, limit).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &page(&rows, limit, to_item, |run| run.period_on.to_string())))
}

/// `POST /v1/schedule/runs`: invoices what is due up to a date and starts the run that charges it; 200.
pub(in crate::http) async fn run(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request: ScheduleRunRequest =
        body::read(&body::bytes(body)?, r#"{"until","catch_up","over_cap","reason","actor"}"#)?;
    validate_reason_and_actor(&request.reason, &request.actor)?;
    let now_ms = state.store.now_ms().await.map_err(|error| problem_of(&error))?;
    let order = parse_order(&request, state.scheduler.settings(), now_ms)?;
    let make = async || -> store::Result<(Done, Option<Charging>)> {
        let done = state.scheduler.run_until(&order, INVOICES_MAX).await?;
        let charging = if done.has_more { None } else { Some(state.scheduler.charge().await?) };
        Ok((done, charging))
    };
    let (done, charging) = make().await.map_err(|error| problem_of(&error))?;
    tracing::info!(
        until = request.until,
        catch_up = order.catch_up.as_str(),
        invoices = done.invoices,
        reason = request.reason,
        actor = request.actor,
        "an operator ran the schedule"
    );
    let waiting = done.waiting.iter();
    let waiting = waiting
        .map(|waiting| WaitingDate {
            period_on: waiting.on.to_string(),
            reason: waiting.reason.as_str().into(),
        })
        .collect();
    let Done { invoices, skipped, has_more, .. } = done;
    let (charging, run_id) = charging.map(describe_charging).unzip();
    let run_id = run_id.flatten();
    let shown = if request.until == TODAY { last_today(now_ms) } else { order.until };
    let made = ScheduleRunResult {
        until: shown.to_string(),
        invoices,
        skipped,
        more: has_more,
        waiting,
        charging,
        run_id,
    };
    Ok(json_response(StatusCode::OK, &made))
}

fn describe_charging(charging: Charging) -> (Text, Option<i64>) {
    match charging {
        Charging::Started(run) => ("started".into(), Some(run.0)),
        Charging::NothingDue => ("nothing-due".into(), None),
        Charging::RunUnfinished(run) => ("run-unfinished".into(), Some(run.0)),
        Charging::Stopped => ("stopped".into(), None),
    }
}

fn parse_order(
    request: &ScheduleRunRequest,
    settings: &ScheduleSettings,
    now_ms: i64,
) -> Result<RunUntil, Problem> {
    let mut errors = Vec::new();
    let until = match parse_date("until", &request.until) {
        _ if request.until == TODAY => Some(last_date(now_ms)),
        Ok(until) if until <= last_date(now_ms) => Some(until),
        Ok(_) => {
            let last = last_date(now_ms);
            let problem = format!("must not be after {last}: no later period can be due");
            errors.push(FieldError::new("until", problem));
            None
        }
        Err(bad) => {
            errors.push(FieldError::new(bad.field, bad.problem));
            None
        }
    };
    let catch_up = request.catch_up.as_deref().map(str::parse::<CatchUp>).transpose();
    let catch_up = catch_up.unwrap_or_else(|_| {
        errors.push(FieldError::new("catch_up", "must be ask, each or latest"));
        None
    });
    match until {
        Some(until) if errors.is_empty() => Ok(RunUntil {
            until,
            catch_up: catch_up.unwrap_or(settings.catch_up),
            over_cap: request.over_cap,
            actor: request.actor.clone(),
        }),
        _ => Err(Problem::validation(errors)),
    }
}

/// The latest date that is today in any zone.
fn last_today(now_ms: i64) -> Date {
    let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(now).date().tomorrow().unwrap_or(Date::MAX)
}
