//! One leg of the benchmark: fresh services, one way of charging, its cost, and the number of charges in the ledger.
//! Knows no goal.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::params;
use testkit::http::Connection;
use testkit::ledger::{ask, charged_keys};
use testkit::otlp::Receiver;
use testkit::wait::{timed, wait_until};
use testkit::{Services, http, runs};

use crate::replicas;

/// Requests that wrk keeps in flight, and billing too.
const IN_FLIGHT: u64 = 64;
/// The naive loop charges one invoice of this many: it is slow, and its rate does not depend on the number.
const LOOP_SHARE: usize = 50;
/// A run of any size ends within this, on any machine.
pub(crate) const RUN_WITHIN: Duration = Duration::from_secs(900);

/// One way of charging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    /// The load generator against the endpoint that billing uses.
    Wrk,
    /// Billing.
    PayRun,
    /// Billing over mutual TLS, on connections that are kept.
    PayRunTls,
    /// Billing, with one trace of a hundred sent to a collector.
    PayRunTraced,
    /// Billing by another build of tinjis, which `BENCH_OTHER` names.
    PayRunOther,
    /// The naive biller: one invoice after the other, a commit each, SQLite with its default journal (rollback) and
    /// FULL.
    Loop,
    /// The naive biller with a write-ahead log, as a careful author would choose.
    LoopWal,
    /// The load generator against payments on PostgreSQL.
    WrkPostgres,
    /// Billing on PostgreSQL.
    Postgres,
    /// Three billings on one PostgreSQL.
    PostgresThree,
}

impl Leg {
    /// All legs, in the order of the first round.
    pub(crate) const ALL: [Self; 10] = [
        Self::Wrk,
        Self::PayRun,
        Self::PayRunTls,
        Self::PayRunTraced,
        Self::PayRunOther,
        Self::Loop,
        Self::LoopWal,
        Self::WrkPostgres,
        Self::Postgres,
        Self::PostgresThree,
    ];

    /// The name of the leg in `BENCH_LEGS`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Wrk => "wrk",
            Self::PayRun => "sqlite",
            Self::PayRunTls => "tls",
            Self::PayRunTraced => "traced",
            Self::PayRunOther => "other",
            Self::Loop => "loop",
            Self::LoopWal => "wal-loop",
            Self::WrkPostgres => "wrk-postgres",
            Self::Postgres => "postgres",
            Self::PostgresThree => "postgres-3",
        }
    }

    /// Whether the leg needs PostgreSQL.
    pub(crate) fn is_on_postgres(self) -> bool {
        matches!(self, Self::WrkPostgres | Self::Postgres | Self::PostgresThree)
    }

    /// The name of the leg in the printed table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wrk => "wrk -t2 -c64, a fresh key each",
            Self::PayRun => "billing's pay run, 64 in flight",
            Self::PayRunTls => "the same over mutual TLS",
            Self::PayRunTraced => "the same with 1 % of traces",
            Self::PayRunOther => "the same by BENCH_OTHER",
            Self::Loop => "loop, one FULL commit each",
            Self::LoopWal => "the same loop, with a WAL",
            Self::WrkPostgres => "wrk, the ledger on PostgreSQL",
            Self::Postgres => "pay run on PostgreSQL, 1 replica",
            Self::PostgresThree => "pay run on PostgreSQL, 3 replicas",
        }
    }
}

/// The measurements of one leg. CPU is per charge, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: u64,
    pub(crate) cpu_billing_us: Option<u64>,
    pub(crate) cpu_payments_us: u64,
    pub(crate) peak_billing_kib: Option<u64>,
    pub(crate) peak_payments_kib: u64,
    pub(crate) keys: i64,
    /// CPU of all processes of PostgreSQL, where the benchmark has started it.
    pub(crate) cpu_database_us: Option<u64>,
    /// Bytes of PostgreSQL's write-ahead log per charge.
    pub(crate) wal_bytes: Option<u64>,
}

