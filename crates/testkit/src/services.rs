//! Both services together, as tests need them: billing charges through payments. Knows names of settings; judges
//! nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::certs::{Authority, replace};
use crate::http;
use crate::ledger::Verdict;
use crate::postgres::{Database, DatabaseClient};
use crate::process::{Process, Spec, run_by};
use crate::runs::{self, PROGRESS_EVERY};
use crate::wait::pause;

/// Maximum wait for a lock while a service writes to its SQLite file.
const BUSY_WITHIN: Duration = Duration::from_secs(30);

/// Running billing and payments; dropping this ends both by SIGKILL and deletes their folder.
#[derive(Debug)]
pub struct Services {
    pub billing: Process,
    pub payments: Process,
    /// Further replicas of billing on the same database.
    pub more_billing: Vec<Process>,
    /// Further replicas of payments on the same database.
    pub more_payments: Vec<Process>,
    databases: Option<Databases>,
    dir: TempDir,
}

/// The PostgreSQL databases of both services.
#[derive(Clone, Debug)]
struct Databases {
    billing: String,
    payments: String,
}

/// Number of PAID invoices at the last read, and the time of its last change.
#[derive(Debug)]
pub struct Progress {
    within: Duration,
    paid: i64,
    since: Instant,
}

impl Progress {
    /// Requires another PAID invoice at least this often.
    #[must_use]
    pub fn within(within: Duration) -> Self {
        Self { within, paid: 0, since: Instant::now() }
    }
}

/// A URL of services that run elsewhere (containers, a cluster), for tests that only call them, from `BILLING_URL` or
/// `PAYMENTS_URL`. `None`: the test starts its own services.
#[must_use]
pub fn given_url(variable: &str) -> Option<String> {
    let url = std::env::var_os(variable)?.into_string().ok()?;
    let url = url.trim_end_matches('/');
    (!url.is_empty()).then(|| url.to_owned())
}

/// The settings of services that are not started yet.
#[derive(Clone, Debug)]
pub struct Builder {
    billing: Spec,
    payments: Spec,
    provider_path: String,
    dir: Option<PathBuf>,
    databases: Option<Databases>,
    mutual_tls: bool,
    replicas: usize,
}

impl Services {
    /// Starts both services with defaults and provider keys. Tests pass `env!("CARGO_BIN_EXE_tinjis")`.
    #[must_use]
    #[track_caller]
    pub fn start(tinjis: impl AsRef<Path>) -> Self {
        Self::of(tinjis).start()
    }

    /// Both services as `tinjis run` starts them. Tests pass `env!("CARGO_BIN_EXE_tinjis")`.
    #[must_use]
    pub fn of(tinjis: impl AsRef<Path>) -> Builder {
        Builder::new(run_by(&tinjis, "billing"), run_by(&tinjis, "payments"))
    }

    /// Billing's business URL.
    #[must_use]
    pub fn billing_url(&self) -> String {
        self.billing.url()
    }

    /// Payments' business URL.
    #[must_use]
    pub fn payments_url(&self) -> String {
        self.payments.url()
    }

    /// Sends SIGKILL to billing.
    pub fn kill_billing(&mut self) {
        self.billing.kill();
    }

    /// Sends SIGKILL to payments.
    pub fn kill_payments(&mut self) {
        self.payments.kill();
    }

    /// Sends SIGTERM to billing; returns its exit status.
    #[track_caller]
    pub fn stop_billing(&mut self) -> ExitStatus {
        self.billing.stop()
    }

    /// Sends SIGTERM to payments; returns its exit status.
    #[track_caller]
    pub fn stop_payments(&mut self) -> ExitStatus {
        self.payments.stop()
    }

    /// The single number that a query on billing's store returns, read without the service.
    ///
    /// # Panics
    /// When the query fails.
    #[must_use]
    #[track_caller]
    pub fn ask_billing(&self, query: &str) -> i64 {
        match &self.databases {
            Some(urls) => DatabaseClient::to(&urls.billing).ask(query),
            None => crate::ledger::ask(&self.billing.db(), query),
        }
    }

    /// The single number that a query on payments' ledger returns.
    ///
    /// # Panics
    /// When the query fails.
    #[must_use]
    #[track_caller]
    pub fn ask_payments(&self, query: &str) -> i64 {
        match &self.databases {
            Some(urls) => DatabaseClient::to(&urls.payments).ask(query),
            None => crate::ledger::ask(&self.payments.db(), query),
        }
    }

    /// Runs statements on billing's store without the service, separated by semicolons.
    ///
    /// # Panics
    /// When a statement fails.
    #[track_caller]
    pub fn run_billing(&self, statements: &str) {
        let Some(urls) = &self.databases else {
            let store = rusqlite::Connection::open(self.billing.db()).expect("a store can be opened");
            store.busy_timeout(BUSY_WITHIN).expect("a store can be waited for");
            return store.execute_batch(statements).expect("the statements are right");
        };
        DatabaseClient::to(&urls.billing).run(statements);
    }

