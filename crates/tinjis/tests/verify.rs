//! `tinjis verify` never wrongly reports `ok`: real stores, each changed by one statement, served by the real services.
//! Changes copies with SQL; knows the command line and the tables only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use testkit::Services;

const INVOICES: usize = 40;
const PAID_WITHIN: Duration = Duration::from_secs(60);

/// The paths of both stores after all was paid and the services have stopped.
struct AtRest {
    billing: PathBuf,
    payments: PathBuf,
    _dir: tempfile::TempDir,
}

fn tinjis() -> &'static str {
    env!("CARGO_BIN_EXE_tinjis")
}

fn verify(services: &Services) -> (Output, Value) {
    let (billing, payments) = (services.billing_url(), services.payments_url());
    let output = Command::new(tinjis())
        .args(["verify", "--json", "--billing", &billing, "--payments", &payments])
        .env_clear()
        .output()
        .expect("the command can be started");
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output, json)
}

/// Stores with all invoices paid, a third of them at a second or later attempt.
fn paid_world() -> AtRest {
    let mut services = Services::of(tinjis()).payments_flags(["--success-rate=0.7", "--seed=7"]).start();
    services.import("V", INVOICES);
    services.pay_until_true(PAID_WITHIN);
    let (output, json) = verify(&services);
    assert!(output.status.success(), "{json}");
    assert_eq!(json["verdict"], "ok");
    assert_eq!((json["invoices"].as_u64(), json["paid"].as_u64()), (Some(40), Some(40)));
    assert_eq!((json["charges"].as_u64(), json["findings_total"].as_u64()), (Some(40), Some(0)));
    let ledger = testkit::http::get(&format!("{}/v1/ledger?limit=1", services.payments_url())).json();
    assert_eq!(json["ledger_id"], ledger["ledger_id"]);
    services.stop_billing();
    services.stop_payments();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let world = AtRest {
        billing: dir.path().join("billing.db"),
        payments: dir.path().join("payments.db"),
        _dir: dir,
    };
    copy(&services.billing.db(), &world.billing);
    copy(&services.payments.db(), &world.payments);
    copy_sidecar(&services.payments.db(), &world.payments);
    world
}

fn open(store: &Path) -> Connection {
    Connection::open(store).expect("a store can be opened")
}

/// Copies a store as a backup does, with its log merged into the file.
fn copy(from: &Path, to: &Path) {
    let to = to.to_str().expect("a test's path is UTF-8");
    open(from).execute("VACUUM INTO ?1", [to]).expect("a store can be copied");
}

/// The reference that a query over both stores returns.
fn reference(world: &AtRest, query: &str) -> String {
    let store = open(&world.billing);
    let payments = world.payments.to_str().expect("a test's path is UTF-8");
    store.execute("ATTACH DATABASE ?1 AS p", [payments]).expect("the ledger can be attached");
    store.query_row(query, [], |row| row.get(0)).expect("there is such a row")
}

/// Serves copies, each changed by at most one statement; returns the output of `verify`.
fn judged(world: &AtRest, billing: Option<&str>, payments: Option<&str>) -> (Output, Value) {
    judged_after(world, billing.as_slice(), payments.as_slice())
}

/// The same with several statements, each of which must change something.
fn judged_after(world: &AtRest, billing: &[&str], payments: &[&str]) -> (Output, Value) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    verify(&changed(world, dir.path(), billing, payments))
}

/// Both services on copies of the stores in this folder, changed by these statements.
fn changed(world: &AtRest, dir: &Path, billing: &[&str], payments: &[&str]) -> Services {
    let corrupted = |store: &Path, name: &str, statements: &[&str]| {
        let copied = dir.join(name);
        fs::copy(store, &copied).expect("a store can be copied");
        copy_sidecar(store, &copied);
        for statement in statements {
            let changed = open(&copied).execute(statement, []).expect("the statement is right");
            assert_ne!(changed, 0, "{statement}");
        }
        format!("--database-url=sqlite:{}", copied.display())
    };
    let billing = corrupted(&world.billing, "billing.db", billing);
    let payments = corrupted(&world.payments, "payments.db", payments);
    let payments = [payments, "--success-rate=1".to_owned()];
    Services::of(tinjis()).billing_flags([billing]).payments_flags(payments).start()
}

