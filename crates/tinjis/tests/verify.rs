//! `tinjis verify` is a judge: real stores, spoilt by one statement each, served by the real services.
//! Spoils copies with SQL; knows the command line and the tables only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use harness::Services;
use rusqlite::Connection;
use serde_json::Value;

const INVOICES: usize = 40;
const PAID_WITHIN: Duration = Duration::from_secs(60);

/// Where both stores of a paid world lie, at rest.
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

/// All paid, a third of them at a second or later attempt.
fn paid_world() -> AtRest {
    let mut services = Services::of(tinjis()).payments_flags(["--success-rate=0.7", "--seed=7"]).start();
    services.import("V", INVOICES);
    services.pay_until_true(PAID_WITHIN);
    let (output, json) = verify(&services);
    assert!(output.status.success(), "{json}");
    assert_eq!(json["verdict"], "ok");
    assert_eq!((json["invoices"].as_u64(), json["paid"].as_u64()), (Some(40), Some(40)));
    assert_eq!((json["charges"].as_u64(), json["findings_total"].as_u64()), (Some(40), Some(0)));
    let ledger = harness::http::get(&format!("{}/v1/ledger?limit=1", services.payments_url())).json();
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
    world
}

fn open(store: &Path) -> Connection {
    Connection::open(store).expect("a store can be opened")
}

/// A store as a backup takes it, its log folded in.
fn copy(from: &Path, to: &Path) {
    let to = to.to_str().expect("a test's path is UTF-8");
    open(from).execute("VACUUM INTO ?1", [to]).expect("a store can be copied");
}

/// The reference that a query on both stores gives.
fn reference(world: &AtRest, query: &str) -> String {
    let store = open(&world.billing);
    let payments = world.payments.to_str().expect("a test's path is UTF-8");
    store.execute("ATTACH DATABASE ?1 AS p", [payments]).expect("the ledger can be attached");
    store.query_row(query, [], |row| row.get(0)).expect("there is such a row")
}

/// Serves copies, each spoilt by these statements, which must change one row each; answers what verify says.
fn judged(world: &AtRest, billing: Option<&str>, payments: Option<&str>) -> (Output, Value) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let spoilt = |store: &Path, name: &str, statement: Option<&str>| {
        let copied = dir.path().join(name);
        fs::copy(store, &copied).expect("a store can be copied");
        if let Some(statement) = statement {
            let changed = open(&copied).execute(statement, []).expect("the statement is right");
            assert_eq!(changed, 1, "{statement}");
        }
        format!("--database-url=sqlite:{}", copied.display())
    };
    let billing = spoilt(&world.billing, "billing.db", billing);
    let payments = spoilt(&world.payments, "payments.db", payments);
    verify(&Services::of(tinjis()).billing_flags([billing]).payments_flags([payments]).start())
}

/// One statement on one store, what must be found, and a query for the reference that must be named.
struct Spoil {
    what: &'static str,
    billing: Option<&'static str>,
    payments: Option<&'static str>,
    field: &'static str,
    named: &'static str,
}

const FIRST_CHARGED: &str = "SELECT reference FROM p.ledger WHERE seq =
    (SELECT min(seq) FROM p.ledger WHERE state = 'CHARGED')";

const SPOILS: &[Spoil] = &[
    Spoil {
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
    Spoil {
        what: "a charge deleted",
        billing: None,
        payments: Some("DELETE FROM ledger WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')"),
        field: "/mismatch/unbacked",
        named: FIRST_CHARGED,
    },
    Spoil {
        what: "an amount changed in the ledger",
        billing: None,
        payments: Some(
            "UPDATE ledger SET amount_minor = amount_minor + 1
             WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')",
        ),
        field: "/mismatch/amount",
        named: FIRST_CHARGED,
    },
    Spoil {
        what: "an amount changed in billing",
        billing: Some("UPDATE invoices SET amount_minor = amount_minor + 1 WHERE id = 5"),
        payments: None,
        field: "/mismatch/amount",
        named: "SELECT reference FROM invoices WHERE id = 5",
    },
    Spoil {
        what: "a charged attempt deleted",
        billing: Some(
            "DELETE FROM attempts WHERE key = (SELECT min(key) FROM attempts WHERE state = 'CHARGED')",
        ),
        payments: None,
        field: "/mismatch/unknown_key",
        named: "SELECT reference FROM invoices WHERE id = (SELECT invoice_id FROM attempts WHERE key =
            (SELECT min(key) FROM attempts WHERE state = 'CHARGED'))",
    },
    Spoil {
        what: "a refused attempt deleted",
        billing: Some(
            "DELETE FROM attempts WHERE key = (SELECT min(key) FROM attempts WHERE state = 'REFUSED')",
        ),
        payments: None,
        field: "/mismatch/unknown_key",
        named: "SELECT reference FROM invoices WHERE id = (SELECT invoice_id FROM attempts WHERE key =
            (SELECT min(key) FROM attempts WHERE state = 'REFUSED'))",
    },
    Spoil {
        what: "a paid invoice set back",
        billing: Some("UPDATE invoices SET state = 'PENDING', paid_by = NULL WHERE id = 7"),
        payments: None,
        field: "/lost",
        named: "SELECT reference FROM invoices WHERE id = 7",
    },
    Spoil {
        what: "a charged invoice said to be imported as PAID",
        billing: Some("UPDATE invoices SET paid_by = 'import' WHERE id = 9"),
        payments: None,
        field: "/double",
        named: "SELECT reference FROM invoices WHERE id = 9",
    },
    Spoil {
        what: "a charge that names another invoice than its key",
        billing: None,
        payments: Some(
            "UPDATE ledger SET reference = (SELECT reference FROM ledger ORDER BY seq DESC LIMIT 1)
             WHERE seq = (SELECT min(seq) FROM ledger WHERE state = 'CHARGED')",
        ),
        field: "/mismatch/unknown_key",
        named: FIRST_CHARGED,
    },
    Spoil {
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
fn each_spoilt_row_is_found_and_its_reference_is_named() {
    let world = paid_world();
    std::thread::scope(|scope| {
        for spoil in SPOILS {
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
            assert!(output.status.success(), "copies that nobody touched are right: {json}");
        });
        scope.spawn(|| {
            let other = "UPDATE deployment SET id = '00000000-0000-4000-8000-000000000009'";
            let (output, json) = judged(&world, Some(other), None);
            assert_eq!(output.status.code(), Some(1), "no key is of another deployment: {json}");
            assert_eq!(json.pointer("/mismatch/unknown_key").and_then(Value::as_u64), Some(40), "{json}");
        });
        scope.spawn(|| {
            let other = "UPDATE ledger_meta SET ledger_id = '00000000-0000-4000-8000-000000000009'";
            let (output, json) = judged(&world, None, Some(other));
            assert_eq!(output.status.code(), Some(2), "another ledger proves nothing: {json}");
            assert_eq!(json["verdict"], "unknown");
        });
    });
}

#[test]
fn a_run_under_way_is_no_fault() {
    let services = Services::of(tinjis()).payments_flags(["--success-rate=0.9", "--seed=7"]).start();
    services.import("R", 3000);
    let run = services.start_run();
    let mut looks = 0;
    while harness::http::get(&run).json()["state"] == "running" {
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
    if !harness::absent::has("script", "progress of verify on a terminal") {
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
