//! Pauses: SIGSTOP stops billing during a run until its leases have ended; after SIGCONT it continues with calls in
//! flight that have timed out. Each invoice is still charged once. Small here; `make pauses` is the full size. Knows
//! the services from outside only; builds with debug assertions only, where leases are short.
#![cfg(debug_assertions)]

use std::time::Duration;

use testkit::postgres::Database;
use testkit::proof::{Verified, progress};
use testkit::wait::{pause, wait_until};
use testkit::{Builder, Proof, SeededRng, Services, size};

/// Maximum time until a round is paid, on any machine.
const WITHIN: Duration = Duration::from_secs(60);
/// With this tempo an attempt's lease is one second.
const TEMPO: &str = "60";
/// Longer than an attempt's lease and a run's, at this tempo.
const PAUSED: Duration = Duration::from_millis(1200);
const INVOICES: usize = 40;
/// Some charges are refused, so that second attempts could be confused with first ones; some are delayed.
const FAULTS: &str = "seed = 9\n[[rule]]\nfault = \"latency\"\nshare = 0.3\nlatency_ms = 100\n";
const RUNNING: &str = "SELECT count(*) FROM runs WHERE state = 'running'";
const OPEN: &str = "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";

#[test]
fn billing_paused_past_its_leases_charges_every_invoice_once() {
    prove("pauses, SQLite", |builder| builder);
}

#[test]
fn one_of_three_replicas_on_postgres_paused_past_its_leases_charges_no_customer_twice() {
    let Some(database) = Database::fresh("pauses") else { return };
    prove("pauses, PostgreSQL", |builder| builder.database(database.url()).replicas(3));
}

fn prove(name: &str, on: impl FnOnce(Builder) -> Builder) {
    let proof = Proof::of(name);
    let (pauses, mut rng) = (size("PAUSES", 3), SeededRng::random());
    let folder = tempfile::tempdir().expect("a folder can be made");
    let faults = folder.path().join("faults.toml");
    std::fs::write(&faults, FAULTS).expect("a script can be written");
    let builder = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_flags([format!("--faults={}", faults.display()), "--success-rate=0.8".to_owned()])
        .billing_env("TINJIS_TRIAL_TEMPO", TEMPO);
    let services = on(builder).start();
    let (mut struck, mut open) = (0, 0);
    while struck < pauses {
        services.import(&format!("P{struck}-{}-", rng.below(1 << 40)), INVOICES);
        let _run = services.start_run();
        wait_until("an attempt to be open, or the run to be over already", WITHIN, || {
            services.ask_billing(OPEN) > 0 || services.ask_billing(RUNNING) == 0
        });
        pause(Duration::from_millis(rng.below(40)));
        services.billing.pause();
        let left_open = services.ask_billing(OPEN);
        pause(PAUSED);
        services.billing.go_on();
        services.pay_until_true(WITHIN);
        // A pause without open attempts proves nothing.
        if left_open > 0 {
            struck += 1;
            open += left_open;
            progress(&format!("{name}: {struck} of {pauses}"));
        }
    }
    let verified = Verified::of(env!("CARGO_BIN_EXE_tinjis"), &services, &[]);
    verified.assert_all_paid("after all pauses");
    let how_many =
        format!("{pauses} pauses, {open} attempts open in them, {} invoices", verified.number("invoices"));
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}
