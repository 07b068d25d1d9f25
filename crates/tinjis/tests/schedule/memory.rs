//! Many periods that are due at once: billing invoices them in batches, within a memory limit. At full size by `make
//! generate`.

use testkit::{Database, Services, http, size};

use crate::site::{INVOICES, TINJIS, tinjis};

/// Maximum memory of billing, with any number of due periods.
const RSS_KIB_MAX: u64 = 64 * 1024;
/// Periods of each subscription.
const MONTHS: usize = 10;

fn generates_within_bounds(database: Option<&Database>) {
    let count = size("GENERATED_INVOICES", 20_000).div_ceil(MONTHS);
    let services = Services::of(TINJIS).on(database).billing_flags(["--schedule=off"]).start();
    let url = services.billing_url();
    let numbers: Vec<usize> = (1..=count).collect();
    for batch in numbers.chunks(1000) {
        let row = |number: &usize| {
            format!(
                r#"{{"reference":"G{number}","customer_id":{number},"currency":"EUR","amount":"9.90","starts_on":"2024-01-31","ends_on":"2024-10-31"}}"#
            ) + "\n"
        };
        let body: String = batch.iter().map(row).collect();
        let imports = format!("{url}/v1/subscriptions/imports");
        let answer =
            http::call("POST", &imports, &[("Content-Type", "application/x-ndjson")], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let note = ["--why", "a test", "--actor", "ann"];
    assert_eq!(tinjis(&url, &[&["stop"][..], &note].concat()).code, Some(0));
    let began = testkit::wait::timed(|| tinjis(&url, &["schedule", "run", "--until", "2024-12-31"]));
    let (said, took) = began;
    assert_eq!(said.code, Some(1), "charging is stopped: {said:?}");
    let made = count * MONTHS;
    assert_eq!(services.ask_billing(INVOICES), i64::try_from(made).expect("a count"), "{said:?}");
    let peak = services.billing.rss_peak_kib();
    assert!(peak < RSS_KIB_MAX, "billing took {peak} KiB for {made} invoices");
    testkit::proof::progress(&format!("{made} invoices made in {took:?}, billing took {peak} KiB at most"));
}

#[test]
fn memory_stays_bounded_however_much_is_due_on_sqlite() {
    generates_within_bounds(None);
}

#[test]
fn memory_stays_bounded_however_much_is_due_on_postgres() {
    let Some(database) = Database::fresh("generation of many invoices") else { return };
    generates_within_bounds(Some(&database));
}
