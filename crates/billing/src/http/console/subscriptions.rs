//! `/console/subscriptions`: the list, and one subscription with its next periods.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::Uri;
use jiff::Span;
use jiff::civil::Date;
use maud::{Markup, html};

use super::invoice::actions_table;
use super::layout::{
    Failure, NONE, Page, customer_link, encode_segment, facts, isolated_text, next_page, optional_time,
    state, table, time,
};
use super::{PAGE_ROWS, Shown, query};
use crate::http::AppState;
use crate::preview::preview;
use crate::schedule::Holidays;
use crate::schedule::calendar::format_time;
use crate::store::operator_reads::ActedOn;
use crate::subscription::{Subscription, SubscriptionState, minor_text};

/// The periods of a preview, and how far ahead it searches: the longest interval is in years.
const PERIODS: usize = 12;
const YEARS: i64 = 12;

const COLUMNS: [&str; 6] = ["Subscription", "State", "Customer", "Every", "Next due", "Next charge"];

/// `GET /console/subscriptions?after=`
pub(super) async fn list(State(app): State<AppState>, uri: Uri) -> Shown {
    let after = query::parsed(&uri, "after").unwrap_or(i64::MIN);
    let found = app.store.subscriptions(None, after, PAGE_ROWS).await?;
    let next = found.last().filter(|_| found.len() == PAGE_ROWS).map(|subscription| subscription.id);
    let rows: Vec<Markup> = found.iter().map(row).collect();
    let body = html! {
        (table("Subscriptions", &COLUMNS, &rows))
        (next_page("/console/subscriptions", next))
    };
    Ok(Page::new("Subscriptions", body).at("/console/subscriptions").ok())
}

fn row(subscription: &Subscription) -> Markup {
    let reference = subscription.reference.as_str();
    html! {
        th scope="row" {
            a href={ "/console/subscriptions/" (encode_segment(reference)) } { (isolated_text(reference)) }
        }
        td { (state(subscription.state.as_str())) }
        td { (customer_link(subscription.customer_id.0)) }
        td { (every(subscription)) }
        td { @if let Some(next) = subscription.next { (next.on) } @else { (NONE) } }
        td { (optional_time(subscription.next.map(|next| next.charge_at))) }
    }
}

fn every(subscription: &Subscription) -> String {
    match subscription.terms.every_months.months() {
        1 => "month".to_owned(),
        months => format!("{months} months"),
    }
}

/// `GET /console/subscriptions/{reference}`
pub(super) async fn show(State(app): State<AppState>, path: Result<Path<String>, PathRejection>) -> Shown {
    let reference = path.ok().and_then(|Path(text)| crate::invoice::Reference::stored(text).ok());
    let reference = reference.ok_or(Failure::Unknown("subscription"))?;
    let found = app.store.subscription(&reference).await?;
    let subscription = found.ok_or(Failure::Unknown("subscription"))?;
    let subject = subscription.reference.as_str();
    let actions = app.store.last_actions(ActedOn::Subscription, subject, PAGE_ROWS).await?;
    let holidays = &app.scheduler.settings().holidays;
    let body = html! {
        (details(&subscription))
        h2 { "Next periods" }
        p { "What the schedule will invoice, by the subscription as it is now." }
        (table("Next periods", &["Due date", "May be charged from", "Amount", "Invoice"], &periods(&subscription, holidays)))
        h2 { "Actions of operators" }
        (actions_table(&actions))
    };
    Ok(Page::new(format!("Subscription {subject}"), body).at("/console/subscriptions").ok())
}

fn details(subscription: &Subscription) -> Markup {
    let Subscription { terms, currency, .. } = subscription;
    facts(&[
        ("State", state(subscription.state.as_str())),
        ("Customer", customer_link(subscription.customer_id.0)),
        (
            "Prices",
            html! {
                @for price in subscription.prices.as_slice() {
                    span class="price" {
                        (minor_text(*currency, price.amount_minor)) " " (currency.code()) " from " (price.from) " "
                    }
                }
            },
        ),
        ("Every", html! { (every(subscription)) ", anchor day " (terms.anchor_day.day()) }),
        ("Zone", html! { (terms.zone.name()) ", at " (format_time(terms.at)) }),
        ("Starts", html! { (terms.starts_on) }),
        ("Ends", html! { @match terms.ends_on { Some(on) => (on), None => "no end" } }),
        ("Last invoiced", html! { @match subscription.last_on { Some(on) => (on), None => (NONE) } }),
    ])
}

fn periods(subscription: &Subscription, holidays: &Holidays) -> Vec<Markup> {
    let Some(next) = subscription.next.filter(|_| subscription.state == SubscriptionState::Active) else {
        return Vec::new();
    };
    let through = next.on.checked_add(Span::new().years(YEARS)).unwrap_or(Date::MAX);
    let one = std::slice::from_ref(subscription);
    preview(one, holidays, (next.on, through))
        .filter_map(Result::ok)
        .take(PERIODS)
        .map(|previewed| {
            html! {
                th scope="row" { (previewed.period.on) }
                td { (time(previewed.invoice.charge_at)) }
                td class="amount" { (minor_text(subscription.currency, previewed.invoice.amount_minor)) " " (subscription.currency.code()) }
                td { (isolated_text(previewed.invoice.reference.as_str())) }
            }
        })
        .collect()
}
