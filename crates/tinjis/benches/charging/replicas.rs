//! The legs on PostgreSQL: one billing, or several that share the run, on one database. Knows no goal.

use std::io;
use std::path::Path;
use std::time::Duration;

use testkit::postgres::Server;
use testkit::process::Process;
use testkit::replicas::Plan;
use testkit::wait::{timed, wait_for};
use testkit::{Database, Replicas, runs};

use crate::legs::{Measured, RUN_WITHIN, assert_none_is_missing, count, load};

/// How often a run is requested: each response costs the database two statements, which are not part of a charge.
const ASK_EVERY: Duration = Duration::from_millis(20);
const WAL: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
const PAID: &str = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
const CHARGED_KEYS: &str = "SELECT count(DISTINCT key) FROM ledger WHERE state = 'CHARGED'";

/// Whether there is a PostgreSQL to measure.
pub(crate) fn can_run() -> bool {
    Database::fresh("the benchmark's legs on PostgreSQL").is_some()
}

fn start(database: &Database, of_each: usize) -> Replicas {
    let plan = Plan {
        inside: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned()),
        ..Plan::of(of_each, Some(of_each))
    };
    let plan = plan
        .payments_flags(["--success-rate=1", "--seed=1", "--log-level=warn"])
        .billing_env("LOG_LEVEL", "warn");
    Replicas::start(env!("CARGO_BIN_EXE_tinjis"), database, &plan)
}

fn fresh() -> io::Result<Database> {
    let database = Database::fresh("the benchmark's legs on PostgreSQL");
    database.ok_or_else(|| io::Error::other("PostgreSQL is gone"))
}

/// The load generator against one payments.
pub(crate) fn wrk(invoices: usize) -> io::Result<Measured> {
    let database = fresh()?;
    let replicas = start(&database, 1);
    let payments = &replicas.payments[0];
    let (before, wal_before) = (payments.cpu_ms(), database.ask(WAL));
    let server_before = database.server().map(Server::cpu_ms);
    let (charged, took) = load(&format!("http://{}", payments.address()), invoices)?;
    let cpu_payments_ms = payments.cpu_ms() - before;
    let cpu_database_ms =
        database.server().zip(server_before).map(|(server, before)| server.cpu_ms() - before);
    // Requests in flight are in the ledger within this time.
    let keys = wait_for("what was in flight", RUN_WITHIN, || {
        let keys = replicas.ask_payments(CHARGED_KEYS);
        (keys == replicas.ask_payments(CHARGED_KEYS)).then_some(keys)
    });
    assert_none_is_missing(charged, keys);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let charges = charged.max(1);
    Ok(Measured {
        per_second: charged * 1_000_000 / micros,
        cpu_billing_us: None,
        cpu_payments_us: cpu_payments_ms * 1000 / charges,
        peak_billing_kib: None,
        peak_payments_kib: payments.rss_peak_kib(),
        keys,
        cpu_database_us: cpu_database_ms.map(|ms| ms * 1000 / charges),
        wal_bytes: u64::try_from(database.ask(WAL) - wal_before).ok().map(|bytes| bytes / charges),
    })
}

/// One run of this many invoices by this many billings, started at the first billing.
pub(crate) fn run(billings: usize, invoices: usize) -> io::Result<Measured> {
    let database = fresh()?;
    let replicas = start(&database, billings);
    replicas.import("B", invoices);
    let before = (cpu_ms(&replicas.billings), cpu_ms(&replicas.payments), database.ask(WAL));
    let server_before = database.server().map(Server::cpu_ms);
    let (run, took) = timed(|| {
        let url = replicas.start_run(0);
        runs::wait_asking(&url, ASK_EVERY, RUN_WITHIN)
    });
    let charged = count(invoices);
    assert_eq!(run["paid"].as_u64(), Some(charged), "the run paid all: {run}");
    assert_eq!(u64::try_from(database.ask(PAID)).ok(), Some(charged), "billing knows that all are paid");
    let keys = replicas.ask_payments(CHARGED_KEYS);
    assert_eq!(u64::try_from(keys).ok(), Some(charged), "one charge an invoice");
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let peak = |all: &[Process]| all.iter().map(Process::rss_peak_kib).max().unwrap_or_default();
    Ok(Measured {
        per_second: charged * 1_000_000 / micros,
        cpu_billing_us: Some((cpu_ms(&replicas.billings) - before.0) * 1000 / charged),
        cpu_payments_us: (cpu_ms(&replicas.payments) - before.1) * 1000 / charged,
        peak_billing_kib: Some(peak(&replicas.billings)),
        peak_payments_kib: peak(&replicas.payments),
        keys,
        cpu_database_us: database
            .server()
            .zip(server_before)
            .map(|(server, before)| (server.cpu_ms() - before) * 1000 / charged),
        wal_bytes: u64::try_from(database.ask(WAL) - before.2).ok().map(|bytes| bytes / charged),
    })
}

fn cpu_ms(all: &[Process]) -> u64 {
    all.iter().map(Process::cpu_ms).sum()
}
