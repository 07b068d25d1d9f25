//! Lists of whole tables: complete at any length, streamed in pieces, and never apparently complete after a failure.

use http_body_util::BodyExt;

use crate::support::Billing;

fn lines(count: u32) -> String {
    (1..=count)
        .map(|n| {
            format!(r#"{{"reference":"R{n}","customer_id":{n},"currency":"EUR","amount":"1.00"}}"#) + "\n"
        })
        .collect()
}

#[tokio::test]
async fn a_table_is_listed_whole_whatever_its_size() {
    for count in [0, 1, 499, 500, 501, 1000, 1234] {
        let billing = Billing::with(&lines(count)).await;
        for (path, id) in
            [("/rest/v1/invoices", "id"), ("/rest/v1/customers", "id"), ("/invoices", "InvoiceId")]
        {
            let answer = billing.get(path).await;
            let small = count < 500;
            assert_eq!(answer.header("content-length").is_some(), small, "{path} with {count} rows");
            let rows = answer.json();
            let ids: Vec<String> = rows.as_array().unwrap().iter().map(|row| row[id].to_string()).collect();
            let prefix = |n: u32| if id == "id" { format!("{n}") } else { format!("\"R{n}\"") };
            assert_eq!(ids, (1..=count).map(prefix).collect::<Vec<_>>(), "{path} with {count} rows");
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_in_mid_list_breaks_the_answer_off() {
    let billing = Billing::with(&lines(1200)).await;
    let mut body = billing.answer("GET", "/rest/v1/invoices").await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"[{\"id\":1,"));
    billing.spoil("ALTER TABLE invoices RENAME TO gone");
    let next = body.frame().await.expect("the list is not at its end");
    assert!(next.is_err(), "a list cut short must not look complete");
}

#[tokio::test]
async fn a_store_that_fails_at_once_is_reported_without_internal_text() {
    let billing = Billing::with(&lines(1)).await;
    billing.spoil("ALTER TABLE invoices RENAME TO gone");
    for path in ["/rest/v1/invoices", "/rest/v1/invoices/1", "/invoices"] {
        let answer = billing.get(path).await;
        assert!(matches!(answer.status, 500 | 503), "{path}: {}", answer.status);
        assert!(answer.json().is_string(), "{path}: {}", answer.body);
        assert!(!answer.body.contains("table"), "{path}: {}", answer.body);
    }
    let answer = billing.get("/v1/invoices").await;
    assert!(matches!(answer.status, 500 | 503));
    assert_eq!(answer.content_type(), "application/problem+json");
    assert!(!answer.body.contains("table"), "{}", answer.body);
    billing.spoil("ALTER TABLE runs RENAME TO gone_runs");
    for path in ["/rest/v1/invoices/pay", "/invoices/pay"] {
        billing.call("POST", path, "").await.is(503, "application/json", "false");
    }
}
