//! The ledger's own routes: pages, look-up, tombstones, and the ledger's id.

use std::process::Command;

use crate::site::{GOOD, Settings, Site, problem, willing};

fn page(site: &Site, query: &str) -> (Vec<i64>, Option<i64>) {
    let body = site.get(&format!("/v1/ledger{query}")).json();
    let seqs = body["items"].as_array().unwrap().iter().map(|item| item["seq"].as_i64().unwrap()).collect();
    (seqs, body["next"].as_i64())
}

#[test]
fn pages_follow_each_other_to_the_end() {
    let site = willing().start();
    assert_eq!(page(&site, ""), (vec![], None));
    for n in 0..5 {
        site.charge(&format!("k{n}"));
    }
    site.post("/", &[], GOOD);
    assert_eq!(page(&site, "?limit=4"), (vec![1, 2, 3, 4], Some(4)));
    assert_eq!(page(&site, "?limit=4&after=4"), (vec![5, 6], None));
    assert_eq!(page(&site, "?limit=6"), (vec![1, 2, 3, 4, 5, 6], None));
    for query in ["?limit=0", "?limit=1001", "?after=x", "?limt=4", "?limit=4&limit=4", "?seq"] {
        assert_eq!(problem(&site.get(&format!("/v1/ledger{query}"))), (400, "validation".to_owned()));
    }
}

#[test]
fn an_unknown_parameter_is_refused_before_a_key_is_voided() {
    let site = willing().start();
    let refused = site.post("/v1/ledger/k1/void?dry_run=true", &[], "");
    assert_eq!(problem(&refused), (400, "validation".to_owned()));
    assert_eq!(refused.json()["errors"][0]["field"], "dry_run");
    assert_eq!(site.get("/v1/ledger/k1").status, 404, "nothing was voided");
    assert_eq!(site.post("/v1/ledger/k1/void", &[], "").status, 200);
    assert_eq!(problem(&site.get("/v1/ledger/k1?full=1")), (400, "validation".to_owned()));
    assert_eq!(site.get("/v1/ledger/k1").status, 200);
}

#[test]
fn a_row_shows_its_columns() {
    let site = willing().start();
    let body = r#"{"id":"I1","invoice_id":1,"customer_id":1,"currency":"EUR","value":12.15}"#;
    site.post("/payments/pay", &[("Idempotency-Key", "k/1")], body);
    let row = site.get("/v1/ledger/k%2F1").json();
    let names: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "seq",
        "key",
        "account",
        "fingerprint",
        "reference",
        "customer_id",
        "currency",
        "amount_minor",
        "exponent",
        "state",
        "decline_class",
        "decline_code",
        "route",
        "created_at",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(row["key"], "k/1");
    assert_eq!((row["reference"].clone(), row["amount_minor"].clone()), ("I1".into(), 1215.into()));
    assert_eq!((row["state"].clone(), row["route"].clone()), ("CHARGED".into(), "/payments/pay".into()));
    let at = row["created_at"].as_str().unwrap();
    assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
    assert_eq!(site.get("/v1/ledger").json()["items"][0], row);
    assert_eq!(site.get("/v1/ledger/unknown").status, 404);
}

#[test]
fn a_voided_key_is_never_charged() {
    let site = willing().start();
    for _ in 0..2 {
        let void = site.post("/v1/ledger/k/void", &[], "");
        assert_eq!((void.status, void.json()["state"].clone()), (200, "VOIDED".into()));
        assert_eq!(problem(&site.charge("k")), (410, "key-voided".to_owned()));
    }
    assert_eq!(site.get("/v1/ledger/k").json()["state"], "VOIDED");
    assert_eq!((site.charges(), site.ask("SELECT count(*) FROM ledger")), (0, 1));
}

#[test]
fn a_charge_cannot_be_voided_and_a_refusal_stays_one() {
    let (yes, no) = (willing().start(), Settings::default().flags(["--success-rate", "0"]).start());
    yes.charge("k");
    assert_eq!(problem(&yes.post("/v1/ledger/k/void", &[], "")).0, 409);
    assert_eq!(yes.get("/v1/ledger/k").json()["state"], "CHARGED");
    no.charge("k");
    let void = no.post("/v1/ledger/k/void", &[], "");
    assert_eq!((void.status, void.json()["state"].clone()), (200, "REFUSED".into()));
    assert_eq!(no.charge("k").text(), r#"{"result":"false"}"#);
}

#[test]
fn a_restored_ledger_gets_a_new_name_and_keeps_its_rows() {
    let mut site = willing().start();
    let before = site.charge("k").header("ledger-id").unwrap().to_owned();
    assert!(site.process.stop().success(), "{}", site.process.log());
    let url = format!("sqlite:{}", site.process.db().display());
    let renewed = Command::new(env!("CARGO_BIN_EXE_payments"))
        .args(["new-ledger-id", "--database-url", &url])
        .env_clear()
        .output()
        .unwrap();
    assert!(renewed.status.success(), "{renewed:?}");
    site.process.start_again();
    let answer = site.post("/", &[("Idempotency-Key", "k"), ("Expect-Ledger", &before)], GOOD);
    assert_eq!(problem(&answer), (412, "ledger-mismatch".to_owned()));
    let again = site.charge("k");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let after = again.header("ledger-id").unwrap();
    assert_ne!(after, before);
    assert!(String::from_utf8_lossy(&renewed.stdout).contains(after), "{renewed:?}");
}

#[test]
fn a_ledger_in_use_is_not_opened_twice() {
    let site = willing().start();
    let url = format!("sqlite:{}", site.process.db().display());
    let second = Command::new(env!("CARGO_BIN_EXE_payments"))
        .args(["migrate", "--database-url", &url])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
}
