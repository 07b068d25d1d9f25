//! `tinjis pay` follows a run of real billing: its exit codes, its output, and that its end does not stop the run.
//! Knows the command line and `/v1/runs` only.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use testkit::wait::wait_for;
use testkit::{Services, runs};

const ENDS_WITHIN: Duration = Duration::from_secs(60);

fn pay(billing: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinjis"));
    command.args(["pay", "--billing", billing]).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Services with a latency for every charge, so that a run of 600 invoices takes seconds.
fn slow_services(dir: &tempfile::TempDir) -> Services {
    let script = dir.path().join("slow.toml");
    fs::write(&script, "[[rule]]\nfault = \"latency\"\nlatency_ms = 400\n").expect("a script can be written");
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_flags(["--success-rate=1".to_owned(), format!("--faults={}", script.display())])
        .start();
    services.import("P", 600);
    services
}

/// Reads the command's output until it follows a run.
fn wait_until_it_follows(child: &mut Child) -> BufReader<std::process::ChildStderr> {
    let mut said = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says something");
    assert!(line.starts_with("started run 1"), "{line}");
    said
}

fn end(mut child: Child) -> Output {
    wait_for("pay to end", ENDS_WITHIN, || child.try_wait().expect("it can be waited for"));
    child.wait_with_output().expect("it said something")
}

#[test]
fn all_paid_is_exit_code_0() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start();
    services.import("P", 30);
    let output = pay(&services.billing_url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "run 1: paid 30, refused 0\nall invoices are PAID\n");
}

#[test]
fn refusals_are_exit_code_1_and_tell_what_to_do_next() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=0"]).start();
    services.import("P", 30);
    let output = pay(&services.billing_url()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("30 were refused and are PENDING again: `tinjis pay`"));
}

#[test]
fn an_unreachable_billing_is_exit_code_2() {
    let output = pay("http://127.0.0.1:9").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("http://127.0.0.1:9/v1/runs is not reachable"));
}

#[test]
fn ctrl_c_leaves_the_run_going_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let services = slow_services(&dir);
    let mut child = pay(&services.billing_url()).spawn().unwrap();
    let mut said = wait_until_it_follows(&mut child);
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = end(child);
    let mut rest = String::new();
    while said.read_line(&mut rest).unwrap() > 0 {}
    assert_eq!(output.status.code(), Some(1), "{rest}");
    assert!(rest.contains("the run goes on in billing"), "{rest}");

    let url = format!("{}/v1/runs/1", services.billing_url());
    assert_eq!(testkit::http::get(&url).json()["state"], "running");
    let run = runs::wait(&url, ENDS_WITHIN);
    assert_eq!(run["paid"], 600, "{run}");
}

#[test]
fn a_billing_that_is_killed_and_started_again_is_followed_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut services = slow_services(&dir);
    let mut child = pay(&services.billing_url()).spawn().unwrap();
    let mut said = wait_until_it_follows(&mut child);
    services.kill_billing();
    services.billing.start_again();
    let output = end(child);
    let mut rest = String::new();
    while said.read_line(&mut rest).unwrap() > 0 {}
    assert_eq!(output.status.code(), Some(0), "{}{rest}", text(&output.stdout));
}