    /// The folder of both stores and logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Compares both stores, read without the services; on PostgreSQL both are in one database.
    #[must_use]
    #[track_caller]
    pub fn judge(&self) -> Verdict {
        match &self.databases {
            Some(urls) => crate::postgres::judge(&urls.billing),
            None => crate::ledger::judge(&self.billing.db(), &self.payments.db()),
        }
    }

    /// Imports this many PENDING invoices `{prefix}1 …` over 100 customers, each currency in turn.
    ///
    /// # Panics
    /// When a row is refused.
    #[track_caller]
    pub fn import(&self, prefix: &str, count: usize) {
        /// Rows of one request: about 80 bytes each, well below the limit of a body.
        const ROWS: usize = 5000;
        const CURRENCIES: [&str; 5] = ["EUR", "USD", "DKK", "SEK", "GBP"];
        let all: Vec<usize> = (1..=count).collect();
        for part in all.chunks(ROWS) {
            let mut rows = String::new();
            for number in part {
                let customer = number % 100 + 1;
                let currency = CURRENCIES[customer % CURRENCIES.len()];
                let amount = format!("{}.{:02}", number % 490 + 10, number % 100);
                rows.push_str(&format!(
                    "{{\"reference\":\"{prefix}{number}\",\"customer_id\":{customer},\
                     \"currency\":\"{currency}\",\"amount\":\"{amount}\"}}\n"
                ));
            }
            self.import_rows(&rows);
        }
        let known =
            self.ask_billing(&format!("SELECT count(*) FROM invoices WHERE reference LIKE '{prefix}%'"));
        assert_eq!(usize::try_from(known).ok(), Some(count), "each row was imported");
    }

    /// Imports these lines of NDJSON.
    ///
    /// # Panics
    /// When the lines are refused.
    #[track_caller]
    pub fn import_rows(&self, rows: &str) {
        let url = format!("{}/v1/imports", self.billing_url());
        let answer = http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], rows.as_bytes());
        assert_eq!(answer.status, 200, "import: {}", answer.text());
    }

    /// Calls `POST /rest/v1/invoices/pay` until it answers `true`, also after a 503 or no answer. Returns the number of
    /// calls.
    ///
    /// # Panics
    /// When no further invoice is paid within this time: a machine may be slow, but must make progress.
    #[track_caller]
    pub fn pay_until_true(&self, within: Duration) -> usize {
        let (mut calls, mut progress) = (1, Progress::within(within));
        while !self.is_all_paid() {
            self.assert_progress(&mut progress);
            calls += 1;
        }
        calls
    }

    /// Checks progress in a loop that does more than [`Self::pay_until_true`] between two requests.
    ///
    /// # Panics
    /// When no further invoice is paid within the time.
    #[track_caller]
    pub fn assert_progress(&self, progress: &mut Progress) {
        let paid = self.ask_billing("SELECT count(*) FROM invoices WHERE state = 'PAID'");
        if paid != progress.paid {
            (progress.paid, progress.since) = (paid, Instant::now());
        }
        assert!(
            progress.since.elapsed() < progress.within,
            "{paid} are paid, and no more since {:?}; {}",
            progress.within,
            self.condition()
        );
        pause(PROGRESS_EVERY);
    }

    /// The state that both services report, for the message of a failed wait.
    #[must_use]
    pub fn condition(&self) -> String {
        format!(
            "billing: {:?}, payments: {:?}; deployment: {:?}",
            self.billing.readiness(),
            self.payments.readiness(),
            http::try_call("GET", &format!("{}/v1/deployment", self.billing_url()), &[], b"")
                .map(|answer| answer.text()),
        )
    }

    /// Makes one `POST /rest/v1/invoices/pay`; returns whether it answered `true`.
    #[must_use]
    pub fn is_all_paid(&self) -> bool {
        let url = format!("{}/rest/v1/invoices/pay", self.billing_url());
        let answer = http::try_call("POST", &url, &[], b"");
        answer.is_ok_and(|answer| answer.status == 200 && answer.body == b"true")
    }

    /// [`runs::start`] at billing.
    #[must_use]
    #[track_caller]
    pub fn start_run(&self) -> String {
        runs::start(&self.billing_url())
    }
}

impl Builder {
    /// Both services by their programs with first arguments, such as the thin binaries.
    #[must_use]
    pub fn new(billing: Vec<OsString>, payments: Vec<OsString>) -> Self {
        let mut billing = Spec::new(billing, "billing", "");
        billing.env.insert("PAYMENT_PROVIDER_IDEMPOTENCY".to_owned(), "keys".to_owned());
        Self {
            billing,
            payments: Spec::new(payments, "payments", ""),
            provider_path: String::new(),
            dir: None,
            databases: None,
            mutual_tls: false,
            replicas: 1,
        }
    }

