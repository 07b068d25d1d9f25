//! The guarantees of `chassis::postgres` on a real server: what is committed, what is retried, what is in doubt, and
//! how errors of a slow, dying, foreign or standby database are classified.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis::clock::Random;
use chassis::postgres::{
    ACQUIRE_TIMEOUT, PgError, PoolClass, Postgres, PostgresSettings, Result, STATEMENT_TIMEOUT, Schema, Tx,
    Type, get,
};
use chassis::schema::Migration;
use chassis::tls;
use testkit::Database;
use testkit::certs::{Authority, replace};
use testkit::postgres::{Pooler, Server};
use tokio::sync::Barrier;

const STEPS: &[Migration] = &[Migration {
    name: "rows",
    sql: "CREATE TABLE rows (id bigint PRIMARY KEY, n bigint)",
    breaks_older: false,
}];
const WITHIN: Duration = Duration::from_secs(30);

fn schema(steps: &'static [Migration]) -> Schema {
    Schema { service: "shop", steps }
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings::parse(url, None, 8, "shop").unwrap()
}

fn connect(settings: &PostgresSettings, steps: &'static [Migration]) -> Postgres {
    Postgres::open(settings, schema(steps), None, Random::seeded(1)).unwrap()
}

/// A migrated database with two rows; `None` where there is no server.
async fn open(what: &str) -> Option<(Database, Postgres)> {
    let database = Database::fresh(what)?;
    let postgres = connect(&settings(database.url()), STEPS);
    assert_eq!(postgres.migrate().await.unwrap(), 1);
    database.run("INSERT INTO rows VALUES (1, 0), (2, 0)");
    Some((database, postgres))
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(WITHIN, until).await.is_ok(), "waited without success for: {what}");
}

const ADD: &str = "UPDATE rows SET n = n + 1 WHERE id = $1";

#[tokio::test]
async fn a_transaction_is_kept_unless_it_failed_was_undone_or_was_dropped() {
    let Some((database, postgres)) = open("transactions").await else { return };
    let sum = || database.ask("SELECT sum(n)::bigint FROM rows");
    let add = |tx: Tx| async move { tx.execute(ADD, &[(&1_i64, Type::INT8)]).await };
    assert_eq!(postgres.transaction(PoolClass::Record, add).await.unwrap(), 1);
    assert_eq!(sum(), 1);

    let undone = |tx: Tx| async move {
        tx.undo();
        add(tx).await
    };
    assert_eq!(postgres.transaction(PoolClass::Record, undone).await.unwrap(), 1);
    let fails = |tx: Tx| async move {
        add(tx).await?;
        Err::<(), _>(PgError::Corrupt("on purpose".to_owned()))
    };
    assert!(matches!(postgres.transaction(PoolClass::Record, fails).await, Err(PgError::Corrupt(_))));
    let goes_on = |tx: Tx| async move {
        add(tx.clone()).await?;
        let _ignored = tx.query("SELECT 1 / 0", &[]).await;
        Ok(())
    };
    assert!(matches!(postgres.transaction(PoolClass::Record, goes_on).await, Err(PgError::Refused(_))));
    let hangs = |tx: Tx| async move {
        add(tx).await?;
        std::future::pending::<Result<()>>().await
    };
    let dropped = postgres.transaction(PoolClass::Record, hangs);
    assert!(tokio::time::timeout(Duration::from_millis(300), dropped).await.is_err());
    // The lock of the dropped transaction was released with its connection.
    assert_eq!(postgres.transaction(PoolClass::Record, add).await.unwrap(), 1);
    assert_eq!(sum(), 2);
}