/// Copies the sidecar. A ledger serves only with its sidecar, and only with all rows that the sidecar records. This
/// copy records none, because a statement may delete some.
fn copy_sidecar(store: &Path, copied: &Path) {
    let sidecar = |database: &Path| database.with_extension("db.incarnation");
    let Ok(text) = fs::read_to_string(sidecar(store)) else { return };
    let lines = text.lines().map(|line| match line.strip_prefix("last-seq ") {
        Some(digits) => format!("last-seq {}\n", "0".repeat(digits.len())),
        None => format!("{line}\n"),
    });
    fs::write(sidecar(copied), lines.collect::<String>()).expect("the sidecar can be copied");
}

/// One statement on one store, the expected finding, and a query for the reference that it must name.
struct Corruption {
    what: &'static str,
    billing: Option<&'static str>,
    payments: Option<&'static str>,
    field: &'static str,
    named: &'static str,
}

const FIRST_CHARGED: &str = "SELECT reference FROM p.ledger WHERE seq =
    (SELECT min(seq) FROM p.ledger WHERE state = 'CHARGED')";

const CORRUPTIONS: &[Corruption] = &[
    Corruption {
        what: "a copy of a charge without its key",
        billing: None,
        payments: Some(
            "INSERT INTO ledger (key, account, fingerprint, reference, customer_id, currency, amount_minor, state,
                 route, created_at)
             SELECT NULL, account, fingerprint, reference, customer_id, currency, amount_minor, state, route,
                 created_at FROM ledger WHERE state = 'CHARGED' ORDER BY seq LIMIT 1",
        ),
        field: "/double",
        named: FIRST_CHARGED,
    },
    Corruption {
        what: "a charge deleted",
        billing: None,
        payments: Some("DELETE FROM ledger WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')"),
        field: "/mismatch/unbacked",
        named: FIRST_CHARGED,
    },
    Corruption {
        what: "an amount changed in the ledger",
        billing: None,
        payments: Some(
            "UPDATE ledger SET amount_minor = amount_minor + 1
             WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')",
        ),
        field: "/mismatch/amount",
        named: FIRST_CHARGED,
    },
    Corruption {
        what: "an amount changed in billing",
        billing: Some("UPDATE invoices SET amount_minor = amount_minor + 1 WHERE id = 5"),
        payments: None,
        field: "/mismatch/amount",
        named: "SELECT reference FROM invoices WHERE id = 5",
    },
    Corruption {
        what: "a charged attempt deleted",
        billing: Some(
            "DELETE FROM attempts WHERE key = (SELECT min(key) FROM attempts WHERE state = 'CHARGED')",
        ),
        payments: None,
        field: "/mismatch/unknown_key",
        named: "SELECT reference FROM invoices WHERE id = (SELECT invoice_id FROM attempts WHERE key =
            (SELECT min(key) FROM attempts WHERE state = 'CHARGED'))",
    },
    Corruption {
        what: "a refused attempt deleted",
        billing: Some(
            "DELETE FROM attempts WHERE key = (SELECT min(key) FROM attempts WHERE state = 'REFUSED')",
        ),
        payments: None,
        field: "/mismatch/unknown_key",
        named: "SELECT reference FROM invoices WHERE id = (SELECT invoice_id FROM attempts WHERE key =
            (SELECT min(key) FROM attempts WHERE state = 'REFUSED'))",
    },
    Corruption {
        what: "a paid invoice set back",
        billing: Some("UPDATE invoices SET state = 'PENDING', paid_by = NULL WHERE id = 7"),
        payments: None,
        field: "/lost",
        named: "SELECT reference FROM invoices WHERE id = 7",
    },
    Corruption {
        what: "a charged invoice said to be imported as PAID",
        billing: Some("UPDATE invoices SET paid_by = 'import' WHERE id = 9"),
        payments: None,
        field: "/double",
        named: "SELECT reference FROM invoices WHERE id = 9",
    },
    Corruption {
        what: "a charge that names another invoice than its key",
        billing: None,
        payments: Some(
            "UPDATE ledger SET reference = (SELECT reference FROM ledger ORDER BY seq DESC LIMIT 1)
             WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')",
        ),
        field: "/mismatch/unknown_key",
        named: FIRST_CHARGED,
    },
    Corruption {
        what: "a charge that names no invoice any more",
        billing: None,
        payments: Some(
            "UPDATE ledger SET reference = 'changed'
             WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')",
        ),
        field: "/mismatch/unknown_key",
        named: FIRST_CHARGED,
    },
    Corruption {
        what: "a charge without a reference",
        billing: None,
        payments: Some(
            "UPDATE ledger SET reference = NULL
             WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')",
        ),
        field: "/mismatch/unknown_key",
        named: FIRST_CHARGED,
    },
    Corruption {
        what: "a copy of a charge without its key, under a row number that no ledger gives",
        billing: None,
        payments: Some(
            "INSERT INTO ledger (seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, state,
                 route, created_at)
             SELECT -5, NULL, account, fingerprint, reference, customer_id, currency, amount_minor, state, route,
                 created_at FROM ledger WHERE state = 'CHARGED' ORDER BY seq LIMIT 1",
        ),
        field: "/double",
        named: FIRST_CHARGED,
    },
    Corruption {
        what: "a charged attempt said to be refused",
        billing: Some(
            "UPDATE attempts SET state = 'REFUSED' WHERE key =
                 (SELECT min(key) FROM attempts WHERE state = 'CHARGED')",
        ),
        payments: None,
        field: "/mismatch/unbacked",
        named: "SELECT reference FROM invoices WHERE id = (SELECT invoice_id FROM attempts WHERE key =
            (SELECT min(key) FROM attempts WHERE state = 'CHARGED'))",
    },
];