    /// Adds flags of billing, which override the test kit's variables.
    #[must_use]
    pub fn billing_flags<S: Into<String>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.billing.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Adds flags of payments, which override the test kit's variables.
    #[must_use]
    pub fn payments_flags<S: Into<String>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.payments.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of billing; an empty one counts as unset.
    #[must_use]
    pub fn billing_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.billing.env.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a variable of payments; an empty one counts as unset.
    #[must_use]
    pub fn payments_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.payments.env.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the path of payments for charges, such as `/payments/pay`; none by default.
    #[must_use]
    pub fn provider_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.provider_path);
        self
    }

    /// Sets the number of replicas of each service on one PostgreSQL database; SQLite allows one.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets the soft and hard limit of `ulimit -n` for both services.
    #[must_use]
    pub fn nofile(mut self, limit: u64) -> Self {
        self.billing.nofile = Some(limit);
        self.payments.nofile = Some(limit);
        self
    }

    /// Sets the parent of the folder for stores and logs: a benchmark needs one on a real disk.
    #[must_use]
    pub fn inside(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Uses this PostgreSQL database for both services, and migrates it first.
    #[must_use]
    pub fn database(self, url: &str) -> Self {
        self.databases(url, url)
    }

    /// Uses a PostgreSQL database for each service, and migrates both first.
    #[must_use]
    pub fn databases(mut self, billing: &str, payments: &str) -> Self {
        for (spec, url) in [(&mut self.billing, billing), (&mut self.payments, payments)] {
            spec.env.insert("DATABASE_URL".to_owned(), url.to_owned());
        }
        self.databases = Some(Databases { billing: billing.to_owned(), payments: payments.to_owned() });
        self
    }

    /// Makes billing charge over mutual TLS, with fresh certificates; its own routes stay plain.
    #[must_use]
    pub fn mutual_tls(mut self) -> Self {
        self.mutual_tls = true;
        self
    }

    /// As [`Self::database`], if there is a database.
    #[must_use]
    pub fn on(self, database: Option<&Database>) -> Self {
        match database {
            Some(database) => self.database(database.url()),
            None => self,
        }
    }

    /// Starts payments, then billing that charges there, and waits until both are ready.
    ///
    /// # Panics
    /// When a service does not become ready; the message ends with its log.
    #[must_use]
    #[track_caller]
    pub fn start(mut self) -> Services {
        let dir = match &self.dir {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        let dir = dir.expect("a folder can be made");
        self.payments.dir = dir.path().to_owned();
        self.billing.dir = dir.path().to_owned();
        if self.mutual_tls {
            certify(dir.path(), &mut self.billing, &mut self.payments);
        }
        if self.databases.is_some() {
            Process::new(self.payments.clone()).run_to_end("migrate");
            Process::new(self.billing.clone()).run_to_end("migrate");
        }
        let replicas = |spec: &Spec| (1..self.replicas).map(|_| Process::start(spec.clone())).collect();
        let payments = Process::start(self.payments.clone());
        let more_payments = replicas(&self.payments);
        let base = match self.mutual_tls {
            true => format!("https://localhost:{}", payments.address().port()),
            false => payments.url(),
        };
        let endpoint = format!("{base}{}", self.provider_path);
        self.billing.env.entry("PAYMENT_PROVIDER_ENDPOINT".to_owned()).or_insert(endpoint);
        let more_billing = replicas(&self.billing);
        let billing = Process::start(self.billing);
        Services { billing, payments, more_billing, more_payments, databases: self.databases, dir }
    }
}

/// Makes a CA, the certificate of payments and its SAN allow-list.
fn certify(folder: &Path, billing: &mut Spec, payments: &mut Spec) {
    const CLIENT: &str = "spiffe://test/billing";
    let authority = Authority::new("both sides");
    let ca = folder.join("ca.pem");
    replace(&ca, &authority.pem());
    let (server, server_key) = authority.server("localhost").write(folder, "server");
    let (client, client_key) = authority.client(CLIENT).write(folder, "client");
    let set = |spec: &mut Spec, name: &str, path: &Path| {
        spec.env.insert(name.to_owned(), path.display().to_string());
    };
    set(payments, "TLS_CERT", &server);
    set(payments, "TLS_KEY", &server_key);
    set(payments, "TLS_CLIENT_CA", &ca);
    payments.env.insert("TLS_ALLOWED_CLIENTS".to_owned(), CLIENT.to_owned());
    set(billing, "PROVIDER_CA", &ca);
    set(billing, "PROVIDER_CERT", &client);
    set(billing, "PROVIDER_KEY", &client_key);
}
