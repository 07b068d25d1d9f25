//! Billing without its deployment id, or with a ledger that lost rows, charges nothing: `tinjis pay` says why and what
//! to do. Knows the services from outside only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use sha2::{Digest, Sha256};
use testkit::process::{Process, Spec, run_by};
use testkit::proof::Verified;
use testkit::wait::wait_until;
use testkit::{Database, Services};

/// Maximum duration of a step, on any machine.
const WITHIN: Duration = Duration::from_secs(120);
const INVOICES: usize = 12;
const CHARGED: &str = "SELECT count(*) FROM ledger WHERE state = 'CHARGED'";

fn tinjis(args: &[&str]) -> (Option<i32>, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(args)
        .env_clear()
        .output()
        .expect("the command can be started");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn pay(billing: &Process) -> (Option<i32>, String) {
    tinjis(&["pay", "--billing", &billing.url()])
}

/// Both services with all invoices paid once.
fn paid(database: Option<&Database>) -> Services {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]);
    let services = services.on(database).start();
    services.import("P", INVOICES);
    services.pay_until_true(WITHIN);
    services
}

/// Another billing with this store and the same invoices, on the same payment service.
fn another_billing(services: &Services, folder: &Path, url: &str) -> Process {
    let mut spec = Spec::new(run_by(env!("CARGO_BIN_EXE_tinjis"), "billing"), "billing", "");
    spec.dir = folder.to_owned();
    for (name, value) in [
        ("PAYMENT_PROVIDER_IDEMPOTENCY", "keys"),
        ("PAYMENT_PROVIDER_ENDPOINT", services.payments_url().as_str()),
        ("DATABASE_URL", url),
    ] {
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    if url.starts_with("postgres") {
        Process::new(spec.clone()).run_to_end("migrate");
    }
    let billing = Process::start(spec);
    let rows: String = (1..=INVOICES)
        .map(|n| {
            format!("{{\"reference\":\"P{n}\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":\"1.00\"}}\n")
        })
        .collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    let imports = format!("{}/v1/imports", billing.url());
    assert_eq!(testkit::http::call("POST", &imports, &headers, rows.as_bytes()).status, 200);
    billing
}

/// Asserts that billing charges nothing and says what to do, and charges once its deployment is declared.
fn refused_until_declared(services: &Services, billing: &Process, store: &str) {
    let (code, said) = pay(billing);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("deployment-unknown (412)"), "{said}");
    assert!(said.contains("billing declare-deployment --why TEXT --actor NAME"), "{said}");
    let all = i64::try_from(INVOICES).expect("a few");
    assert_eq!(services.ask_payments(CHARGED), all, "nothing was charged again: {said}");

    let endpoint = services.payments_url();
    let declare = |why| {
        let args = ["run", "billing", "declare-deployment", "--why", why, "--actor", "ops"];
        let settings = ["--database-url", store, "--payment-provider-endpoint", &endpoint];
        tinjis(&[&args[..], &settings].concat())
    };
    let (code, said) = declare("");
    assert_eq!(code, Some(64), "{said}");
    let (code, said) = declare("another billing, on purpose");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = pay(billing);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(services.ask_payments(CHARGED), 2 * all, "the operator has said that these are others");
    let audited = "SELECT count(*) FROM ledger_deployments WHERE how = 'declared' AND actor = 'ops'";
    assert_eq!(services.ask_payments(audited), 1);
}

#[test]
fn a_copy_of_a_live_store_without_its_wal_charges_nothing() {
    let services = paid(None);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let copy = folder.path().join("billing.db");
    fs::copy(services.billing.db(), &copy).expect("the file is there");
    let url = format!("sqlite:{}", copy.display());
    let billing = another_billing(&services, folder.path(), &url);
    let known = testkit::ledger::ask(&copy, "SELECT count(*) FROM attempts");
    assert_eq!(known, 0, "the copy of a live file has forgotten all, or this test shows nothing");
    refused_until_declared(&services, &billing, &url);
}

#[test]
fn an_empty_store_in_postgres_charges_nothing() {
    let Some(database) = Database::fresh("an empty store") else { return };
    let Some(empty) = Database::fresh("an empty store") else { return };
    let services = paid(Some(&database));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let billing = another_billing(&services, folder.path(), empty.url());
    refused_until_declared(&services, &billing, empty.url());
}