#[test]
fn each_corrupt_row_is_found_and_its_reference_is_named() {
    let world = paid_world();
    std::thread::scope(|scope| {
        for spoil in CORRUPTIONS {
            let world = &world;
            scope.spawn(move || {
                let named = reference(world, spoil.named);
                let (output, json) = judged(world, spoil.billing, spoil.payments);
                assert_eq!(output.status.code(), Some(1), "{}: {json}", spoil.what);
                assert_eq!(json["verdict"], "wrong", "{}", spoil.what);
                assert_eq!(
                    json.pointer(spoil.field).and_then(Value::as_u64),
                    Some(1),
                    "{}: {json}",
                    spoil.what
                );
                let findings = json["findings"].as_array().unwrap();
                assert!(!findings.is_empty(), "{}", spoil.what);
                for finding in findings {
                    assert_eq!(finding["reference"], Value::String(named.clone()), "{}: {json}", spoil.what);
                }
            });
        }
        scope.spawn(|| {
            let (output, json) = judged(&world, None, None);
            assert!(output.status.success(), "unchanged copies are right: {json}");
        });
        scope.spawn(|| {
            let other = "UPDATE deployment SET id = '00000000-0000-4000-8000-000000000009'";
            let (output, json) = judged(&world, Some(other), None);
            assert_eq!(output.status.code(), Some(1), "no key is of another deployment: {json}");
            assert_eq!(json.pointer("/mismatch/unknown_key").and_then(Value::as_u64), Some(40), "{json}");
        });
        scope.spawn(|| {
            // The statements make an invoice and its attempt look as if no request had been sent.
            let never_sent = "UPDATE attempts SET state = 'INTENT', sends = 0, settled_at = NULL,
                 lease_until = 253402300799999 WHERE invoice_id = 3 AND state = 'CHARGED'";
            let parked = "UPDATE invoices SET state = 'ATTENTION', paid_by = NULL,
                 attention_reason = 'rejected' WHERE id = 3";
            let (output, json) = judged_after(&world, &[never_sent, parked], &[]);
            assert_eq!(output.status.code(), Some(1), "charged, and journaled as never sent: {json}");
            assert_eq!(json["in_doubt"], 1, "{json}");
        });
        scope.spawn(|| {
            let (output, json) = judged(&world, Some("UPDATE deployment SET ledger_id = NULL"), None);
            assert_eq!(output.status.code(), Some(2), "which ledger was settled with is forgotten: {json}");
            assert_eq!((&json["verdict"], &json["findings_total"]), (&"unknown".into(), &0.into()), "{json}");
        });
        scope.spawn(|| {
            let other = "UPDATE ledger_meta SET ledger_id = '00000000-0000-4000-8000-000000000009'";
            let (output, json) = judged(&world, None, Some(other));
            assert_eq!(output.status.code(), Some(2), "another ledger proves nothing: {json}");
            assert_eq!(json["verdict"], "unknown");
        });
    });
}

