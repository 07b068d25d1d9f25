//! Changes to invoices around a charge: edits after a refusal and after a restore, a second import in another order,
//! two billings on one payment service. No customer is charged twice, on either database. Knows the services from
//! outside only.
#![cfg(test)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use testkit::backup::Backup;
use testkit::process::{Process, Spec, run_by};
use testkit::proof::Verified;
use testkit::wait::wait_until;
use testkit::{Builder, Database, Services, http};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Maximum duration of a step, on any machine.
const WITHIN: Duration = Duration::from_secs(120);
/// An address without a listener: billing with this provider charges nothing.
const NOWHERE: &str = "http://127.0.0.1:9";
const DEPLOYMENT: &str = "00000000-0000-4000-8000-000000000001";
const INVOICES: usize = 40;
/// The first invoices, which are edited.
const EDITED: usize = 5;
const CHARGES: &str = "SELECT count(*) FROM ledger WHERE state = 'CHARGED'";

/// Exit code and both outputs of a command.
fn tinjis(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(TINJIS).args(words).env_clear().output().expect("the command can be started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The rows `E{number},…`, one for each number.
fn rows(numbers: impl Iterator<Item = usize>, amount: &str) -> String {
    let row = |number: usize| format!("E{number},{},EUR,{amount}\n", number % 7 + 1);
    let header = "reference,customer_id,currency,amount\n".to_owned();
    header + &numbers.map(row).collect::<String>()
}

/// Imports rows as a file with the command line.
fn import(services: &Services, rows: &str, flags: &[&str]) -> (Option<i32>, String) {
    let file = services.dir().join("invoices.csv");
    fs::write(&file, rows).expect("a file can be written");
    let billing = services.billing_url();
    let words = ["import", file.to_str().expect("a test's path is UTF-8"), "--billing", &billing];
    tinjis(&[&words, flags].concat())
}

#[track_caller]
fn imported(services: &Services, rows: &str, flags: &[&str], begins: &str) {
    let (code, said) = import(services, rows, flags);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(begins), "{begins:?} is not in: {said}");
}

/// Services with a fixed seed and deployment: refusals follow from the seed and the key, and keys from the deployment.
fn site(database: Option<&Database>) -> Builder {
    Services::of(TINJIS).billing_env("DEPLOYMENT_ID", DEPLOYMENT).payments_env("SEED", "9").on(database)
}

/// Restores billing from the backup, with this provider endpoint.
fn restore(services: &mut Services, backup: &Backup, endpoint: &str) {
    services.kill_billing();
    backup.restore(services);
    services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", endpoint);
    services.billing.start_again();
}

fn an_amount_edited_after_a_refusal_is_what_the_next_attempt_charges(database: Option<&Database>) {
    let mut services = site(database).payments_env("SUCCESS_RATE", "0").start();
    imported(&services, &rows(1..=INVOICES, "12.15"), &[], "40 created");
    assert!(!services.is_all_paid(), "everything is refused");
    let refused = "SELECT count(*) FROM attempts WHERE state = 'REFUSED'";
    wait_until("all to be refused", WITHIN, || services.ask_billing(refused) == INVOICES as i64);
    imported(&services, &rows(1..=EDITED, "13.00"), &["--update"], "5 updated");
    services.stop_payments();
    services.payments.set_env("SUCCESS_RATE", "1");
    services.payments.start_again();
    services.pay_until_true(WITHIN);
    let both = "SELECT count(*) FROM ledger c JOIN ledger r ON r.reference = c.reference
        WHERE c.state = 'CHARGED' AND c.amount_minor = 1300 AND r.state = 'REFUSED' AND r.amount_minor = 1215";
    assert_eq!(services.ask_payments(both), EDITED as i64);
    assert_eq!(services.ask_payments(CHARGES), INVOICES as i64);
    let (code, said) = import(&services, &rows(1..=EDITED, "14.00"), &["--update"]);
    assert_eq!(code, Some(1), "what is charged is not edited: {said}");
    Verified::of(TINJIS, &services, &[]).assert_all_paid("after the edit");
}

fn an_amount_edited_between_a_restore_and_the_repair_needs_an_operator(database: Option<&Database>) {
    edited_after_a_restore(database, true);
}

fn an_amount_edited_after_a_restore_without_a_repair_needs_an_operator(database: Option<&Database>) {
    edited_after_a_restore(database, false);
}

/// Asserts that no invoice is charged again, with the old amount or the new one.
fn edited_after_a_restore(database: Option<&Database>, is_repaired: bool) {
    let mut services = site(database).payments_env("SUCCESS_RATE", "1").start();
    imported(&services, &rows(1..=INVOICES, "12.15"), &[], "40 created");
    let backup = Backup::take(&services, database);
    services.pay_until_true(WITHIN);
    restore(&mut services, &backup, NOWHERE);
    imported(&services, &rows(1..=EDITED, "99.00"), &["--update"], "5 updated");
    if is_repaired {
        let found = Verified::of(TINJIS, &services, &["--repair"]);
        assert_eq!(found.code, Some(1), "the edit is reported: {}", found.json);
        assert_eq!(found.json["mismatch"]["amount"], EDITED, "{}", found.json);
    }
    services.kill_billing();
    services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", services.payments_url());
    services.billing.start_again();
    let waiting =
        "SELECT count(*) FROM invoices WHERE state = 'ATTENTION' AND attention_reason = 'key-reused'";
    let paid = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
    wait_until("the others to be paid", WITHIN, || {
        assert!(!services.is_all_paid(), "the edited ones are not");
        services.ask_billing(paid) == (INVOICES - EDITED) as i64
            && services.ask_billing(waiting) == EDITED as i64
    });
    assert_eq!(services.ask_payments(CHARGES), INVOICES as i64, "no invoice is charged again");
    let billing = services.billing_url();
    let (code, said) = tinjis(
        &[
            &["resolve", "--billing", &billing, "--reason-is", "key-reused", "--decision", "charged"][..],
            &["--why", "the ledger has it; the difference is settled by hand", "--actor", "ann"],
        ]
        .concat(),
    );
    assert_eq!(code, Some(0), "{said}");
    services.pay_until_true(WITHIN);
    let found = Verified::of(TINJIS, &services, &[]);
    assert_eq!((found.number("double"), found.number("lost")), (0, 0), "{}", found.json);
    assert_eq!(services.ask_payments(CHARGES), INVOICES as i64);
}

fn the_same_file_in_another_order_after_a_restore_charges_no_invoice_again(database: Option<&Database>) {
    let mut services = site(database).payments_env("SUCCESS_RATE", "0.8").start();
    let backup = Backup::take(&services, database);
    imported(&services, &rows(1..=INVOICES, "12.15"), &[], "40 created");
    assert!(!services.is_all_paid(), "some are refused");
    let charged = services.ask_payments(CHARGES);
    assert!(charged > 0 && charged < INVOICES as i64, "{charged}");
    let endpoint = services.payments_url();
    restore(&mut services, &backup, &endpoint);
    assert_eq!(services.ask_billing("SELECT count(*) FROM invoices"), 0, "everything is forgotten");
    let backwards = rows((1..=INVOICES).rev(), "12.15");
    imported(&services, &backwards, &[], "40 created");
    imported(&services, &rows(1..=INVOICES, "12.15"), &[], "0 created, 40 unchanged");
    services.pay_until_true(WITHIN);
    let verified = Verified::of(TINJIS, &services, &[]);
    verified.assert_all_paid("after two imports in two orders");
    assert_eq!(verified.number("charges"), INVOICES as u64);
    let replays = services.payments.metric(&["payments_replays_total"]);
    assert!(replays >= charged, "what was charged before is asked for under the same key: {replays}");
}

fn two_billings_on_one_payments_charge_once_each(database: Option<&Database>) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let token_file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("a file can be written");
        file.to_str().expect("a test's path is UTF-8").to_owned()
    };
    let known = token_file("known", "token-one one\ntoken-two two\n");
    let (one, two) = (token_file("one", "token-one\n"), token_file("two", "token-two\n"));
    let services = site(database)
        .payments_env("SUCCESS_RATE", "0.8")
        .payments_env("PAYMENTS_API_TOKEN_FILE", known)
        .billing_env("PAYMENTS_API_TOKEN_FILE", one.as_str())
        .start();
    let mut spec = Spec::new(run_by(TINJIS, "billing"), "billing-two", services.dir());
    spec.env.insert("PAYMENT_PROVIDER_ENDPOINT".to_owned(), services.payments_url());
    spec.env.insert("PAYMENT_PROVIDER_IDEMPOTENCY".to_owned(), "keys".to_owned());
    spec.env.insert("PAYMENTS_API_TOKEN_FILE".to_owned(), two.clone());
    let other_database = database.map(|_| Database::fresh("a second billing").expect("there was one before"));
    if let Some(other) = &other_database {
        spec.env.insert("DATABASE_URL".to_owned(), other.url().to_owned());
        Process::new(spec.clone()).run_to_end("migrate");
    }
    let other = Process::start(spec);
    // Both billings have the same references, and separate accounts.
    imported(&services, &rows(1..=INVOICES, "12.15"), &[], "40 created");
    let file = services.dir().join("invoices.csv");
    let (code, said) = tinjis(&["import", file.to_str().unwrap(), "--billing", &other.url()]);
    assert_eq!(code, Some(0), "{said}");
    let is_all_paid = |billing: &Process| {
        let answer = http::try_call("POST", &format!("{}/rest/v1/invoices/pay", billing.url()), &[], b"");
        answer.is_ok_and(|answer| answer.body == b"true")
    };
    std::thread::scope(|scope| {
        for billing in [&services.billing, &other] {
            scope.spawn(move || wait_until("pay to answer true", WITHIN, || is_all_paid(billing)));
        }
    });
    for (billing, token) in [(&services.billing, &one), (&other, &two)] {
        let sides = (&*billing.url(), &*services.payments_url());
        let verified = Verified::between(TINJIS, sides, &["--payments-api-token-file", token]);
        verified.assert_all_paid("of two billings");
        assert_eq!(verified.number("charges"), INVOICES as u64, "its own only: {}", verified.json);
    }
    assert_eq!(services.ask_payments(CHARGES), 2 * INVOICES as i64);
}

macro_rules! on_each_database {
    ($($case:ident,)*) => {
        mod sqlite {
            $(
                #[test]
                fn $case() {
                    super::$case(None);
                }
            )*
        }

        mod postgres {
            $(
                #[test]
                fn $case() {
                    let Some(database) = super::Database::fresh(stringify!($case)) else { return };
                    super::$case(Some(&database));
                }
            )*
        }
    };
}

on_each_database! {
    an_amount_edited_after_a_refusal_is_what_the_next_attempt_charges,
    an_amount_edited_between_a_restore_and_the_repair_needs_an_operator,
    an_amount_edited_after_a_restore_without_a_repair_needs_an_operator,
    the_same_file_in_another_order_after_a_restore_charges_no_invoice_again,
    two_billings_on_one_payments_charge_once_each,
}
