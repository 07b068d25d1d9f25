//! Drill: each service is backed up during a run, continues, dies, and is restored by the commands of
//! `docs/how-to/backup.md`, on each database; also in wrong ways. Then no invoice is charged twice. Knows the services
//! from outside only. `make drill` is the full size.

mod declines;
mod incarnation;
mod ledger;
mod promotion;
mod site;

use std::process::Command;

use api::payments::{LEDGER_PAGE_MAX, LEDGER_TEXT_BYTES_MAX};
use testkit::proof::Verified;
use testkit::wait::wait_until;
use testkit::{Proof, Services, size};

use site::{CHARGES, NOWHERE, Site, TINJIS, WITHIN};

/// Minimum number of charges between the backup and the loss: more than billing claims ahead, so that nearly every
/// attempt that is open in the backup has its ledger row. An attempt that a busy machine sent later waits for the end of the lost process's lease.
const FORGOTTEN_MIN: i64 = 900;
const KNOWN: &str = "SELECT count(*) FROM attempts WHERE state = 'CHARGED'";

#[test]
fn billing_restored_as_the_page_says_learns_what_it_has_forgotten_and_charges_no_customer_twice() {
    drill(Proof::of("restore drill, SQLite"), Site::on_sqlite());
}

#[test]
fn the_same_with_a_dump_of_postgres() {
    let Some(site) = Site::on_postgres("the restore drill") else { return };
    drill(Proof::of("restore drill, PostgreSQL"), site);
}

fn drill(proof: Proof, mut site: Site) {
    let invoices = size("DRILL_INVOICES", 1500);
    site.services.import("R", invoices);
    let _run = site.services.start_run();
    site.wait_for_charges(20);
    site.page_runs(&site.of_database("Billing"));
    // The backup contains at most these charges.
    let known = site.services.ask_billing(KNOWN);
    // Invoices that are imported after the backup are missing from it completely.
    site.services.import("S", invoices / 10);
    // Each request joins the run or begins the next one, so that the charges after the backup increase in any case.
    site.wait_for_charges(known + FORGOTTEN_MIN);
    site.services.kill_billing();
    site.page_runs(&site.of_database("Put back billing"));

    site.services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", NOWHERE);
    site.services.billing.start_again();
    let charged = site.services.ask_payments(CHARGES);
    let forgotten = charged - known;
    assert!(forgotten >= FORGOTTEN_MIN, "{forgotten}");
    // In another order than before: numbers change, references do not.
    site.services.import("S", invoices / 10);
    site.page_runs("Repair billing from the ledger");
    assert_eq!(site.services.ask_payments(CHARGES), charged, "nothing was charged meanwhile");
    let paid = site.services.ask_billing("SELECT count(*) FROM invoices WHERE state = 'PAID'");
    assert_eq!(paid, charged, "each charge is known");

    site.services.kill_billing();
    site.services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", site.services.payments_url());
    site.services.billing.start_again();
    // The page says: if only attempts of the lost process are in doubt, run both commands again once their leases are
    // over.
    wait_until("the leases of the lost process to end", WITHIN, || {
        let (code, said) = site.page_says("Charge again after billing is restored", &[]);
        let only_in_doubt = said.contains("double 0   lost 0   in doubt ") && !said.contains("in doubt 0 ");
        assert!(code == Some(0) || only_in_doubt, "Charge again after billing is restored: {said}");
        code == Some(0)
    });
    site.services.pay_until_true(WITHIN);
    let verified = Verified::of(TINJIS, &site.services, &[]);
    verified.assert_all_paid("after the repair");
    let how_many =
        format!("{forgotten} charges forgotten by the backup, {} invoices", verified.number("invoices"));
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}

#[test]
fn a_store_that_was_copied_without_its_log_charges_no_invoice_again() {
    const INVOICES: usize = 50;
    let mut site = Site::with_faults(None, "");
    site.services.import("R", INVOICES);
    site.services.pay_until_true(WITHIN);
    let charged = site.charged_keys();
    // A plain `cp` of a live store lacks the tables, which are still in the log.
    std::fs::copy(site.services.billing.db(), site.backups().join("billing.db")).unwrap();
    site.services.kill_billing();
    site.page_runs("Put back billing, SQLite");
    site.services.billing.start_again();
    site.services.import("R", INVOICES);
    let billing = site.services.billing_url();
    let paid = Command::new(TINJIS).args(["pay", "--billing", &billing]).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&[paid.stdout, paid.stderr].concat()).into_owned();
    assert!(paid.status.code() == Some(1) && said.contains("deployment"), "{:?}: {said}", paid.status);
    assert_eq!(site.charged_keys(), charged, "{said}");
}

#[test]
fn a_repair_of_what_is_known_changes_nothing_and_another_ledger_is_refused() {
    let services = Services::start(TINJIS);
    services.import("A", 20);
    services.pay_until_true(WITHIN);
    let repaired = Verified::of(TINJIS, &services, &["--repair"]);
    assert_eq!(repaired.code, Some(0), "{}", repaired.json);
    assert!(repaired.said.contains("0 had been forgotten"), "{}", repaired.said);
    let page = r#"{"ledger_id":"00000000-0000-4000-8000-000000000009","items":[],"next":null}"#;
    let url = format!("{}/v1/repairs", services.billing_url());
    let answer = testkit::http::call("POST", &url, &[], page.as_bytes());
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("urn:tinjis:problem:ledger-mismatch"), "{}", answer.text());
}

/// Refused charges under keys of another deployment: these rows are no finding and change nothing.
#[test]
fn a_repair_takes_pages_of_rows_with_the_longest_texts() {
    const ROWS: usize = LEDGER_PAGE_MAX + 1;
    let services = Services::of(TINJIS).payments_flags(["--success-rate=0"]).start();
    let text = r"\u0001".repeat(LEDGER_TEXT_BYTES_MAX);
    let url = format!("{}/", services.payments_url());
    for row in 0..ROWS {
        let key = format!("{row:032x}");
        let body = format!(r#"{{"id":"{text}","customer_id":1,"currency":"{text}","value":1}}"#);
        let answer = testkit::http::call("POST", &url, &[("Idempotency-Key", &key)], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let repaired = Verified::of(TINJIS, &services, &["--repair"]);
    assert_eq!(repaired.code, Some(0), "{} {}", repaired.json, repaired.said);
    assert!(repaired.said.contains("1,001 are not of this deployment"), "{}", repaired.said);
}
