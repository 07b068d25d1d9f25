//! Several processes of each service on one PostgreSQL database, from outside: they share a run, take over from one
//! that dies, survive a database that is killed, and `tinjis verify` works with any two of them, even during a run.
//! Small here; `make replicas` is the full size.

use std::sync::Arc;
use std::time::Duration;

use testkit::postgres::Server;
use testkit::proof::Verified;
use testkit::replicas::Plan;
use testkit::wait::wait_until;
use testkit::{Database, Proof, Replicas, http, size};

/// Maximum time until all is paid, on any machine.
const PAID_WITHIN: Duration = Duration::from_secs(300);
/// Maximum time after the database's return until nothing is in doubt.
const DOUBT_ENDS_WITHIN: Duration = Duration::from_secs(60);
const PAID: &str = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
const OPEN: &str = "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";
/// The places of the counts in the output of `verify --json`.
const KINDS: [&str; 9] = [
    "/double",
    "/lost",
    "/in_doubt",
    "/open",
    "/mismatch/amount",
    "/mismatch/currency",
    "/mismatch/customer",
    "/mismatch/unbacked",
    "/mismatch/unknown_key",
];
/// The pairs of billing and payments that `verify` uses.
const PAIRS: [(usize, usize); 3] = [(0, 2), (1, 0), (2, 1)];

/// For each kind of finding, statements that cause one.
const SPOILS: [(&str, &str); 8] = [
    ("/lost", "UPDATE invoices SET state = 'PENDING', paid_by = NULL WHERE reference = 'R1'"),
    (
        "/double",
        "INSERT INTO ledger (seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, state,
             route, created_at)
         SELECT nextval('ledger_positions'), NULL, account, fingerprint, reference, customer_id, currency,
             amount_minor, state, route, created_at FROM ledger WHERE reference = 'R2' AND state = 'CHARGED'",
    ),
    (
        "/mismatch/amount",
        "UPDATE ledger SET amount_minor = amount_minor + 1 WHERE reference = 'R3' AND state = 'CHARGED'",
    ),
    (
        "/mismatch/customer",
        "UPDATE ledger SET customer_id = customer_id + 1 WHERE reference = 'R4' AND state = 'CHARGED'",
    ),
    ("/mismatch/currency", "UPDATE ledger SET currency = 'SEK' WHERE reference = 'R5' AND state = 'CHARGED'"),
    ("/mismatch/unbacked", "DELETE FROM ledger WHERE reference = 'R6' AND state = 'CHARGED'"),
    (
        "/mismatch/unknown_key",
        "DELETE FROM attempts WHERE key =
             (SELECT min(key) FROM attempts WHERE state = 'REFUSED' AND invoice_id > 100)",
    ),
    // The attempt is not sent again before the year 9999.
    (
        "/in_doubt",
        "UPDATE attempts SET state = 'IN_DOUBT', settled_at = NULL, lease_until = 253402300799999 WHERE key =
             (SELECT a.key FROM attempts a JOIN invoices i ON i.id = a.invoice_id
              WHERE i.reference = 'R8' AND a.state = 'CHARGED');
         UPDATE invoices SET state = 'CHARGING', paid_by = NULL WHERE reference = 'R8'",
    ),
];

fn tinjis() -> &'static str {
    env!("CARGO_BIN_EXE_tinjis")
}

fn verify(replicas: &Replicas, billing: usize, payments: usize) -> Verified {
    let (billing, payments) = (replicas.billings[billing].url(), replicas.payments[payments].url());
    Verified::between(tinjis(), (&billing, &payments), &[])
}

/// Some charges are refused and some answers are delayed, so that a run lasts and has second attempts.
fn plan() -> Plan {
    Plan::three_of_each().payments_flags(["--success-rate=0.8", "--seed=5", "--log-level=warn"])
}

#[test]
fn three_replicas_of_each_share_a_run_and_verify_judges_between_any_two_of_them() {
    let Some(database) = Database::fresh("three replicas of each service") else { return };
    let proof = Proof::of("three replicas of each, PostgreSQL");
    let invoices = size("REPLICAS_INVOICES", 3_000);
    let replicas = Replicas::start(tinjis(), &database, &plan());
    replicas.import("R", invoices);
    let run = replicas.start_run(1);
    let mut looks = 0;
    while http::get(&run).json()["state"] == "running" {
        let (billing, payments) = PAIRS[looks % PAIRS.len()];
        let midway = verify(&replicas, billing, payments);
        assert_eq!(midway.code, Some(0), "in mid-run: {} {}", midway.json, midway.said);
        assert_eq!(wrong_in(&midway), [""; 0], "in mid-run: {}", midway.json);
        looks += 1;
    }
    assert!(looks > 0, "the run was too short to be looked at");
    let calls = replicas.pay_until_true(PAID_WITHIN);
    for (billing, payments) in PAIRS {
        let found = verify(&replicas, billing, payments);
        found.assert_all_paid("after the runs");
        assert_eq!(wrong_in(&found), [""; 0], "after the runs: {}", found.json);
        assert_eq!(found.number("charges"), invoices as u64);
    }
    let judged = replicas.judge();
    assert_eq!((judged.double, judged.lost, judged.unbacked, judged.open), (0, 0, 0, 0), "{judged:?}");
    each_charged(&replicas);
    wrong_and_unknown_are_reported(&replicas, &database);
    proof.end(&format!("{invoices} invoices, {calls} pay calls at three, {looks} looks in mid-run"), 0, 0);
}