/// Runs a command line of the tests of acknowledging.
fn tinjis_says(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(tinjis()).args(words).env_clear().output().expect("the command can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn charges_of_no_invoice_are_wrong_until_an_operator_acknowledges_them() {
    let services = Services::of(tinjis()).payments_flags(["--success-rate=1"]).start();
    services.import("K", 3);
    services.pay_until_true(PAID_WITHIN);
    let payments = services.payments_url();
    let charge = |body: &[u8]| {
        assert_eq!(testkit::http::call("POST", &format!("{payments}/"), &[], body).status, 200);
    };
    charge(br#"{"id":"elsewhere","customer_id":1,"currency":"EUR","value":5}"#);
    charge(br#"{"customer_id":1,"currency":"EUR","value":6}"#);
    let key = [("Idempotency-Key", "0123456789abcdef0123456789abcdef")];
    let keyed = br#"{"id":"another","customer_id":1,"currency":"EUR","value":7}"#;
    assert_eq!(testkit::http::call("POST", &format!("{payments}/"), &key, keyed).status, 200);
    let seqs = |json: &Value| -> Vec<i64> {
        let findings = json["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["kind"] == "unattributed"), "{json}");
        let mut seqs: Vec<i64> =
            findings.iter().map(|finding| finding["seqs"][0].as_i64().unwrap()).collect();
        seqs.sort_unstable();
        seqs
    };
    let (output, json) = verify(&services);
    assert_eq!((output.status.code(), json["unkeyed"].as_u64()), (Some(1), Some(2)), "{json}");
    assert_eq!(seqs(&json), [4, 5, 6], "{json}");

    let billing = services.billing_url();
    let sides = ["--billing", &billing, "--payments", &payments];
    let acknowledge = |words: &[&str]| {
        let reason = ["--why", "test charges", "--actor", "ann"];
        tinjis_says(&[&["verify"][..], &sides, words, &reason].concat())
    };
    let (code, _, said) = acknowledge(&["--acknowledge", "1"]);
    assert_eq!(code, Some(2), "a charge of an invoice is compared with it: {said}");
    assert!(said.contains("names the invoice K"), "{said}");
    assert_eq!(acknowledge(&["--acknowledge", "99"]).0, Some(2), "there is no such row");
    assert_eq!(acknowledge(&["--acknowledge-through", "99"]).0, Some(2), "nor one to go through to");
    let (code, ..) = tinjis_says(&[&["verify"][..], &sides, &["--acknowledge", "4"]].concat());
    assert_eq!(code, Some(64), "without a reason and an actor");

    let (code, ..) = acknowledge(&["--acknowledge", "5"]);
    assert_eq!(code, Some(1), "two are left");
    assert_eq!(seqs(&verify(&services).1), [4, 6]);
    let (code, out, said) = acknowledge(&["--acknowledge-through", "6"]);
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(out.contains("acknowledged 3"), "{out}");
    let (output, json) = verify(&services);
    assert!(output.status.success(), "{json}");
    assert_eq!(
        (&json["verdict"], &json["charges"], &json["findings_total"]),
        (&"ok".into(), &6.into(), &0.into())
    );
    let list = testkit::http::get(&format!("{billing}/v1/ledger/acknowledgements")).json();
    let items = list["items"].as_array().unwrap();
    let ranges: Vec<_> =
        items.iter().map(|item| (item["seq_first"].as_i64(), item["seq_last"].as_i64())).collect();
    assert_eq!(ranges, [(Some(5), Some(5)), (Some(1), Some(6))]);
    assert!(items.iter().all(|item| item["actor"] == "ann" && item["reason"] == "test charges"), "{list}");
    charge(br#"{"id":"later","customer_id":1,"currency":"EUR","value":5}"#);
    assert_eq!(seqs(&verify(&services).1), [7], "a later one is not covered");
}

#[test]
fn an_invoice_whose_row_the_ledger_lost_is_wrong_until_an_operator_acknowledges_it() {
    let world = paid_world();
    let lost = ["DELETE FROM ledger WHERE state = 'CHARGED' AND reference IN ('V1', 'V2', 'V3')"];
    let dir = tempfile::tempdir().expect("a folder can be made");
    let services = changed(&world, dir.path(), &[], &lost);
    let (billing, payments) = (services.billing_url(), services.payments_url());
    let acknowledge = |words: &[&str]| {
        let sides = ["--billing", &billing, "--payments", &payments];
        let reason = ["--why", "the ledger was restored", "--actor", "ann"];
        tinjis_says(&[&["verify"][..], &sides, words, &reason].concat())
    };
    let unbacked = |json: &Value| {
        let findings = json["findings"].as_array().expect("the JSON has this field").clone();
        assert!(findings.iter().all(|finding| finding["kind"] == "unbacked"), "{json}");
        let references = findings.iter().map(|finding| finding["reference"].as_str().unwrap().to_owned());
        let mut references: Vec<String> = references.collect();
        references.sort_unstable();
        references
    };
    assert_eq!(unbacked(&verify(&services).1), ["V1", "V2", "V3"]);
    let list = || testkit::http::get(&format!("{billing}/v1/ledger/unbacked-acknowledgements")).json();
    for other in ["V4", "X"] {
        let (code, _, said) = acknowledge(&["--acknowledge-unbacked", "V1", "--acknowledge-unbacked", other]);
        assert_eq!(code, Some(2), "{other} is not unbacked: {said}");
        assert!(said.contains(&format!("does not find {other} unbacked")), "{said}");
    }
    assert_eq!(list()["items"], serde_json::json!([]), "nothing is recorded when one is not");
    let (code, out, said) = acknowledge(&["--acknowledge-unbacked", "V2", "--acknowledge-unbacked", "V1"]);
    assert_eq!(code, Some(1), "one is left: {said}");
    assert!(out.contains("unbacked: V3") && out.contains("unbacked acknowledged 2"), "{out}");
    let (code, out, said) = acknowledge(&["--acknowledge-unbacked", "V3", "--acknowledge-unbacked", "V1"]);
    assert_eq!(code, Some(0), "V1 is acknowledged already: {out}{said}");
    let (output, json) = verify(&services);
    assert_eq!((output.status.code(), &json["mismatch"]["unbacked"]), (Some(0), &0.into()), "{json}");
    let items = list()["items"].as_array().expect("the API has this field").clone();
    let references: Vec<_> = items.iter().map(|item| item["reference"].as_str()).collect();
    assert_eq!(references, [Some("V1"), Some("V2"), Some("V3")]);
    assert!(items.iter().all(|item| item["actor"] == "ann" && item["reason"] == "the ledger was restored"));

    let charge = br#"{"id":"V1","customer_id":1,"currency":"EUR","value":5}"#;
    assert_eq!(testkit::http::call("POST", &format!("{payments}/"), &[], charge).status, 200);
    let (output, json) = verify(&services);
    assert_eq!(output.status.code(), Some(1), "a later charge of the invoice is no lost one: {json}");
    assert_eq!(json["mismatch"]["unbacked"], 1, "{json}");
    let (code, _, said) = acknowledge(&["--acknowledge-unbacked", "V1"]);
    assert_eq!(code, Some(1), "it is acknowledged already, and reported nevertheless: {said}");
}

#[test]
fn an_invoice_whose_charge_the_ledger_contradicts_is_not_acknowledged_as_lost() {
    let world = paid_world();
    let contradictions = [
        ("UPDATE ledger SET state = 'REFUSED' WHERE state = 'CHARGED' AND reference = 'V1'", "has the key"),
        ("UPDATE ledger SET key = NULL WHERE state = 'CHARGED' AND reference = 'V1'", "under another key"),
    ];
    for (contradiction, why) in contradictions {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let services = changed(&world, dir.path(), &[], &[contradiction]);
        let (billing, payments) = (services.billing_url(), services.payments_url());
        let sides = ["--billing", &billing, "--payments", &payments, "--acknowledge-unbacked", "V1"];
        let (code, _, said) =
            tinjis_says(&[&["verify"][..], &sides, &["--why", "restored", "--actor", "ann"]].concat());
        assert_eq!(code, Some(2), "{contradiction}: {said}");
        assert!(said.contains(why), "{contradiction}: {said}");
    }
}

#[test]
fn an_attempt_in_doubt_behind_more_refusals_than_a_page_holds_is_found() {
    let world = paid_world();
    // The journal of one invoice gets many refused attempts before its last one, which is in doubt.
    let billing = [
        "UPDATE invoices SET state = 'ATTENTION', paid_by = NULL, attention_reason = 'rejected' WHERE id = 3",
        "UPDATE attempts SET state = 'IN_DOUBT', settled_at = NULL, number = 9999, lease_until = 253402300799999
             WHERE invoice_id = 3 AND state = 'CHARGED'",
        "WITH RECURSIVE refused (n) AS (SELECT 101 UNION ALL SELECT n + 1 FROM refused WHERE n < 1200)
             INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
             lease_until, created_at, settled_at)
             SELECT printf('%032x', n), invoice_id, n, customer_id, currency, amount_minor,
             'REFUSED', 1, run_id, 1, 1, 1 FROM attempts, refused WHERE invoice_id = 3 AND number = 9999",
    ];
    let (output, json) = judged_after(&world, &billing, &[]);
    assert_eq!(output.status.code(), Some(1), "{json}");
    assert_eq!(json["in_doubt"], 1, "{json}");
}

#[test]
fn an_open_attempt_whose_key_another_account_holds_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "token-of-billing\ntoken-of-mallory mallory\n").unwrap();
    let mut services = Services::of(tinjis())
        .payments_flags(["--success-rate=1"])
        .billing_env("PAYMENTS_API_TOKEN", "token-of-billing")
        .payments_env("PAYMENTS_API_TOKEN_FILE", tokens.to_str().unwrap())
        .start();
    services.import("S", 1);
    services.pay_until_true(PAID_WITHIN);
    services.stop_billing();
    services.stop_payments();
    let store = open(&services.billing.db());
    let never_sent =
        "UPDATE attempts SET state = 'INTENT', sends = 0, settled_at = NULL, lease_until = 253402300799999";
    assert!(store.execute(never_sent, []).unwrap() >= 1);
    let parked = "UPDATE invoices SET state = 'ATTENTION', paid_by = NULL, attention_reason = 'rejected'";
    assert_eq!(store.execute(parked, []).unwrap(), 1);
    drop(store);
    // A ledger of an earlier version, whose keys are unique over all accounts.
    let taken = "DROP INDEX ledger_key_of_account; CREATE UNIQUE INDEX key_of_all ON ledger (key); \
        UPDATE ledger SET account = 'mallory'";
    open(&services.payments.db()).execute_batch(taken).unwrap();
    services.payments.start_again();
    services.billing.start_again();
    let output = Command::new(tinjis())
        .args([
            "verify",
            "--json",
            "--billing",
            &services.billing_url(),
            "--payments",
            &services.payments_url(),
        ])
        .env_clear()
        .env("PAYMENTS_API_TOKEN", "token-of-billing")
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{json}");
    assert_eq!(json["findings"][0]["kind"], "key_taken", "{json}");
}

#[test]
fn texts_of_a_ledger_cannot_steer_the_terminal() {
    let services = Services::start(tinjis());
    let body = br#"{"id":"\u001b[2J\u001b[H\u009b2J\u202eright: 5 invoices\r\nright: all","customer_id":1,"currency":"EUR","value":1}"#;
    let charged = testkit::http::call(
        "POST",
        &format!("{}/", services.payments_url()),
        &[("Idempotency-Key", "k1")],
        body,
    );
    assert!(charged.status < 500, "{}", charged.status);
    for flags in [&[][..], &["--json"]] {
        let (billing, payments) = (services.billing_url(), services.payments_url());
        let words = [&["verify", "--billing", &billing, "--payments", &payments], flags].concat();
        let (_, out, said) = tinjis_says(&words);
        let steering = |c: char| (c.is_control() && c != '\n') || ('\u{2028}'..='\u{202e}').contains(&c);
        assert!(!out.chars().any(steering) && !said.chars().any(steering), "{out:?} {said:?}");
        assert!(!out.lines().any(|line| line.starts_with("right: all")), "{out:?}");
        for line in out.lines().filter(|_| !flags.is_empty()) {
            serde_json::from_str::<Value>(line).expect("escapes leave JSON as it is");
        }
    }
}

#[test]
fn a_command_that_cannot_write_its_result_does_not_exit_with_0() {
    if !Path::new("/dev/full").exists() {
        testkit::requirements::leave_out("a result that cannot be written", "this system has no /dev/full");
        return;
    }
    let services = Services::of(tinjis()).payments_flags(["--success-rate=1"]).start();
    services.import("F", 2);
    services.pay_until_true(PAID_WITHIN);
    let (billing, payments) = (services.billing_url(), services.payments_url());
    let file = services.dir().join("invoices.csv");
    fs::write(&file, "reference,customer_id,currency,amount\nnew,1,EUR,12.15\n").unwrap();
    let file = file.to_str().unwrap();
    let verify = ["verify", "--billing", &billing, "--payments", &payments];
    let commands: [(&[&str], bool); 7] = [
        (&verify, false),
        (&[&verify[..], &["--json"]].concat(), false),
        (&["import", file, "--dry-run", "--billing", &billing], false),
        (&["pay", "--billing", &billing], false),
        (&["resolve", "--billing", &billing], false),
        (&["--help"], true),
        (&["--version"], true),
    ];
    for (words, is_quiet) in commands {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Command::new(tinjis()).args(words).env_clear().stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code().is_some_and(|code| code != 0), "{words:?}: {said}");
        assert!(is_quiet || said.contains("could not be written"), "{words:?}: {said}");
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(tinjis()).args(words).env_clear().stdout(closed).output().unwrap();
        assert!(output.status.code().is_some_and(|code| code != 0), "{words:?} into a closed pipe");
    }
}

#[test]
fn a_run_under_way_is_no_fault() {
    let services = Services::of(tinjis()).payments_flags(["--success-rate=0.9", "--seed=7"]).start();
    services.import("R", 3000);
    let run = services.start_run();
    let mut looks = 0;
    while testkit::http::get(&run).json()["state"] == "running" {
        let (output, json) = verify(&services);
        assert!(output.status.success(), "{json}");
        looks += 1;
    }
    assert!(looks > 0, "the run was too short to be looked at");
    let (output, json) = verify(&services);
    assert!(output.status.success(), "{json}");
    assert_eq!((json["open"].as_u64(), json["in_doubt"].as_u64()), (Some(0), Some(0)), "{json}");
}

#[test]
fn who_cannot_look_says_so_with_exit_code_2() {
    let services = Services::start(tinjis());
    let output = Command::new(tinjis())
        .args(["verify", "--json", "--billing", &services.billing_url(), "--payments", "http://127.0.0.1:9"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["verdict"], &json["findings_total"]), (&"unknown".into(), &0.into()), "{json}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("http://127.0.0.1:9/v1/ledger") && said.contains("not reachable"), "{said}");
}

#[test]
fn the_ledger_is_read_with_the_token_that_payments_ask_for() {
    let services = Services::of(tinjis())
        .billing_env("PAYMENTS_API_TOKEN", "TestToken")
        .payments_env("PAYMENTS_API_TOKEN", "TestToken")
        .start();
    services.import("T", 3);
    services.pay_until_true(PAID_WITHIN);
    let verify = |token: Option<&str>| {
        Command::new(tinjis())
            .args(["verify", "--billing", &services.billing_url(), "--payments", &services.payments_url()])
            .env_clear()
            .envs(token.map(|token| ("PAYMENTS_API_TOKEN", token)))
            .output()
            .unwrap()
    };
    assert_eq!(verify(None).status.code(), Some(2));
    let right = verify(Some("TestToken"));
    assert_eq!(right.status.code(), Some(0), "{}", String::from_utf8_lossy(&right.stderr));
    assert!(String::from_utf8_lossy(&right.stdout).starts_with("right: 3 invoices"));
}

#[test]
fn on_a_terminal_it_shows_how_far_it_is_and_takes_that_away_before_the_result() {
    if !testkit::requirements::has("script", "progress of verify on a terminal") {
        return;
    }
    let services = Services::of(tinjis()).payments_flags(["--success-rate=1"]).start();
    services.import("T", 2500);
    services.pay_until_true(PAID_WITHIN);
    let look = |redirected: &str| {
        let command = format!(
            "stty cols 100 rows 40; {} verify --billing {} --payments {} {redirected}",
            tinjis(),
            services.billing_url(),
            services.payments_url()
        );
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm")
            .output()
            .expect("script can be started");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = look("");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(" items so far") && shown.contains(" %"), "{shown:?}");
    let after = shown.rsplit('\r').find(|part| part.contains("right: ")).unwrap_or_default();
    assert!(!after.contains('%'), "the bar is gone when the result comes: {shown:?}");
    let (code, shown) = look("2>/dev/null");
    assert_eq!((code, shown.contains('%')), (Some(0), false), "the bar is on standard error: {shown:?}");
}
