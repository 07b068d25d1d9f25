//! When billing is ready on PostgreSQL: not without its database, not with a server that cannot prove its identity, not
//! below the schema version, but also above it. Without an installed server the test is skipped with a loud notice; in
//! CI that is a failure.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use testkit::certs::Authority;
use testkit::http;
use testkit::postgres::Server;
use testkit::process::Spec;
use testkit::starting::{
    starts_before_its_database, takes_a_proven_database_only, until_not_ready, until_ready,
};
use testkit::wait::timed;
use testkit::{Database, Process};

fn billing(database: &Database) -> (Process, TempDir) {
    let dir = TempDir::new().expect("a folder for the test");
    let mut spec = Spec::new(vec![env!("CARGO_BIN_EXE_billing").into()], "billing", dir.path());
    spec.env.insert("DATABASE_URL".to_owned(), database.url().to_owned());
    (Process::new(spec), dir)
}

#[test]
fn a_process_is_not_ready_below_its_schema_and_ready_above_it() {
    let Some(database) = Database::fresh("readiness of billing by schema") else { return };
    let (mut process, _dir) = billing(&database);
    process.spawn();
    until_not_ready(&process, &["at step 0, and this program needs step", "`billing migrate`"]);
    let alive = http::get(&format!("{}/livez", process.admin_url()));
    assert_eq!(alive.status, 200, "liveness never asks a database");

    process.run_to_end("migrate");
    until_ready(&process);
    process.run_to_end("migrate");

    database.run(
        "INSERT INTO billing_migrations SELECT max(version) + 1, 'of a later program', false, 0 FROM billing_migrations",
    );
    let (mut older, _other) = billing(&database);
    older.start_again();

    database.run("UPDATE billing_migrations SET breaks_older = true WHERE name = 'of a later program'");
    until_not_ready(&older, &["made incompatible by a newer program"]);
}

#[test]
fn a_role_without_rights_is_named_until_it_has_them() {
    let Some(server) = Server::start("a billing without rights").map(Arc::new) else { return };
    let database = Database::of(&server);
    let (owner, _dir) = billing(&database);
    owner.run_to_end("migrate");
    database.run("CREATE ROLE clerk LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk");
    let (_, place) = database.url().split_once('@').expect("a URL names its role");
    let dir = TempDir::new().expect("a folder for the test");
    let mut spec = Spec::new(vec![env!("CARGO_BIN_EXE_billing").into()], "billing", dir.path());
    spec.env.insert("DATABASE_URL".to_owned(), format!("postgres://clerk@{place}"));
    let mut process = Process::new(spec);
    process.spawn();
    until_not_ready(&process, &["its role clerk lacks ", "INSERT on invoices"]);

    database.run("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk");
    database.run("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk");
    until_ready(&process);
}

#[test]
fn billing_starts_before_its_database_and_may_be_stopped_meanwhile() {
    let Some(server) = Server::start("a billing that waits for its database").map(Arc::new) else { return };
    let (process, _dir) = billing(&Database::of(&server));
    starts_before_its_database(&server, process, "opening the store");
}

#[test]
fn nothing_runs_later_that_was_asked_for_while_the_database_was_away() {
    const ROW: &str = r#"{"reference":"A1","customer_id":1,"currency":"EUR","amount":"1.00"}"#;
    let Some(server) = Server::start("calls of billing while its database is away").map(Arc::new) else {
        return;
    };
    let database = Database::of(&server);
    let (mut process, _dir) = billing(&database);
    process.run_to_end("migrate");
    server.stop();
    process.spawn();
    until_not_ready(&process, &["cannot be used"]);
    let url = process.url();
    for (method, path, body, status, text) in [
        ("POST", "/rest/v1/invoices/pay", "", 503, Some("false")),
        ("POST", "/REST/v1/Invoices/pay/", "", 503, Some("false")),
        ("POST", "/invoices/pay", "", 503, Some("false")),
        ("GET", "/rest/v1/invoices", "", 503, Some("\"unavailable\"")),
        ("POST", "/v1/runs", "", 503, None),
        ("POST", "/v1/imports", ROW, 503, None),
        ("GET", "/rest/health", "", 200, Some("\"ok\"")),
        ("GET", "/Rest/Health/", "", 200, Some("\"ok\"")),
        ("GET", "/healthz", "", 200, Some(r#"{"status":"ok"}"#)),
    ] {
        let (answer, took) = timed(|| http::call(method, &format!("{url}{path}"), &[], body.as_bytes()));
        assert!(took < Duration::from_secs(5), "{path}: {took:?}");
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("not-executed").is_some(), status == 503, "{path}");
        if let Some(text) = text {
            assert_eq!(answer.text(), text, "{path}");
        }
    }
    server.start_again();
    until_ready(&process);
    let left = database.ask("SELECT (SELECT count(*) FROM invoices) + (SELECT count(*) FROM runs)");
    assert_eq!(left, 0, "no write of a call that failed is left");
}

#[test]
fn over_tls_the_database_proves_who_it_is_to_the_service_and_to_its_migration() {
    let authority = Authority::new("the database's");
    let pair = authority.server("localhost");
    let Some(server) = Server::start_with("billing with TLS to its database", &[], Some(&pair)) else {
        return;
    };
    let database = Database::of(&Arc::new(server));
    takes_a_proven_database_only(&database, &authority, || billing(&database));
}
