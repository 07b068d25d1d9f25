//! A PostgreSQL standby is promoted while payments run: the primary dies, and the standby lacks its last charges.
//! Payments execute nothing there before an operator has acted, or has stated that nothing can be lost.

use std::process::Command;
use std::time::Duration;

use testkit::postgres::{DatabaseClient, Server};
use testkit::process::{Process, Spec, run_by};
use testkit::wait::{pause, wait_until};
use testkit::{http, ledger};

use crate::site::{TINJIS, WITHIN};

const ROWS: &str = "SELECT count(*) FROM ledger";
/// Charges before a replica's link is cut, and after it: the new primary lacks the later ones.
const REPLICATED: usize = 10;
const LOST: usize = 10;

/// Creates an ordinary role that owns its database and no more.
fn owned_database(server: &Server) {
    let sql = DatabaseClient::to(&server.url("postgres"));
    sql.run("CREATE ROLE payer LOGIN");
    sql.run("CREATE DATABASE ledger OWNER payer");
}

/// A primary with a standby, and payments that know both.
struct Cluster {
    primary: Server,
    standby: Server,
    payments: Process,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start(failover: &str) -> Option<Self> {
        let primary = Server::start("a promoted standby")?;
        owned_database(&primary);
        let standby = primary.standby();
        let folder = tempfile::tempdir().expect("a folder can be made");
        let url = format!("postgres://payer@{},{}/ledger", primary.address(), standby.address());
        let mut spec = Spec::new(run_by(TINJIS, "payments"), "payments", folder.path());
        spec.env.insert("DATABASE_URL".to_owned(), url);
        spec.env.insert("LEDGER_FAILOVER".to_owned(), failover.to_owned());
        spec.flags.push("--success-rate=1".to_owned());
        let mut payments = Process::new(spec);
        payments.run_to_end("migrate");
        payments.start_again();
        Some(Self { primary, standby, payments, _folder: folder })
    }

    fn charge(&self, key: &str) -> Result<http::Answer, String> {
        let body = br#"{"customer_id":1,"currency":"EUR","value":1.25}"#;
        let url = format!("{}/", self.payments.url());
        http::try_call("POST", &url, &[("Idempotency-Key", key)], body).map_err(|error| error.to_string())
    }

