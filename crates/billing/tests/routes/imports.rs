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
    let told = import(&billing, "", &(line("A", "1.00") + &"nonsense\n".repeat(250))).await;
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

#[tokio::test]
async fn a_body_of_another_kind_is_refused_by_its_media_type() {
    let billing = Billing::empty().await;
    let send = async |media_type: &str| {
        billing.with_headers("POST", "/v1/imports", &[("content-type", media_type)], &line("A", "1.00")).await
    };
    for media_type in [
        "text/csv",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let answer = send(media_type).await;
        assert_eq!(answer.status, 415, "{media_type}: {}", answer.body);
        assert!(answer.body.contains("application/x-ndjson"), "{}", answer.body);
    }
    assert_eq!(count(&billing).await, 0);
    for media_type in ["application/x-ndjson; charset=utf-8", "application/JSONL"] {
        assert_eq!(send(media_type).await.status, 200, "{media_type}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_ndjson_is_refused_as_a_whole() {
    let billing = Billing::empty().await;
    let row = line("A", "1.00");
    let row = row.trim();
    for (body, part) in [
        (format!("[{row}]"), "JSON array"),
        (format!("\n [\n{row}]"), "JSON array"),
        ("reference,customer_id,currency,amount\nA,1,EUR,1\n".to_owned(), "no JSON object"),
        ("{\n\"reference\":\"A\"\n}".to_owned(), "in the middle of an object"),
        ("<rows/>".to_owned(), "no JSON object"),
    ] {
        let answer = billing.call("POST", "/v1/imports", &body).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        assert!(answer.body.contains(part), "{body}: {}", answer.body);
    }
    assert_eq!(count(&billing).await, 0);
}

#[tokio::test]
async fn an_import_that_is_cut_off_says_what_was_written() {
    let billing = Billing::empty().await;
    let cut = async |rows: usize| {
        let text: String = (1..=rows).map(|n| line(&format!("R{n}"), "1.00")).collect();
        let pieces = [Ok(Bytes::from(text)), Err(std::io::Error::other("gone"))];
        billing.send("POST", "/v1/imports", Body::from_stream(stream::iter(pieces))).await.body
    };
    let few = cut(5).await;
    assert!(few.contains("after line 5; nothing was written"), "{few}");
    assert_eq!(count(&billing).await, 0);
    let many = cut(1500).await;
    assert!(many.contains("after line 1500; of lines 1 to 1000, 1000 were created"), "{many}");
    assert_eq!(count(&billing).await, 1000);
}

#[tokio::test]
async fn a_reference_in_another_normal_form_is_the_same_invoice() {
    let billing = Billing::with(&line("caf\u{e9}-1", "49.00")).await;
    assert_eq!(import(&billing, "", &line("cafe\u{301}-1", "49.00")).await, report(0, 1, 0));
    assert_eq!(import(&billing, "", &line("cafe\u{301}-1", "50.00")).await["errors_total"], 1);
    assert_eq!(import(&billing, "?update=true", &line("cafe\u{301}-1", "50.00")).await, report(0, 0, 1));
    let shown = billing.get("/v1/invoices/cafe%CC%81-1").await.json();
    assert_eq!(
        (shown["reference"].as_str(), shown["amount_minor"].as_i64()),
        (Some("caf\u{e9}-1"), Some(5000))
    );
    let both = line("\u{e5}-2", "1.00") + &line("a\u{30a}-2", "1.00");
    assert_eq!(import(&billing, "", &both).await, report(1, 1, 0));
}

#[tokio::test]
async fn a_reference_with_an_invisible_character_is_refused_by_code_point() {
    let billing = Billing::empty().await;
    for (character, code_point) in [('\u{202e}', "U+202E"), ('\u{2028}', "U+2028"), ('\u{ad}', "U+00AD")] {
        let told = import(&billing, "", &line(&format!("INV{character}5"), "1.00")).await;
        assert_eq!((&told["errors_total"], &told["errors"][0]["field"]), (&json!(1), &json!("reference")));
        assert!(told["errors"][0]["message"].as_str().unwrap().contains(code_point), "{told}");
    }
    assert_eq!(count(&billing).await, 0);
}

#[tokio::test]
async fn references_that_people_can_hardly_tell_apart_are_taken_and_warned_of() {
    let billing = Billing::with(&(line("OLD-7", "1.00") + &line("old 8", "1.00"))).await;
    let names = ["INV-1", "inv-1", "\u{ff29}NV-1", "INV -1", "INV-01", "INV-1", "old-7", "OLD8"];
    let body: String = names.iter().map(|name| line(name, "1.00")).collect();
    for query in ["?dry_run=true", ""] {
        let told = import(&billing, query, &body).await;
        assert_eq!((&told["created"], &told["unchanged"]), (&json!(7), &json!(1)), "{told}");
        assert_eq!((&told["errors_total"], &told["warnings_total"]), (&json!(0), &json!(4)), "{told}");
        let warned: Vec<Value> = told["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|warning| json!([warning["line"], warning["reference"], warning["like_line"]]))
            .collect();
        let expected = [
            json!([2, "inv-1", 1]),
            json!([3, "\u{ff29}NV-1", 1]),
            json!([4, "INV -1", 1]),
            json!([7, "old-7", null]),
        ];
        assert_eq!(warned, expected);
        let message = told["warnings"][3]["message"].as_str().unwrap();
        assert!(message.starts_with("differs from the stored \"OLD-7\" only by case"), "{message}");
    }
    assert_eq!(import(&billing, "", &body).await, report(0, 8, 0), "a second time nothing is new");
}
