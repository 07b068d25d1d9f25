//! Both services on a virtual clock that the test moves: periods are charged at their time, and a store serves only its
//! own kind of clock.

use std::path::{Path, PathBuf};

use chassis::clock::VirtualClock;
use tempfile::TempDir;
use testkit::postgres::DatabaseClient;
use testkit::process::{Process, Spec, run_by};
use testkit::services::Builder;
use testkit::wait::wait_until;
use testkit::{Database, Services};

use crate::site::{CHARGES, INVOICES, Site, TINJIS, WITHIN};

/// 15 March 2030, noon UTC.
const START_MS: i64 = 1_899_806_400_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Due on the last day of each month at 06:00 in Copenhagen, which has summer time from 31 March on: at 04:00 UTC.
const ROWS: &str = "S1,1,EUR,9.90,31,Europe/Copenhagen,2030-03-20,2030-05-15\n";
const DUE_MS: i64 = START_MS + 15 * DAY_MS + 16 * 60 * 60 * 1000;

struct Shared {
    clock: VirtualClock,
    path: PathBuf,
    _dir: TempDir,
}

impl Shared {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let path = dir.path().join("clock");
        let clock = VirtualClock::create(&path, START_MS).expect("a clock can be made");
        Self { clock, path, _dir: dir }
    }

    fn flag(&self) -> String {
        format!("--virtual-clock={}", self.path.display())
    }

    fn builder(&self) -> Builder {
        Services::of(TINJIS).billing_flags([self.flag()]).payments_flags([self.flag()])
    }

    fn move_to(&self, to_ms: i64) {
        self.clock.move_to(to_ms).expect("a clock can be moved");
    }
}

/// Nothing happens in the quarter of an hour before a period is due; then it is charged, dated by the virtual clock.
fn charges_at_its_time(site: &Site, clock: &Shared, ask_billing: &dyn Fn(&str) -> i64) {
    site.import(ROWS);
    clock.move_to(DUE_MS - 15 * 60 * 1000);
    wait_until("billing to see that time", WITHIN, || {
        site.ends(0, &["schedule", "status", "--json"]).result.contains("\"now\":\"2030-03-31T03:45:")
    });
    assert_eq!((ask_billing(INVOICES), site.services.ask_payments(CHARGES)), (0, 0));
    clock.move_to(DUE_MS);
    let charged = || ask_billing(INVOICES) == 1 && site.services.is_all_paid();
    wait_until("March to be invoiced and charged", WITHIN, charged);
    assert_eq!(site.references(), ["S1@2030-03-31"]);
    let hour = format!("created_at BETWEEN {DUE_MS} AND {}", DUE_MS + 60 * 60 * 1000);
    let dated = format!("SELECT count(*) FROM attempts WHERE {hour}");
    assert_eq!(ask_billing(&dated), 1, "billing's row is of that time");
    let dated = format!("SELECT count(*) FROM ledger WHERE {hour}");
    assert_eq!(site.services.ask_payments(&dated), 1, "the ledger's row is of that time");
}

#[test]
fn a_period_is_charged_at_its_time_by_the_virtual_clock() {
    let clock = Shared::new();
    let site = Site::of(clock.builder());
    charges_at_its_time(&site, &clock, &|query| site.services.ask_billing(query));
    clock.move_to(DUE_MS + 30 * DAY_MS);
    wait_until("April to be charged", WITHIN, || site.services.ask_payments(CHARGES) == 2);
    wait_until("April to be paid", WITHIN, || site.services.is_all_paid());
    site.assert_each_is_charged_once();
}

#[test]
fn two_replicas_share_the_virtual_clock_of_one_database() {
    let Some(database) = Database::fresh("a virtual clock in PostgreSQL") else { return };
    let clock = Shared::new();
    migrated("billing", database.url(), Some(&clock.flag()));
    let site = Site::of(clock.builder().billing_env("DATABASE_URL", database.url()));
    let mut replica = Spec::new(run_by(TINJIS, "billing"), "replica", site.services.dir());
    replica.flags.push(clock.flag());
    for (name, value) in [
        ("DATABASE_URL", database.url()),
        ("PAYMENT_PROVIDER_ENDPOINT", &site.services.payments_url()),
        ("PAYMENT_PROVIDER_IDEMPOTENCY", "keys"),
    ] {
        replica.env.insert(name.to_owned(), value.to_owned());
    }
    let _replica = Process::start(replica);
    charges_at_its_time(&site, &clock, &|query| database.ask(query));
    assert_a_claim_finds_the_time(database.url());
}

