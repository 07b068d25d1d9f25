//! `tinjis stop`, `start`, `invoice` and `customer` on real services: their output and exit codes, and that a stop
//! reaches every replica. Knows the services from outside only.
#![cfg(test)]

use std::process::Command;
use std::time::Duration;

use testkit::wait::wait_until;
use testkit::{Database, Services, http, runs};

const WITHIN: Duration = Duration::from_secs(60);
const NOTE: [&str; 4] = ["--why", "a dispute", "--actor", "kim"];

/// Exit code, standard output and standard error.
fn tinjis(services: &Services, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(words)
        .args(["--billing", &services.billing_url()])
        .env_clear()
        .output()
        .expect("the command can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn with_note<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words.iter().copied().chain(NOTE).collect()
}

/// The single output line of a command that succeeds.
fn done(services: &Services, words: &[&str]) -> String {
    let (code, result, notes) = tinjis(services, &with_note(words));
    assert_eq!(code, Some(0), "{words:?}: {result}{notes}");
    result.trim_end().to_owned()
}

fn services() -> Services {
    Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start()
}

#[test]
fn invoices_and_customers_are_held_released_and_cancelled() {
    let services = services();
    services.import("C", 3);
    assert_eq!(done(&services, &["invoice", "hold", "C1"]), "invoice C1: PENDING, held");
    assert_eq!(done(&services, &["invoice", "cancel", "C2"]), "invoice C2: CANCELLED, not held");
    assert_eq!(done(&services, &["customer", "hold", "4"]), "customer 4: held");
    let (code, result, _) = tinjis(&services, &["pay"]);
    assert_eq!((code, result.contains("paid 0")), (Some(1), true), "{result}");
    assert_eq!(done(&services, &["invoice", "release", "C1"]), "invoice C1: PENDING, not held");
    assert_eq!(done(&services, &["customer", "release", "4"]), "customer 4: not held");
    let (code, result, _) = tinjis(&services, &["pay"]);
    assert_eq!((code, result.contains("paid 2")), (Some(0), true), "{result}");
    let visa = done(&services, &["customer", "network", "4", "--network", "visa"]);
    assert_eq!(visa, "customer 4: not held, network visa");
    let changed = done(&services, &["customer", "instrument-changed", "4"]);
    assert!(changed.starts_with("customer 4: not held, network visa, instrument changed 2"), "{changed}");
    let (code, _, notes) = tinjis(&services, &with_note(&["customer", "network", "4"]));
    assert_eq!((code, notes.contains("--network: is needed")), (Some(64), true), "{notes}");
    let (code, _, notes) = tinjis(&services, &with_note(&["invoice", "cancel", "C1"]));
    assert_eq!((code, notes.contains("the invoice is PAID")), (Some(1), true), "{notes}");
    let (code, _, _) = tinjis(&services, &["invoice", "hold", "C1"]);
    assert_eq!(code, Some(64), "a reason and an actor are needed");
    assert_eq!(services.ask_billing("SELECT count(*) FROM operator_actions WHERE actor = 'kim'"), 7);
}

#[test]
fn a_stop_is_shown_by_pay_readiness_and_metrics_and_ends_with_start() {
    let services = services();
    services.import("S", 20);
    let stopped = done(&services, &["stop"]);
    assert!(stopped.starts_with("charging is stopped by kim since "), "{stopped}");
    let (code, result, _) = tinjis(&services, &["pay"]);
    assert_eq!(code, Some(1), "{result}");
    assert!(result.contains("charging is stopped by kim") && result.contains("a dispute"), "{result}");
    let ready = http::get(&format!("{}/readyz", services.billing.admin_url()));
    assert_eq!(ready.status, 200, "the service goes on serving");
    assert!(ready.text().starts_with("ok\ncharging stopped by kim since "), "{}", ready.text());
    let metrics = || http::get(&format!("{}/metrics", services.billing.admin_url())).text();
    assert!(metrics().contains("\nbilling_charging_stopped 1\n"));
    assert_eq!(services.ask_billing("SELECT count(*) FROM attempts"), 0);
    assert_eq!(done(&services, &["start"]), "charging is not stopped");
    assert!(metrics().contains("\nbilling_charging_stopped 0\n"));
    let ready = http::get(&format!("{}/readyz", services.billing.admin_url()));
    assert_eq!(ready.text(), "ok\n");
    let (code, result, _) = tinjis(&services, &["pay"]);
    assert_eq!((code, result.contains("all invoices are PAID")), (Some(0), true), "{result}");
}

#[test]
fn a_stop_of_one_replica_stops_a_run_that_another_drives() {
    let Some(database) = Database::fresh("a stop reaches every replica") else { return };
    // The second billing may share the run, and charges through its own payment service.
    let start = || {
        let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]);
        services.on(Some(&database)).start()
    };
    let (services, other) = (start(), start());
    services.import("R", 20_000);
    let run = services.start_run();
    wait_until("charging has begun", WITHIN, || services.ask_billing(PAID) > 0);
    done(&other, &["stop"]);
    let claimed = services.ask_billing("SELECT count(*) FROM attempts");
    let ended = runs::wait(&run, WITHIN);
    assert_eq!(services.ask_billing("SELECT count(*) FROM attempts"), claimed, "{ended}");
    assert_eq!(services.ask_billing(PAID), claimed, "open attempts were settled: {ended}");
    assert!(claimed < 20_000, "the run was stopped before its end");
    wait_until("the other replica shows it", WITHIN, || {
        let ready = http::get(&format!("{}/readyz", services.billing.admin_url()));
        ready.text().contains("charging stopped by kim")
    });
}

const PAID: &str = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
