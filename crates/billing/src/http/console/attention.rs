//! `/console/attention`: invoices that need an operator, why, and the command to type.

use axum::extract::State;
use http::Uri;
use maud::{Markup, html};

use super::layout::{Page, command, customer_link, invoice_link, money, next_page, number, table, time};
use super::{PAGE_ROWS, Shown, query};
use crate::http::AppState;
use crate::invoice::{AttentionReason, Invoice, InvoiceId, InvoiceState};

const COLUMNS: [&str; 5] = ["Invoice", "Customer", "Amount", "Reason", "Since"];

/// What the reason means and what to check before deciding.
pub(super) fn meaning(reason: AttentionReason) -> &'static str {
    match reason {
        AttentionReason::InDoubtWithoutKeys => {
            "The charge may have been executed, and the provider keeps no keys to ask again with. \
             Look the charge up in the provider's books."
        }
        AttentionReason::Rejected => {
            "The provider called the request invalid. Correct the invoice at its source."
        }
        AttentionReason::KeyReused => {
            "The provider knows the key with other data, or has charged the reference under another key. Compare both \
             with tinjis verify."
        }
        AttentionReason::NotAccepted => {
            "The provider answers this request as if endpoint or credentials were wrong, while it executes others."
        }
        AttentionReason::Contradiction => {
            "An answer contradicts one that was recorded. Compare both with tinjis verify."
        }
        AttentionReason::ChargedLate => {
            "A charge came to light for an attempt that had been closed as not charged."
        }
    }
}

/// The command that decides all invoices with this reason, first as a dry run.
fn decision(reason: AttentionReason) -> String {
    format!(
        "tinjis resolve --reason-is {reason} --decision charged|not-charged --why 'TEXT' --actor NAME --dry-run"
    )
}

/// `GET /console/attention?after=`
pub(super) async fn show(State(app): State<AppState>, uri: Uri) -> Shown {
    let after = InvoiceId(query::parsed(&uri, "after").unwrap_or(i64::MIN));
    let counts = app.store.counts().await?;
    let invoices = app.store.invoices(Some(InvoiceState::Attention), after, PAGE_ROWS).await?;
    let next = invoices.last().filter(|_| invoices.len() == PAGE_ROWS).map(|invoice| invoice.id.0);
    let rows: Vec<Markup> = invoices.iter().map(row).collect();
    let shown = |reason: &&AttentionReason| invoices.iter().any(|one| one.attention_reason == Some(**reason));
    let body = html! {
        div id="list" data-live {
            p { (number(counts.attention)) " in all. The page of one invoice has the command for it alone." }
            (table("Invoices that need an operator", &COLUMNS, &rows))
            @for reason in AttentionReason::ALL.iter().filter(shown) {
                section aria-label=(reason) {
                    h2 { (reason) }
                    p { (meaning(*reason)) }
                    (command(&decision(*reason)))
                }
            }
        }
        (next_page("/console/attention", next))
    };
    Ok(Page::new("Needs attention", body).at("/console/attention").live().ok())
}

fn row(invoice: &Invoice) -> Markup {
    html! {
        th scope="row" { (invoice_link(invoice.reference.as_str())) }
        td { (customer_link(invoice.customer_id.0)) }
        td class="amount" { (money(invoice.money)) }
        td { @if let Some(reason) = invoice.attention_reason { (reason) } }
        td { (time(invoice.updated_at)) }
    }
}