#[tokio::test]
async fn two_who_lock_each_other_out_are_tried_again_and_both_succeed() {
    let Some((database, postgres)) = open("a deadlock").await else { return };
    let (barrier, tries) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let both = [[1_i64, 2], [2, 1]].map(|ids| {
        let (postgres, barrier, tries) = (postgres.clone(), Arc::clone(&barrier), Arc::clone(&tries));
        tokio::spawn(async move {
            let job = |tx: Tx| {
                let (barrier, tries) = (Arc::clone(&barrier), Arc::clone(&tries));
                async move {
                    tx.execute(ADD, &[(&ids[0], Type::INT8)]).await?;
                    if tries.fetch_add(1, Ordering::SeqCst) < 2 {
                        barrier.wait().await;
                    }
                    tx.execute(ADD, &[(&ids[1], Type::INT8)]).await
                }
            };
            postgres.transaction(PoolClass::Record, job).await
        })
    });
    for one in both {
        assert_eq!(one.await.unwrap().unwrap(), 1);
    }
    assert_eq!(tries.load(Ordering::SeqCst), 3, "one of them was tried again");
    assert_eq!(database.ask("SELECT sum(n)::bigint FROM rows"), 4);
}

const END_OTHERS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'";

#[tokio::test]
async fn what_breaks_before_the_commit_is_begun_anew_and_a_statement_without_an_answer_is_in_doubt() {
    let Some((database, postgres)) = open("broken connections").await else { return };
    let database = Arc::new(database);
    let tries = AtomicUsize::new(0);
    let job = |tx: Tx| {
        let (first, database) = (tries.fetch_add(1, Ordering::SeqCst) == 0, Arc::clone(&database));
        async move {
            tx.execute(ADD, &[(&1_i64, Type::INT8)]).await?;
            if first {
                let end = tokio::task::spawn_blocking(move || {
                    database.ask(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                        WHERE datname = current_database() AND pid <> pg_backend_pid()",
                    )
                });
                assert!(end.await.unwrap() >= 1);
            }
            tx.execute(ADD, &[(&2_i64, Type::INT8)]).await
        }
    };
    assert_eq!(postgres.transaction(PoolClass::Record, job).await.unwrap(), 1);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    assert_eq!(database.ask("SELECT sum(n)::bigint FROM rows"), 2);

    let slow = "UPDATE rows SET n = 9 WHERE id = 1 AND (SELECT pg_sleep(60)) IS NOT NULL";
    let writing = tokio::spawn({
        let postgres = postgres.clone();
        async move { postgres.write(PoolClass::Record, slow, &[]).await }
    });
    wait_until("the statement to be ended", || database.ask(END_OTHERS) == 1).await;
    assert!(matches!(writing.await.unwrap(), Err(PgError::InDoubt(_))));
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cancelled_on_the_server_too() {
    let Some((database, _)) = open("slow statements").await else { return };
    let hasty = settings(database.url()).limited(ACQUIRE_TIMEOUT, Duration::from_secs(2));
    let postgres = connect(&hasty, STEPS);
    let job = |tx: Tx| async move { tx.query("SELECT pg_sleep(60)", &[]).await };
    assert!(matches!(postgres.transaction(PoolClass::Claim, job).await, Err(PgError::Unavailable(_))));
    let written = postgres.write(PoolClass::Record, "SELECT pg_sleep(60)", &[]).await;
    assert!(matches!(written, Err(PgError::InDoubt(_))), "{written:?}");
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    wait_until("the sleeping statement to end", || database.ask(sleeping) == 0).await;
}

#[tokio::test]
async fn a_lane_in_use_is_busy_and_holds_up_no_other() {
    let Some((database, _)) = open("two lanes").await else { return };
    let narrow = PostgresSettings::parse(database.url(), None, 2, "shop").unwrap();
    let postgres = connect(&narrow.limited(Duration::from_secs(2), STATEMENT_TIMEOUT), STEPS);
    let taken = AtomicUsize::new(0);
    let hangs = |_tx: Tx| {
        taken.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<()>>()
    };
    let mut holding = std::pin::pin!(postgres.transaction(PoolClass::Claim, hangs));
    let second = async {
        wait_until("the lane to be taken", || taken.load(Ordering::SeqCst) == 1).await;
        let busy = postgres.read(PoolClass::Claim, "SELECT 1", &[]).await;
        assert!(matches!(busy, Err(PgError::Busy)), "{busy:?}");
        assert_eq!(postgres.read(PoolClass::Record, "SELECT 1", &[]).await.unwrap().len(), 1);
    };
    tokio::select! {
        _ = &mut holding => panic!("it hangs"),
        () = second => {}
    }
}

#[tokio::test]
async fn a_server_of_the_url_that_takes_connections_and_never_answers_does_not_hide_the_next() {
    let Some(database) = Database::fresh("a silent server") else { return };
    // A listener that never answers, like a machine whose processes stand still but whose kernel does not.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let both = format!("@{},", silent.local_addr().unwrap());
    let postgres = connect(&settings(&database.url().replacen('@', &both, 1)), STEPS);
    assert_eq!(postgres.migrate().await.unwrap(), 1);
}

#[tokio::test]
async fn errors_are_reported_by_what_can_be_done() {
    let Some((database, postgres)) = open("classes of errors").await else { return };
    let twice = postgres.write(PoolClass::Record, "INSERT INTO rows VALUES (1, 0)", &[]).await;
    assert!(matches!(&twice, Err(PgError::Constraint { name, .. }) if name == "rows_pkey"), "{twice:?}");
    let wrong = postgres.write(PoolClass::Record, "SELECT nothing", &[]).await;
    assert!(matches!(wrong, Err(PgError::Refused(_))), "{wrong:?}");
    let row = postgres.read(PoolClass::Claim, "SELECT 1::bigint", &[]).await.unwrap();
    assert!(matches!(get::<&str>(&row[0], 0), Err(PgError::Corrupt(_))));

    database.run(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', \
        current_database()); END $$",
    );
    let standby = connect(&settings(database.url()), STEPS);
    let read_only = standby.write(PoolClass::Record, "INSERT INTO rows VALUES (3, 0)", &[]).await;
    assert!(matches!(read_only, Err(PgError::Unavailable(_))), "{read_only:?}");
    let nowhere = connect(&settings("postgres://u@127.0.0.1:1/d"), STEPS);
    assert!(matches!(nowhere.read(PoolClass::Claim, "SELECT 1", &[]).await, Err(PgError::Unavailable(_))));
}

const LEVEL: &str = "SELECT current_setting('synchronous_commit')";

/// The `synchronous_commit` with which a transaction, and a statement that is one, commit.
async fn levels(postgres: &Postgres) -> [String; 2] {
    let in_transaction =
        postgres.transaction(PoolClass::Record, |tx| async move { tx.query(LEVEL, &[]).await });
    let [one, other] =
        [in_transaction.await.unwrap(), postgres.write(PoolClass::Record, LEVEL, &[]).await.unwrap()];
    [one, other].map(|rows| get::<&str>(&rows[0], 0).unwrap().to_owned())
}

/// `ALTER DATABASE … SET`, for all sessions that begin after it.
fn set(database: &Database, setting: &str, value: &str) {
    database.run(&format!(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {setting} = {value}', current_database()); END $$"
    ));
}

#[tokio::test]
async fn every_commit_waits_for_the_disk_and_a_stricter_setting_stays() {
    let Some((database, _)) = open("synchronous_commit").await else { return };
    for (value, expected) in [
        ("off", "on"),
        ("local", "local"),
        ("remote_write", "remote_write"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        set(&database, "synchronous_commit", value);
        let postgres = connect(&settings(database.url()), STEPS);
        assert_eq!(levels(&postgres).await, [expected, expected], "the database says {value}");
        postgres.wait_until_usable().await;
    }
}

#[tokio::test]
async fn every_commit_waits_for_the_disk_also_through_a_pooler_and_in_sessions_that_are_open_already() {
    let Some(server) = Server::start("synchronous_commit of a server") else { return };
    let server = Arc::new(server);
    let database = Database::of(&server);
    let Some(pooler) = Pooler::start("synchronous_commit through a pooler", database.url(), 2) else {
        return;
    };
    for url in [database.url().to_owned(), pooler.before(database.url())] {
        let postgres = connect(&settings(&url), STEPS);
        postgres.migrate().await.unwrap();
        assert_eq!(levels(&postgres).await, ["on", "on"]);
        database.run("ALTER SYSTEM SET synchronous_commit = off");
        database.run("SELECT pg_reload_conf()");
        let is_off = || database.ask("SELECT (current_setting('synchronous_commit') = 'off')::int") == 1;
        wait_until("the server to have read its settings", is_off).await;
        // Each of a few tries, which may use different sessions.
        for _ in 0..8 {
            assert_eq!(levels(&postgres).await, ["on", "on"], "{url}");
        }
        database.run("ALTER SYSTEM RESET synchronous_commit");
        database.run("SELECT pg_reload_conf()");
        wait_until("the server to have read its settings", || !is_off()).await;
    }
}

#[tokio::test]
async fn a_transaction_sets_its_own_limits_and_one_left_idle_ends_and_is_begun_anew() {
    let Some((database, _)) = open("limits of transactions").await else { return };
    for setting in ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"] {
        set(&database, setting, "0");
    }
    let postgres = connect(&settings(database.url()), STEPS);
    let limits = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), \
        current_setting('idle_in_transaction_session_timeout')";
    let within = postgres.transaction(PoolClass::Record, |tx| async move { tx.query(limits, &[]).await });
    let rows = within.await.unwrap();
    let found = [0, 1, 2].map(|column| get::<&str>(&rows[0], column).unwrap().to_owned());
    assert_eq!(found, ["5s", "20s", "3s"]);

    let tries = AtomicUsize::new(0);
    let stalls = |tx: Tx| {
        let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND state = 'idle in transaction'";
        let database = &database;
        async move {
            tx.execute(ADD, &[(&1_i64, Type::INT8)]).await?;
            if first {
                wait_until("the server to end an idle transaction", || database.ask(idle) == 0).await;
            }
            tx.execute(ADD, &[(&2_i64, Type::INT8)]).await
        }
    };
    assert_eq!(postgres.transaction(PoolClass::Record, stalls).await.unwrap(), 1);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    assert_eq!(database.ask("SELECT sum(n)::bigint FROM rows"), 2);
}

