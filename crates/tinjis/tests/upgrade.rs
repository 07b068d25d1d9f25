//! Upgrade: programs of the previous and the present version on one database, at the same time on PostgreSQL and one
//! after the other on SQLite, with a migration during a run; then back, and forward again. Nothing is charged twice or
//! lost. `make upgrade` builds the previous version; without it, or in a checkout without history, the test is skipped.
//! Knows both versions from outside only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use testkit::ledger::ask;
use testkit::process::{Spec, run_by};
use testkit::proof::{Verified, progress};
use testkit::requirements::{leave_out, skip_notice};
use testkit::wait::{wait_for, wait_until};
use testkit::{Database, Process, Proof, http, runs, size};

/// The folder of the previous version's `billing` and `payments`.
const PREVIOUS: &str = "UPGRADE_PREVIOUS";
/// Maximum duration of a step, on any machine.
const WITHIN: Duration = Duration::from_secs(300);
/// Maximum number of runs until each program has charged something.
const ROUNDS_MAX: usize = 20;
const PAID: &str = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
const STEPS: [&str; 2] =
    ["SELECT count(*) FROM billing_migrations", "SELECT count(*) FROM payments_migrations"];
const CHARGED: &[&str] = &["billing_attempts_total", "outcome=\"charged\""];

/// The version of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Previous,
    Present,
}
use Version::{Present, Previous};

/// One installation: programs of two versions with a shared store.
struct Site {
    previous: PathBuf,
    dir: TempDir,
    database: Option<Database>,
    invoices: usize,
}

impl Site {
    /// `None` with a notice where there is no previous version or no server.
    fn of(on_postgres: bool) -> Option<Self> {
        let Some(previous) = std::env::var_os(PREVIOUS).filter(|folder| !folder.is_empty()) else {
            leave_out(
                "two versions on one database",
                format_args!("{PREVIOUS} is not set; make upgrade sets it"),
            );
            return None;
        };
        let previous = PathBuf::from(previous);
        if let Ok(why) = std::fs::read_to_string(previous.join("none")) {
            skip_notice("two versions on one database", why.trim());
            return None;
        }
        let database = if on_postgres { Some(Database::fresh("two versions at once")?) } else { None };
        let dir = tempfile::tempdir().expect("a folder can be made");
        Some(Self { previous, dir, database, invoices: size("UPGRADE_INVOICES", 1_000) })
    }

    /// A program of this version, not started. On SQLite processes with the same name share a file.
    fn process(
        &self,
        version: Version,
        service: &str,
        name: &'static str,
        provider: Option<&Process>,
    ) -> Process {
        let program = match version {
            Previous => vec![OsString::from(self.previous.join(service))],
            Present => run_by(env!("CARGO_BIN_EXE_tinjis"), service),
        };
        let mut spec = Spec::new(program, name, self.dir.path());
        if let Some(database) = &self.database {
            spec.env.insert("DATABASE_URL".to_owned(), database.url().to_owned());
        }
        match provider {
            None => spec.flags.extend(["--success-rate=0.9".to_owned(), "--seed=7".to_owned()]),
            Some(provider) => {
                spec.env.insert("PAYMENT_PROVIDER_ENDPOINT".to_owned(), provider.url());
                spec.env.insert("PAYMENT_PROVIDER_IDEMPOTENCY".to_owned(), "keys".to_owned());
            }
        }
        Process::new(spec)
    }

    fn started(
        &self,
        version: Version,
        service: &str,
        name: &'static str,
        provider: Option<&Process>,
    ) -> Process {
        let mut process = self.process(version, service, name, provider);
        process.start_again();
        process
    }

    /// Waits until a tenth of the latest import is paid too.
    fn wait_for_a_part(&self, already: i64, paid: impl Fn() -> i64) {
        let part = i64::try_from(self.invoices / 10).expect("a count");
        wait_until("a part is paid", WITHIN, || paid() > already + part);
    }

    fn import(&self, billing: &Process, prefix: &str) {
        let row = |number: usize| {
            format!(
                "{{\"reference\":\"{prefix}{number}\",\"customer_id\":{},\"currency\":\"EUR\",\"amount\":\"9.99\"}}\n",
                number % 50 + 1
            )
        };
        let rows: String = (1..=self.invoices).map(row).collect();
        let url = format!("{}/v1/imports", billing.url());
        let answer = http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], rows.as_bytes());
        assert_eq!(answer.status, 200, "import: {}", answer.text());
    }
}

/// Whether at least one service has more migrations than before, and none has fewer.
fn is_further(after: [i64; 2], before: [i64; 2]) -> bool {
    after != before && after[0] >= before[0] && after[1] >= before[1]
}

fn pay_until_true(billings: &[&Process]) {
    let mut turn = 0;
    wait_for("pay to answer true", WITHIN, || {
        let billing = billings[turn % billings.len()];
        turn += 1;
        let answer =
            http::try_call("POST", &format!("{}/rest/v1/invoices/pay", billing.url()), &[], b"").ok()?;
        (answer.status == 200 && answer.body == b"true").then_some(())
    });
}

fn verify(billing: &Process, payments: &Process) -> Verified {
    let verified = Verified::between(env!("CARGO_BIN_EXE_tinjis"), (&billing.url(), &payments.url()), &[]);
    verified.assert_all_paid("after the upgrade");
    verified
}

