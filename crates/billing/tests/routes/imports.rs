//! Imports over a real store: counts, faults by line, bodies in pieces, and repeated imports.

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};

use crate::support::Billing;

fn line(reference: &str, amount: &str) -> String {
    format!(r#"{{"reference":"{reference}","customer_id":1,"currency":"EUR","amount":"{amount}"}}"#) + "\n"
}

async fn import(billing: &Billing, query: &str, body: &str) -> Value {
    let answer = billing.call("POST", &format!("/v1/imports{query}"), body).await;
    assert_eq!((answer.status, answer.content_type().as_str()), (200, "application/json"), "{}", answer.body);
    answer.json()
}

fn report(created: u64, unchanged: u64, updated: u64) -> Value {
    json!({"created": created, "unchanged": unchanged, "updated": updated,
           "errors_total": 0, "errors": [], "dry_run": false})
}

async fn count(billing: &Billing) -> i64 {
    billing.get("/v1/deployment").await.json()["counts"]["pending"].as_i64().unwrap()
}

#[tokio::test]
async fn importing_again_changes_nothing() {
    let billing = Billing::empty().await;
    let body: String = (1..=2500).map(|n| line(&format!("R{n}"), "1.00")).collect();
    assert_eq!(import(&billing, "", &body).await, report(2500, 0, 0));
    assert_eq!(import(&billing, "", &body).await, report(0, 2500, 0));
    assert_eq!(count(&billing).await, 2500);
}

#[tokio::test]
async fn a_dry_run_tells_and_writes_nothing() {
    let billing = Billing::empty().await;
    let told = import(&billing, "?dry_run=true", &line("R", "1.00")).await;
    assert_eq!((told["created"].clone(), told["dry_run"].clone()), (json!(1), json!(true)));
    assert_eq!(count(&billing).await, 0);
}

#[tokio::test]
async fn other_data_under_a_known_reference_need_an_update() {
    let billing = Billing::with(&line("R", "1.00")).await;
    let told = import(&billing, "", &line("R", "2.00")).await;
    assert_eq!(told["errors_total"], 1);
    assert_eq!(told["errors"][0]["line"], 1);
    assert_eq!(told["errors"][0]["reference"], "R");
    assert_eq!(import(&billing, "?update=1", &line("R", "2.00")).await, report(0, 0, 1));
    assert_eq!(billing.get("/v1/invoices/R").await.json()["amount_minor"], 200);
}

#[tokio::test]
async fn each_fault_names_its_line_and_the_good_rows_are_taken() {
    let billing = Billing::empty().await;
    let body = [
        &line("A", "1.00"),
        "nonsense\n",
        "\r\n",
        &line("B", "1.001"),
        &format!("{{\"reference\":\"{}\"}}\n", "x".repeat(20_000)),
        r#"{"reference":"C","customer_id":1,"currency":"SEK","amount":1}"#,
        "\n",
        line("D", "1.00").trim_end(),
    ]
    .concat();
    let told = import(&billing, "", &body).await;
    assert_eq!((told["created"].clone(), told["errors_total"].clone()), (json!(2), json!(4)));
    let faults: Vec<Value> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| json!([fault["line"], fault.get("reference"), fault["field"]]))
        .collect();
    let expected = [
        json!([2, null, "line"]),
        json!([4, "B", "amount"]),
        json!([5, null, "line"]),
        json!([6, "C", "currency"]),
    ];
    assert_eq!(faults, expected);
}

#[tokio::test]
async fn a_hundred_faults_are_listed_and_all_are_counted() {
    let billing = Billing::empty().await;
    let told = import(&billing, "", &"nonsense\n".repeat(250)).await;
    assert_eq!(told["errors_total"], 250);
    assert_eq!(told["errors"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn the_body_may_come_in_any_pieces_with_a_mark_in_front() {
    let billing = Billing::empty().await;
    let text = format!("\u{feff}{}{}", line("Ä", "1.00"), line("B", "2.00"));
    let bytes = text.into_bytes();
    for size in [1, 2, 3, 64, 1000] {
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let answer = billing.send("POST", "/v1/imports", Body::from_stream(stream::iter(pieces))).await;
        assert_eq!(answer.json()["errors_total"], 0, "{}", answer.body);
    }
    assert_eq!(count(&billing).await, 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_success() {
    let billing = Billing::empty().await;
    let pieces = [Ok(Bytes::from(line("A", "1.00"))), Err(std::io::Error::other("gone"))];
    let answer = billing.send("POST", "/v1/imports", Body::from_stream(stream::iter(pieces))).await;
    assert_eq!(answer.status, 400);
    assert!(!answer.body.contains("gone"), "{}", answer.body);
}

#[tokio::test]
async fn a_misspelt_switch_writes_nothing() {
    let billing = Billing::empty().await;
    for query in ["?dryrun=true", "?dry_run=yes", "?dry_run=true&dry_run=false"] {
        let answer = billing.call("POST", &format!("/v1/imports{query}"), &line("A", "1.00")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    assert_eq!(count(&billing).await, 0);
}
