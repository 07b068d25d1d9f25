//! Which deployment of billing may charge, and from which ledger, as callers see it: by headers, before anything is
//! executed.

use crate::site::{GOOD, Site, problem, willing};
use testkit::Answer;

const FIRST: &str = "00000000-0000-4000-8000-000000000001";
const SECOND: &str = "00000000-0000-4000-8000-000000000002";

fn charge(site: &Site, key: &str, headers: &[(&str, &str)]) -> Answer {
    site.post("/", &[&[("Idempotency-Key", key)], headers].concat(), GOOD)
}

fn declare(site: &Site, headers: &[(&str, &str)], deployment: &str) -> Answer {
    let body = format!(r#"{{"deployment_id":"{deployment}","why":"a second billing","actor":"ops"}}"#);
    site.post("/v1/deployments", headers, &body)
}

#[test]
fn another_deployment_of_the_account_executes_nothing_until_it_is_declared() {
    let site = willing().start();
    assert_eq!(charge(&site, "k1", &[("Deployment-Id", FIRST)]).status, 200);
    for _ in 0..2 {
        let refused = charge(&site, "k2", &[("Deployment-Id", SECOND)]);
        assert_eq!(problem(&refused), (412, "deployment-unknown".to_owned()));
        assert_eq!(refused.header("not-executed"), Some("true"));
    }
    let unkeyed = site.post("/", &[("Deployment-Id", SECOND)], GOOD);
    assert_eq!(problem(&unkeyed), (412, "deployment-unknown".to_owned()));
    assert_eq!(site.charges(), 1);

    let declared = declare(&site, &[], SECOND);
    assert_eq!((declared.status, declared.json()["how"].clone()), (201, "declared".into()));
    assert_eq!(declare(&site, &[], SECOND).status, 200, "it is known already");
    assert_eq!(charge(&site, "k2", &[("Deployment-Id", SECOND)]).status, 200);
    assert_eq!(charge(&site, "k3", &[("Deployment-Id", FIRST)]).status, 200, "one beside the other");
    let known = site.get("/v1/deployments").json();
    let known: Vec<_> = known["items"].as_array().unwrap().iter().map(|row| row["how"].clone()).collect();
    assert_eq!(known, ["first", "declared"]);
    assert_eq!(
        site.ask("SELECT count(*) FROM ledger_deployments WHERE why = 'a second billing' AND actor = 'ops'"),
        1
    );
}

#[test]
fn callers_that_name_no_deployment_are_not_checked() {
    let site = willing().start();
    assert_eq!(charge(&site, "k1", &[("Deployment-Id", FIRST)]).status, 200);
    assert_eq!(site.charge("k2").status, 200);
    assert_eq!(site.post("/", &[], GOOD).status, 200);
    for headers in [&[("Deployment-Id", "x")][..], &[("Deployment-Id", FIRST), ("Deployment-Id", FIRST)]] {
        assert_eq!(problem(&charge(&site, "k3", headers)), (400, "validation".to_owned()));
    }
}

#[test]
fn where_operators_have_tokens_the_account_alone_declares_nothing() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "operators-own-token\n").unwrap();
    let path = tokens.path().display().to_string();
    let site = willing().flags(["--operator-token-file", &path]).start();
    for headers in [&[][..], &[("Operator-Token", "another")]] {
        assert_eq!(problem(&declare(&site, headers, FIRST)), (403, "operator-token".to_owned()));
    }
    assert_eq!(declare(&site, &[("Operator-Token", "operators-own-token")], FIRST).status, 201);
}

#[test]
fn a_declaration_says_who_and_why() {
    let site = willing().start();
    for body in [
        "",
        r#"{"deployment_id":"x","why":"w","actor":"a"}"#,
        r#"{"deployment_id":"00000000-0000-4000-8000-000000000001","why":" ","actor":"a"}"#,
        r#"{"deployment_id":"00000000-0000-4000-8000-000000000001","why":"w","actor":""}"#,
        r#"{"deployment_id":"00000000-0000-4000-8000-000000000001","why":"w"}"#,
        r#"{"deployment_id":"00000000-0000-4000-8000-000000000001","why":"w","actor":"a","x":1}"#,
    ] {
        let refused = site.post("/v1/deployments", &[], body);
        assert_eq!(problem(&refused), (400, "validation".to_owned()), "{body}");
    }
    assert_eq!(site.ask("SELECT count(*) FROM ledger_deployments"), 0);
}

#[test]
fn each_keyed_answer_names_its_row_and_a_row_that_is_missing_stops_everything() {
    let site = willing().start();
    for (key, seq) in [("k1", "1"), ("k2", "2"), ("k1", "1")] {
        assert_eq!(site.charge(key).header("ledger-seq"), Some(seq), "{key}");
    }
    assert_eq!(
        site.post("/", &[], GOOD).header("ledger-seq"),
        None,
        "answers without a key stay as they are"
    );
    let reused =
        site.post("/", &[("Idempotency-Key", "k2")], r#"{"customer_id":9,"currency":"USD","value":1}"#);
    assert_eq!((problem(&reused).1.as_str(), reused.header("ledger-seq")), ("key-reused", Some("2")));
    assert_eq!(site.post("/v1/ledger/k9/void", &[], "").header("ledger-seq"), Some("4"));
    assert_eq!(site.charge("k9").header("ledger-seq"), Some("4"), "a tombstone is a row too");

    assert_eq!(charge(&site, "k5", &[("Ledger-Seen", "4")]).status, 200);
    for (path, key) in [("/", "k6"), ("/", "k1"), ("/v1/ledger/k7/void", "k7")] {
        let refused = site.post(path, &[("Idempotency-Key", key), ("Ledger-Seen", "6")], GOOD);
        assert_eq!(problem(&refused), (412, "ledger-behind".to_owned()), "{path} {key}");
        assert_eq!(refused.header("not-executed"), Some("true"));
    }
    for wrong in ["0", "-1", "x", ""] {
        let refused = charge(&site, "k6", &[("Ledger-Seen", wrong)]);
        assert_eq!(problem(&refused), (400, "validation".to_owned()), "{wrong:?}");
    }
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 5);
}