#[test]
fn two_versions_at_once_on_one_postgresql_charge_each_invoice_once() {
    let Some(site) = Site::of(true) else { return };
    let proof = Proof::of("two versions at once, PostgreSQL");
    let database = site.database.as_ref().expect("it has one");

    // The previous version alone; the migration runs during its run.
    site.process(Previous, "payments", "payments-old", None).run_to_end("migrate");
    let mut payments_old = site.started(Previous, "payments", "payments-old", None);
    let mut billing_old = site.process(Previous, "billing", "billing-old", Some(&payments_old));
    billing_old.run_to_end("migrate");
    billing_old.start_again();
    migrate_in_mid_run(&site, &billing_old, database);

    // Both versions of both services, in every combination.
    let mut payments_new = site.started(Present, "payments", "payments-new", None);
    let more_old = site.started(Previous, "billing", "billing-old-2", Some(&payments_new));
    let mut billing_new = site.started(Present, "billing", "billing-new", Some(&payments_old));
    let mut more_new = site.started(Present, "billing", "billing-new-2", Some(&payments_new));
    let rounds = each_charges(&site, &[&billing_old, &more_old, &billing_new, &more_new]);

    // One billing of each version dies during a run; the other billings take over its open attempts.
    site.import(&more_new, "C");
    let already = database.ask(PAID);
    for billing in [&billing_old, &billing_new, &more_old, &more_new] {
        let _run = runs::start(&billing.url());
    }
    site.wait_for_a_part(already, || database.ask(PAID));
    billing_old.kill();
    billing_new.kill();
    pay_until_true(&[&more_old, &more_new]);

    // Back to the previous version alone, on the present schema.
    assert!(more_new.stop().success() && payments_new.stop().success(), "they end softly");
    drop(more_old);
    billing_old.start_again();
    site.import(&billing_old, "D");
    pay_until_true(&[&billing_old]);

    // Forward to the present version again.
    payments_new.start_again();
    billing_old.kill();
    payments_old.kill();
    more_new.start_again();
    site.import(&more_new, "E");
    pay_until_true(&[&more_new]);
    assert_eq!(
        http::get(&format!("{}/v1/runs/1", more_new.url())).status,
        200,
        "it reads what the other wrote"
    );
    let judged = database.judge();
    assert_eq!((judged.double, judged.lost, judged.unbacked, judged.open), (0, 0, 0, 0), "{judged:?}");
    let verified = verify(&more_new, &payments_new);
    let how_many = format!("{} invoices, 2 kills, {rounds} mixed runs", judged.invoices);
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}

/// Migrates during a run; the previous version stays ready and continues to charge on the new schema.
fn migrate_in_mid_run(site: &Site, billing: &Process, database: &Database) {
    let steps = || STEPS.map(|query| database.ask(query));
    site.import(billing, "A");
    let _run = runs::start(&billing.url());
    site.wait_for_a_part(0, || database.ask(PAID));
    let before = steps();
    site.process(Present, "payments", "payments-new", None).run_to_end("migrate");
    site.process(Present, "billing", "billing-new", Some(billing)).run_to_end("migrate");
    let (after, paid) = (steps(), database.ask(PAID));
    assert!(is_further(after, before), "a migration lies between: {before:?}, {after:?}");
    progress(&format!("migrated from {before:?} to {after:?} with {paid} of {} paid", site.invoices));
    pay_until_true(&[billing]);
    let ready = http::get(&format!("{}/readyz", billing.admin_url()));
    assert_eq!(ready.status, 200, "{}", ready.text());
}

/// Runs until each billing has charged; returns the number of runs.
fn each_charges(site: &Site, billings: &[&Process]) -> usize {
    for round in 1..=ROUNDS_MAX {
        site.import(billings[round % billings.len()], &format!("B{round}-"));
        for billing in billings {
            let _run = runs::start(&billing.url());
        }
        pay_until_true(billings);
        if billings.iter().all(|billing| billing.metric(CHARGED) > 0) {
            return round;
        }
    }
    let shares: Vec<i64> = billings.iter().map(|billing| billing.metric(CHARGED)).collect();
    panic!("each charges in {ROUNDS_MAX} runs: {shares:?}");
}

#[test]
fn two_versions_one_after_the_other_on_one_sqlite_file_charge_each_invoice_once() {
    let Some(site) = Site::of(false) else { return };
    let proof = Proof::of("two versions in turn, SQLite");
    let mut steps = Vec::new();
    let mut turn = |version: Version, prefix: &str| {
        let payments = site.started(version, "payments", "payments", None);
        let billing = site.started(version, "billing", "billing", Some(&payments));
        let taken = |file: &Path| ask(file, "SELECT count(*) FROM migrations");
        steps.push([taken(&billing.db()), taken(&payments.db())]);
        let already = ask(&billing.db(), PAID);
        site.import(&billing, prefix);
        let _run = runs::start(&billing.url());
        site.wait_for_a_part(already, || ask(&billing.db(), PAID));
        (billing, payments)
    };
    // Dropping the processes kills them, during their run.
    drop(turn(Previous, "A"));
    drop(turn(Present, "B"));
    drop(turn(Previous, "C"));
    let (billing, payments) = turn(Present, "D");
    pay_until_true(&[&billing]);
    let verified = verify(&billing, &payments);
    let judged = testkit::ledger::judge(&billing.db(), &payments.db());
    assert_eq!((judged.double, judged.lost, judged.unbacked, judged.open), (0, 0, 0, 0), "{judged:?}");
    let [before, after, back, again] = steps[..] else { panic!("four turns: {steps:?}") };
    assert!(is_further(after, before), "a migration lies between: {steps:?}");
    assert_eq!((back, again), (after, after), "and stays");
    let how_many = format!("{} invoices, 3 kills, back and forward", judged.invoices);
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}
