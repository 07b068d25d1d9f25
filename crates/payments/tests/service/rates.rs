//! Rates and declines: what operators set at run time, what the response to a refused keyed charge says, and what a
//! resend gets.

use std::collections::BTreeMap;

use testkit::Answer;
use testkit::http::try_call;

use crate::providers::{Provider, on_each_store};
use crate::site::{GOOD, problem};

const RATES: &str = "/v1/rates";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The parts of a response that decide how a client continues.
fn told(answer: &Answer) -> (u16, String, Option<String>) {
    (answer.status, answer.text(), answer.header("decline").map(str::to_owned))
}

fn set(provider: &Provider, rates: &str) -> Answer {
    provider.call("PUT", RATES, &[JSON], rates)
}

#[test]
fn declines_come_by_rate_and_a_resend_is_told_the_same_after_rates_changed_and_a_restart() {
    on_each_store(&["--seed", "8213", "--success-rate", "1"], |mut provider| {
        let rates = r#"{"success":0.4,"declines":{"insufficient_funds":0.3,"stolen_card":0.2}}"#;
        assert_eq!((set(&provider, rates).status, provider.get(RATES).text()), (200, rates.to_owned()));
        let keys: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
        let first: Vec<_> = keys.iter().map(|key| told(&provider.charge(key))).collect();
        let mut seen = BTreeMap::new();
        for (status, text, decline) in &first {
            assert_eq!(*status, 200);
            let charged = text == r#"{"result":"true"}"#;
            assert!(charged || text == r#"{"result":"false"}"#, "{text}");
            assert_eq!(charged, decline.is_none(), "{decline:?}");
            *seen.entry(decline.clone().unwrap_or_default()).or_insert(0) += 1;
        }
        let reasons: Vec<_> = seen.keys().map(String::as_str).collect();
        let expected = [
            "",
            "class=hard; code=stolen_card",
            "class=soft; code=insufficient_funds",
            "class=unknown; code=generic_decline",
        ];
        assert_eq!(reasons, expected, "{seen:?}");

        assert_eq!(set(&provider, r#"{"success":1}"#).status, 200);
        let agree = |provider: &Provider| {
            for (key, first) in keys.iter().zip(&first) {
                let again = provider.charge(key);
                assert_eq!(again.header("idempotency-replayed"), Some("true"), "{key}");
                assert_eq!(told(&again), *first, "{key}");
            }
        };
        agree(&provider);
        provider.process.kill();
        provider.process.start_again();
        assert_eq!(provider.get(RATES).text(), r#"{"success":1,"declines":{}}"#);
        agree(&provider);
        let row = provider.get("/v1/ledger/k0").json();
        let (class, code) = (row["decline_class"].as_str(), row["decline_code"].as_str());
        let shown = class.zip(code).map(|(class, code)| format!("class={class}; code={code}"));
        assert_eq!(shown, first[0].2);
    });
}

#[test]
fn a_refusal_without_a_key_has_no_decline() {
    on_each_store(&["--success-rate", "0"], |provider| {
        let unkeyed = provider.call("POST", "/", &[], GOOD);
        assert_eq!(told(&unkeyed), (200, r#"{"result":"false"}"#.to_owned(), None));
        let keyed = provider.charge("k");
        assert_eq!(keyed.text(), unkeyed.text());
        assert_eq!(keyed.header("decline"), Some("class=unknown; code=generic_decline"));
    });
}

#[test]
fn a_refusal_that_an_earlier_version_recorded_has_no_reason() {
    on_each_store(&["--success-rate", "0"], |provider| {
        provider.charge("k");
        provider.run("UPDATE ledger SET decline_class = NULL, decline_code = NULL");
        let again = provider.charge("k");
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.header("decline"), Some("class=unknown; code=generic_decline"));
    });
}

#[test]
fn rates_with_mistakes_change_nothing_and_rates_taken_back_are_those_of_the_start() {
    on_each_store(&["--success-rate", "0.25"], |provider| {
        let start = r#"{"success":0.25,"declines":{}}"#;
        for (rates, field) in [
            ("", "body"),
            (r#"{"success":0.5,"x":1}"#, "body"),
            (r#"{"success":1.5}"#, "success"),
            (r#"{"success":0.5,"declines":{"stolen_cart":0.1}}"#, "declines.stolen_cart"),
            (r#"{"success":0.5,"declines":{"stolen_card":0.6}}"#, "declines"),
        ] {
            let refused = set(&provider, rates);
            assert_eq!(problem(&refused), (400, "validation".to_owned()), "{rates}");
            assert_eq!(refused.json()["errors"][0]["field"], field, "{rates}");
        }
        assert_eq!(provider.call("PUT", RATES, &[], r#"{"success":1}"#).status, 415);
        assert_eq!(provider.call("PUT", RATES, &[JSON], &" ".repeat(70_000)).status, 413);
        assert_eq!(provider.call("PUT", "/v1/rates?x=1", &[JSON], r#"{"success":1}"#).status, 400);
        assert_eq!(provider.get(RATES).text(), start);
        assert_eq!(set(&provider, r#"{"success":1}"#).status, 200);
        assert_eq!(provider.call("DELETE", RATES, &[], "").text(), start);
    });
}

#[test]
fn a_second_replica_follows_what_was_set_at_the_first() {
    let Some(database) = testkit::Database::fresh("run-time settings of two replicas") else { return };
    let site = crate::replicas::Replicas::start(database, 2, "1");
    let [first, second] = &site.processes[..] else { panic!("two replicas") };
    let (first, second) = (first.0.url(), second.0.url());
    let put = try_call("PUT", &format!("{first}{RATES}"), &[JSON], br#"{"success":0}"#).unwrap();
    assert_eq!(put.status, 200, "{}", put.text());
    let shown = || try_call("GET", &format!("{second}{RATES}"), &[], b"").unwrap().text();
    testkit::wait_until("the second replica", testkit::starting::READY_WITHIN, || {
        shown() == r#"{"success":0,"declines":{}}"#
    });
}
