//! Both services with databases of their own, a folder for backups, and the page with the commands that restore them.
//! Judges nothing.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use testkit::page::Page;
use testkit::wait::wait_until;
use testkit::{Database, Services, http};

/// The program under test.
pub(crate) const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Maximum duration of a step, on any machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(300);
/// An address without a listener: billing with this provider charges nothing.
pub(crate) const NOWHERE: &str = "http://127.0.0.1:9";
/// Number of charges in the ledger.
pub(crate) const CHARGES: &str = "SELECT count(DISTINCT key) FROM ledger WHERE state = 'CHARGED'";

/// Both services, their backups and the page.
pub(crate) struct Site {
    pub(crate) services: Services,
    databases: Option<[Database; 2]>,
    backups: TempDir,
    page: Page,
}

impl Site {
    pub(crate) fn on_sqlite() -> Self {
        Self::start(None, &["--success-rate=0.8"], "")
    }

    /// Both services on PostgreSQL; `None` where there is no server.
    pub(crate) fn on_postgres(what: &str) -> Option<Self> {
        Some(Self::start(Some(databases(what)?), &["--success-rate=0.8"], ""))
    }

    /// A provider that declines nothing, and follows this fault script.
    pub(crate) fn with_faults(databases: Option<[Database; 2]>, script: &str) -> Self {
        Self::start(databases, &["--success-rate=1"], script)
    }

    /// A provider whose test amounts decide the outcome.
    pub(crate) fn with_test_amounts(databases: Option<[Database; 2]>) -> Self {
        Self::start(databases, &["--success-rate=1", "--test-amounts=true"], "")
    }

    fn start(databases: Option<[Database; 2]>, flags: &[&str], script: &str) -> Self {
        let backups = tempfile::tempdir().expect("a folder can be made");
        let faults = backups.path().join("faults.toml");
        std::fs::write(&faults, script).expect("a script can be written");
        let builder = Services::of(TINJIS)
            .payments_flags(["--seed=11"])
            .payments_flags(flags.iter().copied())
            .payments_env("FAULTS", faults.to_str().expect("a test's path is UTF-8"));
        let services = match &databases {
            Some([billing, payments]) => builder.databases(billing.url(), payments.url()).start(),
            None => builder.start(),
        };
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/how-to/backup.md");
        let page = Page::open(&page, TINJIS, services.dir());
        Self { services, databases, backups, page }
    }

    /// A heading that the page has once for each database.
    pub(crate) fn of_database(&self, heading: &str) -> String {
        format!("{heading}, {}", if self.databases.is_some() { "PostgreSQL" } else { "SQLite" })
    }

    pub(crate) fn backups(&self) -> &Path {
        self.backups.path()
    }

    /// Runs the page's commands under a heading; returns exit code and output.
    pub(crate) fn page_says(&self, heading: &str, more: &[(&str, &str)]) -> (Option<i32>, String) {
        self.run(&self.page.commands(heading), more)
    }

    /// Runs the page's commands under a heading, except those that contain a word, like an operator who forgets them.
    #[track_caller]
    pub(crate) fn page_runs_without(&self, heading: &str, word: &str) {
        let commands = self.page.commands(heading);
        let (left_out, left): (Vec<&str>, Vec<&str>) = commands.lines().partition(|line| line.contains(word));
        assert_eq!(left_out.len(), 1, "{heading} has one command with {word}");
        let (code, said) = self.run(&left.join("\n"), &[]);
        assert_eq!(code, Some(0), "{heading}: {said}");
    }

    fn run(&self, commands: &str, more: &[(&str, &str)]) -> (Option<i32>, String) {
        let text = |path: &Path| path.to_str().expect("a test's path is UTF-8").to_owned();
        let (data, backups) = (text(self.services.dir()), text(self.backups()));
        let (billing, payments) = (self.services.billing_url(), self.services.payments_url());
        let urls = self.databases.as_ref().map(|[billing, payments]| (billing.url(), payments.url()));
        let (billing_db, payments_db) = urls.unwrap_or_default();
        let mut variables = vec![
            ("DATA", data.as_str()),
            ("BACKUPS", &backups),
            ("BILLING", &billing),
            ("PAYMENTS", &payments),
            ("BILLING_DB", billing_db),
            ("PAYMENTS_DB", payments_db),
        ];
        variables.extend_from_slice(more);
        let output = self.page.run(commands, &variables);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs the page's commands under a heading, which must succeed.
    #[track_caller]
    pub(crate) fn page_runs(&self, heading: &str) {
        let (code, said) = self.page_says(heading, &[]);
        assert_eq!(code, Some(0), "{heading}: {said}");
    }

    /// Pays until the ledger has more than this many charges.
    pub(crate) fn wait_for_charges(&self, charges: i64) {
        wait_until("charges", WITHIN, || {
            let _busy = http::try_call("POST", &format!("{}/v1/runs", self.services.billing_url()), &[], b"");
            self.services.ask_payments(CHARGES) > charges
        });
    }

    /// The keys that the ledger has charged.
    pub(crate) fn charged_keys(&self) -> Vec<String> {
        let query = "SELECT key FROM ledger WHERE state = 'CHARGED' AND key IS NOT NULL ORDER BY key";
        match &self.databases {
            Some([_, payments]) => {
                let rows = testkit::postgres::DatabaseClient::to(payments.url())
                    .rows(query)
                    .expect("a ledger can be read");
                rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
            }
            None => testkit::ledger::texts(&self.services.payments.db(), query),
        }
    }
}

/// One database for each service; `None` where there is no PostgreSQL.
pub(crate) fn databases(what: &str) -> Option<[Database; 2]> {
    Some([Database::fresh(what)?, Database::fresh(what)?])
}
