//! `/console/runs`: the list, newest first, and one run with its progress.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::Uri;
use maud::{Markup, html};

use super::layout::{
    Failure, NONE, Page, customer_link, facts, isolated_text, number, optional_time, state, table, time,
};
use super::{PAGE_ROWS, Shown, query};
use crate::charge::Problem;
use crate::http::AppState;
use crate::invoice::{Run, RunId, RunProblem, RunState};
use crate::provider::answer::Reason;
use crate::run_order::RunFilter;
use crate::store::{Result, Store};
use crate::subscription::minor_text;

/// The columns of a table of runs.
pub(super) const COLUMNS: [&str; 7] =
    ["Run", "State", "Began", "Of invoices", "Paid", "Declined", "In doubt"];

/// The runs up to `last`, newest first. Ids without a run make the list shorter than `count`; they cost no further
/// reads.
pub(super) async fn latest(store: &dyn Store, last: i64, count: i64) -> Result<Vec<Run>> {
    let limit = usize::try_from(count).unwrap_or(0);
    let mut runs = store.runs(RunId(last.saturating_sub(count)), limit).await?;
    runs.retain(|run| run.id.0 <= last);
    runs.reverse();
    Ok(runs)
}

pub(super) fn run_row(run: &Run) -> Markup {
    let counters = &run.counters;
    html! {
        th scope="row" { a href={ "/console/runs/" (run.id.0) } { (run.id.0) } }
        td { (state(run.state.as_str())) }
        td { (time(run.started_at)) }
        @for count in [counters.total, counters.paid, counters.refused, counters.in_doubt] {
            td class="amount" { (number(count)) }
        }
    }
}

/// `GET /console/runs?upto=`
pub(super) async fn list(State(app): State<AppState>, uri: Uri) -> Shown {
    let count = i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX);
    let newest = app.store.latest_run().await?.map_or(0, |run| run.id.0);
    let last = query::parsed(&uri, "upto").unwrap_or(newest).min(newest);
    let runs = latest(app.store.as_ref(), last, count).await?;
    let rows: Vec<Markup> = runs.iter().map(run_row).collect();
    let body = html! {
        div id="list" data-live { (table("Runs, newest first", &COLUMNS, &rows)) }
        @if last > count { p { a href={ "/console/runs?upto=" (last - count) } rel="next" { "Older runs" } } }
    };
    Ok(Page::new("Runs", body).at("/console/runs").live().ok())
}

/// `GET /console/runs/{id}`
pub(super) async fn show(
    State(app): State<AppState>,
    id: std::result::Result<Path<i64>, PathRejection>,
) -> Shown {
    let Ok(Path(id)) = id else { return Err(Failure::Unknown("run")) };
    let run = app.store.run(RunId(id)).await?.ok_or(Failure::Unknown("run"))?;
    // The problem that a driver in this process has is newer than the stored one.
    let problem = app.engine.last_problem(run.id).map(Problem::stored).or_else(|| run.problem.clone());
    let body = html! {
        div id="run" data-live { (progress(&run)) (details(&run, problem.as_ref())) }
    };
    Ok(Page::new(format!("Run {id}"), body).at("/console/runs").live().ok())
}

fn progress(run: &Run) -> Markup {
    let counters = &run.counters;
    let done = counters.paid + counters.refused + counters.rejected;
    let total = counters.total.max(done);
    html! {
        p {
            label for="progress" { "Settled: " (number(done)) " of " (number(total)) }
            progress id="progress" max=(total.max(1)) value=(done) {}
        }
        p { "State: " (state(run.state.as_str()))
            @if run.state == RunState::Finished { ". The run has ended." } @else { ". The run goes on." } }
    }
}

fn details(run: &Run, problem: Option<&RunProblem>) -> Markup {
    let counters = &run.counters;
    let filter = &run.order.filter;
    html! {
        (facts(&[
            ("Paid", number(counters.paid)),
            ("Declined", number(counters.refused)),
            ("Rejected", number(counters.rejected)),
            ("In doubt", number(counters.in_doubt)),
            ("Not sent", number(counters.not_sent)),
            ("Attempts claimed", number(counters.attempted)),
            ("Began", time(run.started_at)),
            ("Ended", optional_time(run.finished_at)),
            ("Joined by callers", number(run.joins)),
            ("Last problem", html! { @match problem { Some(problem) => (problem_text(problem)), None => (NONE) } }),
        ]))
        h2 { "What it claims" }
        (facts(&[
            ("Invoices", html! {
                @if filter.is_all() { "all that are pending" } @else if filter.scheduled { "of subscriptions" }
                @else if *filter == RunFilter::keeping_days() { "all that are pending, declined ones on their days" }
                @else { "those that fit the following" }
            }),
            ("Customer", html! {
                @match filter.customer_id { Some(id) => (customer_link(id)), None => "any" }
            }),
            ("References begin with", html! {
                @match &filter.reference_prefix { Some(prefix) => (isolated_text(prefix)), None => "anything" }
            }),
            ("Due before", optional_time(filter.due_before)),
            ("Count left", html! { @match run.order.limits.count { Some(left) => (number(left)), None => "no limit" } }),
            ("Amounts left", html! {
                @match &run.order.limits.amounts {
                    None => "no limit",
                    Some(left) => @for (currency, minor) in left {
                        (minor_text(*currency, *minor)) " " (currency.code()) " "
                    },
                }
            }),
            ("Reason", html! { @match &run.order.reason { Some(reason) => (isolated_text(reason)), None => (NONE) } }),
        ]))
    }
}

/// The problem, how often it occurred, and what to do about it.
pub(super) fn problem_text(problem: &RunProblem) -> Markup {
    let hint = problem.reason.parse::<Reason>().ok().map_or("see billing's log", Reason::hint);
    html! {
        (isolated_text(&problem.reason))
        @if let Some(status) = problem.status { " (status " (status) ")" }
        ", " (number(problem.count)) " times: " (hint)
    }
}
