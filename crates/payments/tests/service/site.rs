//! A running payment service in a folder of its own, and the few calls that every test makes. Knows settings and
//! routes, but nothing of the code behind them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{Connection, try_call};
use testkit::process::Spec;
use testkit::{Answer, Process};

/// Three fields that every billing program sends.
pub(crate) const GOOD: &str = r#"{"customer_id":1,"currency":"USD","value":1.25}"#;

/// A started service and its folder; both are removed when dropped.
pub(crate) struct Site {
    pub(crate) process: Process,
    pub(crate) dir: TempDir,
}

/// Settings with which a service is started.
#[derive(Default)]
pub(crate) struct Settings {
    flags: Vec<String>,
    env: BTreeMap<String, String>,
    script: Option<String>,
}

/// Settings of a service that always charges and requires no token.
pub(crate) fn willing() -> Settings {
    Settings::default().flags(["--success-rate", "1", "--seed", "8213"])
}

impl Settings {
    pub(crate) fn flags<const N: usize>(mut self, flags: [&str; N]) -> Self {
        self.flags.extend(flags.map(str::to_owned));
        self
    }

    pub(crate) fn all_flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn faults(mut self, script: &str) -> Self {
        self.script = Some(script.to_owned());
        self
    }

    pub(crate) fn start(mut self) -> Site {
        let dir = TempDir::new().expect("a folder for the test");
        if let Some(script) = &self.script {
            let path = dir.path().join("faults.toml");
            std::fs::write(&path, script).expect("a script can be written");
            self.flags.extend(["--faults".to_owned(), path.display().to_string()]);
        }
        let spec = Spec {
            program: vec![env!("CARGO_BIN_EXE_payments").into()],
            flags: self.flags,
            env: self.env,
            nofile: None,
            dir: dir.path().to_owned(),
            name: "payments",
        };
        Site { process: Process::start(spec), dir }
    }
}

impl Site {
    /// A POST with these headers; an error when no complete response comes.
    pub(crate) fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        try_call("POST", &format!("{}{path}", self.process.url()), headers, body.as_bytes())
    }

    /// A POST with these headers.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_post(path, headers, body).expect("an answer")
    }

    /// A valid charge under this key.
    #[track_caller]
    pub(crate) fn charge(&self, key: &str) -> Answer {
        self.post("/", &[("Idempotency-Key", key)], GOOD)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_as(path, &[])
    }

    #[track_caller]
    pub(crate) fn get_as(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        try_call("GET", &format!("{}{path}", self.process.url()), headers, b"").expect("an answer")
    }

    /// A connection of its own, for several calls.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.process.address().to_string()).expect("a connection")
    }

    /// A number that is read from the database file, not from the service.
    pub(crate) fn ask(&self, sql: &str) -> i64 {
        testkit::ledger::ask(&self.process.db(), sql)
    }

    /// Number of CHARGED rows.
    pub(crate) fn charges(&self) -> i64 {
        self.ask("SELECT count(*) FROM ledger WHERE state = 'CHARGED'")
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(name)
    }
}

/// Status, content type and body: all that a legacy client sees.
pub(crate) fn seen(answer: &Answer) -> (u16, String, String) {
    (answer.status, answer.header("content-type").unwrap_or_default().to_owned(), answer.text())
}

/// Status and the last part of a problem's type; never with a `result`, which billing would read.
#[track_caller]
pub(crate) fn problem(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    let body = answer.json();
    assert_eq!(body.get("result"), None, "{body}");
    assert_eq!(body["status"], Value::from(answer.status), "{body}");
    let kind = body["type"].as_str().unwrap_or_default();
    (answer.status, kind.strip_prefix("urn:tinjis:problem:").unwrap_or(kind).to_owned())
}
