//! When billing is ready on PostgreSQL: not without its database or with one that cannot prove who it is, not below
//! the schema, and also above it. Where no server is installed this is left out, loudly; in CI that is a failure.

use std::sync::Arc;
use std::time::Duration;

use harness::certs::{Authority, replace};
use harness::http::try_call;
use harness::postgres::Server;
use harness::process::Spec;
use harness::{Database, Process, wait_until};
use tempfile::TempDir;

const READY_WITHIN: Duration = Duration::from_secs(30);

fn billing(database: &Database) -> (Process, TempDir) {
    let dir = TempDir::new().expect("a folder for the test");
    let mut spec = Spec::new(vec![env!("CARGO_BIN_EXE_billing").into()], "billing", dir.path());
    spec.env.insert("DATABASE_URL".to_owned(), database.url().to_owned());
    (Process::new(spec), dir)
}

fn admin(process: &Process, path: &str) -> (u16, String) {
    try_call("GET", &format!("{}{path}", process.admin_url()), &[], b"")
        .map_or((0, String::new()), |answer| (answer.status, answer.text()))
}

#[test]
fn below_the_schema_nobody_is_ready_and_above_it_everybody() {
    let Some(database) = Database::fresh("readiness of billing by schema") else { return };
    let (mut process, _dir) = billing(&database);
    process.spawn();
    wait_until("a word on the schema", READY_WITHIN, || {
        let (status, text) = admin(&process, "/readyz");
        status == 503
            && text.contains("at step 0, and this program needs step")
            && text.contains("`billing migrate`")
    });
    assert_eq!(admin(&process, "/livez").0, 200, "liveness never asks a database");

    process.run_to_end("migrate");
    wait_until("the migrated service", READY_WITHIN, || admin(&process, "/readyz").0 == 200);
    process.run_to_end("migrate");

    database.run(
        "INSERT INTO billing_migrations SELECT max(version) + 1, 'of a later program', false, 0 FROM billing_migrations",
    );
    let (mut older, _other) = billing(&database);
    older.start_again();

    database.run("UPDATE billing_migrations SET breaks_older = true WHERE name = 'of a later program'");
    wait_until("a break to be noticed", READY_WITHIN, || {
        let (status, text) = admin(&older, "/readyz");
        status == 503 && text.contains("made incompatible by a newer program")
    });
}

#[test]
fn billing_starts_before_its_database_and_may_be_stopped_meanwhile() {
    let Some(server) = Server::start("a billing that waits for its database") else { return };
    let server = Arc::new(server);
    let database = Database::of(&server);
    server.stop();
    let (mut process, _dir) = billing(&database);
    process.spawn();
    wait_until("a word on the database", READY_WITHIN, || {
        let (status, text) = admin(&process, "/readyz");
        status == 503 && text.contains("opening the store") && text.contains("cannot be used")
    });
    assert!(process.stop().success(), "{}", process.log());

    process.spawn();
    server.start_again();
    process.run_to_end("migrate");
    wait_until("the service", READY_WITHIN, || admin(&process, "/readyz").0 == 200);
}

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND ssl = ";

#[test]
fn over_tls_the_database_proves_who_it_is_to_the_service_and_to_its_migration() {
    let authority = Authority::new("the database's");
    let pair = authority.server("localhost");
    let Some(server) = Server::start_with("billing with TLS to its database", &[], Some(&pair)) else {
        return;
    };
    let database = Database::of(&Arc::new(server));
    let by_name = database.url().replace("127.0.0.1", "localhost");
    let trusting = |authority: &Authority| {
        let (mut process, dir) = billing(&database);
        let ca = dir.path().join("database-ca.pem");
        replace(&ca, &authority.pem());
        process.set_env("DATABASE_URL", &by_name);
        process.set_env("DATABASE_CA", ca.display().to_string());
        (process, dir)
    };
    let (mut stranger, _dir) = trusting(&Authority::new("a stranger's"));
    assert_eq!(stranger.try_run("migrate").code(), Some(1), "{}", stranger.log());
    stranger.spawn();
    wait_until("a word on the database", READY_WITHIN, || {
        let (status, text) = admin(&stranger, "/readyz");
        status == 503 && text.contains("cannot be used")
    });
    assert_eq!(database.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0);

    let (mut process, _other) = trusting(&authority);
    process.run_to_end("migrate");
    process.start_again();
    let sessions = |over_tls: bool| database.ask(&format!("{SESSIONS}{over_tls}"));
    assert!(sessions(true) > 0 && sessions(false) == 0, "{} and {}", sessions(true), sessions(false));
}
