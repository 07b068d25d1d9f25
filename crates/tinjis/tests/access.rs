//! Access to the services as processes: comments in credential files are no tokens, pages of other sites cannot write
//! where no credential is needed, closed legacy routes answer 404, and wrong usage gives one message with exit code 64.
//! Knows the services from outside only.
#![cfg(test)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::http;
use testkit::{Process, Services};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
const WITHIN: Duration = Duration::from_secs(60);
const CHARGE: &[u8] = br#"{"customer_id":1,"currency":"USD","value":1.25}"#;

/// Exit code and standard error of a command with an empty environment.
fn tinjis(words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(TINJIS).args(words).env_clear().output().expect("the command can be started");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_comment_in_a_token_file_is_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = "\u{feff}# antaeus rotated 2026-11-01\ntok1-long-secret\n";
    let tokens = write(folder.path(), "token.txt", tokens);
    let operators = write(folder.path(), "operators.txt", "# operators of billing\nop-secret-1\n");
    let services = Services::of(TINJIS)
        .payments_flags(["--payments-api-token-file", &tokens, "--success-rate", "1"])
        .billing_flags(["--payments-api-token-file", &tokens, "--operator-token-file", &operators])
        .start();
    let charge = |token: &str| http::call("POST", &services.payments_url(), &[("X-Token", token)], CHARGE);
    for comment in ["#", "# antaeus rotated 2026-11-01", "antaeus"] {
        assert_eq!(charge(comment).status, 403, "{comment}");
    }
    assert_eq!(services.ask_payments("SELECT count(*) FROM ledger"), 0);
    let read = |path: &str| http::get(&format!("{}{path}", services.payments_url())).status;
    assert_eq!((read("/v1/ledger"), read("/v1/openapi.json")), (403, 200), "the document holds no data");
    assert_eq!(charge("tok1-long-secret").status, 200);
    let runs = format!("{}/v1/runs", services.billing_url());
    let start = |token: &str| http::call("POST", &runs, &[("Authorization", token)], b"").status;
    assert_eq!((start("Bearer #"), start("Bearer op-secret-1")), (403, 202));
}

#[test]
fn a_credential_file_that_holds_something_else_ends_the_start_with_64_and_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let words = write(folder.path(), "words", "# first\nthree words here\n");
    let short = write(folder.path(), "short", "\n\nshort-token\n");
    for (service, flag) in [
        ("billing", "--operator-token-file"),
        ("billing", "--reader-token-file"),
        ("billing", "--payments-api-token-file"),
        ("payments", "--operator-token-file"),
        ("payments", "--payments-api-token-file"),
    ] {
        let (code, said) = tinjis(&["run", service, flag, &words, "--listen", "0.0.0.0:1"]);
        assert_eq!(code, Some(64), "{service} {flag}: {said}");
        assert!(said.contains(&format!("{words}, line 2: has 3 words")), "{said}");
        if (service, flag) == ("billing", "--payments-api-token-file") {
            // Billing does not check this token: the provider judges it.
            continue;
        }
        let (code, said) = tinjis(&["run", service, flag, &short, "--listen", "0.0.0.0:1"]);
        assert_eq!(code, Some(64), "{service} {flag}: {said}");
        assert!(said.contains(&format!("{short}, line 3: ")) && said.contains("at least 16"), "{said}");
        assert!(!said.contains("short-token"), "{said}");
    }
}

