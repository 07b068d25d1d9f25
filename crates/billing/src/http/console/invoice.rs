//! `/console/invoices/{reference}`: one invoice with its attempts and operators' actions; and the search for an
//! invoice.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use http::Uri;
use maud::{Markup, html};

use super::attention::meaning;
use super::layout::{
    Failure, NONE, Page, command, customer_link, encode_segment, facts, isolated_text, money, number,
    optional_time, state, table, time,
};
use super::{PAGE_ROWS, Shown, query};
use crate::http::AppState;
use crate::invoice::{Attempt, Invoice, InvoiceState, Reference};
use crate::store::operator_reads::ActedOn;
use crate::store::subscriptions::OperatorAction;

const ATTEMPTS: [&str; 9] =
    ["Number", "State", "Amount", "Sends", "Decline", "Run", "Began", "Settled", "Idempotency key"];
const ACTIONS: [&str; 5] = ["When", "Action", "By", "Reason", "Detail"];

/// `GET /console/find?reference=`
pub(super) async fn find(uri: Uri) -> Shown {
    let reference = query::value(&uri, "reference").unwrap_or_default();
    match reference.trim() {
        "" => Ok(Redirect::to("/console").into_response()),
        reference => {
            Ok(Redirect::to(&format!("/console/invoices/{}", encode_segment(reference))).into_response())
        }
    }
}

/// `GET /console/invoices/{reference}`
pub(super) async fn show(State(app): State<AppState>, path: Result<Path<String>, PathRejection>) -> Shown {
    let reference = path.ok().and_then(|Path(text)| Reference::stored(text).ok());
    let reference = reference.ok_or(Failure::Unknown("invoice"))?;
    let found = app.store.invoice_by_reference(&reference).await?;
    let invoice = found.ok_or(Failure::Unknown("invoice"))?;
    let mut attempts = app.store.attempts((invoice.id, 0), PAGE_ROWS).await?;
    attempts.retain(|attempt| attempt.invoice_id == invoice.id);
    let subject = invoice.reference.as_str();
    let actions = app.store.last_actions(ActedOn::Invoice, subject, PAGE_ROWS).await?;
    let body = html! {
        div id="invoice" data-live {
            (details(&invoice))
            @if invoice.state == InvoiceState::Attention { (what_to_do(&invoice, &attempts)) }
            h2 { "Attempts" }
            (table("Attempts, oldest first", &ATTEMPTS, &attempts.iter().map(attempt_row).collect::<Vec<_>>()))
            @if attempts.len() == PAGE_ROWS { p { "The first " (PAGE_ROWS) " are shown." } }
            h2 { "Actions of operators" }
            (actions_table(&actions))
        }
    };
    Ok(Page::new(format!("Invoice {subject}"), body).live().ok())
}

fn details(invoice: &Invoice) -> Markup {
    facts(&[
        ("State", state(invoice.state.as_str())),
        ("Amount", money(invoice.money)),
        ("Customer", customer_link(invoice.customer_id.0)),
        ("Held", html! { (if invoice.held { "yes, by an operator" } else { "no" }) }),
        ("Paid by", html! { @match invoice.paid_by { Some(by) => (by), None => (NONE) } }),
        ("Dunning", html! { @match invoice.dunning { Some(dunning) => (dunning.as_str()), None => (NONE) } }),
        ("Due", optional_time(invoice.due_at)),
        ("Next attempt", optional_time(invoice.next_attempt_at)),
        ("Created", time(invoice.created_at)),
        ("Changed", time(invoice.updated_at)),
    ])
}

/// The commands for a decision on the open attempt, or on the last one if none is open.
fn what_to_do(invoice: &Invoice, attempts: &[Attempt]) -> Markup {
    let attempt = attempts.iter().find(|attempt| attempt.state.is_open()).or(attempts.last());
    html! {
        section aria-labelledby="decide" {
            h2 id="decide" { "Needs attention" @if let Some(reason) = invoice.attention_reason { ": " (reason) } }
            @if let Some(reason) = invoice.attention_reason { p { (meaning(reason)) } }
            @if let Some(attempt) = attempt {
                p { "Then type one of:" }
                @for decision in ["charged", "not-charged"] {
                    (command(&format!(
                        "tinjis resolve {} --decision {decision} --why 'TEXT' --actor NAME", attempt.key
                    )))
                }
            }
        }
    }
}

pub(super) fn attempt_row(attempt: &Attempt) -> Markup {
    html! {
        th scope="row" { (attempt.number) }
        td { (state(attempt.state.as_str())) }
        td class="amount" { (money(attempt.money)) }
        td class="amount" { (number(attempt.sends.into())) }
        td {
            @if let Some(decline) = &attempt.decline {
                (decline.class) @if let Some(code) = &decline.code { " " (isolated_text(code.as_str())) }
            }
        }
        td { a href={ "/console/runs/" (attempt.run_id.0) } { (attempt.run_id.0) } }
        td { (time(attempt.created_at)) }
        td { (optional_time(attempt.settled_at)) }
        td { code { (attempt.key) } }
    }
}

pub(super) fn actions_table(actions: &[OperatorAction]) -> Markup {
    let row = |action: &OperatorAction| {
        html! {
            td { (time(action.created_at)) }
            th scope="row" { (action.action) }
            td { (isolated_text(&action.actor)) }
            td { (isolated_text(&action.reason)) }
            td { @if let Some(detail) = &action.detail { (isolated_text(detail)) } }
        }
    };
    table("Actions of operators, newest first", &ACTIONS, &actions.iter().map(row).collect::<Vec<_>>())
}
