//! `/console`: the present state of billing.

use axum::extract::State;
use axum::response::Response;
use jiff::civil::Date;
use maud::{Markup, html};

use super::charged::{self, Charged, figure, whole_units};
use super::layout::{NONE, Page, facts, isolated_text, number, optional_time, table, time};
use super::runs::{problem_text, run_row};
use super::{Shown, runs};
use crate::charge::ProviderHealth;
use crate::http::AppState;
use crate::money::Currency;
use crate::plot::{BarChart, Group};
use crate::schedule::run::{ScheduleRun, ScheduleRunState};
use crate::scheduler::last_date;
use crate::store::control::Halt;
use crate::store::subscriptions::DueDate;
use crate::store::{Counts, Result, Store};
use crate::subscription::minor_text;

/// The number of runs that are shown.
const RUNS: i64 = 5;
/// Due dates whose money is shown, counted back from today.
const DAYS: i64 = 35;
/// The most dates that are read, and the most of them that are drawn.
const DATES_READ_MAX: usize = 100;
const DATES_DRAWN_MAX: usize = 7;
/// The most charts, one for each currency; the table has all currencies.
const CHARTS_MAX: usize = 4;
/// The most dates waiting for an operator that are shown.
const WAITING_MAX: usize = 10;

/// The data that the page shows.
struct Facts {
    counts: Counts,
    unsent: i64,
    halt: Option<Halt>,
    runs: Vec<crate::invoice::Run>,
    charged: Charged,
    next: Option<DueDate>,
    waiting: Vec<ScheduleRun>,
    days: Vec<ScheduleRun>,
}

async fn read(store: &dyn Store) -> Result<Facts> {
    let latest = store.latest_run().await?.map_or(0, |run| run.id.0);
    let today = last_date(store.now_ms().await?);
    let from = today.checked_sub(jiff::Span::new().days(DAYS)).unwrap_or(Date::MIN);
    Ok(Facts {
        counts: store.counts().await?,
        unsent: store.unsent_attempts().await?,
        halt: store.halt().await?,
        runs: runs::latest(store, latest, RUNS).await?,
        charged: charged::read(store).await?,
        next: store.next_due_date(None).await?,
        waiting: store.schedule_runs(Some(ScheduleRunState::Waiting), None, WAITING_MAX).await?,
        days: store.schedule_runs(None, Some(from), DATES_READ_MAX).await?,
    })
}

pub(super) async fn show(State(state): State<AppState>) -> Shown {
    let facts = read(state.store.as_ref()).await?;
    let health = state.engine.provider_health();
    Ok(page(&state, &facts, &health))
}

fn page(state: &AppState, facts: &Facts, health: &ProviderHealth) -> Response {
    let body = html! {
        (charging(facts.halt.as_ref()))
        section id="counts" data-live aria-labelledby="counts-title" {
            h2 id="counts-title" { "Invoices by state" }
            (counts(&facts.counts, facts.unsent))
        }
        section id="provider" data-live aria-labelledby="provider-title" {
            h2 id="provider-title" { "Provider" }
            (provider(health))
        }
        section id="runs" data-live aria-labelledby="runs-title" {
            h2 id="runs-title" { "Last runs" }
            (table("Last runs", &runs::COLUMNS, &facts.runs.iter().map(run_row).collect::<Vec<_>>()))
        }
        section id="charged" data-live aria-labelledby="charged-title" {
            h2 id="charged-title" { "Charged by day" }
            (facts.charged.show())
        }
        section id="money" aria-labelledby="money-title" {
            h2 id="money-title" { "Planned by the schedule" }
            p { "What was left to be invoiced of each due date when the schedule decided about it last." }
            (money(&facts.days))
        }
        section id="schedule" data-live aria-labelledby="schedule-title" {
            h2 id="schedule-title" { "Schedule" }
            (schedule(state, facts))
        }
    };
    Page::new("Overview", body).at("/console").live().ok()
}

fn charging(halt: Option<&Halt>) -> Markup {
    html! {
        div id="charging" data-live {
            @match halt {
                None => p class="good" { "Charging is on." },
                Some(halt) => p class="problem" {
                    strong { "Charging is stopped" } " by " (isolated_text(&halt.note.actor))
                    " since " (time(halt.since))
                    ": " (isolated_text(&halt.note.reason)) ". " code { "tinjis start" } " ends it."
                },
            }
        }
    }
}

