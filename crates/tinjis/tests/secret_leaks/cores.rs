//! Each service with a canary in its memory is aborted while cores have no limit but the machine's: there is no core,
//! and no canary in the folder. Another program that is aborted the same way leaves a core, which shows that the check
//! works.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use tempfile::TempDir;
use testkit::certs::Authority;
use testkit::requirements::leave_out;
use testkit::wait_until;

use crate::Canaries;

const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// Whether a program may write a core on this machine. If not, a service without a core proves nothing.
fn may_leave_cores() -> bool {
    let may = getrlimit(Resource::Core).maximum != Some(0);
    if !may {
        leave_out("cores of aborted programs", "the hard limit of cores is 0; raise it");
    }
    may
}

/// Starts a program in a folder of its own, with the maximum core size and no other environment variables.
fn start(folder: &TempDir, words: &[&str], variables: &[(&str, &str)]) -> Child {
    let log = fs::File::create(folder.path().join("log")).expect("a log");
    Command::new("/bin/sh")
        .args(["-c", "ulimit -c $(ulimit -H -c) && echo started && exec \"$0\" \"$@\""])
        .args(words)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log can be shared"))
        .stderr(log)
        .spawn()
        .expect("a shell can be started")
}

fn abort(mut child: Child) -> ExitStatus {
    kill_process(Pid::from_child(&child), Signal::ABORT).expect("it can be signalled");
    let status = child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status:?}");
    status
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

#[test]
fn an_aborted_service_leaves_no_core() {
    if !may_leave_cores() {
        return;
    }
    let mut canaries = Canaries::default();
    let token = canaries.plant("the token");
    let mut found = Vec::new();
    for service in ["billing", "payments", "ponger", "pinger"] {
        let folder = tempfile::tempdir().expect("a folder");
        let key = Authority::new("the test's").server("localhost").write(folder.path(), "server").1;
        fs::write(folder.path().join("config.yaml"), configuration(service)).expect("a file");
        let program = env!("CARGO_BIN_EXE_tinjis");
        let any = "127.0.0.1:0";
        let variables = [("PAYMENTS_API_TOKEN", token.as_str()), ("LISTEN", any), ("ADMIN_LISTEN", any)];
        let child = start(&folder, &[program, "run", service], &variables);
        let ready = if service == "pinger" { "starting to ping" } else { "listening" };
        wait_until("a service to be at work", STARTED_WITHIN, || {
            log(folder.path()).to_lowercase().contains(ready)
        });
        let status = abort(child);
        assert!(!status.core_dumped(), "{service} left a core: {status:?}");
        fs::remove_file(key).expect("the key that lies there by right");
        for entry in fs::read_dir(folder.path()).expect("a folder").flatten() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            found.extend(canaries.found_in(&format!("{service}: {}", entry.path().display()), &bytes));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

fn configuration(service: &str) -> String {
    let metrics = "metrics:\n  port: 0\n  address: 127.0.0.1\n";
    match service {
        "pinger" => format!("ponger:\n  url: http://127.0.0.1:1\n{metrics}"),
        _ => format!(
            "service:\n  port: 0\n  address: 127.0.0.1\n  tlsCertificate: server.pem\n  tlsPrivateKey: server.key\n{metrics}"
        ),
    }
}

#[test]
fn the_same_abort_of_another_program_leaves_a_core() {
    if !may_leave_cores() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let child = start(&folder, &["/bin/sleep", "600"], &[]);
    wait_until("another program to be at work", STARTED_WITHIN, || log(folder.path()).contains("started"));
    let status = abort(child);
    assert!(status.core_dumped(), "{status:?}");
}
