//! Payment services on one PostgreSQL: one charge per key on any replica, through a killed database, and not ready
//! below the schema. Without an installed server these tests are skipped with a message; in CI that is a failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use testkit::certs::Authority;
use testkit::http::try_call;
use testkit::postgres::Server;
use testkit::process::Spec;
use testkit::starting::{
    READY_WITHIN, starts_before_its_database, takes_a_proven_database_only, until_not_ready, until_ready,
};
use testkit::wait::pause;
use testkit::{Answer, Database, Process, wait_until};

use crate::site::GOOD;

/// Replicas on one database, each in a folder of its own.
pub(crate) struct Replicas {
    pub(crate) database: Database,
    pub(crate) processes: Vec<(Process, TempDir)>,
}

pub(crate) fn replica(database: &Database, flags: &[&str]) -> (Process, TempDir) {
    let dir = TempDir::new().expect("a folder for the test");
    let mut spec = Spec::new(vec![env!("CARGO_BIN_EXE_payments").into()], "payments", dir.path());
    spec.env.insert("DATABASE_URL".to_owned(), database.url().to_owned());
    spec.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    (Process::new(spec), dir)
}

impl Replicas {
    /// Starts `count` replicas, each with a seed of its own: they decide differently, and must record the same.
    pub(crate) fn start(database: Database, count: usize, success: &str) -> Self {
        let migrator = replica(&database, &[]);
        migrator.0.run_to_end("migrate");
        let start = |seed: usize| {
            let (mut process, dir) =
                replica(&database, &["--success-rate", success, "--seed", &seed.to_string()]);
            process.start_again();
            (process, dir)
        };
        let processes = (0..count).map(start).collect();
        Self { database, processes }
    }

    fn urls(&self) -> Vec<String> {
        self.processes.iter().map(|(process, _)| process.url()).collect()
    }
}

pub(crate) fn charge(url: &str, key: &str) -> std::io::Result<Answer> {
    try_call("POST", &format!("{url}/"), &[("Idempotency-Key", key)], GOOD.as_bytes())
}

