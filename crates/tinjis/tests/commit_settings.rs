//! The services themselves ensure durability, whatever the database server's settings: settings that let a server
//! forget commits change nothing, or nothing is written. Knows both services from outside only.
#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::postgres::Server;
use testkit::proof::Verified;
use testkit::wait::wait_until;
use testkit::{Database, Proof, Services, http, size};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Maximum duration of a step, on any machine.
const WITHIN: Duration = Duration::from_secs(120);
/// Settings with which only a waiting commit writes the log, once the log writer is stopped. So the loss of every other
/// commit is certain.
const FORGETFUL: [&str; 5] = [
    "wal_writer_delay=10s",
    "wal_buffers=64MB",
    "checkpoint_timeout=1h",
    "bgwriter_lru_maxpages=0",
    "autovacuum=off",
];
/// A latency for each call, so that the run lasts long enough.
const SLOW: &str = "[[rule]]\nfault = \"latency\"\nshare = 1.0\nlatency_ms = 20\n";
const LOG_WRITER: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
const PAID: &str = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
const CHARGED: &str = "SELECT count(*) FROM ledger WHERE state = 'CHARGED'";

/// How synchronous commits are turned off during a run.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    AlterSystem,
    AlterRole,
}

impl Trigger {
    fn forget_commits(self, database: &Database) {
        match self {
            Self::AlterSystem => {
                database.run("ALTER SYSTEM SET synchronous_commit = off");
                database.run("SELECT pg_reload_conf()");
            }
            Self::AlterRole => {
                database.run("ALTER ROLE CURRENT_USER SET synchronous_commit = off");
                // The setting applies to new sessions only.
                database.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
            }
        }
        let is_off = "SELECT (current_setting('synchronous_commit') = 'off')::int";
        wait_until("a new session to have it off", WITHIN, || database.ask(is_off) == 1);
        // `stop_at_once` of the server also ends this process.
        let log_writer = i32::try_from(database.ask(LOG_WRITER)).ok().and_then(Pid::from_raw);
        kill_process(log_writer.expect("a process id"), Signal::STOP).expect("it can be stopped");
    }
}

#[test]
fn a_server_reported_in_mid_run_to_forget_commits_loses_none_of_ours() {
    let proof = Proof::of("synchronous_commit = off in mid-run, PostgreSQL");
    let invoices = size("COMMIT_SETTINGS_INVOICES", 600);
    let mut kept = 0;
    for trigger in [Trigger::AlterSystem, Trigger::AlterRole] {
        let what = "synchronous_commit = off in mid-run";
        let Some(of_billing) = Server::start_with(what, &FORGETFUL, None) else { return };
        let Some(of_payments) = Server::start_with(what, &FORGETFUL, None) else { return };
        kept += lose(trigger, Arc::new(of_billing), Arc::new(of_payments), invoices);
    }
    proof.end(&format!("2 ways, 2 servers each stopped at once, {kept} charges"), 0, 0);
}

/// Stops both servers at once during a run; returns the number of charges in the end.
fn lose(trigger: Trigger, of_billing: Arc<Server>, of_payments: Arc<Server>, invoices: usize) -> i64 {
    let (billing, payments) = (Database::of(&of_billing), Database::of(&of_payments));
    let faults = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(faults.path(), SLOW).expect("a script can be written");
    let services = Services::of(TINJIS)
        .payments_flags(["--success-rate=1", "--faults", &faults.path().display().to_string()])
        .billing_flags(["--in-flight-max=8"])
        .database(billing.url())
        .payments_env("DATABASE_URL", payments.url())
        .start();
    services.import("C", invoices);
    let third = i64::try_from(invoices / 3).expect("a few");
    let before = billing.ask(PAID);
    let _run = services.start_run();
    wait_until("a part to be paid", WITHIN, || billing.ask(PAID) - before >= third / 2);
    trigger.forget_commits(&billing);
    trigger.forget_commits(&payments);
    // By now the run may be nearly over on some machines; more invoices make it continue while both servers may forget.
    wait_until("billing to have new sessions", WITHIN, || services.billing.readiness().0 == 200);
    services.import("D", invoices);
    let _run = services.start_run();
    let since = billing.ask(PAID);
    wait_until("more to be paid", WITHIN, || billing.ask(PAID) - since >= third);
    // First the ledger forgets, if it can: then billing has recorded charges as PAID that the ledger lacks.
    of_payments.stop_at_once();
    of_payments.start_again();
    let _charges = recorded(trigger, &services, &payments);
    let since = billing.ask(PAID);
    wait_until("the run to go on", WITHIN, || billing.ask(PAID) > since || services.is_all_paid());
    // Then billing forgets, and would charge again.
    of_billing.stop_at_once();
    of_billing.start_again();
    services.pay_until_true(WITHIN);
    let verified = Verified::of(TINJIS, &services, &[]);
    verified.assert_all_paid(&format!("{trigger:?}, after both were stopped at once"));
    assert_eq!(verified.json["mismatch"]["unbacked"], 0, "{trigger:?}: {}", verified.json);
    recorded(trigger, &services, &payments)
}

/// Charges in the ledger, asserting that none is missing. Executed charges are counted first: both numbers may grow.
fn recorded(trigger: Trigger, services: &Services, payments: &Database) -> i64 {
    let executed = services.payments.metric(&["payments_charges_total", "CHARGED"]);
    let recorded = payments.ask(CHARGED);
    assert!(
        executed <= recorded,
        "{trigger:?}: {executed} charges were executed, and {recorded} are recorded"
    );
    recorded
}

#[test]
fn where_no_commit_can_be_durable_nothing_is_claimed_and_nothing_is_executed() {
    let Some(server) = Server::start("fsync = off in mid-run") else { return };
    let server = Arc::new(server);
    let database = Database::of(&server);
    let services = Services::of(TINJIS).payments_flags(["--success-rate=1"]).database(database.url()).start();
    for setting in ["fsync", "full_page_writes"] {
        services.import(&format!("{setting}-"), 50);
        database.run(&format!("ALTER SYSTEM SET {setting} = off"));
        database.run("SELECT pg_reload_conf()");
        for service in [&services.billing, &services.payments] {
            wait_until("it not to be ready, for this reason", WITHIN, || {
                let (status, body) = service.readiness();
                status == 503 && body.contains(&format!("{setting} = off"))
            });
        }
        let before = (database.ask("SELECT count(*) FROM attempts"), database.ask(CHARGED));
        assert!(!services.is_all_paid());
        let body = br#"{"customer_id":1,"currency":"EUR","value":1.25,"id":"direct"}"#;
        for headers in [&[][..], &[("Idempotency-Key", "0123456789abcdef0123456789abcdef")]] {
            let answer = http::call("POST", &services.payments_url(), headers, body);
            assert_eq!(answer.status, 503, "{setting}: {}", answer.text());
            assert_eq!(answer.header("not-executed"), Some("true"), "{setting}: {headers:?}");
        }
        let after = (database.ask("SELECT count(*) FROM attempts"), database.ask(CHARGED));
        assert_eq!(after, before, "{setting}: attempts and charges while no commit is durable");
        database.run(&format!("ALTER SYSTEM RESET {setting}"));
        database.run("SELECT pg_reload_conf()");
        services.pay_until_true(WITHIN);
    }
    Verified::of(TINJIS, &services, &[]).assert_all_paid("once commits are durable again");
}
