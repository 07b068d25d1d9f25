//! Idempotency keys: executed once, answered in the same way for ever, and visible to no other account.

use tempfile::TempDir;

use crate::site::{GOOD, Settings, Site, problem, willing};

const TWO_ACCOUNTS: &str = "token-a\ntoken-a2 antaeus\ntoken-b other\n";

fn with_two_accounts() -> (Site, TempDir) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, TWO_ACCOUNTS).unwrap();
    let site = willing().flags(["--payments-api-token-file", path.to_str().unwrap()]).start();
    (site, dir)
}

fn keyed<'a>(key: &'a str, token: &'a str) -> [(&'a str, &'a str); 2] {
    [("Idempotency-Key", key), ("X-Token", token)]
}

#[test]
fn a_key_is_executed_once_and_answered_the_same_for_ever() {
    let site = Settings::default().flags(["--seed", "8213"]).start();
    for n in 0..20 {
        let (bare, quoted) = (format!("key-{n}"), format!("\"key-{n}\""));
        let first = site.post("/payments", &[("Idempotency-Key", &bare)], GOOD);
        assert_eq!(first.header("idempotency-replayed"), None);
        for spelling in [&bare, &quoted] {
            let again = site.post("/payments", &[("Idempotency-Key", spelling)], GOOD);
            assert_eq!((again.status, again.text()), (first.status, first.text()));
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(again.header("idempotency-key"), Some(bare.as_str()));
        }
    }
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 20);
    assert!((1..20).contains(&site.charges()), "both decisions were replayed");
    assert_eq!(site.process.metric(&["payments_replays_total"]), 40);
    let executed = site.process.metric(&["payments_charges_total", "CHARGED"]);
    assert_eq!(executed, site.charges());
}

#[test]
fn each_answer_names_the_ledger_and_each_keyed_one_its_key() {
    let site = willing().start();
    let id = site.get("/v1/ledger").json()["ledger_id"].as_str().unwrap().to_owned();
    for (path, body) in [("/", GOOD), ("/", "no json"), ("/payments/pay", "{}"), ("/nothing", "")] {
        let answer = site.post(path, &[("Idempotency-Key", "k1")], body);
        assert_eq!(answer.header("ledger-id"), Some(id.as_str()), "{path} {body}");
        let echo = if path == "/nothing" { None } else { Some("k1") };
        assert_eq!(answer.header("idempotency-key"), echo, "{path} {body}");
    }
    assert_eq!(site.get("/ping").header("ledger-id"), Some(id.as_str()));
}

#[test]
fn a_key_with_other_data_is_422() {
    let site = willing().start();
    site.charge("k");
    for body in [
        r#"{"customer_id":2,"currency":"USD","value":1.25}"#,
        r#"{"customer_id":1,"currency":"EUR","value":1.25}"#,
        r#"{"customer_id":1,"currency":{},"value":1.25}"#,
        r#"{"customer_id":1,"currency":"USD","value":1.26}"#,
    ] {
        let answer = site.post("/", &[("Idempotency-Key", "k")], body);
        assert_eq!(problem(&answer), (422, "key-reused".to_owned()), "{body}");
        assert_eq!(answer.header("idempotency-key"), Some("k"));
    }
    let same = r#"{"value":1.250,"currency":"USD","customer_id":1}"#;
    assert_eq!(
        site.post("/", &[("Idempotency-Key", "k")], same).header("idempotency-replayed"),
        Some("true")
    );
    assert_eq!(site.charges(), 1);
}

/// Two invoices with the same amount are two requests.
#[test]
fn a_key_with_another_reference_is_422_on_each_route() {
    let site = willing().start();
    for (nth, path) in ["/", "/payments", "/payments/pay"].into_iter().enumerate() {
        let key = format!("k{nth}");
        let send = |id: &str| {
            let body = format!(r#"{{"id":"{id}","customer_id":1,"currency":"EUR","value":12.15}}"#);
            site.post(path, &[("Idempotency-Key", &key)], &body)
        };
        assert!(send("I1").status < 300, "{path}");
        assert_eq!(problem(&send("I2")), (422, "key-reused".to_owned()), "{path}");
        assert_eq!(send("I1").header("idempotency-replayed"), Some("true"), "{path}");
    }
    assert_eq!(site.charges(), 3);
}

#[test]
fn a_keyed_amount_is_never_rounded() {
    let site = willing().start();
    let body = r#"{"id":"I1","customer_id":1,"currency":"USD","value":1.255}"#;
    for path in ["/", "/payments", "/payments/pay"] {
        let answer = site.post(path, &[("Idempotency-Key", "k")], body);
        assert_eq!(problem(&answer), (400, "validation".to_owned()), "{path}");
        assert_eq!(answer.json()["errors"][0]["field"], "value");
        assert!(site.post(path, &[], body).status < 300, "{path}");
    }
    assert_eq!(site.ask("SELECT count(*) FROM ledger WHERE key IS NOT NULL"), 0);
}

#[test]
fn what_is_no_key_is_refused_and_not_taken_for_none() {
    let site = willing().start();
    for key in ["", "\"\"", "a b", "ä", &"k".repeat(65)] {
        let answer = site.post("/", &[("Idempotency-Key", key)], GOOD);
        assert_eq!(problem(&answer), (400, "validation".to_owned()), "{key:?}");
    }
    let twice = site.post("/", &[("Idempotency-Key", "a"), ("Idempotency-Key", "b")], GOOD);
    assert_eq!(problem(&twice), (400, "validation".to_owned()));
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 0);
    assert_eq!(site.charge(&"k".repeat(64)).status, 200);
}

