//! The ping pair from outside: configuration, wire format, log lines, signals. Tests of certificates are in
//! `ping_certs.rs`.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::process::free_address;
use testkit::{http, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// The state LISTEN in the kernel's tables of sockets.
const LISTENING: &str = "0A";

/// A program of the pair, with its own folder.
pub(crate) struct Program {
    pub(crate) folder: PathBuf,
    pub(crate) metrics: u16,
    child: Child,
}

/// A port that the kernel gives to no other process before the program listens there.
pub(crate) fn free_port() -> u16 {
    free_address().port()
}

fn spawn(name: &str, folder: &Path, words: &[&str]) -> Child {
    let log = File::create(folder.join("log")).expect("a log can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinjis"));
    command.args(["run", name]).args(words).env_clear().current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log can be shared")).stderr(log);
    command.spawn().expect("the program can be started")
}

impl Program {
    /// Starts the program with this configuration in its own folder, and waits until it is ready.
    pub(crate) fn start(name: &str, below: &Path, configuration: &str) -> Self {
        let metrics = free_port();
        let configuration = format!(
            "{configuration}metrics:\n  port: {metrics}\n  address: 127.0.0.1\n  endpoint: /figures\n"
        );
        let program = Self::start_as(name, below, "config.yaml", &configuration, &[], metrics);
        program.wait_ready();
        program
    }

    fn start_as(name: &str, below: &Path, file: &str, text: &str, words: &[&str], metrics: u16) -> Self {
        let folder = below.join(name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join(file), text).expect("a configuration can be written");
        let child = spawn(name, &folder, words);
        Self { folder, metrics, child }
    }

    fn wait_ready(&self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.metrics);
        wait_until("it is ready", PATIENCE, || {
            http::try_call("GET", &url, &[], b"").is_ok_and(|answer| answer.status == 200)
        });
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(crate) fn until_logged(&self, text: &str) {
        wait_until(&format!("{text} in {}", self.log()), PATIENCE, || self.log().contains(text));
    }

    /// The value of a metric by the beginning of its line; 0 if it is missing.
    pub(crate) fn figure(&self, begins: &str) -> i64 {
        let page = http::get(&format!("http://127.0.0.1:{}/figures", self.metrics)).text();
        let line = page.lines().find(|line| line.starts_with(begins));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn until_figure(&self, begins: &str, at_least: i64) {
        wait_until(&format!("{begins} is {at_least}"), PATIENCE, || self.figure(begins) >= at_least);
    }

    fn signal(mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.child), signal).expect("it can be signalled");
        let status = self.child.wait().expect("it ends");
        (status, self.log())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit code and the output of a start that is refused.
fn refused(name: &str, configuration: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("config.yaml"), configuration).expect("a configuration can be written");
    let status = spawn(name, folder.path(), &[]).wait().expect("it ends");
    (status.code(), fs::read_to_string(folder.path().join("log")).expect("it said something"))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn plain_ponger(below: &Path) -> (Program, u16) {
    let port = free_port();
    let text = format!("service:\n  port: {port}\n  address: 127.0.0.1\n  protocol: http\n");
    (Program::start("ponger", below, &text), port)
}

pub(crate) fn pinger_of(url: &str) -> String {
    format!("ponger:\n  url: {url}\n  interval: 20ms\n")
}

/// PNG-01 PNG-06 PNG-07
#[test]
fn every_method_is_a_pong_and_is_logged() {
    let folder = folder();
    let (ponger, port) = plain_ponger(folder.path());
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = http::call(method, &format!("http://127.0.0.1:{port}/ping"), &[], b"");
        assert_eq!((answer.status, answer.text().as_str()), (200, "pong"), "{method}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    ponger.until_logged("Received GET /ping");
    ponger.until_logged("Received DELETE /ping");
    assert_eq!(ponger.figure("ping_requests_total{result=\"success\"}"), 6);
}

/// PNG-02
#[test]
fn slashes_before_ping_are_as_good_as_one_and_other_paths_are_not_there() {
    let folder = folder();
    let (_ponger, port) = plain_ponger(folder.path());
    let status = |path: &str| http::get(&format!("http://127.0.0.1:{port}{path}")).status;
    assert_eq!([status("/ping"), status("//ping"), status("/ping?a=b")], [200; 3]);
    assert_eq!([status("/"), status("/pong"), status("/ping/x")], [404; 3]);
}

/// PNG-03 PNG-04 PNG-05
#[test]
fn the_configuration_is_yaml_or_json_with_keys_in_any_case() {
    let folder = folder();
    let (port, metrics) = (free_port(), free_port());
    let json = format!(
        r#"{{"SERVICE":{{"Port":"{port}","address":"127.0.0.1"}},"Metrics":{{"PORT":{metrics},"endpoint":"/metrics"}}}}"#
    );
    let ponger =
        Program::start_as("ponger", folder.path(), "other.json", &json, &["-c", "other.json"], metrics);
    ponger.wait_ready();
    assert_eq!(http::get(&format!("http://127.0.0.1:{port}/ping")).text(), "pong");
    let page = http::get(&format!("http://127.0.0.1:{metrics}/metrics")).text();
    assert!(page.contains("ping_requests_total{result=\"success\"} 1"), "{page}");
}

/// PNG-05
#[test]
fn a_configuration_without_metrics_is_no_reason_not_to_start() {
    let folder = folder();
    let port = free_port();
    let text = format!("service:\n  port: '{port}'\n");
    let ponger = Program::start_as("ponger", folder.path(), "config.yaml", &text, &[], 0);
    wait_until("it pongs", PATIENCE, || {
        let url = format!("http://127.0.0.1:{port}/ping");
        http::try_call("GET", &url, &[], b"").is_ok_and(|answer| answer.text() == "pong")
    });
    drop(ponger);
}

/// PNG-19
#[test]
fn a_pinger_without_metrics_listens_on_no_port() {
    let folder = folder();
    let (_ponger, port) = plain_ponger(folder.path());
    let text = pinger_of(&format!("http://127.0.0.1:{port}"));
    let pinger = Program::start_as("pinger", folder.path(), "config.yaml", &text, &[], 0);
    pinger.until_logged("Got pong");
    let process = format!("/proc/{}", pinger.child.id());
    let sockets = fs::read_dir(format!("{process}/fd")).expect("its file descriptors").filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    });
    let sockets: Vec<String> = sockets.collect();
    assert!(!sockets.is_empty(), "it has a connection to the ponger");
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("{process}/net/{table}")).expect("the kernel's table");
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (state, inode) = (fields[3], fields[9].to_owned());
            assert!(state != LISTENING || !sockets.contains(&inode), "it listens: {line}");
        }
    }
}

