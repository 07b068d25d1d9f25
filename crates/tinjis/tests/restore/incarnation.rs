//! Payments are killed at each step of a start that writes the sidecar and the database: the next start serves. The
//! same for `new-ledger-id`: the ledger serves under the new id or not at all.

use std::fs;
use std::path::PathBuf;

use testkit::process::{Process, Spec, run_by};
use testkit::wait::wait_until;
use testkit::{http, ledger};

use crate::site::{TINJIS, WITHIN};

/// Each step of a start, with the number of its hit.
const STEPS: [&str; 5] = [
    "sidecar-written:1",
    "sidecar-renamed:1",
    "incarnation-stored:1",
    "sidecar-written:2",
    "sidecar-renamed:2",
];

fn payments(folder: &tempfile::TempDir) -> Process {
    Process::new(Spec::new(run_by(TINJIS, "payments"), "payments", folder.path()))
}

fn sidecar(payments: &Process) -> PathBuf {
    let mut name = payments.db().into_os_string();
    name.push(".incarnation");
    name.into()
}

/// Starts payments, which die at this step.
fn die_at(payments: &mut Process, step: &str) {
    payments.set_env("TINJIS_CRASH", step);
    payments.spawn();
    wait_until("payments to die", WITHIN, || payments.ended().is_some());
    payments.kill();
    payments.set_env("TINJIS_CRASH", "");
}

fn is_charged(payments: &Process, key: &str) -> bool {
    let body = br#"{"customer_id":1,"currency":"EUR","value":1.25}"#;
    http::call("POST", &format!("{}/", payments.url()), &[("Idempotency-Key", key)], body).status == 200
}

fn ledger_id(payments: &Process) -> String {
    ledger::texts(&payments.db(), "SELECT ledger_id FROM ledger_meta").remove(0)
}

/// Asserts that the service is not ready, and that its reason names the command that helps.
fn is_refused(payments: &mut Process) {
    payments.spawn();
    wait_until("payments to say what helps", WITHIN, || {
        payments.readiness().1.contains("payments new-ledger-id")
    });
    assert!(!is_charged(payments, "refused"));
    payments.stop();
}

#[test]
fn a_start_that_is_killed_at_any_step_is_followed_by_one_that_serves() {
    for step in STEPS {
        let folder = tempfile::tempdir().unwrap();
        let mut payments = payments(&folder);
        for (start, key) in [("first", "1"), ("second", "2"), ("third", "3")] {
            die_at(&mut payments, step);
            // Also twice at the same step.
            die_at(&mut payments, step);
            payments.start_again();
            assert!(is_charged(&payments, key), "{step} at the {start} start");
            payments.kill();
        }
    }
}

#[test]
fn a_new_id_that_is_interrupted_at_any_step_is_there_or_the_ledger_does_not_serve() {
    for step in STEPS {
        let folder = tempfile::tempdir().unwrap();
        let mut payments = payments(&folder);
        payments.start_again();
        assert!(is_charged(&payments, "1"));
        payments.kill();
        let before = ledger_id(&payments);
        payments.set_env("TINJIS_CRASH", step);
        assert!(!payments.try_run("new-ledger-id").success());
        payments.set_env("TINJIS_CRASH", "");
        let renewed = ledger_id(&payments) != before;
        match step {
            // Nothing was written yet: the ledger is unchanged.
            "sidecar-written:1" => {
                assert!(!renewed);
                payments.start_again();
                assert!(is_charged(&payments, "2"), "{step}");
                payments.kill();
            }
            "sidecar-renamed:1" => {
                assert!(!renewed);
                is_refused(&mut payments);
            }
            _ => {
                assert!(renewed, "{step}");
                payments.start_again();
                assert!(is_charged(&payments, "2"), "{step}");
                payments.kill();
            }
        }
        payments.run_to_end("new-ledger-id");
        payments.start_again();
        assert!(is_charged(&payments, "3"), "{step}");
    }
}

#[test]
fn a_ledger_whose_sidecar_is_missing_damaged_or_another_does_not_serve_before_it_has_a_new_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut payments = payments(&folder);
    payments.start_again();
    assert!(is_charged(&payments, "1"));
    payments.stop();
    let sidecar = sidecar(&payments);
    let sound = fs::read_to_string(&sidecar).unwrap();
    let id = sound.lines().find_map(|line| line.strip_prefix("id ")).unwrap();
    let other = sound.replace(id, "00000000-0000-4000-8000-000000000009");
    for text in [None, Some("damaged"), Some(other.as_str()), Some(&sound.replace("start 1", "start 2"))] {
        match text {
            Some(text) => fs::write(&sidecar, text).unwrap(),
            None => fs::remove_file(&sidecar).unwrap(),
        }
        is_refused(&mut payments);
    }
    fs::write(&sidecar, &sound).unwrap();
    payments.start_again();
    assert!(is_charged(&payments, "2"));
    payments.stop();
    fs::remove_file(&sidecar).unwrap();
    is_refused(&mut payments);
    let before = ledger_id(&payments);
    payments.run_to_end("new-ledger-id");
    payments.start_again();
    assert!(is_charged(&payments, "3"));
    assert_ne!(ledger_id(&payments), before);
}

#[test]
fn a_ledger_of_a_version_without_incarnations_gets_one_at_its_migration() {
    let folder = tempfile::tempdir().unwrap();
    let mut payments = payments(&folder);
    payments.start_again();
    assert!(is_charged(&payments, "1"));
    payments.stop();
    fs::remove_file(sidecar(&payments)).unwrap();
    let store = rusqlite::Connection::open(payments.db()).unwrap();
    store.execute("UPDATE ledger_meta SET incarnation_id = NULL, incarnation_start = NULL", []).unwrap();
    drop(store);
    payments.start_again();
    assert!(is_charged(&payments, "2"));
    payments.stop();
    // This worked once: from now on the sidecar is required.
    fs::remove_file(sidecar(&payments)).unwrap();
    is_refused(&mut payments);
}
