//! Both legacy pay calls and `/v1/runs`, with a provider on a real socket; and the attempts that `/v1/attempts` lists
//! afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use billing::protocol::transition::Idempotency;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::Instant;

use crate::engine::UNREACHABLE;
use crate::provider::Provider;
use crate::support::Billing;

const JSON: &str = "application/json";
const APP_JSON: &str = "application/json; charset=utf-8";
const PROBLEM: &str = "application/problem+json";
const PAY: &str = "/rest/v1/invoices/pay";

/// Clients of Antaeus time out after this.
const PAY_WITHIN: Duration = Duration::from_secs(5);

/// The published test vector: the deployment id, I1, attempt 1.
const KEY: &str = "bca1897f57e947286a9d2dcb4be588f1";

fn lines(count: u32) -> String {
    (1..=count)
        .map(|n| {
            format!(r#"{{"reference":"I{n}","customer_id":1,"currency":"EUR","amount":"12.15"}}"#) + "\n"
        })
        .collect()
}

fn charged(_: u64) -> (u16, &'static str) {
    (200, r#"{"result":"true"}"#)
}

fn odd_refused(invoice: u64) -> (u16, &'static str) {
    (200, if invoice % 2 == 1 { r#"{"result":"false"}"# } else { r#"{"result":"true"}"# })
}

fn broken(_: u64) -> (u16, &'static str) {
    (500, "")
}

/// ANT-13 INV-02 INV-08
#[tokio::test]
async fn pay_is_true_once_all_are_paid_and_calls_no_provider_then() {
    let (provider, url) = Provider::start(charged).await;
    let billing = Billing::charging(&lines(3), &url, Idempotency::Keys).await;
    billing.call("POST", PAY, "").await.is(200, JSON, "true");
    billing.call("POST", "/Rest/v1/invoices/PAY/", "").await.is(200, JSON, "true");
    billing.call("POST", "/invoices/pay", "").await.is(200, APP_JSON, "{}");
    assert_eq!(provider.asked(), [1, 2, 3]);
    assert_eq!(billing.get("/invoices").await.body.matches("\"IsPaid\":true").count(), 3);
}

#[tokio::test]
async fn what_keeps_invoices_from_being_charged_is_shown_and_none_is_in_doubt_that_was_rejected() {
    fn rejects(_: u64) -> (u16, &'static str) {
        (403, r#"{"error":"wrong token"}"#)
    }
    let (_provider, url) = Provider::start(rejects).await;
    let billing = Billing::charging(&lines(6), &url, Idempotency::Keys).await;
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    for path in ["/v1/deployment", "/v1/runs/1"] {
        let problem = billing.get(path).await.json()["last_problem"].clone();
        assert_eq!((&problem["reason"], &problem["status"]), (&"credentials".into(), &403.into()), "{path}");
        assert_eq!(problem["count"], 4, "the first call and the probes of the run");
        assert!(problem["hint"].as_str().unwrap().contains("PAYMENTS_API_TOKEN"), "{problem}");
    }
    let deployment = billing.get("/v1/deployment").await.json();
    assert_eq!((&deployment["charging_unsent"], &deployment["counts"]["charging"]), (&4.into(), &4.into()));
    assert_eq!(billing.get("/v1/runs/1").await.json()["in_doubt"], 0);
}

/// ANT-16 ANT-20 INV-06
#[tokio::test]
async fn refused_invoices_leave_pay_false_and_the_invoice_app_content() {
    let (provider, url) = Provider::start(odd_refused).await;
    let billing = Billing::charging(&lines(4), &url, Idempotency::Keys).await;
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    assert_eq!(provider.asked(), [1, 2, 3, 4]);
    billing.call("POST", "/invoices/pay", "").await.is(200, APP_JSON, "{}");
    assert_eq!(provider.asked(), [1, 1, 2, 3, 3, 4]);
    assert_eq!(billing.get("/rest/v1/invoices").await.body.matches("PAID").count(), 2);
}

/// The loop of the former job: it calls pay until the answer is true, while every second charge is declined.
#[tokio::test]
async fn a_loop_of_pay_calls_ends_with_true_also_for_a_card_whose_network_is_known() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    fn every_second(_: u64) -> (u16, &'static str) {
        let charges = CALLS.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        (200, if charges { r#"{"result":"true"}"# } else { r#"{"result":"false"}"# })
    }
    let (provider, url) = Provider::start(every_second).await;
    let billing = Billing::charging(&lines(40), &url, Idempotency::Keys).await;
    let network = r#"{"network":"sepa","reason":"a mandate","actor":"kim"}"#;
    billing.call("POST", "/v1/customers/1/network", network).await.json();
    let mut calls = 1;
    while billing.call("POST", PAY, "").await.body != "true" {
        calls += 1;
        assert!(calls <= 7, "each call halves what is left: {:?}", provider.asked());
    }
    assert!(provider.asked().len() >= 79, "{:?}", provider.asked());
    assert_eq!(billing.get("/invoices").await.body.matches("\"IsPaid\":true").count(), 40);
}

/// ANT-18
#[tokio::test]
async fn two_pay_calls_at_once_join_one_run() {
    let (provider, url) = Provider::start(charged).await;
    let billing = Billing::charging(&lines(8), &url, Idempotency::Keys).await;
    let (one, two) = tokio::join!(billing.call("POST", PAY, ""), billing.call("POST", PAY, ""));
    one.is(200, JSON, "true");
    two.is(200, JSON, "true");
    assert_eq!(provider.asked(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// ANT-17 INV-07
#[tokio::test]
async fn a_provider_that_is_not_there_is_false_in_time_and_502_for_the_invoice_app() {
    let billing = Billing::charging(&lines(2), UNREACHABLE, Idempotency::Keys).await;
    let began = Instant::now();
    let (antaeus, app) =
        tokio::join!(billing.call("POST", PAY, ""), billing.call("POST", "/invoices/pay", ""));
    antaeus.is(200, JSON, "false");
    app.is(502, APP_JSON, r#"{"Error":"the payment provider could not be reached"}"#);
    assert!(began.elapsed() < PAY_WITHIN, "{:?}", began.elapsed());
    assert_eq!(billing.get("/invoices").await.body.matches("\"IsPaid\":false").count(), 2);
}

/// More calls than the 256 that the service lets wait.
const MANY: usize = 266;

#[tokio::test]
async fn with_too_many_pay_calls_waiting_a_further_one_joins_the_run_and_is_answered_at_once() {
    let billing = Billing::charging(&lines(2), UNREACHABLE, Idempotency::Keys).await;
    let path = |n: usize| if n.is_multiple_of(2) { PAY } else { "/invoices/pay" };
    let mut calls: FuturesUnordered<_> = (0..MANY).map(|n| billing.call("POST", path(n), "")).collect();
    for _ in 256..MANY {
        let answer = calls.next().await.unwrap();
        assert!(matches!(answer.body.as_str(), "false" | "{}"), "{}", answer.body);
        assert_eq!(answer.status, 200);
    }
    assert_eq!(billing.get("/v1/runs/1").await.json()["state"], "running");
    let waited: Vec<_> = calls.collect().await;
    assert!(waited.iter().any(|answer| answer.status == 502), "no call waited for the run");
    assert_eq!(billing.get("/v1/runs/2").await.status, 404, "all joined one run");
}

#[tokio::test]
async fn a_run_is_started_where_its_location_says_and_shows_how_it_ended() {
    let (_, url) = Provider::start(odd_refused).await;
    let billing = Billing::charging(&lines(3), &url, Idempotency::Keys).await;
    let started = billing.call("POST", "/v1/runs", "").await;
    assert_eq!((started.status, started.content_type().as_str()), (202, JSON));
    assert_eq!(started.json()["joined"], false);
    let location = started.header("location").unwrap();
    assert_eq!(location, format!("/v1/runs/{}", started.json()["id"]));
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    let mut run = billing.get(&location).await.json();
    for time in ["started_at", "finished_at"] {
        let text = run[time].take();
        assert!(text.as_str().is_some_and(|text| text.starts_with("2023-11-14T22:13:2")), "{time}: {text}");
    }
    let shown = serde_json::json!({
        "id": 1, "state": "finished", "joined": false, "started_at": null, "finished_at": null,
        "total": 3, "attempted": 3, "paid": 1, "refused": 2, "rejected": 0, "in_doubt": 0, "not_sent": 0,
        "all_paid": false, "last_problem": null, "begun_by": env!("CARGO_PKG_VERSION"),
        "scheduled": false, "customer_id": null, "reference_prefix": null, "due_before": null,
        "count_left": null, "amounts_left": null, "reason": null,
    });
    assert_eq!(run, shown);
}

#[tokio::test]
async fn an_attempt_shows_its_columns_and_its_reference() {
    let (_, url) = Provider::start(charged).await;
    let billing = Billing::charging(&lines(1), &url, Idempotency::Keys).await;
    billing.call("POST", PAY, "").await.is(200, JSON, "true");
    let page = billing.get("/v1/attempts?limit=1").await.json();
    assert_eq!(page["next"], "1.1");
    let mut attempt = page["items"][0].clone();
    for time in ["lease_until", "created_at", "settled_at"] {
        assert!(attempt[time].take().is_string(), "{time}");
    }
    let shown = serde_json::json!({
        "key": KEY, "invoice_id": 1, "reference": "I1", "number": 1, "customer_id": 1, "currency": "EUR",
        "amount_minor": 1215, "exponent": 2, "state": "CHARGED", "sends": 1, "run_id": 1, "lease_until": null,
        "created_at": null, "settled_at": null, "decline_class": null, "decline_code": null,
    });
    assert_eq!(attempt, shown);
    let end = billing.get("/v1/attempts?after=1.1").await;
    end.is(200, JSON, r#"{"items":[],"next":null}"#);
}

#[tokio::test]
async fn an_operator_ends_the_doubt_once_and_for_all() {
    let (_, url) = Provider::start(broken).await;
    let billing = Billing::charging(&lines(1), &url, Idempotency::None).await;
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    let invoice = billing.get("/v1/invoices/I1").await.json();
    assert_eq!(invoice["attention_reason"], "in-doubt-without-keys");
    let path = format!("/v1/attempts/{KEY}/resolve");
    let decide = async |decision: &str| {
        let body = format!(r#"{{"decision":"{decision}","reason":"seen in the books","actor":"anna"}}"#);
        billing.call("POST", &path, &body).await
    };
    for _ in 0..2 {
        let answer = decide("charged").await;
        assert_eq!((answer.status, answer.json()["state"].clone()), (200, Value::from("CHARGED")));
    }
    let answer = decide("not_charged").await;
    assert_eq!((answer.status, answer.content_type().as_str()), (409, PROBLEM));
    assert_eq!(answer.json()["type"], "urn:tinjis:problem:attempt-final");
    let invoice = billing.get("/v1/invoices/I1").await.json();
    assert_eq!((invoice["state"].clone(), invoice["paid_by"].clone()), ("PAID".into(), "resolve".into()));
    billing.call("POST", PAY, "").await.is(200, JSON, "true");
}
