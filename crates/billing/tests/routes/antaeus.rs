//! The routes of Antaeus, byte for byte, over a real store.

use crate::support::{Billing, NOT_FOUND};

const JSON: &str = "application/json";

const THREE: &str = r#"{"reference":"A","customer_id":1,"currency":"USD","amount":"233.12","status":"PAID"}
{"reference":"B","customer_id":1,"currency":"USD","amount":"145.4"}
{"reference":"C","customer_id":2,"currency":"DKK","amount":"7"}
"#;

const FIRST: &str = r#"{"id":1,"customerId":1,"amount":{"value":233.12,"currency":"USD"},"status":"PAID"}"#;
const SECOND: &str =
    r#"{"id":2,"customerId":1,"amount":{"value":145.40,"currency":"USD"},"status":"PENDING"}"#;
const THIRD: &str = r#"{"id":3,"customerId":2,"amount":{"value":7.00,"currency":"DKK"},"status":"PENDING"}"#;

/// ANT-01
#[tokio::test]
async fn health_is_a_json_string() {
    let billing = Billing::empty().await;
    billing.get("/rest/health").await.is(200, JSON, "\"ok\"");
}

/// ANT-02 ANT-03
#[tokio::test]
async fn customers_are_listed_by_id_and_shown_one_by_one() {
    let billing = Billing::with(THREE).await;
    let all = r#"[{"id":1,"currency":"USD"},{"id":2,"currency":"DKK"}]"#;
    billing.get("/rest/v1/customers").await.is(200, JSON, all);
    billing.get("/rest/v1/customers/2").await.is(200, JSON, r#"{"id":2,"currency":"DKK"}"#);
}

/// ANT-04 ANT-05 ANT-06
#[tokio::test]
async fn invoices_have_their_keys_in_order_and_two_decimals() {
    let billing = Billing::with(THREE).await;
    billing.get("/rest/v1/invoices").await.is(200, JSON, &format!("[{FIRST},{SECOND},{THIRD}]"));
    billing.get("/rest/v1/invoices/2").await.is(200, JSON, SECOND);
}

#[tokio::test]
async fn an_empty_store_lists_nothing() {
    let billing = Billing::empty().await;
    billing.get("/rest/v1/invoices").await.is(200, JSON, "[]");
    billing.get("/rest/v1/customers").await.is(200, JSON, "[]");
}

/// ANT-08 ANT-11 ANT-12
#[tokio::test]
async fn whatever_is_not_there_is_the_string_not_found() {
    let billing = Billing::with(THREE).await;
    for path in [
        "/rest/v1/invoices/4",
        "/rest/v1/customers/3",
        "/rest/v1/invoices/one",
        "/rest/v1/invoices/1.0",
        "/rest/v1/invoices/2147483648",
        "/rest/v1/invoices/%ff",
        "/rest/v1/invoices/1/2",
        "/rest/v1/invoices//1",
        "/rest/v1/invoices/pay",
        "/rest",
        "/rest/",
        "/rest/v1",
        "/rest/v2/invoices",
        "/nothing",
        "/",
        "/v10",
    ] {
        billing.get(path).await.is(404, JSON, NOT_FOUND);
        let head = billing.call("HEAD", path, "").await;
        assert_eq!((head.status, head.body.as_str()), (404, ""), "HEAD {path}");
    }
    for (method, path) in [
        ("POST", "/rest/health"),
        ("POST", "/rest/v1/invoices"),
        ("PUT", "/rest/v1/invoices/1"),
        ("DELETE", "/rest/v1/customers/1/"),
        ("OPTIONS", "/rest/v1/invoices/PAY"),
        ("HEAD", "/rest/v1/invoices/pay"),
        ("TRACE", "/rest/v1/customers"),
        ("BREW", "/rest/health"),
    ] {
        let answer = billing.call(method, path, "").await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert_eq!(answer.header("allow"), None, "{method} {path}");
        assert_eq!(answer.body, if method == "HEAD" { "" } else { NOT_FOUND }, "{method} {path}");
    }
}

/// ANT-09 ANT-10
#[tokio::test]
async fn old_paths_are_found_in_any_case_with_a_slash_at_the_end_and_odd_ids() {
    let billing = Billing::with(THREE).await;
    for path in [
        "/rest/v1/Invoices/2/",
        "/REST/V1/INVOICES/2",
        "/Rest/v1/invoices/02",
        "/rest/v1/invoices/+2",
        "/rest/v1/invoices/%32",
        "/rest/v1/invoices/0000000002/?x=Y",
        "/rest/v1/invoices/2?",
    ] {
        billing.get(path).await.is(200, JSON, SECOND);
    }
    billing.get("/REST/Health/").await.is(200, JSON, "\"ok\"");
    let all = format!("[{FIRST},{SECOND},{THIRD}]");
    billing.get("/rest/v1/Invoices/").await.is(200, JSON, &all);
}

/// ANT-24
#[tokio::test]
async fn small_answers_carry_their_length_and_head_carries_it_too() {
    let billing = Billing::with(THREE).await;
    for path in ["/rest/v1/invoices", "/rest/v1/invoices/1", "/rest/v1/customers", "/rest/health", "/no"] {
        let answer = billing.get(path).await;
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length").as_deref(), Some(length.as_str()), "{path}");
        let head = billing.call("HEAD", path, "").await;
        assert_eq!(head.header("content-length").as_deref(), Some(length.as_str()), "HEAD {path}");
    }
}