/// Runs a leg on services and stores of its own.
pub(crate) fn run(leg: Leg, invoices: usize) -> io::Result<Measured> {
    match leg {
        Leg::WrkPostgres => return replicas::wrk(invoices),
        Leg::Postgres => return replicas::run(1, invoices),
        Leg::PostgresThree => return replicas::run(3, invoices),
        _ => {}
    }
    // The folder is below the build's folder, which is on a disk: on a memory file system a FULL commit costs nothing.
    let own = || env!("CARGO_BIN_EXE_tinjis").into();
    let program = if leg == Leg::PayRunOther { other().unwrap_or_else(own) } else { own() };
    let receiver = (leg == Leg::PayRunTraced).then(Receiver::start);
    let mut builder = Services::of(program)
        .payments_flags(["--success-rate=1", "--seed=1", "--log-level=warn"])
        .billing_flags(["--log-level=warn"])
        .inside(env!("CARGO_TARGET_TMPDIR"));
    if let Some(receiver) = &receiver {
        let sampled = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url());
        for (name, value) in [endpoint, sampled, ("OTEL_TRACES_SAMPLER_ARG", "0.01".to_owned())] {
            builder = builder.billing_env(name, value.clone()).payments_env(name, value);
        }
    }
    let services = if leg == Leg::PayRunTls { builder.mutual_tls() } else { builder }.start();
    match leg {
        Leg::Wrk => wrk(&services, invoices),
        Leg::PayRun | Leg::PayRunTls | Leg::PayRunTraced | Leg::PayRunOther => {
            Ok(pay_run(&services, invoices))
        }
        Leg::Loop => naive_loop(&services, invoices.div_ceil(LOOP_SHARE), "DELETE"),
        Leg::LoopWal => naive_loop(&services, invoices.div_ceil(LOOP_SHARE), "WAL"),
        Leg::WrkPostgres | Leg::Postgres | Leg::PostgresThree => {
            Err(io::Error::other("a leg on PostgreSQL has no file"))
        }
    }
}

/// Another build to compare with, for example an earlier version.
pub(crate) fn other() -> Option<PathBuf> {
    std::env::var_os("BENCH_OTHER").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn pay_run(services: &Services, invoices: usize) -> Measured {
    services.import("B", invoices);
    let before = (services.billing.cpu_ms(), services.payments.cpu_ms());
    let (run, took) = timed(|| {
        let url = services.start_run();
        runs::wait(&url, RUN_WITHIN)
    });
    let cpu = (services.billing.cpu_ms() - before.0, services.payments.cpu_ms() - before.1);
    let charged = count(invoices);
    assert_eq!(run["paid"].as_u64(), Some(charged), "the run paid all: {run}");
    let paid = ask(&services.billing.db(), "SELECT count(*) FROM invoices WHERE state = 'PAID'");
    assert_eq!(u64::try_from(paid).ok(), Some(charged), "billing knows that all are paid");
    let figures = measured(services, charged, took, cpu.1);
    assert_eq!(u64::try_from(figures.keys).ok(), Some(charged), "one charge an invoice");
    Measured {
        cpu_billing_us: Some(cpu.0 * 1000 / charged),
        peak_billing_kib: Some(services.billing.rss_peak_kib()),
        ..figures
    }
}

fn wrk(services: &Services, invoices: usize) -> io::Result<Measured> {
    let before = services.payments.cpu_ms();
    let (charged, took) = load(&services.payments_url(), invoices)?;
    let figures = measured(services, charged, took, services.payments.cpu_ms() - before);
    assert_none_is_missing(charged, figures.keys);
    Ok(figures)
}

/// Runs wrk against payments at this address; returns the number of answered charges and the time.
pub(crate) fn load(url: &str, invoices: usize) -> io::Result<(u64, Duration)> {
    // Long enough for about as many charges as the other legs make.
    let seconds = (invoices / 20_000).clamp(1, 30);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/charging/charge.lua");
    let output = Command::new("wrk")
        // A disk that blocks a response for longer than wrk's default of two seconds is no error.
        .args(["-t2", "-c64", "--timeout", "60s", &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("{url}/"))
        .arg("--")
        .arg(format!("{:016x}", std::process::id()))
        .output()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("wrk cannot be run ({error}); is it installed?"))
        })?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| -> u64 {
        let found = said.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("wrk says {name}: {said}"))
    };
    assert_eq!(number("errors="), 0, "wrk saw no errors: {said}");
    Ok((number("charged="), Duration::from_micros(number("in_us="))))
}