fn counts(counts: &Counts, unsent: i64) -> Markup {
    facts(&[
        ("Pending", number(counts.pending)),
        (
            "Charging",
            html! { (number(counts.charging)) @if unsent > 0 { " (" (number(unsent)) " not sent)" } },
        ),
        ("Paid", number(counts.paid)),
        ("Needs attention", html! { a href="/console/attention" { (number(counts.attention)) } }),
        ("Cancelled", number(counts.cancelled)),
    ])
}

fn provider(health: &ProviderHealth) -> Markup {
    let problem = health.last_problem.map(crate::charge::Problem::stored);
    let latency = health.mean_us.map(|us| format!("{}.{} ms", us / 1000, us % 1000 / 100));
    let declines: Vec<Markup> = health
        .declines
        .iter()
        .map(|(class, count)| {
            let count = number(i64::try_from(*count).unwrap_or(i64::MAX));
            html! { th scope="row" { (class) } td class="amount" { (count) } }
        })
        .collect();
    html! {
        p { "As this process has seen it since it started." }
        (facts(&[
            ("Circuit breaker", html! { (health.breaker) }),
            ("Last problem", html! { @match problem { Some(problem) => (problem_text(&problem)), None => (NONE) } }),
            ("Requests", number(i64::try_from(health.requests).unwrap_or(i64::MAX))),
            ("Mean duration", html! { @match latency { Some(latency) => (latency), None => (NONE) } }),
        ]))
        (table("Declines by class", &["Class", "Declines"], &declines))
    }
}

/// Charts for the first few currencies, and the table of all.
fn money(days: &[ScheduleRun]) -> Markup {
    let mut currencies: Vec<Currency> = days.iter().flat_map(|day| day.planned.keys().copied()).collect();
    currencies.sort_unstable();
    currencies.dedup();
    let rows: Vec<Markup> = days
        .iter()
        .rev()
        .flat_map(|day| day.planned.iter().map(move |(currency, sum)| (day, *currency, *sum)))
        .map(|(day, currency, sum)| {
            html! {
                th scope="row" { (day.period_on) }
                td { (currency.code()) }
                td class="amount" { (number(sum.count)) }
                td class="amount" { (minor_text(currency, sum.amount_minor)) }
            }
        })
        .collect();
    html! {
        @for currency in currencies.iter().take(CHARTS_MAX) {
            (figure(&chart(days, *currency)))
        }
        (table("Money by due date and currency", &["Due date", "Currency", "Invoices", "Amount"], &rows))
    }
}

fn chart(days: &[ScheduleRun], currency: Currency) -> BarChart {
    let with_money = days.iter().filter(|day| day.planned.contains_key(&currency));
    let skipped = with_money.clone().count().saturating_sub(DATES_DRAWN_MAX);
    let groups = with_money.skip(skipped).map(|day| {
        let minor = day.planned.get(&currency).map_or(0, |sum| sum.amount_minor);
        Group {
            label: day.period_on.strftime("%m-%d").to_string(),
            values: vec![whole_units(currency, minor)],
        }
    });
    BarChart {
        title: format!("{} by due date", currency.code()),
        subtitle: "whole units, rounded up; the table has the exact amounts".to_owned(),
        series: vec![currency.code().to_owned()],
        groups: groups.collect(),
    }
}

fn schedule(state: &AppState, read: &Facts) -> Markup {
    let settings = state.scheduler.settings();
    let waiting: Vec<Markup> = read
        .waiting
        .iter()
        .map(|run| {
            html! {
                th scope="row" { (run.period_on) }
                td { @if let Some(reason) = run.reason { (reason.as_str()) } }
                td class="amount" { (number(run.planned.values().map(|sum| sum.count).sum())) }
            }
        })
        .collect();
    let next = read.next.map(|next| next.first_at);
    html! {
        (facts(&[
            ("Schedule", html! { (if settings.is_on { "on" } else { "off" }) }),
            ("Missed dates", html! { (settings.catch_up.as_str()) }),
            ("Next charge", optional_time(next)),
        ]))
        (table("Dates that wait for an operator", &["Due date", "Reason", "Invoices"], &waiting))
        @if !waiting.is_empty() {
            p { "See them with " code { "tinjis schedule" } "; the runbook page on late schedules says how to let them run." }
        }
    }
}
