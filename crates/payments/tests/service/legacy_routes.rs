//! The legacy routes byte by byte, headers included.

use std::time::Duration;

use crate::site::{GOOD, Settings, seen, willing};

const JSON: &str = "application/json";
const JSON_UTF8: &str = "application/json; charset=utf-8";

fn shown(status: u16, content_type: &str, body: &str) -> (u16, String, String) {
    (status, content_type.to_owned(), body.to_owned())
}

fn refusing() -> Settings {
    Settings::default().flags(["--success-rate", "0"])
}

/// PAY-01, PAY-16, PYS-01, PYS-02, PRV-01, PRV-06
#[test]
fn a_decision_is_reported_in_the_words_of_its_route() {
    let (yes, no) = (willing().start(), refusing().start());
    for path in ["/", "//"] {
        assert_eq!(seen(&yes.post(path, &[], GOOD)), shown(200, JSON, r#"{"result":"true"}"#));
        assert_eq!(seen(&no.post(path, &[], GOOD)), shown(200, JSON, r#"{"result":"false"}"#));
    }
    let charged = yes.post("/payments", &[], GOOD);
    let id = charged.json()["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 20 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert_eq!(seen(&charged), shown(201, JSON, &format!(r#"{{"id":"{id}","result":true}}"#)));
    let refused = shown(422, JSON, r#"{"result":false,"message":"cannot process payment"}"#);
    assert_eq!(seen(&no.post("/payments", &[], GOOD)), refused);
    let body = r#"{"id":"I\"1","value":12.15,"currency":"EUR"}"#;
    assert_eq!(seen(&yes.post("/payments/pay", &[], body)), shown(200, JSON_UTF8, r#"{"id":"I\"1"}"#));
    let refused = shown(402, JSON_UTF8, r#"{"id":"I\"1","error":"payment was refused"}"#);
    assert_eq!(seen(&no.post("/payments/pay", &[], body)), refused);
}

/// PAY-03, PAY-04, PAY-05
#[test]
fn the_guard_stands_before_everything_but_health_and_unknown_paths() {
    let site = willing().env("PAYMENTS_API_TOKEN", "\"TestToken\"").start();
    let forbidden = shown(403, "text/plain; charset=utf-8", "Forbidden\n");
    for path in ["/", "//", "/payments", "/payments/pay", "/v1/ledger/k/void"] {
        for headers in
            [&[][..], &[("X-Token", "")], &[("X-Token", "\"TestToken\"")], &[("X-Token", "TestToke")]]
        {
            assert_eq!(seen(&site.post(path, headers, "no json")), forbidden, "{path} {headers:?}");
        }
    }
    // A wrong method on a known path is guarded as well, an unknown path is not.
    assert_eq!(site.get("/").status, 403);
    assert_eq!(site.get("/v1/ledger").status, 403);
    assert_eq!(site.get_as("/", &[("X-Token", "TestToken")]).status, 405);
    assert_eq!(site.get("/nothing").status, 404);
    assert_eq!(site.post("/nothing", &[], "").status, 404);
    assert_eq!(site.post("/", &[("X-Token", "TestToken")], GOOD).status, 200);
    assert_eq!(seen(&site.get("/ping")), shown(200, JSON, r#"{"ping":"pong"}"#));
    assert_eq!(seen(&site.get("/health")), shown(200, JSON, r#"{"alive":"true"}"#));
    assert_eq!(seen(&site.get("/healthz")), shown(200, JSON, r#"{"status":"ok"}"#));
    assert_eq!(site.charges(), 1);
}

/// The response to a refused caller does not wait for its body.
#[test]
fn a_refused_caller_is_answered_before_its_body_came() {
    let site = willing().env("PAYMENTS_API_TOKEN", "TestToken").start();
    let mut connection = site.connect();
    connection.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{").unwrap();
    assert_eq!(connection.answer(false).unwrap().status, 403);
}

/// PAY-06, PAY-07, PAY-08, PAY-12
#[test]
fn the_legacy_route_answers_bad_requests_by_400_with_one_of_two_errors() {
    let site = willing().start();
    let invalid = shown(400, JSON, r#"{"error":"Invalid Request","result":"false"}"#);
    let deep = format!(r#"{{"customer_id":1,"currency":"USD","x":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    let long = format!(r#"{{"customer_id":1,"currency":"{}"}}"#, "x".repeat(300));
    for body in [
        "",
        "no json",
        "[]",
        "1",
        "\u{feff}{}",
        "{",
        r#"{"customer_id":"1"}"#,
        r#"{"customer_id":1.0}"#,
        r#"{"customer_id":1e0}"#,
        r#"{"value":"1"}"#,
        r#"{"value":true}"#,
        r#"{"value":1e999}"#,
        r#"{"value":-Infinity}"#,
        r#"{"currency":["USD"]}"#,
        r#"{"customer_id":1,"CUSTOMER_ID":1}"#,
        &deep,
        &long,
    ] {
        assert_eq!(seen(&site.post("/", &[], body)), invalid, "{}", &body[..body.len().min(60)]);
    }
    let faulty =
        shown(400, JSON, r#"{"error":"Invalid Request. Missing or faulty fields","result":"false"}"#);
    for body in [
        "{}",
        "null",
        r#"{"currency":"USD"}"#,
        r#"{"customer_id":1}"#,
        r#"{"customer_id":1,"currency":""}"#,
        r#"{"customer_id":0,"currency":"USD"}"#,
        r#"{"customer_id":1,"currency":"USD","value":-0.001}"#,
    ] {
        assert_eq!(seen(&site.post("/", &[], body)), faulty, "{body}");
    }
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 0);
}

/// PAY-11, PAY-13, PAY-20
#[test]
fn what_is_stored_is_what_was_sent() {
    let site = willing().start();
    let row = |body: &str| {
        assert_eq!(site.post("/", &[], body).status, 200, "{body}");
        let items = site.get("/v1/ledger?limit=1000").json()["items"].clone();
        let last = items.as_array().unwrap().last().unwrap().clone();
        (
            last["customer_id"].clone(),
            last["currency"].clone(),
            last["amount_minor"].clone(),
            last["reference"].clone(),
        )
    };
    let table = [
        (r#"{"customer_id":7,"currency":"usd","value":1.005}"#, (7, "usd", 100, None)),
        (r#"{"VALUE":1.015,"Currency":{},"Customer_Id":7,"Id":"I9"}"#, (7, "", 102, Some("I9"))),
        (r#"{"customer_id":7,"currency":"Ⓐ","value":null,"id":5}"#, (7, "Ⓐ", 0, None)),
        (
            r#"{"customer_id":7,"currency":"EUR","value":9999999999.999}"#,
            (7, "EUR", 1_000_000_000_000_i64, None),
        ),
    ];
    for (body, (customer_id, currency, minor, reference)) in table {
        assert_eq!(
            row(body),
            (customer_id.into(), currency.into(), minor.into(), reference.into()),
            "{body}"
        );
    }
}

/// PYS-03, PYS-04, PYS-05, PYS-06, PYS-07
#[test]
fn payments_reads_json_forms_and_queries_and_guesses_at_nothing() {
    let site = willing().start();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for (path, body) in [
        ("/payments", GOOD),
        ("/payments/", GOOD),
        ("/payments", r#"{"customer_id":"1","currency":{},"value":"1.25"}"#),
        ("/payments", "customer_id=1&currency=USD&value=1.25"),
        ("/payments?customer_id=1&currency=USD", "value=1.25"),
        ("/payments?customer_id=1&currency=USD&value=1.25", ""),
    ] {
        assert_eq!(site.post(path, &form, body).status, 201, "{path} {body}");
    }
    assert_eq!(site.ask("SELECT sum(amount_minor) FROM ledger"), 6 * 125);
    let missing = shown(400, JSON, r#"{"result":false,"message":"missing parameter"}"#);
    for body in ["", "{", "[]", "{}", "customer_id=1&currency=USD", "customer_id=1&value=1&currency="] {
        assert_eq!(seen(&site.post("/payments", &form, body)), missing, "{body}");
    }
    let invalid = shown(400, JSON, r#"{"result":false,"message":"invalid value"}"#);
    for (path, body) in [
        ("/payments", "customer_id=1&currency=USD&value=-1"),
        ("/payments", "customer_id=1&currency=USD&value=NaN"),
        ("/payments", "customer_id=one&currency=USD&value=1"),
        ("/payments", "customer_id=1&currency=USD&value=1&value=2"),
        ("/payments?value=2", GOOD),
        ("/payments", r#"{"customer_id":1,"currency":"USD","value":true}"#),
    ] {
        assert_eq!(seen(&site.post(path, &form, body)), invalid, "{path} {body}");
    }
}

/// PRV-02, PRV-03, PRV-04, PRV-05
#[test]
fn the_provider_route_names_the_first_field_that_it_misses() {
    let site = willing().start();
    let error = |what: &str| shown(400, JSON_UTF8, &format!(r#"{{"error":"{what}"}}"#));
    let table = [
        (
            "failed to process payment request parameters",
            ["", "[]", r#"{"id":1}"#, r#"{"id":"I1","value":"1"}"#],
        ),
        ("could not retrieve payment id", ["{}", "null", r#"{"id":""}"#, r#"{"id":null,"value":0}"#]),
        (
            "could not retrieve payment value",
            [
                r#"{"id":"a"}"#,
                r#"{"id":"a","value":-1}"#,
                r#"{"id":"a","value":0.001}"#,
                r#"{"id":"a","value":null}"#,
            ],
        ),
        (
            "could not retrieve payment currency",
            [
                r#"{"id":"a","value":1}"#,
                r#"{"id":"a","value":1,"currency":""}"#,
                r#"{"id":"a","value":1,"currency":null}"#,
                r#"{"id":"a","value":0.006}"#,
            ],
        ),
    ];
    for (what, bodies) in table {
        for body in bodies {
            assert_eq!(seen(&site.post("/payments/pay", &[], body)), error(what), "{body}");
        }
    }
    // The object that one client of `POST /` sends is not accepted as a currency here.
    let object = site.post("/payments/pay", &[], r#"{"id":"a","value":12.15,"currency":{}}"#);
    assert_eq!(seen(&object), error("failed to process payment request parameters"));
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 0);
}

/// PAY-17
#[test]
fn the_log_names_the_account_and_shows_the_body_at_debug_only() {
    for (level, shows_body) in [("info", false), ("debug", true)] {
        let site = willing().env("PAYMENTS_API_TOKEN", "TestToken").flags(["--log-level", level]).start();
        site.post("/", &[("X-Token", "TestToken")], GOOD);
        site.post("/", &[("X-Token", "wrong")], GOOD);
        let is_logged = || site.process.log().contains("Unauthenticated user");
        testkit::wait_until("the line of the second call", Duration::from_secs(60), is_logged);
        let log = site.process.log();
        assert!(log.contains("Authenticated user antaeus"), "{log}");
        assert_eq!(log.contains("customer_id"), shows_body, "{log}");
        assert!(!log.contains("TestToken"), "{log}");
    }
}

#[test]
fn a_body_over_the_limit_is_413_and_charges_nothing() {
    let site = willing().start();
    let body = format!(r#"{{"customer_id":1,"currency":"USD","x":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(site.post("/", &[], &body).status, 413);
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 0);
}