/// Charges that were in flight when wrk stopped are in the ledger, but wrk did not count them.
pub(crate) fn assert_none_is_missing(charged: u64, keys: i64) {
    let keys = u64::try_from(keys).unwrap_or_default();
    assert!((charged..=charged + IN_FLIGHT).contains(&keys), "{charged} answers, {keys} keys in the ledger");
}

/// The naive biller with a key: selects one invoice, sends it, commits, repeats.
fn naive_loop(services: &Services, invoices: usize, journal: &str) -> io::Result<Measured> {
    let store = rusqlite::Connection::open(services.dir().join("loop.db")).map_err(io::Error::other)?;
    prepare(&store, invoices, journal).map_err(io::Error::other)?;
    let payments = services.payments.address().to_string();
    let mut connection = Connection::open(&payments)?;
    let before = services.payments.cpu_ms();
    let (charged, took) = timed(|| -> io::Result<u64> {
        let mut charged = 0;
        while let Some(id) = next(&store).map_err(io::Error::other)? {
            let key = format!("{id:032x}");
            let body = format!(
                r#"{{"id":"L{id}","invoice_id":{id},"customer_id":1,"currency":"EUR","value":12.15}}"#
            );
            let headers = [("Content-Type", "application/json"), ("Idempotency-Key", &key)];
            let answer = connection.call("POST", "/", &headers, body.as_bytes())?;
            assert_eq!(answer.text(), r#"{"result":"true"}"#);
            store
                .prepare_cached("UPDATE invoices SET state = 'PAID' WHERE id = ?1")
                .and_then(|mut statement| statement.execute(params![id]))
                .map_err(io::Error::other)?;
            charged += 1;
        }
        Ok(charged)
    });
    let charged = charged?;
    let figures = measured(services, charged, took, services.payments.cpu_ms() - before);
    assert_eq!(u64::try_from(figures.keys).ok(), Some(count(invoices)), "one charge an invoice");
    Ok(figures)
}

fn prepare(store: &rusqlite::Connection, invoices: usize, journal: &str) -> rusqlite::Result<()> {
    store.pragma_update(None, "journal_mode", journal)?;
    store.pragma_update(None, "synchronous", "FULL")?;
    store.execute_batch(
        "CREATE TABLE invoices(id INTEGER PRIMARY KEY, state TEXT NOT NULL);
         CREATE INDEX pending ON invoices(id) WHERE state = 'PENDING';
         BEGIN",
    )?;
    for id in 1..=count(invoices) {
        let mut insert = store.prepare_cached("INSERT INTO invoices VALUES (?1, 'PENDING')")?;
        insert.execute(params![i64::try_from(id).unwrap_or_default()])?;
    }
    store.execute_batch("COMMIT")
}

fn next(store: &rusqlite::Connection) -> rusqlite::Result<Option<i64>> {
    let mut select = store.prepare_cached("SELECT min(id) FROM invoices WHERE state = 'PENDING'")?;
    select.query_row([], |row| row.get(0))
}

fn measured(services: &Services, charged: u64, took: Duration, cpu_payments_ms: u64) -> Measured {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    // Requests in flight are in the ledger once payments are idle again.
    let url = format!("{}/livez", services.payments.admin_url());
    wait_until("payments to be idle", RUN_WITHIN, || http::get(&url).status == 200);
    Measured {
        per_second: charged * 1_000_000 / micros,
        cpu_billing_us: None,
        cpu_payments_us: cpu_payments_ms * 1000 / charged.max(1),
        peak_billing_kib: None,
        peak_payments_kib: services.payments.rss_peak_kib(),
        keys: charged_keys(&services.payments.db()),
        cpu_database_us: None,
        wal_bytes: None,
    }
}

pub(crate) fn count(invoices: usize) -> u64 {
    u64::try_from(invoices).unwrap_or(u64::MAX)
}
