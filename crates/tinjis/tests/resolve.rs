//! `tinjis resolve`: attempts that need manual resolution are listed, resolved and recorded. With a provider without
//! keys and lost replies no invoice is charged twice; with keys "not charged" needs a void. Knows the services from
//! outside only.
#![cfg(test)]

use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use testkit::ledger::ask;
use testkit::proof::Verified;
use testkit::wait::wait_until;
use testkit::{Database, Proof, Services, runs, size};

const WITHIN: Duration = Duration::from_secs(60);

/// Exit code, standard output and standard error.
fn resolve(services: &Services, words: &[&str]) -> (Option<i32>, String, String) {
    let billing = services.billing_url();
    let output = Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(["resolve", "--billing", &billing])
        .args(words)
        .env_clear()
        .output()
        .expect("the command can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Moves the attempts into the past, by more than the 16 minutes that a request may live.
const TIME_GOES_BY: &str = "UPDATE attempts SET created_at = created_at - 1000000;
    UPDATE invoices SET updated_at = updated_at - 1000000;";

#[test]
fn without_keys_under_lost_replies_no_customer_is_charged_twice_and_resolve_clears_what_is_in_doubt() {
    without_keys(Proof::of("lost answers without keys, SQLite"), None);
}

#[test]
fn the_same_without_keys_on_postgres() {
    let Some(database) = Database::fresh("lost answers without keys") else { return };
    without_keys(Proof::of("lost answers without keys, PostgreSQL"), Some(&database));
}

fn without_keys(proof: Proof, database: Option<&Database>) {
    let invoices = size("RESOLVE_INVOICES", 200);
    let dir = tempfile::tempdir().unwrap();
    let faults = dir.path().join("faults.toml");
    std::fs::write(&faults, "seed = 5\n[[rule]]\nfault = \"reply-lost\"\nshare = 0.2\n").unwrap();
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .billing_env("PAYMENT_PROVIDER_IDEMPOTENCY", "none")
        .payments_flags(["--success-rate=1".to_owned(), format!("--faults={}", faults.display())])
        .on(database)
        .start();
    services.import("N", invoices);
    let left = "SELECT count(*) FROM invoices WHERE state IN ('PENDING', 'CHARGING')";
    wait_until("nothing is left but doubt", WITHIN, || {
        let run = services.start_run();
        let _ended = runs::wait(&run, WITHIN);
        services.ask_billing(left) == 0
    });
    let in_attention = "SELECT count(*) FROM invoices WHERE state = 'ATTENTION'";
    let doubtful = usize::try_from(services.ask_billing(in_attention)).unwrap();
    assert!(doubtful > 0, "no reply was lost");
    let twice = "SELECT count(*) FROM (SELECT 1 FROM ledger WHERE state = 'CHARGED' GROUP BY reference HAVING count(*) > 1) twice";
    assert_eq!(services.ask_payments(twice), 0);
    let charged = "SELECT count(*) FROM ledger WHERE state = 'CHARGED'";
    assert_eq!(
        usize::try_from(services.ask_payments(charged)).ok(),
        Some(invoices),
        "a lost answer is a charge"
    );
    let parked = || {
        services.billing.log().lines().filter(|line| line.contains("invoice needs manual resolution")).count()
    };
    wait_until("each to be told in the log", WITHIN, || parked() >= doubtful);
    assert_eq!(parked(), doubtful, "each is logged once");

    let (code, shown, _) = resolve(&services, &[]);
    assert_eq!(code, Some(0));
    assert!(shown.starts_with(&format!("in-doubt-without-keys: {doubtful}\n")), "{shown}");
    assert_eq!(shown.matches("  IN_DOUBT since ").count(), doubtful, "{shown}");
    let key = shown.split_whitespace().nth(2).unwrap().to_owned();
    let word = ["--why", "the bank's list", "--actor", "ann"];
    let not_charged =
        [&["--reason-is", "in-doubt-without-keys", "--decision", "not-charged"][..], &word].concat();
    let (code, _, said) = resolve(&services, &[&not_charged[..], &["--dry-run"]].concat());
    assert_eq!((code, services.ask_billing("SELECT count(*) FROM resolutions")), (Some(0), 0), "{said}");
    let (code, _, said) = resolve(&services, &not_charged);
    assert_eq!(code, Some(1), "a request may be alive: {said}");
    assert!(said.contains("ask again in"), "{said}");
    let (code, out, said) = resolve(&services, &[&[&key, "--decision", "charged"][..], &word].concat());
    assert_eq!(code, Some(0), "{out} {said}");
    assert!(out.trim_end().ends_with("  CHARGED"), "{out}");
    services.run_billing(TIME_GOES_BY);
    let charged = [&["--reason-is", "in-doubt-without-keys", "--decision", "charged"][..], &word].concat();
    let (code, _, said) = resolve(&services, &charged);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(services.ask_billing("SELECT count(*) FROM invoices WHERE state <> 'PAID'"), 0);
    assert!(services.is_all_paid(), "pay answers true once all is decided");
    assert_eq!(resolve(&services, &[]).1, "no attempt needs manual resolution\n");
    let (_, log, _) = resolve(&services, &["--log"]);
    assert_eq!(log.lines().count(), doubtful, "{log}");
    assert!(
        log.lines().all(|line| line.contains("ann  charged") && line.contains("ATTENTION -> PAID")),
        "{log}"
    );
    assert_eq!(services.ask_payments(twice), 0);
    let verified = Verified::of(env!("CARGO_BIN_EXE_tinjis"), &services, &[]);
    verified.assert_all_paid("once all is decided");
    let how_many = format!("{invoices} invoices, {doubtful} in doubt, all decided");
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}

/// Charges of customer 2 (of V1) are not executed, those of customer 3 (of V2) are; neither gets its right answer.
const NEITHER_IS_TOLD: &str = r#"
[[rule]]
fault = "error-before"
customer_id = 2
times = 1000000
[[rule]]
fault = "reply-lost"
customer_id = 3
times = 1000000
"#;

#[test]
fn not_charged_is_taken_once_the_key_is_void_and_the_next_attempt_charges() {
    void(None);
}

#[test]
fn the_same_void_on_postgres() {
    let Some(database) = Database::fresh("not charged after a void") else { return };
    void(Some(&database));
}

fn void(database: Option<&Database>) {
    let dir = tempfile::tempdir().unwrap();
    let faults = dir.path().join("faults.toml");
    std::fs::write(&faults, NEITHER_IS_TOLD).unwrap();
    let mut services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_env("SUCCESS_RATE", "1")
        .payments_env("FAULTS", faults.display().to_string())
        .on(database)
        .start();
    services.import("V", 2);
    let _run = services.start_run();
    let doubt = "SELECT count(*) FROM attempts WHERE state = 'IN_DOUBT'";
    wait_until("both are in doubt", WITHIN, || services.ask_billing(doubt) == 2);
    let attempts = testkit::http::get(&format!("{}/v1/attempts", services.billing_url())).json();
    let key = |customer: i64| {
        let all = attempts["items"].as_array().unwrap();
        let of = all.iter().find(|attempt| attempt["customer_id"] == customer).unwrap();
        of["key"].as_str().unwrap().to_owned()
    };
    let word = ["--why", "their list of 3 May", "--actor", "ann"];
    let says =
        |key: &str, decision| resolve(&services, &[&[key, "--decision", decision][..], &word].concat());

    let (code, _, said) = says(&key(3), "not-charged");
    assert_eq!(code, Some(1), "it was charged: {said}");
    assert!(said.contains("attempt-charged") || said.contains("409"), "{said}");
    let (code, out, said) = says(&key(2), "not-charged");
    assert_eq!((code, out.contains("VOIDED")), (Some(0), true), "{out} {said}");
    let voided = "SELECT count(*) FROM ledger WHERE state = 'VOIDED'";
    assert_eq!(services.ask_payments(voided), 1, "the key is void in the ledger");

    services.stop_payments();
    services.payments.set_env("FAULTS", "");
    services.payments.start_again();
    let late = format!("{}/", services.payments_url());
    let body = br#"{"id":"V1","customer_id":2,"currency":"EUR","value":12.15}"#;
    let late = testkit::http::call("POST", &late, &[("Idempotency-Key", &key(2))], body);
    assert_eq!(late.status, 410, "a copy that comes late charges nothing: {}", late.text());
    services.pay_until_true(WITHIN);
    let second = "SELECT count(*) FROM attempts WHERE number = 2 AND state = 'CHARGED'";
    assert_eq!(services.ask_billing(second), 1, "the one that was void is charged under its next key");
    Verified::of(env!("CARGO_BIN_EXE_tinjis"), &services, &[]).assert_all_paid("after the word");
}

/// Every response is lost.
const NO_RESPONSE: &str = "[[rule]]\nfault = \"reply-lost\"\ntimes = 1000000\n";
/// Declines by the payment service's test amounts: a hard decline, one of the same card, and a soft one.
const DECLINED: &str = r#"{"reference":"HARD","customer_id":1,"currency":"EUR","amount":"40.02"}
{"reference":"SAME CARD","customer_id":1,"currency":"EUR","amount":"12.15"}
{"reference":"SOFT","customer_id":2,"currency":"EUR","amount":"40.01"}
"#;

#[test]
fn not_charged_of_what_was_declined_keeps_the_reason_and_leads_to_no_further_attempt() {
    declined(None);
}

#[test]
fn the_same_decline_on_postgres() {
    let Some(database) = Database::fresh("not charged of what was declined") else { return };
    declined(Some(&database));
}

fn declined(database: Option<&Database>) {
    let dir = tempfile::tempdir().unwrap();
    let faults = dir.path().join("faults.toml");
    std::fs::write(&faults, NO_RESPONSE).unwrap();
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_flags(["--success-rate=1", "--test-amounts=true"])
        .payments_env("FAULTS", faults.display().to_string())
        .on(database)
        .start();
    services.import_rows(DECLINED);
    let network = r#"{"network":"visa","reason":"a card","actor":"ann"}"#;
    let url = format!("{}/v1/customers/1/network", services.billing_url());
    let set = testkit::http::call("POST", &url, &[("Content-Type", "application/json")], network.as_bytes());
    assert_eq!(set.status, 200, "{}", set.text());
    let _run = services.start_run();
    let doubt = "SELECT count(*) FROM attempts WHERE state = 'IN_DOUBT'";
    wait_until("one of each customer is in doubt", WITHIN, || services.ask_billing(doubt) == 2);
    let attempts = testkit::http::get(&format!("{}/v1/attempts", services.billing_url())).json();
    for attempt in attempts["items"].as_array().unwrap() {
        let word = ["--decision", "not-charged", "--why", "their list of 3 May", "--actor", "ann"];
        let key = attempt["key"].as_str().unwrap();
        let (code, out, said) = resolve(&services, &[&[key][..], &word].concat());
        assert_eq!((code, out.trim_end().ends_with("  REFUSED")), (Some(0), true), "{out} {said}");
    }
    for (reference, class) in [("HARD", "hard"), ("SOFT", "soft")] {
        let with_class = format!(
            "SELECT count(*) FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
             WHERE i.reference = '{reference}' AND a.decline_class = '{class}' AND a.decline_code IS NOT NULL"
        );
        assert_eq!(services.ask_billing(&with_class), 1, "{reference}");
    }
    let run = runs::wait(&services.start_run(), WITHIN);
    assert_eq!(services.ask_payments("SELECT count(*) FROM ledger"), 2, "nothing was tried again: {run}");
    let verified = Verified::of(env!("CARGO_BIN_EXE_tinjis"), &services, &[]);
    assert_eq!(verified.code, Some(0), "{}", verified.json);
}

#[test]
fn mistakes_are_reported_together_and_a_service_that_is_not_there_is_exit_code_2() {
    let resolve = |words: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tinjis")).arg("resolve").args(words).env_clear().output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = resolve(&["k", "--decision", "perhaps"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(["--decision", "--why", "--actor"].iter().all(|flag| said.contains(flag)), "{said}");
    assert_eq!(resolve(&["--decision", "charged", "--why", "x", "--actor", "y"]).0, Some(64));
    assert_eq!(resolve(&["--billing", "http://127.0.0.1:9"]).0, Some(2));
}

#[test]
fn a_replaced_ledger_is_refused_until_an_operator_accepts_it() {
    let mut services =
        Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start();
    services.import("L", 3);
    services.pay_until_true(WITHIN);
    services.stop_payments();
    let (new, ledger) = ("00000000-0000-4000-8000-000000000009", services.payments.db());
    let renewed = Connection::open(&ledger).unwrap().execute("UPDATE ledger_meta SET ledger_id = ?1", [new]);
    assert_eq!(renewed, Ok(1));
    services.payments.start_again();
    services.import("M", 3);
    let run = services.start_run();
    let _ended = runs::wait(&run, WITHIN);
    assert_eq!(ask(&ledger, "SELECT count(*) FROM ledger"), 3, "nothing is charged there");
    let word = ["--accept-ledger", new, "--why", "restored, nothing lost", "--actor", "ann"];
    let (code, _, said) = resolve(&services, &[&word[..], &["--dry-run"]].concat());
    assert!(code == Some(64) && said.contains("--dry-run"), "{said}");
    let accepted = "SELECT count(*) FROM ledger_acceptances WHERE actor = 'ann'";
    assert_eq!(ask(&services.billing.db(), accepted), 0, "nothing is accepted");
    let (code, out, said) = resolve(&services, &word);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.ends_with(&format!("-> {new}\n")), "{out}");
    services.pay_until_true(WITHIN);
    assert_eq!(ask(&ledger, "SELECT count(*) FROM ledger WHERE state = 'CHARGED'"), 6);
    assert_eq!(ask(&services.billing.db(), accepted), 1);
    let decision = ["--decision", "charged", "--why", "w", "--actor", "ann"];
    for words in [
        &["NOPE"][..],
        &[&["NOPE"][..], &decision].concat(),
        &[&["NOPE", "--dry-run"][..], &decision].concat(),
    ] {
        let (code, out, said) = resolve(&services, words);
        assert!(code == Some(1) && out.is_empty() && said.contains("NOPE"), "{words:?}: {out}{said}");
    }
}
