//! The responses while the database cannot be used, that none of those calls is executed later, and that a replica that
//! stands still delays no other. Without an installed server these tests are skipped with a message; in CI that is a
//! failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use testkit::http::try_call;
use testkit::postgres::Server;
use testkit::starting::{until_not_ready, until_ready};
use testkit::wait::{SeededRng, pause, size, timed};
use testkit::{Answer, Database, Process};

use crate::replicas::{Replicas, charge, replica};
use crate::site::willing;

/// The time within which every client gets an answer, and that within which a cluster's probe must notice a failure.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

#[track_caller]
fn in_time(call: impl FnOnce() -> std::io::Result<Answer>) -> Answer {
    let (answer, took) = timed(call);
    assert!(took < ANSWERED_WITHIN, "{took:?}");
    answer.expect("an answer")
}

#[track_caller]
fn is_refused_unexecuted(process: &Process, key: &str) {
    let answer = in_time(|| charge(&process.url(), key));
    let mark = answer.header("not-executed").map(str::to_owned);
    assert_eq!((answer.status, mark.as_deref()), (503, Some("true")), "{}", answer.text());
    for path in ["/ping", "/health", "/healthz"] {
        let alive = in_time(|| try_call("GET", &format!("{}{path}", process.url()), &[], b""));
        assert_eq!(alive.status, 200, "{path}");
    }
}

#[test]
fn nothing_is_executed_later_that_came_while_the_database_was_away() {
    let Some(server) = Server::start("charges while the database is away") else { return };
    let server = Arc::new(server);
    let database = Database::of(&server);
    let (mut process, _dir) = replica(&database, &["--success-rate", "1"]);
    process.run_to_end("migrate");
    server.stop();
    process.spawn();
    until_not_ready(&process, &["cannot be used"]);
    is_refused_unexecuted(&process, "before it was ever there");
    server.start_again();
    until_ready(&process);
    assert_eq!(database.ask("SELECT count(*) FROM ledger"), 0);

    assert_eq!(charge(&process.url(), "meanwhile").expect("an answer").status, 200);
    server.stop_at_once();
    until_not_ready(&process, &["cannot be used"]);
    is_refused_unexecuted(&process, "after it went");
    server.start_again();
    until_ready(&process);
    assert_eq!(database.ask("SELECT count(*) FROM ledger"), 1, "only what was answered as executed");
}

#[test]
fn a_database_that_takes_no_writes_is_not_ready_within_ten_seconds_and_says_why() {
    let Some(server) = Server::start("a database that becomes read-only").map(Arc::new) else { return };
    let database = Database::of(&server);
    let site = Replicas::start(database, 1, "1");
    let (process, _dir) = &site.processes[0];
    let set = |value: &str| {
        site.database.run(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
        site.database.run("SELECT pg_reload_conf()");
    };
    set("on");
    let ((), took) = timed(|| until_not_ready(process, &["read-only", "default_transaction_read_only"]));
    assert!(took < NOTICED_WITHIN, "{took:?}");
    assert_eq!(process.metric(&["not_ready_reasons{", "reason=\"read-only\""]), 1);
    is_refused_unexecuted(process, "read-only");
    site.database.run("ALTER SYSTEM RESET default_transaction_read_only");
    site.database.run("SELECT pg_reload_conf()");
    until_ready(process);
    assert_eq!(charge(&process.url(), "again").expect("an answer").status, 200);
}

#[test]
fn a_database_of_another_encoding_is_neither_migrated_nor_ready() {
    let Some(server) = Server::start("a database in LATIN1").map(Arc::new) else { return };
    let database = Database::of(&server);
    database.run("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    let (mut process, _dir) = replica(&database, &[]);
    process.set_env("DATABASE_URL", server.url("latin"));
    assert_eq!(process.try_run("migrate").code(), Some(1), "{}", process.log());
    assert!(process.log().contains("its encoding is LATIN1"), "{}", process.log());
    process.spawn();
    let ((), took) = timed(|| until_not_ready(&process, &["its encoding is LATIN1", "UTF8"]));
    assert!(took < NOTICED_WITHIN, "{took:?}");
    assert_eq!(process.metric(&["not_ready_reasons{", "reason=\"encoding\""]), 1);
}

/// A stopped process looks like one whose node dies: no FIN, no RST.
#[test]
fn a_replica_that_is_stopped_at_any_statement_holds_up_no_other() {
    let tries = size("STOPS", 12);
    let Some(database) = Database::fresh("a payments replica that stands still") else { return };
    let site = Replicas::start(database, 2, "1");
    let [(stopped, _), (other, _)] = site.processes.as_slice() else { panic!("two replicas") };
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..6)
        .map(|caller| {
            let (url, stop) = (stopped.url(), Arc::clone(&stop));
            thread::spawn(move || {
                for nth in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // The results do not matter: these calls keep the replica at its statements.
                    let _page = try_call("GET", &format!("{url}/v1/ledger?limit=1"), &[], b"");
                    let _charge = charge(&url, &format!("s{caller}-{nth}"));
                }
            })
        })
        .collect();
    let mut random = SeededRng::seeded(8213);
    for nth in 0..tries {
        pause(Duration::from_millis(20 + random.below(60)));
        stopped.pause();
        for again in 0..3 {
            let answer = in_time(|| charge(&other.url(), &format!("o{nth}-{again}")));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let page = in_time(|| try_call("GET", &format!("{}/v1/ledger?limit=1", other.url()), &[], b""));
            assert_eq!(page.status, 200, "{}", page.text());
        }
        stopped.go_on();
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("a caller");
    }
}

#[test]
fn a_hang_up_drains() {
    let mut site = willing().start();
    assert_eq!(site.charge("one").status, 200);
    assert!(site.process.hang_up().success(), "{}", site.process.log());
    assert!(site.process.log().contains("SIGHUP"), "{}", site.process.log());
}
