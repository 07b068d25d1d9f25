//! Billing as the client of foreign providers with different answers (ids CHG in docs/reference/contract.md). Reads
//! billing's conclusions from its own API; links no crate of ours.

use crate::scripted_provider::{Foreign, answer, body_of, header_of};
use crate::site::{Site, antaeus_at, own};

/// One invoice to charge at a foreign provider.
fn one_invoice_at(provider: &str) -> Site {
    one_invoice_in("default", provider)
}

/// One invoice to charge at a provider with this dialect.
fn one_invoice_in(dialect: &str, provider: &str) -> Site {
    let settings = own()
        .billing_flags(["--dialect", dialect])
        .billing_env("PAYMENT_PROVIDER_ENDPOINT", provider)
        .billing_env("PAYMENT_PROVIDER_IDEMPOTENCY", "none");
    let site = Site::of(settings);
    let row = "{\"reference\":\"I-7\",\"customer_id\":3,\"currency\":\"EUR\",\"amount\":\"12.50\"}\n";
    assert_eq!(site.call("POST", "/v1/imports", &[], row).json()["created"], 1);
    site
}

/// The invoice's state after one pay call.
fn state_after_pay(site: &Site) -> String {
    site.pay();
    site.get("/v1/invoices/I-7").json()["state"].as_str().expect("a state").to_owned()
}

/// CHG-01
#[test]
fn the_path_is_what_was_configured() {
    for path in ["", "/", "/payments", "/payments/", "/a/b?c=d"] {
        let foreign = Foreign::answering(200, r#"{"result":"true"}"#);
        let site = one_invoice_at(&format!("{}{path}", foreign.url()));
        assert_eq!(state_after_pay(&site), "PAID");
        let asked = if path.is_empty() { "/" } else { path };
        assert!(foreign.requests()[0].starts_with(&format!("POST {asked} HTTP/1.1\r\n")), "{path}");
    }
}

/// CHG-02, CHG-03
#[test]
fn one_body_serves_every_provider() {
    let foreign = Foreign::answering(200, r#"{"result":"true"}"#);
    let site = one_invoice_at(foreign.url());
    assert_eq!(state_after_pay(&site), "PAID");
    let request = foreign.requests().remove(0);
    assert!(
        request.ends_with(r#"{"id":"I-7","invoice_id":1,"customer_id":3,"currency":"EUR","value":12.50}"#),
        "{request}"
    );
    let key = header_of(&request, "idempotency-key").expect("a key");
    assert!(key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    let attempt = site.get("/v1/attempts").json()["items"][0].clone();
    assert_eq!(
        (&attempt["key"], &attempt["state"]),
        (&serde_json::json!(key), &serde_json::json!("CHARGED"))
    );
}

/// CHG-04, CHG-05, CHG-06
#[test]
fn every_known_providers_yes_and_no_is_understood() {
    for (status, body, state) in [
        (200, r#"{"result":"true"}"#, "PAID"),
        (200, r#"{"result":true}"#, "PAID"),
        (200, r#"{"result":"True"}"#, "PAID"),
        (201, r#"{"id":"0123456789abcdef0123","result":true}"#, "PAID"),
        (200, r#"{"id":"I-7"}"#, "PAID"),
        (200, r#"{"result":"false"}"#, "PENDING"),
        (200, r#"{"result":"FALSE"}"#, "PENDING"),
        (201, r#"{"result":false}"#, "PENDING"),
        (422, r#"{"result":false,"message":"cannot process payment"}"#, "PENDING"),
        (402, r#"{"result":false}"#, "PENDING"),
        (402, r#"{"id":"I-7","error":"refused"}"#, "PENDING"),
    ] {
        let foreign = Foreign::answering(status, body);
        let site = one_invoice_at(foreign.url());
        assert_eq!(state_after_pay(&site), state, "{status} {body}");
        if state == "PENDING" {
            site.pay();
            let requests = foreign.requests();
            assert_eq!(requests.len(), 2, "{status} {body}");
            let key = |n: usize| header_of(&requests[n], "idempotency-key").map(str::to_owned);
            assert_ne!(key(0), key(1), "a new attempt has a new key");
        }
    }
}

/// CHG-08
#[test]
fn the_original_dialect_sends_the_currency_as_an_empty_object() {
    let foreign = Foreign::answering(200, r#"{"result":"true"}"#);
    assert_eq!(state_after_pay(&one_invoice_in("original", foreign.url())), "PAID");
    assert_eq!(body_of(&foreign.requests()[0])["currency"], serde_json::json!({}));
}

/// CHG-09
#[test]
fn the_status_blind_dialect_reads_the_result_beside_a_400() {
    for (body, state) in [(r#"{"result":"true"}"#, "PAID"), (r#"{"result":"false"}"#, "PENDING")] {
        let foreign = Foreign::answering(400, body);
        assert_eq!(state_after_pay(&one_invoice_in("status-blind", foreign.url())), state, "{body}");
        assert_ne!(state_after_pay(&one_invoice_at(foreign.url())), state, "the default is strict: {body}");
    }
}

/// CHG-05, CHG-07
#[test]
fn what_is_not_definite_is_neither_charged_nor_refused_and_not_sent_again_without_keys() {
    for bytes in [
        Vec::new(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"result\":".to_vec(),
        answer(200, r#"{"id":"I-8"}"#),
        answer(200, "{}"),
        answer(200, r#"{"result":"maybe"}"#),
        answer(200, r#"{"result":"true","result":"false"}"#),
        answer(200, &format!(r#"{{"result":"true","more":"{}"}}"#, "x".repeat(200_000))),
        answer(400, r#"{"result":true}"#),
        answer(500, r#"{"result":"true"}"#),
        answer(503, "busy"),
        answer(429, "slow down"),
        answer(302, ""),
        answer(408, ""),
        answer(409, ""),
    ] {
        let foreign = Foreign::sending(bytes.clone());
        let site = one_invoice_at(foreign.url());
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert_eq!(state_after_pay(&site), "ATTENTION", "{shown}");
        assert_eq!(site.pay(), "false");
        assert_eq!(foreign.requests().len(), 1, "{shown}");
        assert_eq!(
            site.get("/v1/invoices/I-7").json()["attention_reason"],
            "in-doubt-without-keys",
            "{shown}"
        );
    }
}

/// A wrong token or address is a fault of the endpoint, not of the invoice: once fixed, the same invoices are paid.
#[test]
fn a_wrong_endpoint_costs_no_invoice() {
    let foreign = Foreign::start(|request| {
        if header_of(request, "x-token") == Some("right") {
            answer(200, r#"{"result":"true"}"#)
        } else {
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 10\r\nConnection: close\r\n\r\nForbidden\n".to_vec()
        }
    });
    let tokens = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(tokens.path(), "wrong\n").expect("written");
    let path = tokens.path().to_str().expect("a UTF-8 path").to_owned();
    let mut site = Site::of(antaeus_at(foreign.url()).billing_env("PAYMENTS_API_TOKEN_FILE", path));
    assert_eq!(site.pay(), "false");
    assert_eq!(site.paid(), 2);
    std::fs::write(tokens.path(), "right\n").expect("written");
    site.restart_billing();
    assert_eq!((1..20).map(|_| site.pay()).find(|answer| answer == "true").as_deref(), Some("true"));
    assert!(foreign.requests().iter().all(|request| body_of(request)["currency"].is_string()));
}