#[tokio::test]
async fn where_no_commit_can_be_durable_nothing_is_written_and_the_reason_is_named() {
    let Some(server) = Server::start("fsync = off") else { return };
    let database = Database::of(&Arc::new(server));
    let postgres = connect(&settings(database.url()), STEPS);
    postgres.migrate().await.unwrap();
    postgres.wait_until_usable().await;
    let is_usable = postgres.is_usable();
    for setting in ["fsync", "full_page_writes"] {
        database.run(&format!("ALTER SYSTEM SET {setting} = off"));
        database.run("SELECT pg_reload_conf()");
        wait_until("a word", || is_usable().is_err_and(|why| why.text.contains(setting))).await;
        let insert = "INSERT INTO rows VALUES (1, 0)";
        let written = postgres.write(PoolClass::Record, insert, &[]).await;
        assert!(matches!(written, Err(PgError::NotDurable)), "{setting}: {written:?}");
        let job = |tx: Tx| async move { tx.execute(insert, &[]).await };
        let done = postgres.transaction(PoolClass::Record, job).await;
        assert!(matches!(done, Err(PgError::NotDurable)), "{setting}: {done:?}");
        let page = postgres.page(PoolClass::Claim, "SELECT count(*) FROM rows", &[]).await.unwrap();
        assert_eq!(get::<i64>(&page[0], 0).unwrap(), 0, "{setting}: reading goes on, and nothing was kept");
        database.run(&format!("ALTER SYSTEM RESET {setting}"));
        database.run("SELECT pg_reload_conf()");
        wait_until("it to be usable", || is_usable().is_ok()).await;
    }
    postgres.write(PoolClass::Record, "INSERT INTO rows VALUES (1, 0)", &[]).await.unwrap();
    assert_eq!(database.ask("SELECT count(*) FROM rows"), 1);
}