#[test]
fn a_key_that_comes_to_three_replicas_at_once_is_charged_once_and_reported_alike() {
    const KEYS: usize = 60;
    let Some(database) = Database::fresh("three payment services on one PostgreSQL") else { return };
    let site = Replicas::start(database, 3, "0.5");
    let (urls, keys) = (site.urls(), 0..KEYS);
    let callers: Vec<_> = urls
        .into_iter()
        .flat_map(|url| [url.clone(), url])
        .map(|url| {
            let keys = keys.clone();
            thread::spawn(move || {
                let ask = |key: usize| loop {
                    let answer = charge(&url, &format!("k{key}")).expect("an answer");
                    if answer.status == 200 {
                        return (key, answer.text(), answer.header("idempotency-replayed").is_some());
                    }
                    // The machine is busy: nothing was executed.
                    if answer.status == 503 && answer.header("not-executed") == Some("true") {
                        pause(Duration::from_millis(20));
                        continue;
                    }
                    assert_eq!(answer.status, 409, "only its own replica says in flight: {}", answer.text());
                };
                keys.map(ask).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut told: BTreeMap<usize, Vec<(String, bool)>> = BTreeMap::new();
    for caller in callers {
        for (key, text, replayed) in caller.join().expect("a caller") {
            told.entry(key).or_default().push((text, replayed));
        }
    }
    for (key, answers) in &told {
        assert!(answers.iter().all(|(text, _)| *text == answers[0].0), "{key}: {answers:?}");
        assert_eq!(answers.iter().filter(|(_, replayed)| !replayed).count(), 1, "{key}: {answers:?}");
    }
    assert_eq!(site.database.ask("SELECT count(*) FROM ledger"), i64::try_from(KEYS).expect("a number"));
    let decisions = site.database.ask("SELECT count(DISTINCT state) FROM ledger");
    assert_eq!(decisions, 2, "replicas of other seeds decide otherwise");
}

#[test]
fn a_database_killed_in_mid_traffic_is_survived_and_keys_agree_after_it() {
    const CALLERS: usize = 6;
    const ROUNDS: usize = 2;
    let Some(server) = Server::start("a database that is killed under payments") else { return };
    let server = Arc::new(server);
    let mut site = Replicas::start(Database::of(&server), 3, "1");
    let urls = site.urls();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (urls, stop, answered) = (urls.clone(), Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut keys = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("c{caller}-{}", keys.len());
                    // A careful caller repeats the request under the same key, at any replica, until it gets a
                    // decision.
                    for url in urls.iter().cycle().skip(keys.len()) {
                        match charge(url, &key) {
                            Ok(answer) if answer.status == 200 => break,
                            Ok(answer) => assert!(matches!(answer.status, 409 | 503), "{}", answer.status),
                            Err(_) if stop.load(Ordering::Relaxed) => break,
                            Err(_) => {}
                        }
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    keys.push(key);
                }
                keys
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        let before = answered.load(Ordering::Relaxed);
        wait_until("traffic", READY_WITHIN, || answered.load(Ordering::Relaxed) > before + 100);
        server.kill();
        wait_until("a replica to notice", READY_WITHIN, || {
            site.processes.iter().any(|(process, _)| process.readiness().0 == 503)
        });
        server.start_again();
        wait_until("all replicas to be back", READY_WITHIN, || {
            site.processes.iter().all(|(process, _)| process.readiness().0 == 200)
        });
    }
    let before = answered.load(Ordering::Relaxed);
    wait_until("traffic after the last kill", READY_WITHIN, || {
        answered.load(Ordering::Relaxed) > before + 100
    });
    stop.store(true, Ordering::Relaxed);
    let keys: Vec<String> = callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect();

    for (process, _) in &mut site.processes {
        assert_eq!(process.ended(), None, "a process died of its database:\n{}", process.log());
    }
    let charged = site.database.ask("SELECT count(*) FROM ledger WHERE state = 'CHARGED'");
    assert_eq!(charged, i64::try_from(keys.len()).expect("a number"), "one charge a key that was answered");
    for (key, url) in keys.iter().zip(urls.iter().cycle()) {
        let answer = charge(url, key).expect("an answer");
        assert_eq!(answer.header("idempotency-replayed"), Some("true"), "{key}: {}", answer.text());
    }
    assert_eq!(site.database.ask("SELECT count(*) FROM ledger WHERE state = 'CHARGED'"), charged);
}

#[test]
fn a_process_is_not_ready_below_its_schema_and_ready_above_it() {
    let Some(database) = Database::fresh("readiness by schema") else { return };
    let (mut process, _dir) = replica(&database, &[]);
    process.spawn();
    let below = "at step 0, and this program needs step";
    until_not_ready(&process, &[below]);
    let alive = try_call("GET", &format!("{}/livez", process.admin_url()), &[], b"").expect("an answer");
    assert_eq!(alive.status, 200, "liveness never asks a database");

    process.run_to_end("migrate");
    until_ready(&process);
    process.run_to_end("migrate");

    database.run("INSERT INTO payments_migrations SELECT max(version) + 1, 'of a later program', false, 0 FROM payments_migrations");
    let (mut older, _other) = replica(&database, &["--success-rate", "1"]);
    older.start_again();
    assert_eq!(charge(&older.url(), "above").expect("an answer").status, 200);

    database.run("UPDATE payments_migrations SET breaks_older = true WHERE name = 'of a later program'");
    until_not_ready(&older, &["made incompatible by a newer program"]);
}

#[test]
fn a_service_starts_before_its_database_and_may_be_stopped_meanwhile() {
    let Some(server) = Server::start("a service that waits for its database") else { return };
    let server = Arc::new(server);
    let (process, _dir) = replica(&Database::of(&server), &[]);
    starts_before_its_database(&server, process, "opening the ledger");
}

#[test]
fn several_migrators_at_once_are_one() {
    let Some(database) = Database::fresh("several migrators") else { return };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| replica(&database, &[]).0.run_to_end("migrate"));
        }
    });
    assert_eq!(database.ask("SELECT max(version) - count(*) FROM payments_migrations"), 0);
}

#[test]
fn a_ledger_that_gets_another_id_ends_the_processes_that_serve_it() {
    let Some(database) = Database::fresh("a ledger with a new id") else { return };
    let mut site = Replicas::start(database, 1, "1");
    let (process, _dir) = &mut site.processes[0];
    let url = process.url();
    let before = charge(&url, "one").expect("an answer").header("ledger-id").map(str::to_owned);
    process.run_to_end("new-ledger-id");
    assert_eq!(charge(&url, "two").expect("an answer").status, 503, "nothing is written under the old id");
    wait_until("the process to end", READY_WITHIN, || process.ended().is_some());
    process.kill();
    process.start_again();
    let again = charge(&url, "one").expect("an answer");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_ne!(again.header("ledger-id").map(str::to_owned), before);
    assert_eq!(site.database.ask("SELECT count(*) FROM ledger"), 1);
}

#[test]
fn over_tls_the_database_proves_who_it_is_to_the_service_and_to_its_migration() {
    let authority = Authority::new("the database's");
    let pair = authority.server("localhost");
    let Some(server) = Server::start_with("payments with TLS to its database", &[], Some(&pair)) else {
        return;
    };
    let database = Database::of(&Arc::new(server));
    takes_a_proven_database_only(&database, &authority, || replica(&database, &[]));
}
