//! Black-box tests of the payment service's legacy routes, as three older billing programs call them (ids PAY, PYS and
//! PRV in docs/reference/contract.md). Runs against processes of its own, or against a running service at
//! `PAYMENTS_URL`.

use std::collections::BTreeMap;

use crate::site::{Site, own, seen, shown};
use testkit::{Answer, http, wait_until};

const JSON: &str = "application/json";
const GOOD: &str = r#"{"customer_id":1,"currency":"USD","value":1.25}"#;
/// The token of the older demo environment.
const TOKEN: (&str, &str) = ("X-Token", "TestToken");
/// Maximum time until a log line is written.
const LOGGED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

fn site() -> Site {
    Site::given_or(
        own().payments_env("PAYMENTS_API_TOKEN", "TestToken").billing_env("PAYMENTS_API_TOKEN", "TestToken"),
    )
}

fn charge(site: &Site, body: &str) -> Answer {
    site.provider("POST", "/", &[TOKEN, ("Content-Type", "application/json")], body)
}

fn invalid() -> (u16, String, String) {
    shown(400, JSON, r#"{"error":"Invalid Request","result":"false"}"#)
}

fn faulty() -> (u16, String, String) {
    shown(400, JSON, r#"{"error":"Invalid Request. Missing or faulty fields","result":"false"}"#)
}

fn assert_verdict(answer: &Answer) {
    let verdicts = [shown(200, JSON, r#"{"result":"true"}"#), shown(200, JSON, r#"{"result":"false"}"#)];
    assert!(verdicts.contains(&seen(answer)), "{:?}", seen(answer));
}

/// PAY-01, PAY-02
#[test]
fn a_good_call_is_charged_or_refused_about_half_and_half() {
    let site = site();
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..200 {
        let answer = charge(&site, GOOD);
        assert_verdict(&answer);
        *count.entry(answer.text()).or_default() += 1;
    }
    // The count of 200 fair draws is outside 60..=140 about once in some hundred million runs.
    assert!(count.values().all(|n| (60..=140).contains(n)), "{count:?}");
}

/// PAY-03
#[test]
fn a_wrong_or_missing_token_is_forbidden() {
    let site = site();
    let forbidden = (403, "Forbidden\n".to_owned());
    for headers in [&[][..], &[("X-Token", "")], &[("X-Token", "testtoken")], &[("X-Token", "TestToken2")]] {
        for path in ["/", "/payments", "/payments/pay"] {
            let answer = site.provider("POST", path, headers, GOOD);
            assert_eq!((answer.status, answer.text()), forbidden, "{path} with {headers:?}");
            let kind = answer.header("content-type").unwrap_or("");
            assert!(kind.starts_with("text/plain"), "{kind}");
        }
    }
}

/// PAY-22
#[test]
fn of_two_tokens_the_first_counts() {
    let site = site();
    let wrong = ("X-Token", "wrong");
    assert_verdict(&site.provider("POST", "/", &[TOKEN, wrong], GOOD));
    assert_eq!(site.provider("POST", "/", &[wrong, TOKEN], GOOD).status, 403);
}

/// PAY-23
#[test]
fn health_paths_of_known_forks_answer_without_a_token() {
    let site = site();
    for path in [
        "/health/",
        "/health.json",
        "/healthcheck",
        "/rest/health",
        "/rest/ready",
        "/rest/alive",
        "/v1/healthz",
        "/liveness",
        "/readiness",
    ] {
        let answer = site.provider("GET", path, &[], "");
        assert_eq!((answer.status, &answer.json()["alive"]), (200, &serde_json::json!("true")), "{path}");
    }
}

/// PAY-04
#[test]
fn the_token_is_judged_before_the_body() {
    let site = site();
    assert_eq!(site.provider("POST", "/", &[], "no json").status, 403);
    assert_eq!(charge(&site, "no json").status, 400);
}

/// PAY-05
#[test]
fn health_needs_no_token_and_unknown_paths_are_404_for_all() {
    let site = site();
    for path in ["/ping", "/health", "/healthz"] {
        assert_eq!(site.provider("GET", path, &[], "").status, 200, "{path}");
    }
    for headers in [&[][..], &[TOKEN]] {
        assert_eq!(site.provider("GET", "/nothing", headers, "").status, 404);
        assert_eq!(site.provider("POST", "/payments/nothing", headers, GOOD).status, 404);
    }
    assert_eq!(site.provider("GET", "/v1/ledger", &[], "").status, 403);
    assert_eq!(site.provider("GET", "/v1/ledger", &[TOKEN], "").status, 200);
}

/// PAY-06, PAY-08
#[test]
fn what_is_no_json_or_of_the_wrong_type_is_invalid() {
    let site = site();
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    for body in [
        "",
        "no json",
        "{",
        "[]",
        "1",
        r#"{"customer_id":"1","currency":"USD","value":1}"#,
        r#"{"customer_id":1.0,"currency":"USD","value":1}"#,
        r#"{"customer_id":1,"currency":"USD","value":"1"}"#,
        r#"{"customer_id":1,"currency":"USD","value":NaN}"#,
        r#"{"customer_id":1,"currency":"USD","value":1e999}"#,
        r#"{"customer_id":99999999999999999999,"currency":"USD","value":1}"#,
        r#"{"customer_id":1,"currency":5,"value":1}"#,
        r#"{"customer_id":1,"currency":"USD","value":1}{}"#,
        r#"{"customer_id":1,"currency":"USD","value":1,"value":2}"#,
        deep.as_str(),
    ] {
        assert_eq!(seen(&charge(&site, body)), invalid(), "{}", &body[..body.len().min(80)]);
    }
}

/// PAY-07
#[test]
fn missing_and_faulty_fields_have_their_own_words() {
    let site = site();
    for body in [
        "{}",
        r#"{"customer_id":0,"currency":"USD","value":1}"#,
        r#"{"customer_id":-1,"currency":"USD","value":1}"#,
        r#"{"currency":"USD","value":1}"#,
        r#"{"customer_id":1,"currency":"USD","value":-0.01}"#,
        r#"{"customer_id":1,"currency":"","value":1}"#,
        r#"{"customer_id":1,"value":1}"#,
        r#"{"customer_id":1,"currency":null,"value":1}"#,
    ] {
        assert_eq!(seen(&charge(&site, body)), faulty(), "{body}");
    }
}

/// PAY-09, PAY-10
#[test]
fn ping_and_health_say_that_they_live() {
    let site = site();
    assert_eq!(seen(&site.provider("GET", "/ping", &[], "")), shown(200, JSON, r#"{"ping":"pong"}"#));
    let health = site.provider("GET", "/health", &[], "");
    assert_eq!((health.status, health.header("content-type")), (200, Some(JSON)));
    assert_eq!(health.json()["alive"], "true");
}

/// PAY-11, PAY-12, PAY-13, PAY-14
#[test]
fn every_spelling_of_a_good_call_is_good() {
    let site = site();
    for body in [
        r#"{"value":186,"currency":"USD","customer_id":1}"#,
        r#"{"Customer_ID":1,"CURRENCY":"USD","Value":337.5}"#,
        r#"{"customer_id":1,"currency":"USD","value":1.23456789,"more":[{}]}"#,
        r#"{"customer_id":1,"currency":"USD"}"#,
        r#"{"customer_id":1,"currency":"USD","value":null}"#,
        r#"{"currency":{},"customer_id":1,"value":301.99}"#,
        r#"{"currency":{"name":"USD"},"customer_id":1,"value":301.99}"#,
        r#"{"customer_id":1,"currency":"doubloons \u00e6","value":0}"#,
    ] {
        for kind in ["application/json", "text/plain", "application/x-www-form-urlencoded"] {
            assert_verdict(&site.provider("POST", "/", &[TOKEN, ("Content-Type", kind)], body));
        }
        assert_verdict(&site.provider("POST", "/", &[TOKEN], body));
    }
}

/// PAY-15
#[test]
fn without_a_configured_token_every_caller_passes() {
    let site = Site::of(own());
    for headers in [&[][..], &[("X-Token", "tokenunspecified")]] {
        assert_verdict(&site.provider("POST", "/", headers, GOOD));
    }
}

/// PAY-16
#[test]
fn two_slashes_are_one_and_nothing_redirects() {
    let site = site();
    assert_verdict(&site.provider("POST", "//", &[TOKEN], GOOD));
}

/// PAY-17
#[test]
fn the_log_has_the_lines_that_users_look_for() {
    let settings = own().payments_env("PAYMENTS_API_TOKEN", "TestToken").payments_env("LOG_LEVEL", "debug");
    let site = Site::of(settings);
    charge(&site, GOOD);
    site.provider("POST", "/", &[], GOOD);
    for line in ["Authenticated user antaeus", "Unauthenticated user", "customer_id"] {
        wait_until(line, LOGGED_WITHIN, || site.services().payments.log().contains(line));
    }
    assert!(!site.services().payments.log().contains("TestToken"), "a secret is in the log");
}

/// PAY-18
#[test]
fn a_call_under_way_is_answered_though_the_service_is_stopped() {
    let faults = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(faults.path(), "seed = 1\n[[rule]]\nfault = \"latency\"\nlatency_ms = 1500\n")
        .expect("written");
    let settings = own()
        .payments_flags(["--success-rate", "1"])
        .payments_flags(["--faults", faults.path().to_str().expect("a UTF-8 path")]);
    let mut services = settings.start();
    let url = services.payments_url();
    let caller = std::thread::spawn(move || http::try_call("POST", &format!("{url}/"), &[], GOOD.as_bytes()));
    let db = services.payments.db();
    wait_until("the call to be under way", LOGGED_WITHIN, || {
        services.payments.metric(&["payments_faults_total", "latency"]) == 1
    });
    assert_eq!(testkit::ledger::ask(&db, "SELECT count(*) FROM ledger"), 0, "it is still waiting");
    assert!(services.stop_payments().success(), "{}", services.payments.log());
    let answer = caller.join().expect("the caller").expect("an answer, not a closed connection");
    assert_eq!(answer.text(), r#"{"result":"true"}"#);
    assert_eq!(testkit::ledger::ask(&db, "SELECT count(*) FROM ledger WHERE state = 'CHARGED'"), 1);
}

/// PAY-19
#[test]
fn without_a_key_the_same_call_is_executed_again() {
    let site = Site::of(own().payments_flags(["--success-rate", "1"]));
    for _ in 0..3 {
        assert_eq!(site.provider("POST", "/", &[], GOOD).text(), r#"{"result":"true"}"#);
    }
    assert_eq!(site.charges(), 3);
}

/// PAY-20
#[test]
fn more_decimals_are_rounded_half_to_even() {
    let site = Site::of(own().payments_flags(["--success-rate", "1"]));
    for (value, minor) in [("1.005", 100), ("1.015", 102), ("1.0051", 101), ("0.999", 100), ("1e2", 10_000)] {
        let body = format!("{{\"customer_id\":1,\"currency\":\"USD\",\"value\":{value}}}");
        assert_verdict(&site.provider("POST", "/", &[], &body));
        let last = "SELECT amount_minor FROM ledger ORDER BY seq DESC LIMIT 1";
        assert_eq!(testkit::ledger::ask(&site.services().payments.db(), last), minor, "{value}");
    }
}

fn is_charged(answer: &Answer) -> bool {
    let body = answer.json();
    let id = body["id"].as_str().unwrap_or("").to_owned();
    let spelt = format!("{{\"id\":\"{id}\",\"result\":true}}");
    id.len() == 20 && id.bytes().all(|b| b.is_ascii_hexdigit()) && seen(answer) == shown(201, JSON, &spelt)
}

/// PYS-01, PYS-05, PYS-06, PYS-07
#[test]
fn payments_takes_json_forms_and_queries() {
    let site = Site::of(own().payments_flags(["--success-rate", "1"]));
    let form = "customer_id=1&currency=USD&value=1.25";
    let kind = |kind: &'static str| [("Content-Type", kind)];
    for answer in [
        site.provider("POST", "/payments", &kind("application/json"), GOOD),
        site.provider("POST", "/payments", &kind("application/x-www-form-urlencoded"), form),
        site.provider("POST", &format!("/payments?{form}"), &[], ""),
        site.provider("POST", "/payments", &kind("text/plain"), GOOD),
        site.provider("POST", "/payments", &[], GOOD),
    ] {
        assert!(is_charged(&answer), "{:?}", seen(&answer));
    }
    assert_eq!(site.charges(), 5);
}

/// PYS-08, PYS-09
#[test]
fn payments_takes_the_customer_zero_and_a_path_that_ends_in_json() {
    let site = Site::of(own().payments_flags(["--success-rate", "1"]));
    let zero = r#"{"customer_id":0,"currency":"USD","value":1}"#;
    assert!(is_charged(&site.provider("POST", "/payments", &[], zero)));
    assert!(is_charged(&site.provider("POST", "/payments.json", &[], GOOD)));
}

/// PYS-02, PYS-03, PYS-04
#[test]
fn payments_has_its_own_words_for_no() {
    let refusing = Site::of(own().payments_flags(["--success-rate", "0"]));
    let refused = shown(422, JSON, r#"{"result":false,"message":"cannot process payment"}"#);
    assert_eq!(seen(&refusing.provider("POST", "/payments", &[], GOOD)), refused);
    let missing = shown(400, JSON, r#"{"result":false,"message":"missing parameter"}"#);
    for body in [
        r#"{"currency":"USD","value":1}"#,
        r#"{"customer_id":1,"value":1}"#,
        r#"{"customer_id":1,"currency":"USD"}"#,
    ] {
        assert_eq!(seen(&refusing.provider("POST", "/payments", &[], body)), missing, "{body}");
    }
    let negative = r#"{"customer_id":1,"currency":"USD","value":-1}"#;
    let invalid = shown(400, JSON, r#"{"result":false,"message":"invalid value"}"#);
    assert_eq!(seen(&refusing.provider("POST", "/payments", &[], negative)), invalid);
}

/// PRV-01, PRV-06
#[test]
fn the_provider_route_answers_with_the_id_or_402() {
    let body = r#"{"id":"I1","value":12.15,"currency":"EUR"}"#;
    let willing = Site::of(own().payments_flags(["--success-rate", "1"]));
    let charged = willing.provider("POST", "/payments/pay", &[], body);
    assert_eq!((charged.status, charged.text().as_str()), (200, r#"{"id":"I1"}"#));
    let refusing = Site::of(own().payments_flags(["--success-rate", "0"]));
    let refused = refusing.provider("POST", "/payments/pay", &[], body);
    assert_eq!((refused.status, &refused.json()["id"]), (402, &serde_json::json!("I1")));
    assert!(refused.json()["error"].is_string(), "{}", refused.text());
}

/// PRV-02, PRV-03, PRV-04, PRV-05
#[test]
fn the_provider_route_names_the_field_that_it_misses() {
    let site = site();
    let ask = |body: &str| {
        let answer = site.provider("POST", "/payments/pay", &[TOKEN], body);
        (answer.status, answer.text())
    };
    let error = |what: &str| (400, format!("{{\"error\":\"{what}\"}}"));
    for body in [
        "",
        "no json",
        r#"{"id":1,"value":1,"currency":"EUR"}"#,
        r#"{"id":"I1","value":"1","currency":"EUR"}"#,
        r#"{"id":"I1","value":1,"currency":{}}"#,
    ] {
        assert_eq!(ask(body), error("failed to process payment request parameters"), "{body}");
    }
    for body in ["{}", r#"{"id":"","value":1,"currency":"EUR"}"#, r#"{"value":1,"currency":"EUR"}"#] {
        assert_eq!(ask(body), error("could not retrieve payment id"), "{body}");
    }
    for body in [
        r#"{"id":"I1","currency":"EUR"}"#,
        r#"{"id":"I1","value":0,"currency":"EUR"}"#,
        r#"{"id":"I1","value":0.004,"currency":"EUR"}"#,
    ] {
        assert_eq!(ask(body), error("could not retrieve payment value"), "{body}");
    }
    for body in [r#"{"id":"I1","value":1}"#, r#"{"id":"I1","value":1,"currency":""}"#] {
        assert_eq!(ask(body), error("could not retrieve payment currency"), "{body}");
    }
}
