//! Tests for every service that waits for its database: it starts before the database, can be stopped while it waits,
//! and is ready once the database is there. Over TLS it verifies the database's certificate. Knows the services by
//! their settings and APIs only.

use std::time::Duration;

use tempfile::TempDir;

use crate::certs::{Authority, replace};
use crate::postgres::{Database, Server};
use crate::process::Process;
use crate::wait::wait_until;

/// Time limit for a service to report its readiness on a slow machine.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// Counts sessions of other processes, with or without TLS.
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND ssl = ";

/// Waits until the service is ready.
///
/// # Panics
/// When the service does not become ready.
#[track_caller]
pub fn until_ready(process: &Process) {
    wait_until("the service to be ready", READY_WITHIN, || process.readiness().0 == 200);
}

/// Waits until the service is not ready, with all of these reasons.
///
/// # Panics
/// When the reasons differ.
#[track_caller]
pub fn until_not_ready(process: &Process, why: &[&str]) {
    wait_until(&format!("a word on {why:?}"), READY_WITHIN, || {
        let (status, text) = process.readiness();
        status == 503 && why.iter().all(|part| text.contains(part))
    });
}

/// Tests a service that was not started yet, on a database of this server. The server stops first, and returns when the
/// service has logged that it waits for `opening`.
///
/// # Panics
/// When the service behaves otherwise.
#[track_caller]
pub fn starts_before_its_database(server: &Server, mut process: Process, opening: &str) {
    server.stop();
    process.spawn();
    until_not_ready(&process, &[opening, "cannot be used"]);
    assert!(process.stop().success(), "{}", process.log());

    process.spawn();
    server.start_again();
    process.run_to_end("migrate");
    until_ready(&process);
}

/// Tests a service on this database, whose server uses TLS as `localhost` by this CA. A service that trusts another CA
/// reports that it cannot use the database; one that trusts this CA uses TLS only. The migration behaves in the same
/// way.
///
/// # Panics
/// When the service behaves otherwise.
#[track_caller]
pub fn takes_a_proven_database_only(
    database: &Database,
    authority: &Authority,
    service: impl Fn() -> (Process, TempDir),
) {
    let by_name = database.url().replace("127.0.0.1", "localhost");
    let trusting = |authority: &Authority| {
        let (mut process, dir) = service();
        let ca = dir.path().join("database-ca.pem");
        replace(&ca, &authority.pem());
        process.set_env("DATABASE_URL", &by_name);
        process.set_env("DATABASE_CA", ca.display().to_string());
        (process, dir)
    };
    let (mut stranger, _dir) = trusting(&Authority::new("a stranger's"));
    assert_eq!(stranger.try_run("migrate").code(), Some(1), "{}", stranger.log());
    stranger.spawn();
    until_not_ready(&stranger, &["cannot be used"]);
    assert_eq!(database.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0);

    let (mut process, _other) = trusting(authority);
    process.run_to_end("migrate");
    process.start_again();
    let sessions = |over_tls: bool| database.ask(&format!("{SESSIONS}{over_tls}"));
    // The query itself runs without TLS, and its last session may still exist.
    wait_until("sessions of the service, over TLS alone", READY_WITHIN, || {
        sessions(false) == 0 && sessions(true) > 0
    });
}