/// Sends a POST with these header lines; returns the status.
fn post_raw(process: &Process, path: &str, lines: &str) -> u16 {
    let request =
        format!("POST {path} HTTP/1.1\r\n{lines}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let answer = http::raw(process.address(), request.as_bytes()).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn no_page_of_another_site_charges_where_no_credential_is_needed() {
    let services = Services::start(TINJIS);
    services.import("I", 3);
    let pages = [
        "Host: 127.0.0.1\r\nOrigin: http://evil.example",
        "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site",
        "Host: 127.0.0.1\r\nSec-Fetch-Site: same-site",
        "Host: evil.example:8000",
        "Host: evil.example:8000\r\nOrigin: http://evil.example:8000",
    ];
    for page in pages {
        for path in ["/rest/v1/invoices/pay", "/invoices/pay", "/v1/runs"] {
            assert_eq!(post_raw(&services.billing, path, page), 403, "{path} {page}");
        }
        for path in ["/", "/payments", "/payments/pay", "/v1/ledger/I1/void"] {
            assert_eq!(post_raw(&services.payments, path, page), 403, "{path} {page}");
        }
    }
    let (runs, rows) = ("SELECT count(*) FROM runs", "SELECT count(*) FROM ledger");
    assert_eq!((services.ask_billing(runs), services.ask_payments(rows)), (0, 0));
    let level = format!("{}/log-level", services.billing.admin_url());
    let page = [("Origin", "http://evil.example")];
    assert_eq!(http::call("PUT", &level, &page, b"debug").status, 403);
    assert_eq!(http::call("PUT", &level, &[], b"debug").status, 200);
    for host in ["Host: localhost:1", "Host: [::1]", "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1"] {
        assert_eq!(post_raw(&services.billing, "/v1/runs", host), 202, "{host}");
    }
}

#[test]
fn closed_legacy_routes_are_unknown_paths_and_the_log_names_the_setting_once() {
    let services = Services::of(TINJIS).billing_flags(["--legacy-routes", "off"]).start();
    services.import("I", 1);
    let at = |path: &str| format!("{}{path}", services.billing_url());
    let unknown = http::get(&at("/nowhere"));
    for _ in 0..3 {
        for path in ["/rest/v1/invoices/pay", "/REST/v1/invoices/pay/", "/invoices/pay"] {
            let closed = http::call("POST", &at(path), &[], b"");
            assert_eq!((closed.status, closed.text()), (404, "\"not found\"".to_owned()), "{path}");
            assert_eq!(closed.header("content-type"), unknown.header("content-type"));
        }
        assert_eq!(http::get(&at("/rest/v1/invoices")).text(), unknown.text());
        for path in ["/rest/health", "/healthz"] {
            assert_eq!(http::get(&at(path)).status, 200, "{path}");
        }
    }
    assert_eq!(services.ask_billing("SELECT count(*) FROM runs"), 0);
    let log = services.billing.log();
    let named: Vec<&str> =
        log.lines().filter(|line| line.contains("--legacy-routes (LEGACY_ROUTES)")).collect();
    assert_eq!(named.len(), 3, "{named:?}");
}

#[test]
fn a_run_with_an_unknown_field_is_refused_and_charges_nothing() {
    let services = Services::start(TINJIS);
    services.import("I", 1);
    let runs = format!("{}/v1/runs", services.billing_url());
    for body in [r#"{"dry_runs":true}"#, r#"{"dry_runs":true,"max_count":1}"#] {
        let refused = http::post(&runs, body);
        assert_eq!(refused.status, 400, "{}", refused.text());
        let problem = refused.json();
        assert_eq!(problem["type"], "urn:tinjis:problem:validation");
        assert_eq!(problem["errors"][0]["field"], "dry_runs", "{problem}");
    }
    for body in ["[]", "null", "x=1", "{"] {
        assert_eq!(http::post(&runs, body).status, 400, "{body}");
    }
    assert_eq!(services.ask_billing("SELECT count(*) FROM runs"), 0);
    for body in ["", " \n", "{}"] {
        assert_eq!(http::post(&runs, body).status, 202, "{body:?}");
    }
}

#[test]
fn resolve_accepts_no_ledger_that_the_provider_does_not_have() {
    let mut services = Services::start(TINJIS);
    services.import("I", 1);
    services.pay_until_true(WITHIN);
    let billing = services.billing_url();
    let accept = |id: &str| {
        tinjis(&["resolve", "--billing", &billing, "--accept-ledger", id, "--why", "w", "--actor", "a"])
    };
    let absent = "00000000-0000-4000-8000-00000000dead";
    let (code, said) = accept(absent);
    let ledger = http::get(&format!("{}/v1/ledger", services.payments_url())).json();
    let known = ledger["ledger_id"].as_str().unwrap().to_owned();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("409") && said.contains(&known), "{said}");
    let (code, said) = accept("no-uuid");
    assert!(code == Some(1) && said.contains("ledger_id must be a UUID"), "{code:?} {said}");
    assert_eq!(accept(&known).0, Some(0));
    services.kill_payments();
    let (code, said) = accept(absent);
    assert!(code == Some(1) && said.contains("502") && said.contains("did not respond"), "{code:?} {said}");
    let accepted = services.ask_billing("SELECT count(*) FROM ledger_acceptances");
    assert_eq!(accepted, 0, "the one that exists was accepted already");
}

#[test]
fn wrong_usage_is_one_message_with_a_suggestion_and_64() {
    for (words, parts) in [
        (&["verfy", "--billing", "http://127.0.0.1:1"][..], &["'verfy'", "'verify'"][..]),
        (&["charge"], &["'charge'", "commands: ", "pay", "verify"]),
        (&["pay", "--biling", "http://127.0.0.1:1"], &["'--biling'", "'--billing'"]),
        (&["run", "biling"], &["'biling'", "billing", "payments"]),
        (&["run"], &["<SERVICE>"]),
        (&["resolve", "--reason-is", "in-doubt"], &["in-doubt-without-keys", "key-reused", "charged-late"]),
        (&["load", "--ulr", "x"], &["'--ulr'", "--url <URL>"]),
        (&[], &["pay", "verify"]),
    ] {
        let (code, said) = tinjis(words);
        assert_eq!(code, Some(64), "{words:?}: {said}");
        assert_eq!(said.matches("error: ").count(), 1, "{words:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{part} of {words:?} in {said}");
        }
    }
    let help = Command::new(TINJIS).arg("--help").env_clear().output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["run", "load"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{help}");
    }
}
