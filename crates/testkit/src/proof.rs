//! The result of a proof: one line of JSON in the folder `PROVE_OUT`, from which `make prove` prints its table. Also
//! the verdict that proofs share: the output of `tinjis verify`, on any database. Knows no proof.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Services;

/// A running proof; without [`Proof::end`] it has no result, which the table shows as failed.
#[derive(Debug)]
#[must_use = "a proof that does not end has proved nothing"]
pub struct Proof {
    what: String,
    began: Instant,
}

/// The result of `tinjis verify`.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The exit code.
    pub code: Option<i32>,
    /// The JSON object that it printed.
    pub json: Value,
    /// The text that it printed.
    pub said: String,
}

impl Proof {
    /// Begins a proof; `what` is the name of its row and its file.
    pub fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), began: Instant::now() }
    }

    /// Ends a proof successfully, with its counts; `how_many` describes its size.
    ///
    /// # Panics
    /// When the line cannot be written.
    #[track_caller]
    pub fn end(self, how_many: &str, double: u64, lost: u64) {
        let Self { what, began } = self;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let row =
            json!({"what": what, "how_many": how_many, "double": double, "lost": lost, "took_ms": took_ms});
        progress(&format!("{what}: {how_many}; double {double}, lost {lost}"));
        if let Some(folder) = std::env::var_os("PROVE_OUT").filter(|folder| !folder.is_empty()) {
            let file = Path::new(&folder).join(format!("{}.json", what.replace([' ', ','], "-")));
            std::fs::write(&file, format!("{row}\n")).expect("the row can be written");
        }
    }
}

/// Prints a progress line.
///
/// # Panics
/// When the line cannot be written.
#[track_caller]
pub fn progress(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("progress can be written");
}

impl Verified {
    /// Runs `tinjis verify --json` for these services, with more flags.
    ///
    /// # Panics
    /// When it prints no object.
    #[must_use]
    #[track_caller]
    pub fn of(tinjis: &str, services: &Services, flags: &[&str]) -> Self {
        Self::between(tinjis, (&services.billing_url(), &services.payments_url()), flags)
    }

    /// Runs `tinjis verify --json` for a billing and a payments by their URLs.
    ///
    /// # Panics
    /// When it prints no object.
    #[must_use]
    #[track_caller]
    pub fn between(tinjis: &str, (billing, payments): (&str, &str), flags: &[&str]) -> Self {
        let output = Command::new(tinjis)
            .args(["verify", "--json", "--billing", billing, "--payments", payments])
            .args(flags)
            .env_clear()
            .output()
            .expect("the command can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match serde_json::from_slice(&output.stdout) {
            Ok(json) => Self { code: output.status.code(), json, said },
            Err(error) => panic!("{error}: {said}"),
        }
    }

    /// A number in the object.
    ///
    /// # Panics
    /// When the object has no such number.
    #[must_use]
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.json[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {}", self.json))
    }

    /// Asserts that everything is charged once and PAID, and nothing is open.
    ///
    /// # Panics
    /// When the assertion fails.
    #[track_caller]
    pub fn assert_all_paid(&self, context: &str) {
        let open: Vec<u64> =
            ["double", "lost", "in_doubt", "open", "findings_total"].map(|name| self.number(name)).into();
        assert_eq!(open, [0; 5], "{context}: double, lost, in doubt, open, findings: {}", self.json);
        assert_eq!(self.number("paid"), self.number("invoices"), "{context}: {}", self.json);
        assert_eq!((self.code, &self.json["verdict"]), (Some(0), &"ok".into()), "{context}: {}", self.said);
    }
}