#[test]
fn another_ledger_than_expected_executes_nothing() {
    let site = willing().start();
    let id = site.charge("k0").header("ledger-id").unwrap().to_owned();
    for wrong in ["00000000-0000-4000-8000-000000000001", "nonsense"] {
        let answer = site.post("/", &[("Idempotency-Key", "k1"), ("Expect-Ledger", wrong)], GOOD);
        assert_eq!(problem(&answer), (412, "ledger-mismatch".to_owned()));
        assert_eq!(
            (answer.header("ledger-id"), answer.header("idempotency-key")),
            (Some(id.as_str()), Some("k1"))
        );
    }
    assert_eq!(site.charges(), 1);
    assert_eq!(site.post("/", &[("Idempotency-Key", "k1"), ("Expect-Ledger", &id)], GOOD).status, 200);
}

#[test]
fn a_key_is_not_voided_in_another_ledger_than_expected() {
    let site = willing().start();
    let id = site.get("/v1/ledger").json()["ledger_id"].as_str().unwrap().to_owned();
    let other = [("Expect-Ledger", "00000000-0000-4000-8000-000000000001")];
    let answer = site.post("/v1/ledger/k/void", &other, "");
    assert_eq!(problem(&answer), (412, "ledger-mismatch".to_owned()));
    assert_eq!(answer.header("ledger-id"), Some(id.as_str()));
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 0);
    assert_eq!(site.post("/v1/ledger/k/void", &[("Expect-Ledger", &id)], "").status, 200);
}

#[test]
fn tokens_of_one_account_share_its_keys_and_other_accounts_see_nothing() {
    let (site, _tokens) = with_two_accounts();
    let first = site.post("/", &keyed("k", "token-a"), GOOD);
    let again = site.post("/", &keyed("k", "token-a2"), GOOD);
    assert_eq!((first.status, first.text()), (again.status, again.text()));
    let b = [("X-Token", "token-b")];
    let (theirs, unused) = (site.get_as("/v1/ledger/k", &b), site.get_as("/v1/ledger/never-used", &b));
    assert_eq!((theirs.status, theirs.text()), (404, unused.text()));
    assert_eq!(site.get_as("/v1/ledger", &b).json()["items"].as_array().unwrap().len(), 0);
    assert_eq!(site.charges(), 1);
}

#[test]
fn an_account_voids_its_own_keys_only() {
    let (site, _tokens) = with_two_accounts();
    let b = [("X-Token", "token-b")];
    assert_eq!(site.post("/v1/ledger/k/void", &b, "").status, 200);
    assert_eq!(site.post("/v1/ledger/k/void", &b, "").status, 200);
    assert_eq!(site.post("/", &keyed("k", "token-a"), GOOD).status, 200);
    assert_eq!(problem(&site.post("/", &keyed("k", "token-b"), GOOD)), (410, "key-voided".to_owned()));
    let states = [("token-a", "CHARGED"), ("token-b", "VOIDED")];
    for (token, state) in states {
        assert_eq!(site.get_as("/v1/ledger/k", &[("X-Token", token)]).json()["state"], state);
    }
    assert_eq!((site.charges(), site.ask("SELECT count(*) FROM ledger")), (1, 2));
}

