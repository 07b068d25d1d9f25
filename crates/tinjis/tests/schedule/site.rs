//! Both services with subscriptions, and the command line on them.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testkit::services::Builder;
use testkit::wait::wait_until;
use testkit::{Database, Services};

/// The program under test.
pub(crate) const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Maximum duration of a step, on any machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(300);
pub(crate) const HEADER: &str = "reference,customer_id,currency,amount,anchor_day,zone,starts_on,ends_on\n";
/// Number of charged invoices.
pub(crate) const CHARGES: &str = "SELECT count(*) FROM ledger WHERE state = 'CHARGED'";
pub(crate) const INVOICES: &str = "SELECT count(*) FROM invoices";

pub(crate) struct Site {
    pub(crate) services: Services,
    dir: TempDir,
}

/// Output and exit code of a command.
#[derive(Debug)]
pub(crate) struct CommandResult {
    pub(crate) code: Option<i32>,
    pub(crate) result: String,
    pub(crate) notes: String,
}

/// Runs the command line with this billing.
pub(crate) fn tinjis(billing: &str, words: &[&str]) -> CommandResult {
    let output = Command::new(TINJIS)
        .args(words)
        .args(["--billing", billing])
        .env_clear()
        .output()
        .expect("the command can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    CommandResult { code: output.status.code(), result: text(&output.stdout), notes: text(&output.stderr) }
}

/// A command that is still running.
pub(crate) struct Running {
    child: Child,
    notes: PathBuf,
}

impl Running {
    /// Waits for the end of the command.
    pub(crate) fn ended(self) -> CommandResult {
        let output = self.child.wait_with_output().expect("the command ends");
        let result = String::from_utf8_lossy(&output.stdout).into_owned();
        let notes = fs::read_to_string(&self.notes).expect("its notes can be read");
        CommandResult { code: output.status.code(), result, notes }
    }
}

impl Site {
    /// Services whose schedule is off, and whose provider declines nothing.
    pub(crate) fn by_hand(database: Option<&Database>, flags: &[&str]) -> Self {
        let builder = Services::of(TINJIS).on(database).billing_flags(["--schedule=off"]);
        Self::of(builder.billing_flags(flags.iter().copied()))
    }

    pub(crate) fn of(builder: Builder) -> Self {
        Self::with(builder.payments_flags(["--success-rate=1", "--seed=5"]))
    }

    pub(crate) fn with(builder: Builder) -> Self {
        let services = builder.start();
        Self { services, dir: tempfile::tempdir().expect("a folder can be made") }
    }

    pub(crate) fn tinjis(&self, words: &[&str]) -> CommandResult {
        tinjis(&self.services.billing_url(), words)
    }

    /// Runs a command that must end with this code.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, words: &[&str]) -> CommandResult {
        let said = self.tinjis(words);
        assert_eq!(said.code, Some(code), "{words:?}: {said:?}");
        said
    }

    /// Starts a command and waits until it has printed this note.
    #[track_caller]
    pub(crate) fn begin(&self, words: &[&str], note: &str) -> Running {
        let notes = self.dir.path().join(words.join("-"));
        let file = fs::File::create(&notes).expect("a file can be made");
        let child = Command::new(TINJIS)
            .args(words)
            .args(["--billing", &self.services.billing_url()])
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .expect("the command can be started");
        wait_until(note, WITHIN, || fs::read_to_string(&notes).is_ok_and(|noted| noted.contains(note)));
        Running { child, notes }
    }

    /// Imports a file of subscriptions.
    #[track_caller]
    pub(crate) fn import(&self, rows: &str) {
        let said = self.import_file("subscriptions.csv", &format!("{HEADER}{rows}"));
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    pub(crate) fn import_file(&self, name: &str, text: &str) -> CommandResult {
        self.tinjis(&["subscriptions", "import", &self.write(name, text)])
    }

    /// Writes a file with this name; returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("a file can be written");
        path.into_os_string().into_string().expect("a test's path is UTF-8")
    }

    #[track_caller]
    pub(crate) fn change(&self, words: &[&str]) -> String {
        let all = [&["subscriptions"][..], words, &["--why", "a test", "--actor", "ann"]].concat();
        self.ends(0, &all).result
    }

    /// The invoices in `/v1`, ordered by reference: reference, amount, state.
    pub(crate) fn invoices(&self) -> Vec<(String, i64, String)> {
        let url = format!("{}/v1/invoices?limit=1000", self.services.billing_url());
        let answer = testkit::http::call("GET", &url, &[], b"");
        let page: serde_json::Value = serde_json::from_slice(&answer.body).expect("a page is JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("is text").to_owned();
        let mut rows: Vec<_> = page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| {
                let amount = item["amount_minor"].as_i64().expect("an amount");
                (text(&item["reference"]), amount, text(&item["state"]))
            })
            .collect();
        rows.sort();
        rows
    }

    pub(crate) fn references(&self) -> Vec<String> {
        self.invoices().into_iter().map(|(reference, ..)| reference).collect()
    }

    #[track_caller]
    pub(crate) fn assert_each_is_charged_once(&self) {
        let invoices = self.services.ask_billing(INVOICES);
        let paid = self.services.ask_billing("SELECT count(*) FROM invoices WHERE state = 'PAID'");
        let references = "SELECT count(DISTINCT reference) FROM ledger WHERE state = 'CHARGED'";
        let charged = (self.services.ask_payments(CHARGES), self.services.ask_payments(references));
        assert_eq!((paid, charged), (invoices, (invoices, invoices)));
        let verified = testkit::proof::Verified::of(TINJIS, &self.services, &[]);
        verified.assert_all_paid("each period is charged once");
    }
}
