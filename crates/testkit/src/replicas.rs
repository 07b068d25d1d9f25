//! Several processes of each service on one PostgreSQL database, as in a cluster: each billing charges through a
//! payments of its own, and all payments share one ledger. Knows names of settings; judges nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::ledger::Verdict;
use crate::postgres::{Database, judge};
use crate::process::{Process, Spec, run_by};
use crate::wait::wait_for;
use crate::{http, runs};

/// The names of the logs.
const BILLINGS: [&str; 3] = ["billing-1", "billing-2", "billing-3"];
const PAYMENTS: [&str; 3] = ["payments-1", "payments-2", "payments-3"];

/// Running processes; dropping this ends them by SIGKILL and deletes their folder.
#[derive(Debug)]
pub struct Replicas {
    pub billings: Vec<Process>,
    pub payments: Vec<Process>,
    database: String,
    ledger: Option<PathBuf>,
    _dir: TempDir,
}

/// Number of processes, at most three of each service, and the settings of their start.
#[derive(Clone, Debug)]
pub struct Plan {
    pub billings: usize,
    /// Number of payments; `None`: one, with its ledger in SQLite.
    pub payments: Option<usize>,
    pub payments_flags: Vec<String>,
    /// Variables of each billing.
    pub billing_env: Vec<(String, String)>,
    /// The parent of the folder for logs and a SQLite ledger: a benchmark needs one on a real disk.
    pub inside: Option<PathBuf>,
}

impl Plan {
    #[must_use]
    pub fn three_of_each() -> Self {
        Self::of(3, Some(3))
    }

    /// A plan with this many billings and payments.
    #[must_use]
    pub fn of(billings: usize, payments: Option<usize>) -> Self {
        Self { billings, payments, payments_flags: Vec::new(), billing_env: Vec::new(), inside: None }
    }

    #[must_use]
    pub fn payments_flags<S: Into<String>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.payments_flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Adds a variable for each billing.
    #[must_use]
    pub fn billing_env(mut self, name: &str, value: &str) -> Self {
        self.billing_env.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Replicas {
    /// Migrates the database, starts all processes and waits until they are ready.
    ///
    /// # Panics
    /// When a process does not become ready; the message ends with its log.
    #[must_use]
    #[track_caller]
    pub fn start(tinjis: impl AsRef<Path>, database: &Database, plan: &Plan) -> Self {
        let dir = match &plan.inside {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        let dir = dir.expect("a folder can be made");
        let spec = |service, name, on_database: bool| {
            let mut spec = Spec::new(run_by(&tinjis, service), name, dir.path());
            if on_database {
                spec.env.insert("DATABASE_URL".to_owned(), database.url().to_owned());
            }
            spec
        };
        let payments: Vec<Process> = PAYMENTS[..plan.payments.unwrap_or(1)]
            .iter()
            .enumerate()
            .map(|(nth, name)| {
                let mut spec = spec("payments", name, plan.payments.is_some());
                spec.flags.extend(plan.payments_flags.iter().cloned());
                if nth == 0 && plan.payments.is_some() {
                    Process::new(spec.clone()).run_to_end("migrate");
                }
                Process::start(spec)
            })
            .collect();
        let billings = BILLINGS[..plan.billings]
            .iter()
            .enumerate()
            .map(|(nth, name)| {
                let mut spec = spec("billing", name, true);
                let provider = &payments[nth % payments.len()];
                spec.env.insert("PAYMENT_PROVIDER_ENDPOINT".to_owned(), provider.url());
                spec.env.insert("PAYMENT_PROVIDER_IDEMPOTENCY".to_owned(), "keys".to_owned());
                spec.env.extend(plan.billing_env.iter().cloned());
                if nth == 0 {
                    Process::new(spec.clone()).run_to_end("migrate");
                }
                Process::start(spec)
            })
            .collect();
        let ledger = plan.payments.is_none().then(|| payments[0].db());
        Self { billings, payments, database: database.url().to_owned(), ledger, _dir: dir }
    }

    /// Imports this many PENDING invoices `{prefix}1 …` of 12.15 EUR through one billing.
    ///
    /// # Panics
    /// When a row is refused.
    #[track_caller]
    pub fn import(&self, prefix: &str, count: usize) {
        const ROWS: usize = 5000;
        let url = format!("{}/v1/imports", self.billings[0].url());
        let all: Vec<usize> = (1..=count).collect();
        for part in all.chunks(ROWS) {
            let row = |number: &usize| {
                let customer = number % 100 + 1;
                format!(
                    "{{\"reference\":\"{prefix}{number}\",\"customer_id\":{customer},\"currency\":\"EUR\",\
                     \"amount\":\"12.15\"}}\n"
                )
            };
            let rows: String = part.iter().map(row).collect();
            let answer =
                http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], rows.as_bytes());
            assert_eq!(answer.status, 200, "import: {}", answer.text());
        }
    }

    /// Calls `POST /rest/v1/invoices/pay` at each billing in turn until the answer is `true`; returns the number of
    /// calls.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn pay_until_true(&self, within: Duration) -> usize {
        let mut calls = 0;
        wait_for("pay to answer true", within, || {
            let billing = &self.billings[calls % self.billings.len()];
            calls += 1;
            let url = format!("{}/rest/v1/invoices/pay", billing.url());
            let answer = http::try_call("POST", &url, &[], b"").ok()?;
            (answer.status == 200 && answer.body == b"true").then_some(())
        });
        calls
    }

    /// [`runs::start`] at one of the billings.
    #[track_caller]
    pub fn start_run(&self, at: usize) -> String {
        runs::start(&self.billings[at].url())
    }

    /// The single number that a query on billing's store returns.
    ///
    /// # Panics
    /// When the query fails.
    #[must_use]
    #[track_caller]
    pub fn ask_billing(&self, query: &str) -> i64 {
        crate::postgres::DatabaseClient::to(&self.database).ask(query)
    }

    /// The single number that a query on the ledger returns.
    ///
    /// # Panics
    /// When the query fails.
    #[must_use]
    #[track_caller]
    pub fn ask_payments(&self, query: &str) -> i64 {
        match &self.ledger {
            Some(path) => crate::ledger::ask(path, query),
            None => self.ask_billing(query),
        }
    }

    /// Compares both stores, read without the services; both must be on PostgreSQL.
    #[must_use]
    #[track_caller]
    pub fn judge(&self) -> Verdict {
        judge(&self.database)
    }

    /// The names of processes that have ended by themselves.
    pub fn ended(&mut self) -> Vec<String> {
        let all = self.billings.iter_mut().chain(&mut self.payments);
        all.filter_map(|process| process.ended().map(|status| format!("{}: {status}", process.url())))
            .collect()
    }
}