#[tokio::test]
async fn a_role_that_lost_a_right_is_not_ready_until_it_has_it_again() {
    let Some(server) = Server::start("a role without rights").map(Arc::new) else { return };
    let database = Database::of(&server);
    connect(&settings(database.url()), STEPS).migrate().await.unwrap();
    database.run("CREATE ROLE clerk LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk");
    let (_, place) = database.url().split_once('@').unwrap();
    let postgres = connect(&settings(&format!("postgres://clerk@{place}")), STEPS);
    postgres.wait_until_usable().await;
    let is_usable = postgres.is_usable();
    let insert = "INSERT INTO rows VALUES (1, 0)";

    database.run("REVOKE INSERT, DELETE ON rows FROM clerk");
    let denied = postgres.write(PoolClass::Record, insert, &[]).await;
    assert!(matches!(denied, Err(PgError::Denied(_))), "{denied:?}");
    let says = |why: chassis::admin::Unmet| {
        why.code == "rights" && why.text.contains("its role clerk lacks DELETE on rows, INSERT on rows")
    };
    wait_until("a word on the rights", || is_usable().is_err_and(says)).await;

    database.run("GRANT INSERT, DELETE ON rows TO clerk");
    wait_until("it to be usable", || is_usable().is_ok()).await;
    postgres.write(PoolClass::Record, insert, &[]).await.unwrap();
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_and_another_services_schema_is_refused() {
    const BROKEN: &[Migration] = &[
        STEPS[0],
        Migration {
            name: "broken",
            sql: "CREATE TABLE more (n bigint); SELECT nothing",
            breaks_older: false,
        },
    ];
    const OTHER: &[Migration] = &[Migration { name: "others", sql: "", breaks_older: false }];
    let Some((database, _)) = open("migrations").await else { return };
    let url = settings(database.url());
    let broken = connect(&url, BROKEN).migrate().await;
    assert!(matches!(broken, Err(PgError::Refused(_))), "{broken:?}");
    assert_eq!(database.ask("SELECT count(*) FROM pg_tables WHERE tablename = 'more'"), 0);
    let below = connect(&url, BROKEN);
    let is_usable = below.is_usable();
    wait_until("a word on the schema", || is_usable().is_err_and(|why| why.text.contains("needs step 2")))
        .await;
    let other = connect(&url, OTHER).migrate().await;
    assert!(matches!(other, Err(PgError::Schema(_))), "{other:?}");
}

#[tokio::test]
async fn over_tls_the_server_proves_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let pair = authority.server("localhost");
    let Some(server) = Server::start_with("TLS to the database", &[], Some(&pair)) else { return };
    let url = format!("postgres://tinjis@localhost:{}/postgres?sslmode=verify-full", server.address().port());
    let ca = dir.path().join("ca.pem");
    let trust = |url: &str, authority: &Authority| {
        replace(&ca, &authority.pem());
        let source = tls::Source { setting: "--database-ca".into(), path: ca.clone() };
        PostgresSettings::parse(url, Some(source), 4, "shop").unwrap()
    };
    let ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let rows = connect(&trust(&url, &authority), STEPS).read(PoolClass::Claim, ask, &[]).await.unwrap();
    assert!(get::<bool>(&rows[0], 0).unwrap());

    let refused = connect(&trust(&url, &stranger), STEPS).read(PoolClass::Claim, ask, &[]).await;
    assert!(matches!(refused, Err(PgError::Unavailable(_))), "{refused:?}");
    let by_address = url.replace("localhost", "127.0.0.1");
    let refused = connect(&trust(&by_address, &authority), STEPS).read(PoolClass::Claim, ask, &[]).await;
    assert!(matches!(refused, Err(PgError::Unavailable(_))), "{refused:?}");
}
