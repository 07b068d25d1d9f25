//! The console over PostgreSQL: after the same calls, each page equals that of SQLite's store.

use std::time::Duration;

use billing::invoice::{Attempt, Decline, DeclineClass, DeclineCode, InvoiceId};
use billing::protocol::transition::{Outcome, Settlement};
use serde_json::json;

use crate::support::Billing;

const LEASE: Duration = Duration::from_secs(15);
/// More invoices of a customer than one page has.
const INVOICES: usize = 60;
const SUBSCRIPTION: &str = r#"{"reference":"S/1","customer_id":7,"currency":"EUR","amount":"12.50","anchor_day":31,"starts_on":"2030-01-31"}"#;
const NOTE: &str = r#"{"reason":"asked for","actor":"ann"}"#;

const PAGES: [&str; 13] = [
    "/console",
    "/console/runs",
    "/console/runs/1",
    "/console/attention",
    "/console/attention?after=1",
    "/console/subscriptions",
    "/console/subscriptions/S%2F1",
    "/console/customers/7",
    "/console/customers/7?after=11",
    "/console/customers/8",
    "/console/invoices/I1",
    "/console/invoices/I2",
    "/console/invoices/I3",
];

fn settlement(attempt: &Attempt) -> Settlement {
    let outcome = match attempt.invoice_id.0 {
        2 => Outcome::Refused,
        3 => Outcome::Rejected,
        4 => Outcome::InDoubt(None),
        _ => Outcome::Charged,
    };
    let decline = (outcome == Outcome::Refused)
        .then(|| Decline { class: DeclineClass::Soft, code: DeclineCode::new("insufficient-funds") });
    Settlement::of(attempt, outcome, Duration::from_secs(600), decline)
}

/// Creates invoices in each state, of two customers and currencies, and operators' actions on them.
async fn fill(billing: &Billing) {
    let line = |number: usize| {
        let (customer, currency) = if number.is_multiple_of(10) { (8, "SEK") } else { (7, "EUR") };
        json!({"reference": format!("I{number}"), "customer_id": customer, "currency": currency, "amount": "12.50"})
            .to_string()
    };
    let lines = (1..=INVOICES).map(line).collect::<Vec<_>>().join("\n");
    let report = billing.call("POST", "/v1/imports", &lines).await.json();
    assert_eq!(report["errors_total"], 0, "{report}");
    let (run, _) = billing.store.open_run(LEASE).await.unwrap();
    let claimed = billing.store.claim_in_turn(run.id, InvoiceId(0), 40, LEASE).await.unwrap();
    let settlements: Vec<_> = claimed.attempts.iter().map(settlement).collect();
    billing.store.settle(Some(run.id), &settlements).await.unwrap();
    for path in
        ["/v1/invoices/I50/hold", "/v1/customers/8/hold", "/v1/invoices/I51/cancel", "/v1/charging/stop"]
    {
        let answer = billing.call("POST", path, NOTE).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert_eq!(billing.call("POST", "/v1/subscriptions", SUBSCRIPTION).await.status, 201);
}

/// The page without its times, because each store has its own clock.
fn without_times(page: &str) -> String {
    let mut parts = page.split("<time ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once("</time>").expect("each time ends").1)
}

#[tokio::test]
async fn each_page_over_postgresql_is_the_one_over_sqlite() {
    let Some(postgres) = Billing::on_postgres().await else { return };
    let sqlite = Billing::empty().await;
    fill(&postgres).await;
    fill(&sqlite).await;
    for path in PAGES {
        let (found, expected) = (postgres.get(path).await, sqlite.get(path).await);
        assert_eq!((found.status, expected.status), (200, 200), "{path}: {}", found.body);
        assert_eq!(without_times(&found.body), without_times(&expected.body), "{path}");
    }
    let overview = postgres.get("/console").await.body;
    for part in
        ["EUR charged by day", "SEK charged by day", "<th scope=\"row\">2023-11-14</th>", "412.50", "50.00"]
    {
        assert!(overview.contains(part), "{part}: {overview}");
    }
}

#[tokio::test]
async fn all_invoices_of_a_customer_are_reached_from_page_to_page() {
    let billing = Billing::empty().await;
    fill(&billing).await;
    let mut path = "/console/customers/7".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = billing.get(&path).await.body;
        let list = page.split("Invoices, newest first</caption>").nth(1).unwrap();
        seen.extend(
            list.split("href=\"/console/invoices/").skip(1).map(|link| {
                link.split('"').next().unwrap().trim_start_matches('I').parse::<usize>().unwrap()
            }),
        );
        let Some((_, next)) = page.split_once("<a href=\"/console/customers/7?after=") else { break };
        path = format!("/console/customers/7?after={}", next.split('"').next().unwrap());
    }
    let expected: Vec<usize> = (1..=INVOICES).rev().filter(|number| number % 10 != 0).collect();
    assert_eq!(seen, expected);
    let odd = billing.get("/console/customers/7?after=x").await;
    assert_eq!((odd.status, odd.body.contains(">I59<")), (200, true), "{}", odd.body);
}
