//! Drill: billing's store is backed up in mid-run, billing goes on charging, dies, and comes back with the backup.
//! `tinjis verify --repair` tells it what it has forgotten; then all is paid, nobody twice. Knows the services from
//! outside only. `make drill` is the full size.

use std::process::Command;
use std::time::Duration;

use harness::backup::Backup;
use harness::proof::Verified;
use harness::wait::wait_until;
use harness::{Database, Proof, Services, http, size};
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

const CHARGES: &str = "SELECT count(DISTINCT key) FROM ledger WHERE state = 'CHARGED'";
const KNOWN: &str = "SELECT count(*) FROM attempts WHERE state = 'CHARGED'";

#[test]
fn billing_restored_from_a_backup_learns_what_it_has_forgotten_and_charges_nobody_twice() {
    drill(Proof::of("restore drill, SQLite"), None);
}

#[test]
fn the_same_with_a_dump_of_postgres() {
    let Some(database) = Database::fresh("the restore drill") else { return };
    drill(Proof::of("restore drill, PostgreSQL"), Some(database));
}

fn drill(proof: Proof, database: Option<Database>) {
    let invoices = size("DRILL_INVOICES", 1500);
    let services =
        Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=0.8", "--seed=11"]);
    let mut services = match &database {
        Some(database) => services.database(database.url()).start(),
        None => services.start(),
    };
    services.import("R", invoices);
    let _run = services.start_run();
    wait_until("the run is under way", WITHIN, || services.ask_payments(CHARGES) > 20);
    let backup = Backup::take(&services, database.as_ref());
    // The backup knows no more than this.
    let known = services.ask_billing(KNOWN);
    // What is imported after the backup is forgotten whole.
    services.import("S", invoices / 10);
    let forgotten = |services: &Services| services.ask_payments(CHARGES) - known;
    wait_until("charges lie between", WITHIN, || {
        // Joins the run, or begins the next: all of what came after the backup is charged in the end, whatever was
        // refused, and however much of the rest was charged before it.
        let _busy = http::try_call("POST", &format!("{}/v1/runs", services.billing_url()), &[], b"");
        forgotten(&services) >= FORGOTTEN_MIN
    });
    services.kill_billing();
    backup.restore(&services);

    services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", NOWHERE);
    services.billing.start_again();
    let (charged, forgotten) = (services.ask_payments(CHARGES), forgotten(&services));
    assert!(forgotten >= FORGOTTEN_MIN, "{forgotten}");
    // In another order than before: numbers change, references do not.
    services.import("S", invoices / 10);
    let (_, json, said) = verify(&services, &["--repair"]);
    assert_eq!((&json["double"], &json["lost"]), (&0.into(), &0.into()), "{json} {said}");
    assert_eq!(json["mismatch"]["unknown_key"], 0, "nothing is forgotten any more: {json} {said}");
    assert_eq!(services.ask_payments(CHARGES), charged, "nothing was charged meanwhile");
    let paid = services.ask_billing("SELECT count(*) FROM invoices WHERE state = 'PAID'");
    assert_eq!(paid, charged, "each charge is known: {said}");

    services.kill_billing();
    services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", services.payments_url());
    services.billing.start_again();
    services.pay_until_true(WITHIN);
    let verified = Verified::of(env!("CARGO_BIN_EXE_tinjis"), &services, &[]);
    verified.assert_all_paid("after the repair");
    let how_many =
        format!("{forgotten} charges forgotten by the backup, {} invoices", verified.number("invoices"));
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
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
