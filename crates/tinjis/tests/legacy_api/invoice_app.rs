//! Black-box tests of the invoice-app routes, as its test script and users use them (ids INV in
//! docs/reference/contract.md). Runs against processes of its own, or against a running service at `BILLING_URL`.

use std::process::Command;
use std::time::Duration;

use testkit::wait::pause;

use crate::scripted_provider::{Foreign, answer};
use crate::site::{Site, invoice_app, invoice_app_at_success_rate, own, seen, shown};

const JSON: &str = "application/json; charset=utf-8";

fn list(paid: bool) -> String {
    format!(
        r#"[{{"InvoiceId":"I1","Value":12.15,"Currency":"EUR","IsPaid":{paid}}},{{"InvoiceId":"I2","Value":10.25,"Currency":"GBP","IsPaid":{paid}}},{{"InvoiceId":"I3","Value":66.13,"Currency":"DKK","IsPaid":{paid}}}]"#
    )
}

/// INV-01, INV-04, INV-05
#[test]
fn three_unpaid_invoices_are_spelt_as_ever() {
    let site = Site::of(invoice_app());
    assert_eq!(seen(&site.get("/invoices")), shown(200, JSON, &list(false)));
    let ids = r#"[{"id":1,"customerId":1,"amount":{"value":12.15,"currency":"EUR"},"status":"PENDING"},{"id":2,"customerId":2,"amount":{"value":10.25,"currency":"GBP"},"status":"PENDING"},{"id":3,"customerId":3,"amount":{"value":66.13,"currency":"DKK"},"status":"PENDING"}]"#;
    assert_eq!(site.get("/rest/v1/invoices").text(), ids);
}

/// INV-02, INV-08
#[test]
fn one_pay_call_pays_every_invoice() {
    let site = Site::invoice_app();
    assert_eq!(seen(&site.call("POST", "/invoices/pay", &[], "")), shown(200, JSON, "{}"));
    assert_eq!(site.get("/invoices").text(), list(true));
    assert_eq!(seen(&site.call("POST", "/invoices/pay", &[], "")), shown(200, JSON, "{}"));
}

/// INV-03
#[test]
fn health_is_status_ok() {
    assert_eq!(seen(&Site::invoice_app().get("/healthz")), shown(200, JSON, r#"{"status":"ok"}"#));
}

/// INV-11
#[test]
fn a_slash_at_the_end_of_a_path_changes_nothing() {
    let site = Site::of(invoice_app());
    assert_eq!(seen(&site.get("/invoices/")), shown(200, JSON, &list(false)));
    assert_eq!(seen(&site.call("POST", "/invoices/pay/", &[], "")), shown(200, JSON, "{}"));
}

/// INV-12
#[test]
fn health_paths_of_known_forks_answer() {
    let site = Site::of(invoice_app());
    for path in
        ["/health", "/healthcheck", "/rest/ready", "/rest/alive", "/v1/healthz", "/liveness", "/readiness"]
    {
        assert_eq!(site.get(path).status, 200, "{path}");
    }
}

/// INV-13
#[test]
fn a_provider_that_has_not_answered_yet_gives_200_and_an_unpaid_invoice() {
    // The provider answers after billing's deadline for a request, at most 30 s; the call waits for that deadline too.
    let silent = Foreign::start(|_| {
        pause(Duration::from_secs(40));
        answer(500, "")
    });
    let site = Site::of(invoice_app().billing_env("PAYMENT_PROVIDER_ENDPOINT", silent.url()));
    assert_eq!(seen(&site.call("POST", "/invoices/pay", &[], "")), shown(200, JSON, "{}"));
    assert_eq!(site.get("/invoices").text(), list(false));
}

/// INV-06
#[test]
fn a_refused_invoice_stays_unpaid() {
    let site = Site::of(invoice_app_at_success_rate("0"));
    assert_eq!(seen(&site.call("POST", "/invoices/pay", &[], "")), shown(200, JSON, "{}"));
    assert_eq!(site.get("/invoices").text(), list(false));
}

/// INV-07
#[test]
fn a_provider_that_cannot_be_reached_is_502_and_marks_nothing() {
    let site =
        Site::of(invoice_app().billing_env("PAYMENT_PROVIDER_ENDPOINT", "http://127.0.0.1:9/payments/pay"));
    let answer = site.call("POST", "/invoices/pay", &[], "");
    assert_eq!((answer.status, answer.header("content-type")), (502, Some(JSON)));
    assert!(answer.json()["Error"].is_string(), "{}", answer.text());
    assert_eq!(site.get("/invoices").text(), list(false));
}

/// INV-09
#[test]
fn the_providers_base_url_means_its_pay_route() {
    for name in ["PAYMENT_PROVIDER_URL", "payment-provider-url"] {
        let foreign = Foreign::start(|request| {
            let id = crate::scripted_provider::body_of(request)["id"].clone();
            answer(200, &serde_json::json!({ "id": id }).to_string())
        });
        let settings = own()
            .billing_flags(["--demo", "invoice-app"])
            .billing_env("PAYMENT_PROVIDER_ENDPOINT", "")
            .billing_env("PAYMENT_PROVIDER_IDEMPOTENCY", "none")
            .billing_env(name, foreign.url());
        let site = Site::of(settings);
        site.call("POST", "/invoices/pay", &[], "");
        assert_eq!(site.get("/invoices").text(), list(true), "{name}");
        assert!(
            foreign.requests().iter().all(|request| request.starts_with("POST /payments/pay HTTP/1.1\r\n"))
        );
    }
}

/// INV-10
#[test]
fn two_names_that_differ_are_a_mistake() {
    let ended = Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(["run", "billing", "--listen", "127.0.0.1:0"])
        .env("PAYMENT_PROVIDER_ENDPOINT", "http://one/")
        .env("PAYMENT_PROVIDER_URL", "http://two/")
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(64), "{said}");
    assert!(said.contains("PAYMENT_PROVIDER_ENDPOINT") && said.contains("PAYMENT_PROVIDER_URL"), "{said}");
}