#[test]
fn a_url_with_a_mode_opens_the_store_that_it_names_and_another_query_none() {
    let mut services = paid(None);
    services.stop_billing();
    let file = services.billing.db();
    let folder =
        |file: &PathBuf| fs::read_dir(file.parent().expect("a folder")).expect("it is there").count();
    let before = folder(&file);
    for query in ["?mode=rwc", "?mode=rw"] {
        services.billing.set_env("DATABASE_URL", format!("sqlite:{}{query}", file.display()));
        services.billing.start_again();
        let (code, said) = pay(&services.billing);
        assert_eq!(code, Some(0), "{query}: {said}");
        assert!(services.stop_billing().success());
    }
    let migrate = |url: String| tinjis(&["run", "billing", "migrate", "--database-url", &url]);
    for query in ["?cache=shared", "?mode=rwc&cache=shared", "?mode=memory", "#x", "?"] {
        let (code, said) = migrate(format!("sqlite:{}{query}", file.display()));
        assert_eq!(code, Some(64), "{query}: {said}");
    }
    let (code, said) = migrate(format!("sqlite:{}?mode=ro", file.display()));
    assert!(code == Some(64) && said.contains("mode=rw"), "{code:?}: {said}");
    let missing = file.with_file_name("missing.db");
    let (code, said) = migrate(format!("sqlite:{}?mode=rw", missing.display()));
    assert!(code == Some(1) && said.contains("does not exist"), "{code:?}: {said}");
    assert!(!missing.exists());
    assert_eq!(folder(&file), before, "no second store was made");
    let all = i64::try_from(INVOICES).expect("a few");
    assert_eq!(services.ask_payments(CHARGED), all);
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Copies a ledger of stopped payments: the database, and the sidecar that distinguishes it from a copy of the database
/// alone.
fn copy_ledger(from: &Path, to: &Path) {
    for end in ["", ".incarnation"] {
        fs::copy(beside(from, end), beside(to, end)).expect("the ledger is there");
    }
}

/// Restores the earlier files while payments are stopped, as a snapshot of the volume would, without further steps.
fn lose_rows(services: &mut Services, backup: &Path) {
    services.stop_payments();
    let file = services.payments.db();
    copy_ledger(backup, &file);
    for end in ["-wal", "-shm"] {
        let _absent = fs::remove_file(beside(&file, end));
    }
}

#[test]
fn a_ledger_that_lacks_rows_which_billing_has_seen_charges_nothing() {
    let mut services = paid(None);
    services.stop_payments();
    let backup = services.dir().join("backup.db");
    copy_ledger(&services.payments.db(), &backup);
    services.payments.start_again();
    services.import("Q", INVOICES);
    services.pay_until_true(WITHIN);
    // Billing's store must remember it, not only its process.
    services.kill_billing();
    services.billing.start_again();
    lose_rows(&mut services, &backup);
    services.payments.start_again();
    services.import("R", 1);
    let (code, said) = pay(&services.billing);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ledger-behind (412)") && said.contains("payments new-ledger-id"), "{said}");
    let before = i64::try_from(INVOICES).expect("a few");
    assert_eq!(services.ask_payments(CHARGED), before, "nothing is executed by such a ledger");

    // The steps of the hint: a new id, accepted by an operator after a check of the missing rows.
    services.stop_payments();
    let url = format!("sqlite:{}", services.payments.db().display());
    let (code, said) = tinjis(&["run", "payments", "new-ledger-id", "--database-url", &url]);
    assert_eq!(code, Some(0), "{said}");
    services.payments.start_again();
    let (code, said) = pay(&services.billing);
    assert!(code == Some(1) && said.contains("ledger-mismatch (412)"), "{code:?}: {said}");
    let ledger = testkit::http::get(&format!("{}/v1/ledger", services.payments_url())).json();
    let id = ledger["ledger_id"].as_str().expect("a ledger has an id").to_owned();
    let accept = ["resolve", "--accept-ledger", &id, "--why", "restored", "--actor", "ops"];
    let billing = services.billing_url();
    let (code, said) = tinjis(&[&accept[..], &["--billing", &billing]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = pay(&services.billing);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(services.ask_payments(CHARGED), before + 1);
}

/// Both services with tokens of two accounts; billing sends the token of the first line.
fn with_accounts(folder: &Path, flags: &[&str], env: &[(&str, &Path)]) -> Services {
    let tokens = folder.join("tokens");
    fs::write(&tokens, "token-of-billing\ntoken-of-mallory mallory\n").expect("it can be written");
    let mut builder = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_flags(flags.iter().copied())
        .payments_env("PAYMENTS_API_TOKEN_FILE", tokens.to_str().expect("a test's path"))
        .billing_env("PAYMENTS_API_TOKEN", "token-of-billing");
    for (name, value) in env {
        builder = builder.payments_env(name, value.to_str().expect("a test's path"));
    }
    builder.start()
}

/// Keys of billing's first attempts, derived from the public deployment id.
fn first_keys(services: &Services, prefix: &str) -> Vec<String> {
    let shown = testkit::http::get(&format!("{}/v1/deployment", services.billing_url())).json();
    let deployment =
        uuid::Uuid::parse_str(shown["deployment_id"].as_str().expect("it has an id")).expect("a uuid");
    let key = |n: usize| {
        let hash = Sha256::new().chain_update(deployment.as_bytes()).chain_update(1_u32.to_be_bytes());
        let hash = hash.chain_update(format!("{prefix}{n}")).finalize();
        hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    (1..=INVOICES).map(key).collect()
}

fn call_as(services: &Services, token: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let url = format!("{}{path}", services.payments_url());
    let headers = [("X-Token", token), ("Content-Type", "application/json")];
    let answer = testkit::http::call(method, &url, &headers, body.as_bytes());
    (answer.status, answer.text())
}

#[test]
fn an_account_that_voids_keys_of_another_blocks_no_invoice_and_learns_nothing() {
    for voided in [1, 5, INVOICES] {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let services = with_accounts(folder.path(), &["--success-rate=1"], &[]);
        services.import("V", INVOICES);
        let keys = first_keys(&services, "V");
        for key in &keys[..voided] {
            let (status, said) =
                call_as(&services, "token-of-mallory", "POST", &format!("/v1/ledger/{key}/void"), "");
            assert_eq!(status, 200, "{said}");
        }
        let (code, said) = pay(&services.billing);
        assert_eq!(code, Some(0), "{voided} voided: {said}");
        let late = &keys[INVOICES - 1];
        let seen = call_as(&services, "token-of-mallory", "GET", &format!("/v1/ledger/{late}"), "");
        assert_eq!(seen.0, if voided == INVOICES { 200 } else { 404 }, "{}", seen.1);
        let shown = folder.path().join("shown");
        fs::write(&shown, "token-of-billing\n").expect("it can be written");
        let flags = ["--payments-api-token-file", shown.to_str().expect("a test's path")];
        let verified = Verified::of(env!("CARGO_BIN_EXE_tinjis"), &services, &flags);
        verified.assert_all_paid("after another account's voids");
        let all = i64::try_from(INVOICES).expect("a few");
        assert_eq!(services.ask_payments(CHARGED), all);
    }
}

/// Charges under the first account are in doubt when the token becomes that of another account.
#[test]
fn billing_whose_account_changes_charges_no_invoice_twice() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let faults = folder.path().join("faults.toml");
    fs::write(&faults, "[[rule]]\nfault = \"reply-lost\"\ntimes = 1000000").expect("it can be written");
    let mut services = with_accounts(folder.path(), &["--success-rate=1"], &[("FAULTS", &faults)]);
    services.import("C", INVOICES);
    let all = i64::try_from(INVOICES).expect("a few");
    let _run = services.start_run();
    wait_until("all are charged, and none is answered", WITHIN, || services.ask_payments(CHARGED) == all);
    services.stop_payments();
    fs::write(&faults, "").expect("it can be written");
    fs::write(folder.path().join("tokens"), "token-of-billing another\n").expect("it can be written");
    services.payments.start_again();

    let (code, said) = pay(&services.billing);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("deployment-unknown (412)"), "{said}");
    assert_eq!(services.ask_payments(CHARGED), all, "{said}");

    // The operator declares that the deployment may charge here. Charges under the other account stay charged.
    let deployment = testkit::http::get(&format!("{}/v1/deployment", services.billing_url())).json();
    let id = deployment["deployment_id"].as_str().expect("it has an id");
    let declaration = format!(r#"{{"deployment_id":"{id}","why":"the account was renamed","actor":"ops"}}"#);
    let (status, said) = call_as(&services, "token-of-billing", "POST", "/v1/deployments", &declaration);
    assert_eq!(status, 201, "{said}");
    let refused = ["http_requests_total", "status=\"403\""];
    wait_until("keys are refused", WITHIN, || {
        let (code, said) = pay(&services.billing);
        assert_eq!(
            (code, services.ask_payments(CHARGED)),
            (Some(1), all),
            "nothing was charged again: {said}"
        );
        services.payments.metric(&refused) >= 3
    });
}

#[test]
fn two_invoices_under_one_key_are_not_both_paid() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start();
    let send = |id: &str| {
        let body = format!(r#"{{"id":"{id}","customer_id":1,"currency":"EUR","value":12.15}}"#);
        let headers = [("Idempotency-Key", "one-key"), ("Content-Type", "application/json")];
        testkit::http::call("POST", &format!("{}/", services.payments_url()), &headers, body.as_bytes())
    };
    assert_eq!(send("I1").status, 200);
    let second = send("I2");
    assert_eq!(second.status, 422, "{}", second.text());
    assert_eq!(send("I1").header("idempotency-replayed"), Some("true"));
    assert_eq!(services.ask_payments(CHARGED), 1);
}
