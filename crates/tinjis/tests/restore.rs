//! Drill: billing's store is backed up in mid-run, billing goes on charging, dies, and comes back with the backup.
//! `tinjis verify --repair` tells it what it has forgotten; then all is paid, nobody twice. Knows the services from
//! outside only. `make drill` is the full size.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::ledger::{ask, charged_keys, judge};
use harness::wait::wait_until;
use harness::{Proof, Services, size};
use rusqlite::Connection;
use serde_json::Value;

/// However long a machine takes, a step is done within this.
const WITHIN: Duration = Duration::from_secs(300);
/// So many charges at least lie between the backup and the loss.
const FORGOTTEN_MIN: i64 = 100;
/// Nobody listens there: billing that calls there charges nothing.
const NOWHERE: &str = "http://127.0.0.1:9";

fn verify(services: &Services, flags: &[&str]) -> (Option<i32>, Value, String) {
    let (billing, payments) = (services.billing_url(), services.payments_url());
    let output = Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(["verify", "--json", "--billing", &billing, "--payments", &payments])
        .args(flags)
        .env_clear()
        .output()
        .expect("the command can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code(), json, said)
}

/// As a backup does while the service runs.
fn back_up(db: &Path, to: &Path) {
    let to = to.to_str().expect("a test's path is UTF-8");
    let store = Connection::open(db).expect("a store can be opened");
    store.execute("VACUUM INTO ?1", [to]).expect("a store can be copied");
}

/// Puts the backup in the place of what was lost, its log too.
fn restore(backup: &Path, db: &Path) {
    for end in ["-wal", "-shm"] {
        let mut beside = db.as_os_str().to_owned();
        beside.push(end);
        let _none = fs::remove_file(beside);
    }
    fs::copy(backup, db).expect("a backup can be put back");
}

#[test]
fn billing_restored_from_a_backup_learns_what_it_has_forgotten_and_charges_nobody_twice() {
    let proof = Proof::of("restore drill, SQLite");
    let invoices = size("DRILL_INVOICES", 1500);
    let mut services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_flags(["--success-rate=0.8", "--seed=11"])
        .start();
    services.import("R", invoices);
    let _run = services.start_run();
    let (ledger, db) = (services.payments.db(), services.billing.db());
    wait_until("the run is under way", WITHIN, || charged_keys(&ledger) > 20);
    let backup = services.dir().join("backup.db");
    back_up(&db, &backup);
    // What is imported after the backup is forgotten whole.
    services.import("S", invoices / 10);
    let _joined = services.start_run();
    let known = ask(&backup, "SELECT count(*) FROM attempts WHERE state = 'CHARGED'");
    let forgotten = || charged_keys(&ledger) - known;
    wait_until("charges lie between", WITHIN, || forgotten() >= FORGOTTEN_MIN);
    services.kill_billing();
    restore(&backup, &db);

    services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", NOWHERE);
    services.billing.start_again();
    let (charged, forgotten) = (charged_keys(&ledger), forgotten());
    assert!(forgotten >= FORGOTTEN_MIN, "{forgotten}");
    // In another order than before: numbers change, references do not.
    services.import("S", invoices / 10);
    let (_, json, said) = verify(&services, &["--repair"]);
    assert_eq!((&json["double"], &json["lost"]), (&0.into(), &0.into()), "{json} {said}");
    assert_eq!(json["mismatch"]["unknown_key"], 0, "nothing is forgotten any more: {json} {said}");
    assert_eq!(charged_keys(&ledger), charged, "nothing was charged meanwhile");
    let paid = ask(&db, "SELECT count(*) FROM invoices WHERE state = 'PAID'");
    assert_eq!(paid, charged, "each charge is known: {said}");

    services.kill_billing();
    services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", services.payments_url());
    services.billing.start_again();
    services.pay_until_true(WITHIN);
    let (code, json, _) = verify(&services, &[]);
    assert_eq!(code, Some(0), "{json}");
    let verdict = judge(&db, &ledger);
    assert_eq!((json["double"].as_u64(), json["lost"].as_u64()), (Some(0), Some(0)), "{verdict:?}");
    let how_many = format!("{forgotten} charges forgotten by the backup, {} invoices", verdict.invoices);
    let figure = |name: &str| json[name].as_u64().unwrap_or(u64::MAX);
    proof.end(&how_many, figure("double"), figure("lost"));
}

#[test]
fn a_repair_of_what_is_known_changes_nothing_and_another_ledger_is_refused() {
    let services = Services::start(env!("CARGO_BIN_EXE_tinjis"));
    services.import("A", 20);
    services.pay_until_true(WITHIN);
    let (code, json, said) = verify(&services, &["--repair"]);
    assert_eq!(code, Some(0), "{json}");
    assert!(said.contains("0 had been forgotten"), "{said}");
    let page = r#"{"ledger_id":"00000000-0000-4000-8000-000000000009","items":[],"next":null}"#;
    let url = format!("{}/v1/repairs", services.billing_url());
    let answer = harness::http::call("POST", &url, &[], page.as_bytes());
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("urn:tinjis:problem:ledger-mismatch"), "{}", answer.text());
}
