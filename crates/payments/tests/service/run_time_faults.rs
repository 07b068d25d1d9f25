//! Fault scripts that operators set while the service runs: how they are set and read, what each fault does, which
//! deliveries it hits, and what survives a restart.

use std::io::ErrorKind;
use std::time::Duration;

use testkit::http::try_call;
use testkit::{Answer, timed};

use crate::providers::{Provider, on_each_store};
use crate::site::{GOOD, problem};

const FAULTS: &str = "/v1/faults";
const TOML: (&str, &str) = ("Content-Type", "application/toml");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const CHARGED: &str = r#"{"result":"true"}"#;

const WILLING: [&str; 4] = ["--seed", "8213", "--success-rate", "1"];

#[track_caller]
fn set(provider: &Provider, script: &str) {
    let answer = provider.call("PUT", FAULTS, &[TOML], script);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The results of a key's deliveries under one rule.
struct Met {
    first: std::io::Result<Answer>,
    took: Duration,
    /// Whether the ledger has the key after the first delivery.
    is_known: bool,
    again: Answer,
}

impl Met {
    fn first(&self) -> &Answer {
        self.first.as_ref().unwrap()
    }

    #[track_caller]
    fn assert_resend_charges(&self, replayed: bool) {
        assert_eq!(self.is_known, replayed);
        assert_eq!(self.again.text(), CHARGED);
        assert_eq!(self.again.header("idempotency-replayed"), replayed.then_some("true"));
    }
}

fn meet(rule: &str, check: impl Fn(&Met)) {
    on_each_store(&WILLING, |provider| {
        set(&provider, &format!("[[rule]]\n{rule}\n"));
        let headers = [("Idempotency-Key", "k")];
        let (first, took) = timed(|| provider.try_call("POST", "/", &headers, GOOD));
        let is_known = provider.get("/v1/ledger/k").status == 200;
        let again = provider.charge("k");
        check(&Met { first, took, is_known, again });
    });
}

#[test]
fn refuse_has_the_decline_of_its_rule_at_each_delivery() {
    meet("fault = \"refuse\"\ndecline = \"stolen_card\"", |met| {
        for answer in [met.first(), &met.again] {
            assert_eq!(answer.text(), r#"{"result":"false"}"#);
            assert_eq!(answer.header("decline"), Some("class=hard; code=stolen_card"));
        }
    });
}

#[test]
fn latency_waits_and_then_charges() {
    meet("fault = \"latency\"\nlatency_ms = 300", |met| {
        assert_eq!(met.first().text(), CHARGED);
        assert!(met.took >= Duration::from_millis(300), "{:?}", met.took);
        met.assert_resend_charges(true);
    });
}

#[test]
fn error_before_executes_nothing() {
    meet("fault = \"error-before\"", |met| {
        assert_eq!(met.first().status, 500);
        met.assert_resend_charges(false);
    });
}

#[test]
fn error_after_has_charged() {
    meet("fault = \"error-after\"", |met| {
        assert_eq!(met.first().status, 500);
        met.assert_resend_charges(true);
    });
}

#[test]
fn a_lost_reply_has_charged() {
    meet("fault = \"reply-lost\"", |met| {
        assert_eq!(met.first.as_ref().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        met.assert_resend_charges(true);
    });
}

#[test]
fn a_reset_executes_nothing() {
    meet("fault = \"reset\"", |met| {
        assert_eq!(met.first.as_ref().unwrap_err().kind(), ErrorKind::ConnectionReset);
        met.assert_resend_charges(false);
    });
}

#[test]
fn a_malformed_body_is_a_whole_response_with_half_a_body() {
    meet("fault = \"malformed\"", |met| {
        assert_eq!(met.first().text(), CHARGED[..CHARGED.len() / 2]);
        met.assert_resend_charges(true);
    });
}

#[test]
fn a_duplicated_delivery_is_charged_once_under_a_key() {
    meet("fault = \"duplicate\"", |met| {
        assert_eq!(met.first().text(), CHARGED);
        met.assert_resend_charges(true);
    });
}

#[test]
fn hold_keeps_the_answer_back() {
    meet("fault = \"hold\"\nlatency_ms = 300", |met| {
        assert_eq!(met.first().text(), CHARGED);
        assert!(met.took >= Duration::from_millis(300), "{:?}", met.took);
        met.assert_resend_charges(true);
    });
}

#[test]
fn a_forgotten_key_is_charged_again() {
    meet("fault = \"forget-key\"", |met| {
        assert_eq!(met.first().text(), CHARGED);
        met.assert_resend_charges(false);
    });
}

#[test]
fn a_status_answers_anything_and_executes_nothing() {
    meet("fault = \"status\"\nstatus = 418\nbody = \"<p>tea</p>\"\ncontent_type = \"text/html\"", |met| {
        let first = met.first();
        assert_eq!((first.status, first.text()), (418, "<p>tea</p>".to_owned()));
        assert_eq!(first.header("content-type"), Some("text/html"));
        assert_eq!(first.header("idempotency-key"), Some("k"));
        assert_eq!((first.header("retry-after"), first.header("not-executed")), (None, None));
        met.assert_resend_charges(false);
    });
}

#[test]
fn a_status_may_hide_a_charge() {
    meet("fault = \"status\"\nstatus = 200\nbody = \"{}\"\nexecute = true", |met| {
        assert_eq!(met.first().text(), "{}");
        met.assert_resend_charges(true);
    });
}

#[test]
fn a_429_and_a_503_say_when_to_come_again() {
    for (status, more, retry_after) in [(429, "", "1"), (503, "", "1"), (503, "retry_after_s = 7", "7")] {
        meet(&format!("fault = \"status\"\nstatus = {status}\n{more}"), |met| {
            assert_eq!(met.first().status, status);
            assert_eq!(met.first().header("retry-after"), Some(retry_after));
            met.assert_resend_charges(false);
        });
    }
}

#[test]
fn a_slow_body_comes_whole_in_the_end() {
    meet("fault = \"slow-body\"\nlatency_ms = 400", |met| {
        assert_eq!(met.first().text(), CHARGED);
        assert!(met.took >= Duration::from_millis(400), "{:?}", met.took);
        met.assert_resend_charges(true);
    });
}

#[test]
fn a_truncated_body_ends_before_the_length_of_its_head() {
    meet("fault = \"truncated-body\"", |met| {
        assert_eq!(met.first.as_ref().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        met.assert_resend_charges(true);
    });
}

#[test]
fn a_slow_body_does_not_hold_up_the_end() {
    let mut site =
        crate::site::willing().faults("[[rule]]\nfault = \"slow-body\"\nlatency_ms = 3600000").start();
    let url = format!("{}/", site.process.url());
    let slow = std::thread::spawn(move || testkit::http::call("POST", &url, &[], GOOD.as_bytes()).text());
    testkit::wait_until("the charge", Duration::from_secs(60), || site.charges() == 1);
    let (ended, took) = timed(|| site.process.stop());
    assert!(ended.success() && took < Duration::from_secs(20), "{ended} after {took:?}");
    assert_eq!(slow.join().unwrap(), CHARGED);
}

#[test]
fn a_script_is_set_and_read_in_both_forms_and_taken_back() {
    on_each_store(&WILLING, |provider| {
        let empty = provider.get(FAULTS);
        assert_eq!((empty.status, empty.text()), (200, "{}".to_owned()));
        let json =
            r#"{"rule":[{"fault":"reset","share":0.5,"reference":"I1","until":"2026-12-01T00:00:00Z"}]}"#;
        let toml =
            "[[rule]]\nfault = \"reset\"\nshare = 0.5\nreference = \"I1\"\nuntil = 2026-12-01T00:00:00Z\n";
        let as_json = provider.call("PUT", FAULTS, &[JSON], json).json();
        assert_eq!(as_json, serde_json::from_str::<serde_json::Value>(json).unwrap());
        set(&provider, toml);
        assert_eq!(provider.get(FAULTS).json(), as_json);
        let read = provider.call("GET", FAULTS, &[("Accept", "application/toml")], "");
        assert_eq!(read.header("content-type"), Some("application/toml"));
        set(&provider, &read.text());
        assert_eq!(provider.get(FAULTS).json(), as_json);
        assert_eq!(provider.call("DELETE", FAULTS, &[], "").text(), "{}");
        assert_eq!(provider.get(FAULTS).text(), "{}");
    });
}

#[test]
fn a_script_with_mistakes_changes_nothing() {
    on_each_store(&WILLING, |provider| {
        set(&provider, "seed = 7");
        let rules = "[[rule]]\nfault = \"reset\"\n".repeat(101);
        for (form, script, fields) in [
            (TOML, "rule = ", &["script"][..]),
            (JSON, "[]", &["script"]),
            (
                TOML,
                "[[rule]]\nfault = \"boom\"\n[[rule]]\nfault = \"reset\"\nsahre = 1",
                &["rule 1: fault", "rule 2: sahre"],
            ),
            (JSON, r#"{"rule":[{"fault":"status","status":700}],"x":1}"#, &["script: x", "rule 1: status"]),
            (TOML, &rules, &["script: rule"]),
        ] {
            let refused = provider.call("PUT", FAULTS, &[form], script);
            assert_eq!(problem(&refused), (400, "validation".to_owned()), "{script}");
            let errors = refused.json()["errors"].clone();
            let named: Vec<_> =
                errors.as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
            assert_eq!(named, fields, "{script}");
        }
        assert_eq!(provider.call("PUT", FAULTS, &[("Content-Type", "text/plain")], "").status, 415);
        assert_eq!(provider.call("PUT", FAULTS, &[TOML], &"#".repeat(70_000)).status, 413);
        assert_eq!(provider.get(FAULTS).text(), r#"{"seed":7}"#);
    });
}

#[test]
fn a_rule_hits_only_its_route_reference_and_window() {
    on_each_store(&WILLING, |provider| {
        let pay = |key: &str, id: &str| {
            let body = format!(r#"{{"id":"{id}","value":2,"currency":"EUR"}}"#);
            provider.call("POST", "/payments/pay", &[("Idempotency-Key", key)], &body).status
        };
        set(
            &provider,
            "[[rule]]\nfault = \"error-before\"\nroute = \"/payments/pay\"\nreference_prefix = \"SUB-\"\nuntil = 3600",
        );
        assert_eq!([pay("a", "SUB-1"), pay("b", "I1"), provider.charge("c").status], [500, 200, 200]);
        for window in ["from = 3600", "until = 2020-01-01T00:00:00Z", "from = \"2100-01-01T00:00:00+01:00\""]
        {
            set(&provider, &format!("[[rule]]\nfault = \"error-before\"\n{window}"));
            assert_eq!(pay(&format!("d{}", window.len()), "I2"), 200, "{window}");
        }
        set(&provider, "[[rule]]\nfault = \"error-before\"\nfrom = 2020-01-01T00:00:00Z");
        assert_eq!(pay("e", "I3"), 500);
    });
}

#[test]
fn counters_survive_restarts_and_a_script_that_is_set_again_counts_anew() {
    on_each_store(&WILLING, |mut provider| {
        let script = "[[rule]]\nfault = \"error-before\"\ntimes = 2\nreference = \"A\"\n\
                      [[rule]]\nfault = \"status\"\nstatus = 503\nnth = 3\n";
        let charge = |provider: &Provider, key: &str, id: &str| {
            let body = format!(r#"{{"id":"{id}","value":2,"currency":"EUR"}}"#);
            provider.call("POST", "/payments/pay", &[("Idempotency-Key", key)], &body).status
        };
        set(&provider, script);
        let mut seen = Vec::new();
        for (key, id) in [("a", "A"), ("b", "B"), ("a", "A"), ("c", "C"), ("a", "A"), ("d", "D"), ("c", "C")]
        {
            seen.push(charge(&provider, key, id));
            provider.process.kill();
            provider.process.start_again();
        }
        // The key a is lost twice; c is the third key that the second rule meets.
        assert_eq!(seen, [500, 200, 500, 503, 200, 200, 200]);
        set(&provider, script);
        assert_eq!(charge(&provider, "a", "A"), 500);
    });
}

#[test]
fn a_script_of_a_file_goes_on_counting_after_a_restart() {
    let script = "[[rule]]\nfault = \"error-before\"\ntimes = 2\n";
    let mut site = crate::site::willing().faults(script).start();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(site.charge("k").status);
        site.process.kill();
        site.process.start_again();
    }
    assert_eq!(seen, [500, 500, 200]);
}

#[test]
fn replicas_count_together() {
    let Some(database) = testkit::Database::fresh("a fault script of two replicas") else { return };
    let site = crate::replicas::Replicas::start(database, 2, "1");
    let [first, second] = &site.processes[..] else { panic!("two replicas") };
    let (first, second) = (first.0.url(), second.0.url());
    let script = b"[[rule]]\nfault = \"error-before\"\n";
    assert_eq!(try_call("PUT", &format!("{first}{FAULTS}"), &[TOML], script).unwrap().status, 200);
    testkit::wait_until("the second replica", testkit::starting::READY_WITHIN, || {
        try_call("GET", &format!("{second}{FAULTS}"), &[], b"").unwrap().text() != "{}"
    });
    let charge = |url: &str| crate::replicas::charge(url, "k").unwrap().status;
    assert_eq!([charge(&first), charge(&second), charge(&first)], [500, 200, 200]);
}

#[test]
fn what_was_set_is_not_in_force_where_run_time_faults_are_off() {
    on_each_store(&WILLING, |mut provider| {
        set(&provider, "[[rule]]\nfault = \"error-before\"\ntimes = 9");
        assert_eq!(provider.charge("k").status, 500);
        provider.process.kill();
        provider.process.set_env("RUN_TIME_FAULTS", "off");
        provider.process.start_again();
        assert_eq!(provider.charge("k").text(), CHARGED);
        assert_eq!(provider.get(FAULTS).text(), "{}");
        for (method, path) in
            [("PUT", FAULTS), ("DELETE", FAULTS), ("PUT", "/v1/rates"), ("DELETE", "/v1/rates")]
        {
            let refused = provider.call(method, path, &[TOML], "");
            assert_eq!(problem(&refused), (403, "run-time-faults-off".to_owned()), "{method} {path}");
        }
    });
}

#[test]
fn test_amounts_decide_beside_a_key_only() {
    let body = |value: &str| format!(r#"{{"customer_id":1,"currency":"EUR","value":{value}}}"#);
    let flags = ["--success-rate", "0.5", "--seed", "8213", "--test-amounts=true"];
    on_each_store(&flags, |provider| {
        let charge = |key: &str, value: &str| {
            provider.try_call("POST", "/", &[("Idempotency-Key", key)], &body(value))
        };
        for (value, decline) in [
            ("40.01", "class=soft; code=insufficient_funds"),
            ("40.02", "class=hard; code=stolen_card"),
            ("40.03", "class=fix; code=expired_card"),
        ] {
            for n in 0..8 {
                let refused = charge(&format!("{value}-{n}"), value).unwrap();
                assert_eq!(refused.text(), r#"{"result":"false"}"#);
                assert_eq!(refused.header("decline"), Some(decline));
            }
        }
        for n in 0..8 {
            let key = format!("lost-{n}");
            assert_eq!(charge(&key, "40.04").unwrap_err().kind(), ErrorKind::UnexpectedEof);
            let again = charge(&key, "40.04").unwrap();
            assert_eq!(
                (again.text().as_str(), again.header("idempotency-replayed")),
                (CHARGED, Some("true"))
            );
            let key = format!("busy-{n}");
            let busy = charge(&key, "40.05").unwrap();
            assert_eq!((busy.status, busy.header("retry-after")), (429, Some("1")));
            let again = charge(&key, "40.05").unwrap();
            assert_eq!((again.text().as_str(), again.header("idempotency-replayed")), (CHARGED, None));
        }
        for value in ["40.04", "40.05"] {
            assert_eq!(provider.call("POST", "/", &[], &body(value)).status, 200);
        }
    });
    on_each_store(&WILLING, |provider| {
        for value in ["40.01", "40.02", "40.03", "40.04", "40.05"] {
            let charged = provider.call("POST", "/", &[("Idempotency-Key", value)], &body(value));
            assert_eq!(charged.text(), CHARGED, "{value}");
        }
    });
}