/// Claims forbid table scans. A scan in `billing_now_ms` would have such a high estimated cost that PostgreSQL compiles
/// each call, which takes a fifth of a second.
fn assert_a_claim_finds_the_time(database: &str) {
    let sql = DatabaseClient::to(database);
    let text = |rows: Vec<Vec<Option<String>>>| -> String {
        rows.into_iter().flatten().flatten().fold(String::new(), |all, line| all + &line + "\n")
    };
    let body = text(sql.rows("SELECT prosrc FROM pg_proc WHERE proname = 'billing_now_ms'").unwrap());
    assert!(body.contains("virtual_clock"), "{body}");
    let plan =
        text(sql.rows(&format!("BEGIN; SET LOCAL enable_seqscan = off; EXPLAIN {body}; COMMIT")).unwrap());
    assert!(plan.contains("Index") && !plan.contains("Seq Scan") && !plan.contains("JIT"), "{plan}");
}

/// Starts one service on a database, with or without the clock; returns its output when it refuses to start.
fn refused(service: &str, database: &str, flag: Option<&str>) -> String {
    let mut command = std::process::Command::new(TINJIS);
    command.args(["run", service, "--database-url", database, "--listen=127.0.0.1:0"]);
    command.args(["--admin-listen=127.0.0.1:0"]).args(flag).env_clear();
    let output = command.output().expect("a service can be started");
    assert!(!output.status.success(), "{service} must not serve {database} with {flag:?}");
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

fn file(dir: &Path, service: &str) -> String {
    format!("sqlite:{}", dir.join(format!("{service}.db")).display())
}

/// Creates a store by `migrate`, as on PostgreSQL.
fn migrated(service: &str, database: &str, flag: Option<&str>) {
    let mut command = std::process::Command::new(TINJIS);
    command.args(["run", service, "--database-url", database]).args(flag).arg("migrate").env_clear();
    let output = command.output().expect("a service can be started");
    assert!(output.status.success(), "{service} migrates {database}: {output:?}");
}

#[test]
fn no_store_serves_the_other_kind_of_clock() {
    let clock = Shared::new();
    let flag = clock.flag();
    for service in ["billing", "payments"] {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let (marked, plain) = (dir.path().join("marked"), dir.path().join("plain"));
        for folder in [&marked, &plain] {
            std::fs::create_dir(folder).expect("a folder can be made");
        }
        migrated(service, &file(&marked, service), Some(&flag));
        migrated(service, &file(&plain, service), None);
        both_are_refused(service, &file(&marked, service), &file(&plain, service), &flag);
    }
}

#[test]
fn no_store_in_postgresql_serves_the_other_kind_of_clock() {
    let Some(marked) = Database::fresh("the clocks of stores in PostgreSQL") else { return };
    let Some(plain) = Database::fresh("the clocks of stores in PostgreSQL") else { return };
    let clock = Shared::new();
    let flag = clock.flag();
    migrated("billing", marked.url(), Some(&flag));
    migrated("billing", plain.url(), None);
    both_are_refused("billing", marked.url(), plain.url(), &flag);
    let refusal = refused("payments", plain.url(), Some(&flag));
    assert!(refusal.contains("--virtual-clock (VIRTUAL_CLOCK): needs"), "{refusal}");
}

fn both_are_refused(service: &str, marked: &str, plain: &str, flag: &str) {
    let refusal = refused(service, marked, None);
    assert!(refusal.contains("created by a simulation with a virtual clock"), "{service}: {refusal}");
    let refusal = refused(service, plain, Some(flag));
    assert!(refusal.contains("created without a virtual clock"), "{service}: {refusal}");
    // With the matching kind of clock both services start.
    migrated(service, marked, Some(flag));
    migrated(service, plain, None);
}