/// PNG-08 PNG-09
#[test]
fn what_would_be_plain_text_by_mistake_does_not_start() {
    let (code, said) = refused(
        "ponger",
        "service:\n  port: 0\n  protocol: https\n  tlsCertificate: /nowhere/cert\n  tlsPrivateKey: /nowhere/key\n",
    );
    assert_eq!(code, Some(64), "{said}");
    assert!(
        said.contains("2 mistakes") && said.contains("/nowhere/cert") && said.contains("/nowhere/key"),
        "{said}"
    );
    let (code, said) = refused("ponger", "service:\n  port: 0\n  protocol: https\n");
    assert!(code == Some(64) && said.contains("service.tlsCertificate: is missing"), "{said}");
    let (code, said) = refused("ponger", "service:\n  port: 0\n  tlsCertificate: /nowhere/cert\n");
    assert!(code == Some(64) && said.contains("service.tlsPrivateKey: is missing"), "{said}");
    let (code, said) = refused("pinger", "ponger:\n  url: pong:8080\n  acceptCert: /nowhere/cert\n");
    assert!(code == Some(64) && said.contains("2 mistakes"), "{said}");
    let (code, said) = refused("pinger", "ponger: [\n");
    assert!(code == Some(64) && said.contains("line 2"), "{said}");
}

/// PNG-10 PNG-11
#[test]
fn the_pinger_goes_on_whatever_happens_and_tells_it() {
    let folder = folder();
    let port = free_port();
    let pinger = Program::start("pinger", folder.path(), &pinger_of(&format!("http://127.0.0.1:{port}/")));
    pinger.until_logged("Starting to ping");
    pinger.until_logged("Request failed");
    pinger.until_figure("ping_requests_total{result=\"not_connected\"}", 2);
    let text = format!("service:\n  port: {port}\n  address: 127.0.0.1\n  protocol: http\n");
    let ponger = Program::start("ponger", folder.path(), &text);
    pinger.until_logged("Got pong");
    pinger.until_figure("ping_requests_total{result=\"success\"}", 5);
    pinger.until_figure("ping_duration_seconds_count", 5);
    let log = pinger.log();
    assert!(log.find("Sent ping") < log.find("Got pong"), "{log}");
    assert_eq!(ponger.figure("http_connections_open"), 1, "the connection is kept");
    drop(ponger);
    let failed = pinger.figure("ping_requests_total{result=\"not_connected\"}");
    pinger.until_figure("ping_requests_total{result=\"not_connected\"}", failed + 2);
}

/// PNG-11
#[test]
fn a_ponger_that_never_answers_is_given_up_and_asked_again() {
    let folder = folder();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", silent.local_addr().expect("it has an address"));
    let pinger = Program::start("pinger", folder.path(), &format!("{}  timeout: 50\n", pinger_of(&url)));
    pinger.until_figure("ping_requests_total{result=\"timeout\"}", 2);
}

/// PNG-17
#[test]
fn both_end_on_either_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = folder();
        let (ponger, port) = plain_ponger(folder.path());
        let pinger = Program::start("pinger", folder.path(), &pinger_of(&format!("http://127.0.0.1:{port}")));
        pinger.until_logged("Got pong");
        for program in [pinger, ponger] {
            let (status, log) = program.signal(signal);
            assert!(status.success() && log.contains("ended"), "{status}: {log}");
        }
    }
}
