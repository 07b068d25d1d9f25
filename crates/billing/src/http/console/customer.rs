//! `/console/customers/{id}`: a customer's invoices, and the reasons why some of them are not charged.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::Uri;
use maud::{Markup, html};

use super::invoice::actions_table;
use super::layout::{
    Failure, Page, facts, invoice_link, isolated_text, money, next_page, optional_time, state, table, time,
};
use super::{PAGE_ROWS, Shown, query};
use crate::http::AppState;
use crate::invoice::{Attempt, CustomerId, Invoice, InvoiceId};
use crate::store::operator_reads::ActedOn;

const INVOICES: [&str; 5] = ["Invoice", "State", "Amount", "Due", "Created"];
const DECLINED: [&str; 5] = ["Invoice", "State", "Amount", "Dunning", "Next attempt"];
const DECLINES: [&str; 5] = ["Invoice", "Attempt", "Amount", "Decline", "When"];

/// `GET /console/customers/{id}?after=`: the page after an invoice has older ones.
pub(super) async fn show(
    State(app): State<AppState>,
    path: Result<Path<i64>, PathRejection>,
    uri: Uri,
) -> Shown {
    let id = path.map(|Path(id)| CustomerId(id)).map_err(|_| Failure::Unknown("customer"))?;
    let customer = app.store.customer(id).await?.ok_or(Failure::Unknown("customer"))?;
    let status = app.store.customer_status(id).await?.ok_or(Failure::Unknown("customer"))?;
    let before = InvoiceId(query::parsed(&uri, "after").unwrap_or(i64::MAX));
    let invoices = app.store.invoices_of_customer(id, before, PAGE_ROWS).await?;
    let next = invoices.last().filter(|_| invoices.len() == PAGE_ROWS).map(|invoice| invoice.id.0);
    let declined = app.store.declined_invoices(id, PAGE_ROWS).await?;
    let declines = app.store.last_declines(id, PAGE_ROWS).await?;
    let actions = app.store.last_actions(ActedOn::Customer, &id.0.to_string(), PAGE_ROWS).await?;
    let body = html! {
        div id="customer" data-live {
            (facts(&[
                ("Currency", html! { (customer.currency.code()) }),
                ("Held", html! { (if status.held { "yes, by an operator" } else { "no" }) }),
                ("Network", html! { (status.network) }),
                ("Instrument changed", optional_time(status.instrument_changed_at)),
            ]))
            h2 { "Invoices that a decline holds back" }
            (table("Declined invoices", &DECLINED, &declined.iter().map(declined_row).collect::<Vec<_>>()))
            h2 { "Last declines" }
            (table("Declines, newest first", &DECLINES, &declines.iter().map(decline_row).collect::<Vec<_>>()))
            h2 { "Actions of operators" }
            (actions_table(&actions))
            h2 { "Invoices" }
            (table("Invoices, newest first", &INVOICES, &invoices.iter().map(invoice_row).collect::<Vec<_>>()))
        }
        (next_page(&format!("/console/customers/{}", id.0), next))
    };
    Ok(Page::new(format!("Customer {}", id.0), body).live().ok())
}

fn invoice_row(invoice: &Invoice) -> Markup {
    html! {
        th scope="row" { (invoice_link(invoice.reference.as_str())) }
        td { (state(invoice.state.as_str())) }
        td class="amount" { (money(invoice.money)) }
        td { (optional_time(invoice.due_at)) }
        td { (time(invoice.created_at)) }
    }
}

fn declined_row(invoice: &Invoice) -> Markup {
    html! {
        th scope="row" { (invoice_link(invoice.reference.as_str())) }
        td { (state(invoice.state.as_str())) }
        td class="amount" { (money(invoice.money)) }
        td { @if let Some(dunning) = invoice.dunning { (dunning.as_str()) } }
        td { (optional_time(invoice.next_attempt_at)) }
    }
}

fn decline_row(attempt: &Attempt) -> Markup {
    html! {
        th scope="row" { (invoice_link(attempt.reference.as_str())) }
        td { (attempt.number) }
        td class="amount" { (money(attempt.money)) }
        td {
            @if let Some(decline) = &attempt.decline {
                (decline.class) @if let Some(code) = &decline.code { " " (isolated_text(code.as_str())) }
            } @else { "unknown" }
        }
        td { (optional_time(attempt.settled_at)) }
    }
}
