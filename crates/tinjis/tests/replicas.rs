//! Several processes of each service on one PostgreSQL database, from outside: they share a run, miss none that dies,
//! survive a database that is killed, and `tinjis verify` judges between any two of them, also in mid-run.
//! Small here; `make replicas` is the full size.

use std::sync::Arc;
use std::time::Duration;

use harness::postgres::Server;
use harness::proof::Verified;
use harness::replicas::Plan;
use harness::wait::wait_until;
use harness::{Database, Proof, Replicas, http, size};

/// However long a machine takes, all is paid within this.
const PAID_WITHIN: Duration = Duration::from_secs(300);
/// So soon after the database is back nothing is in doubt any more.
const DOUBT_ENDS_WITHIN: Duration = Duration::from_secs(60);
const PAID: &str = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
const OPEN: &str = "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";
/// What `verify --json` counts by kind.
const KINDS: [&str; 4] = ["double", "lost", "in_doubt", "open"];
const MISMATCHES: [&str; 5] = ["amount", "currency", "customer", "unbacked", "unknown_key"];

fn tinjis() -> &'static str {
    env!("CARGO_BIN_EXE_tinjis")
}

fn verify(replicas: &Replicas, billing: usize, payments: usize) -> Verified {
    let (billing, payments) = (replicas.billings[billing].url(), replicas.payments[payments].url());
    Verified::between(tinjis(), (&billing, &payments), &[])
}

/// Some charges are refused and some answers take a while, so that a run lasts and has second attempts.
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
    let _run = replicas.start_run(1);
    wait_until("a part is paid", PAID_WITHIN, || replicas.ask_billing(PAID) > invoices as i64 / 10);
    let midway = verify(&replicas, 0, 2);
    assert_eq!(midway.code, Some(0), "in mid-run: {} {}", midway.json, midway.said);
    let calls = replicas.pay_until_true(PAID_WITHIN);
    for (billing, payments) in [(0, 0), (1, 2), (2, 1)] {
        let found = verify(&replicas, billing, payments);
        found.assert_all_paid("after the runs");
        assert!(MISMATCHES.iter().all(|kind| found.json["mismatch"][kind] == 0), "{}", found.json);
        assert_eq!(found.number("charges"), invoices as u64);
    }
    let judged = replicas.judge();
    assert_eq!((judged.double, judged.lost, judged.unbacked, judged.open), (0, 0, 0, 0), "{judged:?}");
    each_charged(&replicas);
    wrong_and_unknown_are_told(&replicas, &database);
    proof.end(&format!("{invoices} invoices, {calls} pay calls at three"), 0, 0);
}

/// Each of the three has taken its share of the calls.
fn each_charged(replicas: &Replicas) {
    for billing in &replicas.billings {
        let charged = billing.metric(&["billing_attempts_total", "outcome=\"charged\""]);
        assert!(charged > 0, "{} charged nothing", billing.url());
    }
}

/// Exit 1 for what is wrong, by kind, and exit 2 for who could not look.
fn wrong_and_unknown_are_told(replicas: &Replicas, database: &Database) {
    database.run("UPDATE invoices SET state = 'PENDING', paid_by = NULL WHERE reference = 'R1'");
    let wrong = verify(replicas, 2, 0);
    assert_eq!((wrong.code, wrong.number("lost")), (Some(1), 1), "{}", wrong.json);
    assert!(KINDS.iter().all(|kind| wrong.json[kind].is_u64()), "{}", wrong.json);
    let output = std::process::Command::new(tinjis())
        .args(["verify", "--json", "--billing", &replicas.billings[0].url()])
        .args(["--payments", "http://127.0.0.1:1"])
        .env_clear()
        .output()
        .expect("the command can be started");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_database_that_is_killed_in_mid_run_costs_no_charge_and_no_process() {
    // Not the one that other tests of this process use meanwhile.
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