/// Asserts that each of the three has made a part of the calls.
fn each_charged(replicas: &Replicas) {
    for billing in &replicas.billings {
        let charged = billing.metric(&["billing_attempts_total", "outcome=\"charged\""]);
        assert!(charged > 0, "{} charged nothing", billing.url());
    }
}

/// The kinds with findings; asserts that each kind is counted.
#[track_caller]
fn wrong_in(found: &Verified) -> Vec<&'static str> {
    let count = |kind: &str| {
        let count = found.json.pointer(kind).and_then(serde_json::Value::as_u64);
        count.unwrap_or_else(|| panic!("{kind} is not counted: {}", found.json))
    };
    // Open attempts are counted, but are no fault.
    KINDS.into_iter().filter(|kind| count(kind) > 0 && *kind != "/open").collect()
}

/// Asserts exit code 1 and one finding of each kind with any pair, and exit code 2 when a side cannot be read.
fn wrong_and_unknown_are_reported(replicas: &Replicas, database: &Database) {
    SPOILS.iter().for_each(|(_, statements)| database.run(statements));
    std::thread::scope(|scope| {
        for (billing, payments) in PAIRS {
            scope.spawn(move || {
                let wrong = verify(replicas, billing, payments);
                assert_eq!(
                    (wrong.code, &wrong.json["verdict"]),
                    (Some(1), &"wrong".into()),
                    "{}",
                    wrong.json
                );
                for (kind, _) in SPOILS {
                    assert_eq!(wrong.json.pointer(kind), Some(&1.into()), "{kind}: {}", wrong.json);
                }
                assert_eq!(wrong.number("findings_total"), SPOILS.len() as u64, "{}", wrong.json);
            });
        }
    });
    let nowhere = "http://127.0.0.1:1";
    let (billing, payments) = (replicas.billings[0].url(), replicas.payments[0].url());
    for sides in [(billing.as_str(), nowhere), (nowhere, payments.as_str())] {
        let unknown = Verified::between(tinjis(), sides, &[]);
        assert_eq!(
            (unknown.code, &unknown.json["verdict"]),
            (Some(2), &"unknown".into()),
            "{}",
            unknown.json
        );
        assert_eq!(wrong_in(&unknown), [""; 0], "{}", unknown.json);
    }
}

#[test]
fn a_database_that_is_killed_in_mid_run_costs_no_charge_and_no_process() {
    // A server of its own, because other tests of this process use the shared one.
    let Some(server) = Server::start("a database that is killed").map(Arc::new) else { return };
    let database = Database::of(&server);
    let proof = Proof::of("database killed in mid-run, PostgreSQL");
    let (invoices, kills) = (size("RESTART_INVOICES", 3_000), size("RESTARTS", 2));
    let mut replicas = Replicas::start(tinjis(), &database, &plan());
    replicas.import("D", invoices);
    let _run = replicas.start_run(0);
    for kill in 1..=kills {
        let part = (invoices * kill / (kills + 2)) as i64;
        wait_until("a part is paid", PAID_WITHIN, || replicas.ask_billing(PAID) >= part);
        server.kill();
        let answer =
            http::try_call("POST", &format!("{}/rest/v1/invoices/pay", replicas.billings[2].url()), &[], b"");
        assert!(
            answer.is_ok_and(|answer| answer.status == 503 && answer.body == b"false"),
            "without a store"
        );
        server.start_again();
    }
    wait_until("nothing is in doubt", DOUBT_ENDS_WITHIN, || {
        replicas.ask_billing("SELECT count(*) FROM attempts WHERE state = 'IN_DOUBT'") == 0
    });
    let calls = replicas.pay_until_true(PAID_WITHIN);
    assert_eq!(replicas.ended(), Vec::<String>::new(), "a process ended");
    assert_eq!(replicas.ask_billing(OPEN), 0);
    let found = verify(&replicas, 1, 1);
    found.assert_all_paid("after the database was killed");
    let judged = replicas.judge();
    assert_eq!((judged.double, judged.lost, judged.unbacked), (0, 0, 0), "{judged:?}");
    proof.end(
        &format!("{kills} kills, {invoices} invoices, {calls} pay calls"),
        found.number("double"),
        found.number("lost"),
    );
}
