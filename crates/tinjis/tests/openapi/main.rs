//! schemathesis against both services: it reads the document that a service serves, sends right and wrong requests to
//! every operation, and compares each response with the document. No request breaks a service, and no response has an
//! undocumented status, media type or shape. `make openapi-check` is the full size.
#![cfg(test)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::requirements::{may_have, skip_notice};
use testkit::{Process, Services, http, runs, size};

/// The deployment of the keys in the documents' examples.
const DEPLOYMENT: &str = "00000000-0000-4000-8000-000000000001";
const WITHIN: Duration = Duration::from_secs(120);
const SUBSCRIPTION: &str =
    r#"{"reference":"GYM-1","customer_id":5,"currency":"EUR","amount":"9.90","starts_on":"2027-01-31"}"#;

/// Both services with rows of every kind, so that reads return rows: PAID and declined invoices, a run, a subscription,
/// an acknowledgement of each kind.
fn site() -> Services {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .billing_flags(["--deployment-id", DEPLOYMENT])
        .payments_flags(["--success-rate", "0.7", "--seed", "8213"])
        .start();
    services.import("I", 30);
    let run = services.start_run();
    let run = runs::wait(&run, WITHIN);
    assert!(run["paid"].as_i64() > Some(0), "{run}");
    let billing = services.billing_url();
    let made = http::post(&format!("{billing}/v1/subscriptions"), SUBSCRIPTION);
    assert_eq!(made.status, 201, "{}", made.text());
    let ledger = http::get(&format!("{}/v1/ledger?limit=1", services.payments_url())).json();
    let acknowledged = json!({
        "ledger_id": ledger["ledger_id"], "seq_first": 1, "seq_last": 1, "reason": "a test", "actor": "ann",
    });
    let made = http::post(&format!("{billing}/v1/ledger/acknowledgements"), acknowledged.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    let paid = http::get(&format!("{billing}/v1/invoices?state=PAID&limit=1")).json();
    let lost = json!({
        "ledger_id": ledger["ledger_id"], "reference": paid["items"][0]["reference"], "reason": "a test", "actor": "ann",
    });
    let made = http::post(&format!("{billing}/v1/ledger/unbacked-acknowledgements"), lost.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    services
}

/// Tests the operations that these filters select; returns the number of requests.
fn try_document(process: &Process, examples: usize, filters: &[&str]) -> i64 {
    let before = requests(process);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    // schemathesis stores its findings in the folder where it runs.
    let folder = tempfile::tempdir().expect("a folder can be made");
    let output = Command::new(program())
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &here)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--config-file")
        .arg(here.join("schemathesis.toml"))
        .args(["run", &format!("{}/v1/openapi.json", process.url()), "--no-color"])
        .args(["--max-examples", &examples.to_string()])
        .args(filters)
        .output()
        .expect("schemathesis can be started");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{}", errors_of(process));
    assert!(text.contains("No issues found"), "{text}");
    assert_eq!(process.metric(&["http_requests_total", "status=\"5"]), 0, "{}", errors_of(process));
    requests(process) - before
}

fn program() -> String {
    let named = std::env::var_os("SCHEMATHESIS").and_then(|path| path.into_string().ok());
    named.filter(|path| !path.is_empty()).unwrap_or_else(|| "schemathesis".to_owned())
}

/// The service's own count of answered requests.
fn requests(process: &Process) -> i64 {
    process.metric(&["http_requests_total"])
}

/// Log lines of the service about internal errors.
fn errors_of(process: &Process) -> String {
    let log = process.log();
    log.lines().filter(|line| line.contains("\"ERROR\"")).take(20).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_request_breaks_billing_and_no_response_is_undocumented() {
    if !may_have(&program(), "the OpenAPI document of billing") {
        return;
    }
    let services = site();
    let sent = try_document(&services.billing, size("OPENAPI_EXAMPLES", 3), &[]);
    testkit::proof::progress(&format!("billing answered {sent} requests"));
    assert!(sent > 500, "only {sent} requests reached billing");
}

/// Fault scripts are tested last and alone: a valid script disturbs charges.
#[test]
fn no_request_breaks_payments_and_no_response_is_undocumented() {
    if !may_have(&program(), "the OpenAPI document of payments") {
        return;
    }
    let services = site();
    let examples = size("OPENAPI_EXAMPLES", 3);
    let sent = try_document(&services.payments, examples, &["--exclude-path", "/v1/faults"]);
    let scripts = try_document(&services.payments, examples, &["--include-path", "/v1/faults"]);
    testkit::proof::progress(&format!("payments answered {} requests", sent + scripts));
    assert!(sent > 300 && scripts > 30, "only {sent} and {scripts} requests reached payments");
}

/// The generated clients know the services by their documents only.
#[test]
fn a_client_that_is_generated_from_the_documents_compiles_and_pays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi/client");
    if !folder.join("node_modules").exists() {
        skip_notice(
            "clients generated from the OpenAPI documents",
            "`make openapi-client` installs what they need",
        );
        return;
    }
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate", "1"]).start();
    let npm = |script: &str| {
        let output = Command::new("npm")
            .args(["run", "--silent", script])
            .current_dir(&folder)
            .env("BILLING_URL", services.billing_url())
            .env("PAYMENTS_URL", services.payments_url())
            .output()
            .expect("npm can be started");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    npm("build");
    let said = npm("start");
    assert!(said.starts_with("paid CLIENT-1: ledger row "), "{said}");
}
