//! All four services over mutual TLS, and their metrics and logs. Knows settings and metrics.

use std::fs;

use tempfile::TempDir;
use testkit::Process;
use testkit::ledger::ask;
use testkit::process::{Spec, run_by};

use crate::mount::{CLIENT, Mount};
use crate::tokens::Tokens;

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");

pub(crate) struct Site {
    pub(crate) billing: Process,
    pub(crate) payments: Process,
    pair: Pair,
    _folder: TempDir,
}

/// Pinger and ponger.
pub(crate) struct Pair {
    pub(crate) ponger: Process,
    pub(crate) pinger: Process,
}

impl Pair {
    /// Starts the pair over mutual TLS, in a folder of its own.
    pub(crate) fn start(mount: &Mount, folder: &TempDir) -> Self {
        Self::of(mount, &|name| Spec::new(run_by(TINJIS, name), name, folder.path()))
    }

    fn of(mount: &Mount, spec: &dyn Fn(&'static str) -> Spec) -> Self {
        let ponger = Self::one(spec("ponger"), |port| {
            format!(
                "service:\n  port: {port}\n  address: 127.0.0.1\n  tlsCertificate: {}\n  tlsPrivateKey: {}\n  \
                 clientCA: {}\n  allowedClients: ['{CLIENT}']\n",
                mount.text("server.pem"),
                mount.text("server.key"),
                mount.text("ca.pem")
            )
        });
        let pong = ponger.address().port();
        let pinger = Self::one(spec("pinger"), |_| {
            format!(
                "ponger:\n  url: https://localhost:{pong}\n  acceptCert: {}\n  clientCert: {}\n  clientKey: {}\n  \
                 interval: 5ms\n",
                mount.text("ca.pem"),
                mount.text("client.pem"),
                mount.text("client.key")
            )
        });
        Self { ponger, pinger }
    }

    /// Starts pinger or ponger, which read a file instead of variables.
    fn one(mut spec: Spec, configuration: impl Fn(u16) -> String) -> Process {
        let file = spec.dir.join(format!("{}.yaml", spec.name));
        spec.flags = vec!["-c".to_owned(), file.display().to_string()];
        let mut process = Process::new(spec);
        let (_, admin) =
            process.admin_url().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a port");
        let metrics = format!("metrics:\n  port: {admin}\n  address: 127.0.0.1\n");
        fs::write(file, configuration(process.address().port()) + &metrics).expect("a file");
        process.start_again();
        process
    }

    /// Whether both have loaded this many changes.
    pub(crate) fn has_taken(&self, changes: i64) -> bool {
        [&self.ponger, &self.pinger]
            .iter()
            .all(|process| process.metric(&["tls_reloads_total", "\"ok\""]) >= changes)
    }

    pub(crate) fn pings(&self) -> i64 {
        self.pinger.metric(&["ping_requests_total", "\"success\""])
    }
}

impl Site {
    pub(crate) fn start(mount: &Mount, tokens: &Tokens) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spec = |name| {
            let mut spec = Spec::new(run_by(TINJIS, name), name, folder.path());
            let mut set = |name: &str, value: &str| spec.env.insert(name.to_owned(), value.to_owned());
            // At this level the log shows each reload of a token file, and little else.
            set("LOG_LEVEL", "warn,chassis::caller=info");
            if matches!(name, "billing" | "payments") {
                set("TLS_CERT", &mount.text("server.pem"));
                set("TLS_KEY", &mount.text("server.key"));
                set("TLS_CLIENT_CA", &mount.text("ca.pem"));
                set("TLS_ALLOWED_CLIENTS", CLIENT);
            }
            spec
        };
        let mut payments = spec("payments");
        payments.flags = ["--success-rate", "1"].map(ToOwned::to_owned).into();
        payments.env.extend(tokens.payments_settings());
        let payments = Process::start(payments);
        let mut billing = spec("billing");
        for (name, value) in [
            ("PAYMENT_PROVIDER_ENDPOINT", format!("https://localhost:{}", payments.address().port())),
            ("PAYMENT_PROVIDER_IDEMPOTENCY", "keys".to_owned()),
            ("PROVIDER_CA", mount.text("ca.pem")),
            ("PAYMENTS_API_TOKEN_FILE", tokens.text("billing-tokens")),
            ("PROVIDER_TOKEN_FILE", tokens.text("billing-jwt")),
            ("OPERATOR_TOKEN_FILE", tokens.text("operator-tokens")),
            ("PROVIDER_CERT", mount.text("client.pem")),
            ("PROVIDER_KEY", mount.text("client.key")),
        ] {
            billing.env.insert(name.to_owned(), value);
        }
        let billing = Process::start(billing);
        let pair = Pair::of(mount, &spec);
        Self { billing, payments, pair, _folder: folder }
    }

