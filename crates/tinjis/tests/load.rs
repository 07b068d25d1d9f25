//! `tinjis run load` against real services: its counts, its verdict, and how it is stopped. Knows its line of JSON
//! only.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::Services;
use testkit::wait::wait_for;

const ENDS_WITHIN: Duration = Duration::from_secs(30);

fn load(url: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinjis"));
    command.args(["run", "load", "--url", url]).args(flags).env_clear();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn every_request_that_succeeds_is_counted_and_exit_is_0() {
    let services = Services::start(env!("CARGO_BIN_EXE_tinjis"));
    for flags in [&["--requests", "120"][..], &["--requests", "120", "--fresh", "--in-flight", "3"]] {
        let output = load(&format!("{}/rest/health", services.billing_url()), flags).output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{report}");
        assert_eq!(
            (&report["requests"], &report["failed"]),
            (&Value::from(120), &Value::from(0)),
            "{report}"
        );
        assert_eq!(report["statuses"]["200"], 120, "{report}");
        assert_eq!(report["distinct_answers"], 1, "{report}");
    }
}

#[test]
fn an_answer_without_success_or_no_answer_is_a_failure_and_exit_is_1() {
    let services = Services::start(env!("CARGO_BIN_EXE_tinjis"));
    let output = load(&format!("{}/nowhere", services.billing_url()), &["--requests", "9"]).output().unwrap();
    let said = report(&output);
    assert_eq!((output.status.code(), &said["statuses"]["404"]), (Some(1), &Value::from(9)), "{said}");

    let output = load("http://127.0.0.1:9/", &["--requests", "3"]).output().unwrap();
    let said = report(&output);
    assert_eq!((output.status.code(), &said["not_sent"]), (Some(1), &Value::from(3)), "{said}");
    let failure = said["failures"][0].as_str().unwrap();
    assert!(failure.starts_with("begun after ") && failure.contains("refused"), "{said}");
}

#[test]
fn sigterm_ends_it_with_its_report() {
    let services = Services::start(env!("CARGO_BIN_EXE_tinjis"));
    let url = format!("{}/rest/health", services.billing_url());
    let mut child = load(&url, &["--seconds", "600", "--rest-ms", "1"]).spawn().unwrap();
    let before = services.billing.metric(&["http_requests_total"]);
    wait_for("requests", ENDS_WITHIN, || {
        (services.billing.metric(&["http_requests_total"]) > before + 50).then_some(())
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_for("its end", ENDS_WITHIN, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let report = report(&output);
    assert_eq!((output.status.code(), &report["stopped"]), (Some(0), &Value::from(true)), "{report}");
}

#[test]
fn mistakes_are_reported_together_with_exit_64() {
    let output = load("nowhere", &["--in-flight", "0"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(said.contains("--url") && said.contains("--in-flight"), "{said}");
    let output = load("http://127.0.0.1:9", &["--in-flight", "-1", "--seconds", "1e3"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        said.starts_with("error: 2 mistakes") && said.contains("must be a whole number from 1 to 256"),
        "{said}"
    );
    assert!(said.contains("must be a whole number from 0 to 18446744073709551615"), "{said}");
}

#[test]
fn a_load_that_sent_nothing_exits_with_2() {
    let output = load("http://127.0.0.1:9/", &["--requests", "0"]).output().unwrap();
    assert_eq!((output.status.code(), &report(&output)["requests"]), (Some(2), &Value::from(0)));
}

#[test]
fn a_url_that_would_be_called_in_another_way_is_a_mistake() {
    for (url, flags, part) in [
        ("http://127.0.0.1:9/#x", &[][..], "--url: must not have a fragment"),
        ("http://127.0.0.1:+9/", &[], "--url: "),
        (
            "http://127.0.0.1:9/",
            &["--ca", "/nowhere"],
            "--ca: is given, but http://127.0.0.1:9/ is not called over TLS",
        ),
    ] {
        let output = load(url, flags).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(64) && said.contains(part), "{url}: {said}");
    }
}