/// The caller may be the same client under another account: an earlier version of billing names no deployment.
#[test]
fn a_client_that_names_no_deployment_is_not_charged_again_under_another_account() {
    let (site, _tokens) = with_two_accounts();
    site.post("/", &keyed("k", "token-a"), GOOD);
    let foreign = (403, "key-foreign".to_owned());
    let answer = site.post("/", &keyed("k", "token-b"), GOOD);
    assert_eq!(problem(&answer), foreign);
    assert!(!answer.text().contains("antaeus"), "{}", answer.text());
    // A tombstone would count as proof that nothing was charged.
    assert_eq!(problem(&site.post("/v1/ledger/k/void", &[("X-Token", "token-b")], "")), foreign);
    assert_eq!(site.ask("SELECT count(*) FROM ledger"), 1);
}

#[test]
fn a_deployment_that_charged_under_another_account_is_refused_by_deployment_and_by_key() {
    const DEPLOYMENT: (&str, &str) = ("Deployment-Id", "00000000-0000-4000-8000-000000000001");
    let (site, _tokens) = with_two_accounts();
    let of = |token| [("Idempotency-Key", "k"), ("X-Token", token), DEPLOYMENT];
    assert_eq!(site.post("/", &of("token-a"), GOOD).status, 200);
    let unknown = (412, "deployment-unknown".to_owned());
    assert_eq!(problem(&site.post("/", &of("token-b"), GOOD)), unknown);
    assert_eq!(problem(&site.post("/v1/ledger/k/void", &of("token-b"), "")), unknown);
    let declaration = format!(r#"{{"deployment_id":"{}","why":"moved","actor":"ops"}}"#, DEPLOYMENT.1);
    assert_eq!(site.post("/v1/deployments", &[("X-Token", "token-b")], &declaration).status, 201);
    testkit::wait_until("the declaration counts", std::time::Duration::from_secs(60), || {
        problem(&site.post("/", &of("token-b"), GOOD)) == (403, "key-foreign".to_owned())
    });
    let another = [("Idempotency-Key", "k2"), ("X-Token", "token-b"), DEPLOYMENT];
    assert_eq!(site.post("/", &another, GOOD).status, 200);
    assert_eq!(site.charges(), 2);
}

/// Another account's charge under a key of a deployment that it does not share does not concern the key's owner.
#[test]
fn a_charge_of_another_account_does_not_block_a_deployments_key() {
    const DEPLOYMENT: (&str, &str) = ("Deployment-Id", "00000000-0000-4000-8000-000000000001");
    let (site, _tokens) = with_two_accounts();
    assert_eq!(site.post("/", &keyed("k", "token-b"), GOOD).status, 200);
    let owner = [("Idempotency-Key", "k"), ("X-Token", "token-a"), DEPLOYMENT];
    assert_eq!(site.post("/", &owner, GOOD).status, 200);
    assert_eq!(site.charges(), 2);
}

#[test]
fn while_a_key_is_executed_its_resend_is_reported_so() {
    let site = willing().faults("[[rule]]\nfault = \"latency\"\nlatency_ms = 1000\nnth = 1").start();
    let url = format!("{}/", site.process.url());
    let first = std::thread::spawn(move || {
        testkit::http::call("POST", &url, &[("Idempotency-Key", "k")], GOOD.as_bytes())
    });
    testkit::wait_until("the first delivery", std::time::Duration::from_secs(60), || {
        site.process.metric(&["payments_faults_total", "latency"]) == 1
    });
    let second = site.charge("k");
    assert_eq!(problem(&second), (409, "key-in-flight".to_owned()));
    assert_eq!(second.header("idempotency-key"), Some("k"));
    assert_eq!(first.join().unwrap().text(), r#"{"result":"true"}"#);
    assert_eq!(site.charge("k").header("idempotency-replayed"), Some("true"));
    assert_eq!(site.charges(), 1);
}

#[test]
fn a_client_that_hangs_up_leaves_a_whole_charge_and_a_free_key() {
    let site = willing().faults("[[rule]]\nfault = \"latency\"\nlatency_ms = 300").start();
    for n in 0..5 {
        let mut connection = site.connect();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k{n}\r\nContent-Length: {}\r\n\r\n{GOOD}",
            GOOD.len()
        );
        connection.write(head.as_bytes()).unwrap();
    }
    testkit::wait_until("all five charges", std::time::Duration::from_secs(60), || site.charges() == 5);
    for n in 0..5 {
        assert_eq!(site.charge(&format!("k{n}")).header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(site.charges(), 5);
}

#[test]
fn eight_deliveries_of_a_key_at_once_are_one_charge() {
    let site = willing().start();
    for n in 0..10 {
        let key = format!("k{n}");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| site.charge(&key).status)).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
        assert!(statuses.contains(&200), "{statuses:?}");
    }
    assert_eq!(site.charges(), 10);
}
