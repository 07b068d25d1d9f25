//! `--one-charge-per-reference`: a second key for a charged reference executes nothing and returns the first key.

use std::thread;

use testkit::Answer;
use testkit::http::try_call;

use crate::providers::{Provider, on_each_store};
use crate::replicas::replica;
use crate::site::problem;

const ONCE: &str = "--one-charge-per-reference=true";

fn body(id: &str) -> String {
    format!(r#"{{"id":"{id}","value":2,"currency":"EUR"}}"#)
}

fn pay(provider: &Provider, token: &str, key: Option<&str>, id: &str) -> Answer {
    let mut headers = vec![("X-Token", token)];
    headers.extend(key.map(|key| ("Idempotency-Key", key)));
    provider.call("POST", "/payments/pay", &headers, &body(id))
}

#[track_caller]
fn assert_charged_by(answer: &Answer, key: Option<&str>) {
    assert_eq!(problem(answer), (409, "reference-charged".to_owned()));
    assert_eq!(answer.json()["key"].as_str(), key);
}

#[test]
fn another_key_for_a_charged_reference_is_told_the_first_one() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "token-of-ours-1234 antaeus\ntoken-of-others-12 other\n").unwrap();
    let file = tokens.path().display().to_string();
    let (ours, theirs) = ("token-of-ours-1234", "token-of-others-12");
    on_each_store(&["--success-rate", "1", ONCE, "--payments-api-token-file", &file], |mut provider| {
        assert_eq!(pay(&provider, ours, Some("a"), "I1").status, 200);
        for _ in 0..2 {
            let second = pay(&provider, ours, Some("b"), "I1");
            assert_charged_by(&second, Some("a"));
            assert_eq!(
                (second.header("idempotency-key"), second.header("ledger-seq")),
                (Some("b"), Some("1"))
            );
            provider.process.kill();
            provider.process.start_again();
        }
        assert_eq!(pay(&provider, ours, Some("a"), "I1").header("idempotency-replayed"), Some("true"));
        assert_eq!(pay(&provider, ours, Some("c"), "I2").status, 200, "another reference");
        assert_eq!(pay(&provider, theirs, Some("d"), "I1").status, 200, "another account");
        assert_charged_by(&pay(&provider, theirs, Some("e"), "I1"), Some("d"));

        assert_eq!(pay(&provider, ours, None, "I3").status, 200);
        assert_eq!(pay(&provider, ours, None, "I3").status, 200, "without a key nothing changes");
        assert_charged_by(&pay(&provider, ours, Some("f"), "I3"), None);
    });
}

#[test]
fn a_reference_that_was_only_refused_is_charged_under_the_next_key() {
    on_each_store(&["--success-rate", "0", ONCE], |provider| {
        assert_eq!(pay(&provider, "", Some("a"), "I1").status, 402);
        let json = ("Content-Type", "application/json");
        assert_eq!(provider.call("PUT", "/v1/rates", &[json], r#"{"success":1}"#).status, 200);
        assert_eq!(pay(&provider, "", Some("b"), "I1").status, 200);
        assert_eq!(pay(&provider, "", Some("a"), "I1").status, 402, "the first key's decision stays");
        assert_charged_by(&pay(&provider, "", Some("c"), "I1"), Some("b"));
    });
}

#[test]
fn without_the_setting_each_key_is_charged() {
    on_each_store(&["--success-rate", "1"], |provider| {
        for key in ["a", "b"] {
            assert_eq!(pay(&provider, "", Some(key), "I1").status, 200);
        }
    });
}

#[test]
fn of_many_keys_that_come_at_once_to_two_replicas_one_is_charged() {
    const REFERENCES: usize = 20;
    let Some(database) = testkit::Database::fresh("references that are charged at once") else { return };
    replica(&database, &[]).0.run_to_end("migrate");
    let processes: Vec<_> = (0..2)
        .map(|_| {
            let (mut process, dir) = replica(&database, &["--success-rate", "1", ONCE]);
            process.start_again();
            (process, dir)
        })
        .collect();
    let callers: Vec<_> = (0..6)
        .map(|caller: usize| {
            let url = format!("{}/payments/pay", processes[caller % 2].0.url());
            thread::spawn(move || {
                (0..REFERENCES).for_each(|n| {
                    let key = format!("k{n}-{caller}");
                    let id = body(&format!("I{n}"));
                    let answer = try_call("POST", &url, &[("Idempotency-Key", &key)], id.as_bytes()).unwrap();
                    assert!(matches!(answer.status, 200 | 409), "{}", answer.text());
                });
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().expect("a caller"));
    let charges = database.ask("SELECT count(*) FROM ledger WHERE state = 'CHARGED'");
    assert_eq!(charges, i64::try_from(REFERENCES).expect("a number"));
}
