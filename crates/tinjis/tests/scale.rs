//! Proof: a pay call with very many PENDING invoices answers `false` in time, its run continues after the answer, and
//! later calls end with `true`. Small here; `make scale` is the full size. Knows the services from outside only.

use std::fs;
use std::time::Duration;

use testkit::ledger::{Verdict, judge};
use testkit::wait::{wait_for, wait_until};
use testkit::{Services, http, size};
use tokio::time::Instant;

/// Maximum duration of a legacy pay call, with any number of invoices.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Maximum time until progress shows, on any machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// Maximum time until all is paid, on any machine.
const PAID_WITHIN: Duration = Duration::from_secs(600);
/// From this size on the plain provider is slow enough for a pay call to end before the run.
const FULL: usize = 100_000;

/// A slow provider, so that a small proof takes longer than a pay call waits: 64 in flight, 80 ms each.
const SLOW: &str = "seed = 1\n[[rule]]\nfault = \"latency\"\nlatency_ms = 80\nshare = 1.0\n";

#[test]
fn a_pay_call_answers_in_time_and_its_run_goes_on() {
    let count = size("SCALE_INVOICES", 5000);
    let scripts = tempfile::tempdir().expect("a folder can be made");
    let mut builder =
        Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1", "--seed=1"]);
    if count < FULL {
        let script = scripts.path().join("slow.toml");
        fs::write(&script, SLOW).expect("a script can be written");
        builder = builder.payments_flags([format!("--faults={}", script.display())]);
    }
    let services = builder.start();
    services.import("S", count);

    let (took, answer) = pay(&services);
    assert_eq!(answer, "false", "{count} invoices are more than one call sees the end of");
    let run = services.start_run();
    let progress = || http::get(&run).json()["paid"].as_i64().expect("a run counts what is paid");
    let at_answer = progress();
    wait_until("progress after the answer", PROGRESS_WITHIN, || progress() > at_answer);

    let mut calls = 1;
    let mut slowest = took;
    wait_for("pay to answer true", PAID_WITHIN, || {
        calls += 1;
        let (took, answer) = pay(&services);
        slowest = slowest.max(took);
        (answer == "true").then_some(())
    });
    let verdict = judge(&services.billing.db(), &services.payments.db());
    println!(
        "{count} invoices: first answer false after {took:?}, {at_answer} paid then; true at call {calls}, \
         slowest {slowest:?}; double {}, lost {}; billing's peak memory {} KiB",
        verdict.double,
        verdict.lost,
        services.billing.rss_peak_kib()
    );
    let all = i64::try_from(count).expect("a proof is smaller than 2^63");
    assert_eq!(verdict, Verdict { invoices: all, paid: all, charges: all, ..Verdict::default() });
}

fn pay(services: &Services) -> (Duration, String) {
    let start = Instant::now();
    let answer = http::call("POST", &format!("{}/rest/v1/invoices/pay", services.billing_url()), &[], b"");
    let took = start.elapsed();
    assert_eq!(answer.status, 200, "a pay call is answered: {}", answer.text());
    assert!(took < ANSWER_MAX, "a pay call took {took:?}");
    (took, answer.text())
}