    fn charge_all(&self, prefix: &str, count: usize) {
        for number in 0..count {
            let answer = self.charge(&format!("{prefix}{number}")).expect("payments answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }

    fn rows_on_standby(&self) -> i64 {
        DatabaseClient::to(&self.standby.url("ledger")).ask(ROWS)
    }

    /// Stops the replication, charges on the primary, kills it, and promotes the standby.
    fn fail_over_with_loss(&self) {
        self.charge_all("kept", REPLICATED);
        let kept = i64::try_from(REPLICATED).expect("a drill is small");
        wait_until("the standby to follow", WITHIN, || self.rows_on_standby() == kept);
        DatabaseClient::to(&self.standby.url("postgres")).run("ALTER SYSTEM SET primary_conninfo = ''");
        DatabaseClient::to(&self.standby.url("postgres")).run("SELECT pg_reload_conf()");
        let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
        wait_until("the link to be cut", WITHIN, || {
            DatabaseClient::to(&self.standby.url("postgres")).ask(receivers) == 0
        });
        self.charge_all("lost", LOST);
        self.primary.kill();
        self.standby.promote();
        assert_eq!(self.rows_on_standby(), kept, "the new primary lacks charges");
    }

    /// Repeats a charge until payments have reached the new primary; returns their answer.
    fn first_answer(&self, key: &str) -> http::Answer {
        testkit::wait::wait_for("payments to reach the new primary", WITHIN, || {
            let answer = self.charge(key).ok()?;
            let is_there = answer.status == 200 || answer.header("not-executed") == Some("true");
            if !is_there {
                pause(Duration::from_millis(20));
            }
            is_there.then_some(answer)
        })
    }
}

#[test]
fn payments_that_live_through_a_promotion_execute_nothing_before_the_ledger_has_a_new_id() {
    let Some(mut cluster) = Cluster::start("manual") else { return };
    cluster.fail_over_with_loss();
    let kept = cluster.rows_on_standby();
    // Each of these charges was executed on the primary that died.
    for number in 0..LOST {
        let answer = cluster.first_answer(&format!("lost{number}"));
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    assert_eq!(cluster.rows_on_standby(), kept, "nothing is executed on the new primary");
    wait_until("payments to say what helps", WITHIN, || {
        let said = cluster.payments.readiness().1;
        said.contains("`payments new-ledger-id`") && said.contains("--ledger-failover synchronous")
    });
    // A new process on that server is refused too.
    cluster.payments.stop();
    cluster.payments.spawn();
    assert_eq!(cluster.first_answer("lost0").status, 503);
    assert_eq!(cluster.rows_on_standby(), kept);

    cluster.payments.run_to_end("new-ledger-id");
    wait_until("the process with the old id to end", WITHIN, || cluster.payments.ended().is_some());
    cluster.payments.kill();
    cluster.payments.start_again();
    cluster.charge_all("new", 3);
    assert_eq!(cluster.rows_on_standby(), kept + 3);
}

#[test]
fn payments_go_on_after_a_promotion_that_loses_nothing_if_the_operator_has_stated_so() {
    let Some(mut cluster) = Cluster::start("synchronous") else { return };
    cluster.charge_all("kept", REPLICATED);
    let kept = i64::try_from(REPLICATED).unwrap();
    wait_until("the standby to follow", WITHIN, || cluster.rows_on_standby() == kept);
    cluster.primary.kill();
    cluster.standby.promote();
    // Until payments have reached the new primary, they answer that nothing was executed.
    wait_until("payments to charge on the new primary", WITHIN, || {
        cluster.first_answer("new0").status == 200
    });
    assert_eq!(cluster.rows_on_standby(), kept + 1);
    let timeline = "SELECT timeline FROM ledger_meta";
    assert_eq!(
        DatabaseClient::to(&cluster.standby.url("ledger")).ask(timeline),
        2,
        "the new place is remembered"
    );
    // The former primary returns: no charge is executed there.
    cluster.standby.stop();
    cluster.primary.start_again();
    let answer = cluster.first_answer("new1");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(DatabaseClient::to(&cluster.primary.url("ledger")).ask(ROWS), kept);
    cluster.payments.kill();
}

#[test]
fn a_server_that_does_not_tell_where_it_is_needs_a_statement() {
    let Some(server) = Server::start("a server that tells nothing") else { return };
    owned_database(&server);
    DatabaseClient::to(&server.url("ledger"))
        .run("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public");
    let folder = tempfile::tempdir().unwrap();
    let mut spec = Spec::new(run_by(TINJIS, "payments"), "payments", folder.path());
    spec.env.insert("DATABASE_URL".to_owned(), format!("postgres://payer@{}/ledger", server.address()));
    let mut payments = Process::new(spec);
    payments.run_to_end("migrate");
    payments.spawn();
    wait_until("payments to say what helps", WITHIN, || {
        payments.readiness().1.contains("pg_control_system()")
    });
    payments.stop();
    payments.set_env("LEDGER_FAILOVER", "synchronous");
    payments.start_again();
    payments.stop();
    // Once the server shows its identity, payments remember it.
    DatabaseClient::to(&server.url("ledger")).run("GRANT EXECUTE ON FUNCTION pg_control_system() TO public");
    payments.set_env("LEDGER_FAILOVER", "manual");
    payments.start_again();
}

#[test]
fn a_backup_of_postgres_says_what_to_use_instead() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("backup.db");
    for service in ["billing", "payments"] {
        let output = Command::new(TINJIS)
            .args(["backup", &format!("--{service}"), "postgres://u@127.0.0.1:9/d"])
            .arg(&to)
            .env_clear()
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code() == Some(1), "{service}: {said}");
        for tool in ["point-in-time recovery", "pg_dump of the whole database"] {
            assert!(said.contains(tool), "{service}: {said}");
        }
        assert!(!to.exists());
    }
}

#[test]
fn a_backup_is_taken_by_either_command_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let payments = Process::start(Spec::new(run_by(TINJIS, "payments"), "payments", folder.path()));
    let to = folder.path().join("backup.db");
    let (url, file) = (format!("sqlite:{}", payments.db().display()), to.to_str().unwrap());
    let backup = |file: &str| {
        let command = Command::new(TINJIS).args(["backup", "--payments", &url, file]).env_clear().output();
        command.unwrap()
    };
    let output = backup(file);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let id = ledger::texts(&payments.db(), "SELECT ledger_id FROM ledger_meta").remove(0);
    assert!(output.status.success() && said.contains(&id), "{said}");
    assert_eq!(backup(file).status.code(), Some(1));
    assert_eq!(payments.try_run_words(&["backup", file]).code(), Some(1));
    let other = folder.path().join("other.db");
    assert!(payments.try_run_words(&["backup", other.to_str().unwrap()]).success());
}