    fn all(&self) -> [(&Process, i64); 4] {
        // The number of certificate sets of each: billing has one as a server and one as a client.
        [(&self.billing, 2), (&self.payments, 1), (&self.pair.ponger, 1), (&self.pair.pinger, 1)]
    }

    /// Whether every service has loaded this many changes.
    pub(crate) fn has_taken(&self, changes: i64) -> bool {
        self.all()
            .iter()
            .all(|(process, sets)| process.metric(&["tls_reloads_total", "\"ok\""]) >= changes * sets)
    }

    /// Whether every server has counted one unusable file.
    pub(crate) fn has_refused_a_file(&self) -> bool {
        [&self.billing, &self.payments, &self.pair.ponger]
            .iter()
            .all(|process| process.metric(&["tls_reloads_total", "\"bad\""]) == 1)
    }

    /// A path of each server that legacy clients may call.
    pub(crate) fn urls(&self) -> [String; 3] {
        let url = |process: &Process, path| format!("https://localhost:{}{path}", process.address().port());
        [url(&self.billing, "/rest/health"), url(&self.payments, "/ping"), url(&self.pair.ponger, "/ping")]
    }

    /// A path of each server that requires all its credentials.
    pub(crate) fn calls(&self) -> [String; 3] {
        let [billing, payments, ponger] = self.urls();
        [billing, payments.replace("/ping", "/v1/ledger?limit=1"), ponger]
    }

    /// How often payments and billing have reloaded token files.
    pub(crate) fn token_files_read(&self) -> (usize, usize) {
        let times = |process: &Process| process.log().matches("reloaded the token file").count();
        (times(&self.payments), times(&self.billing))
    }

    /// Number of callers that payments and billing refused.
    pub(crate) fn refused(&self) -> i64 {
        self.payments.metric(&["caller_refusals_total"]) + self.billing.metric(&["caller_refusals_total"])
    }

    /// Number of charges, and of attempts that were not sent exactly once or not charged.
    pub(crate) fn charges(&self) -> (i64, i64) {
        let db = self.billing.db();
        (
            ask(&db, "SELECT count(*) FROM attempts WHERE state = 'CHARGED'"),
            ask(&db, "SELECT count(*) FROM attempts WHERE sends <> 1 OR state <> 'CHARGED'"),
        )
    }

    pub(crate) fn pings(&self) -> i64 {
        self.pair.pings()
    }

    /// Metrics of charges and pings that did not succeed.
    pub(crate) fn other_outcomes(&self) -> Vec<String> {
        let page = |process: &Process| testkit::http::get(&format!("{}/metrics", process.admin_url())).text();
        let pages = page(&self.billing) + &page(&self.pair.pinger);
        let figures = pages.lines().filter(|line| {
            ["billing_attempts_total{", "ping_requests_total{"].iter().any(|name| line.starts_with(name))
        });
        let bad = figures.filter(|line| {
            !["\"charged\"", "\"success\""].iter().any(|good| line.contains(good)) && !line.ends_with(" 0")
        });
        bad.map(ToOwned::to_owned).collect()
    }
}
