//! The routes of the invoice-app, byte for byte, over a real store.

use billing::demo_data::Demo;

use crate::support::{Billing, NOT_FOUND};

const JSON: &str = "application/json; charset=utf-8";

/// INV-01 INV-04 INV-05
#[tokio::test]
async fn its_demo_is_three_unpaid_invoices_under_their_references() {
    let billing = Billing::demo(Demo::InvoiceApp).await;
    let all = concat!(
        r#"[{"InvoiceId":"I1","Value":12.15,"Currency":"EUR","IsPaid":false},"#,
        r#"{"InvoiceId":"I2","Value":10.25,"Currency":"GBP","IsPaid":false},"#,
        r#"{"InvoiceId":"I3","Value":66.13,"Currency":"DKK","IsPaid":false}]"#,
    );
    billing.get("/invoices").await.is(200, JSON, all);
    let customers = r#"[{"id":1,"currency":"EUR"},{"id":2,"currency":"GBP"},{"id":3,"currency":"DKK"}]"#;
    billing.get("/rest/v1/customers").await.is(200, "application/json", customers);
}

#[tokio::test]
async fn a_reference_is_escaped_as_json() {
    let line = r#"{"reference":"a\"b\\c/ü","customer_id":1,"currency":"EUR","amount":"1","status":"PAID"}"#;
    let billing = Billing::with(line).await;
    let all = r#"[{"InvoiceId":"a\"b\\c/ü","Value":1.00,"Currency":"EUR","IsPaid":true}]"#;
    billing.get("/invoices").await.is(200, JSON, all);
}

/// INV-03
#[tokio::test]
async fn healthz_is_an_object() {
    let billing = Billing::empty().await;
    billing.get("/healthz").await.is(200, JSON, r#"{"status":"ok"}"#);
}

#[tokio::test]
async fn its_paths_have_one_spelling() {
    let billing = Billing::empty().await;
    for path in ["/Invoices", "/invoices//", "/HEALTHZ", "/invoices/I1"] {
        billing.get(path).await.is(404, "application/json", NOT_FOUND);
    }
    for (method, path) in [("POST", "/invoices"), ("GET", "/invoices/pay"), ("POST", "/healthz")] {
        billing.call(method, path, "").await.is(404, "application/json", NOT_FOUND);
    }
}
