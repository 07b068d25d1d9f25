//! Kill matrix: billing is killed at each of K1 to K14, payments at each of P1 to P5, at the first, the second and a
//! random hit. After a restart all is paid: no invoice is charged twice or lost. A point that is never reached fails.
//! Small here; `make kill-points` is the full size. Knows the services from outside only, and the names of the points,
//! which release builds do not have.
#![cfg(debug_assertions)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use testkit::ledger::Verdict;
use testkit::postgres::Database;
use testkit::wait::{pause, wait_until};
use testkit::{Process, Proof, SeededRng, Services, http, size};

/// Maximum time until a point is reached or a round is paid, on any machine.
const WITHIN: Duration = Duration::from_secs(60);
/// Billing's times are divided by this: an attempt's lease is a second instead of a minute, and calls may take a sixth
/// of it.
const TEMPO: &str = "60";
/// Plain invoices of a round; some rounds add one with a held answer before them.
const INVOICES: usize = 40;
/// The customer whose first answers are held.
const HELD: usize = 901;
const FAULTS: &str = "
    [[rule]]
    fault = \"hold\"
    customer_id = 901
    latency_ms = 700
";

/// Every charge is delayed.
const ALL_HELD: &str = "[[rule]]\nfault = \"latency\"\nlatency_ms = 300\n";
const RUNNING: &str = "SELECT count(*) FROM runs WHERE state = 'running'";
/// Minimum number of open attempts when billing is killed.
const OPEN_MIN: i64 = 5;
/// A sixth of an attempt's lease, and shorter than a run's.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

/// The process that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Billing,
    Payments,
}

/// What brings the victim to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// A start without a store.
    NewStore,
    /// A start with open attempts.
    Restart,
    /// A run of ordinary length.
    Run,
    /// A run that lasts until its lease is renewed.
    LongRun,
    /// An operator's decision while the call is in flight.
    Resolve,
    /// SIGTERM during a run.
    Stop,
}

use Trigger::{LongRun, NewStore, Resolve, Restart, Run, Stop};
use Victim::{Billing, Payments};

/// Each point: its number, its name in the code, the victim, the trigger, and the range of the random hit. New stores
/// come first, because they forget what was charged.
const POINTS: [(&str, &str, Victim, Trigger, u64); 19] = [
    ("K13", "migration", Billing, NewStore, 4),
    ("K1", "K1", Billing, Run, 6),
    ("K2", "K2", Billing, Run, 6),
    ("K3", "client-connected", Billing, Run, 40),
    ("K4", "client-half-request", Billing, Run, 40),
    ("K5", "client-request-sent", Billing, Run, 60),
    ("K6", "client-half-answer", Billing, Run, 40),
    ("K7", "K7", Billing, Run, 60),
    ("K8", "K8", Billing, Run, 6),
    ("K9", "K9", Billing, Run, 6),
    ("K10", "K10", Billing, Restart, 4),
    ("K11", "K11", Billing, Resolve, 4),
    ("K12", "K12", Billing, LongRun, 4),
    ("K14", "K14", Billing, Stop, 4),
    ("P1", "P1", Payments, Run, 60),
    ("P2", "P2", Payments, Run, 60),
    ("P3", "P3", Payments, Run, 60),
    ("P4", "P4", Payments, Run, 60),
    ("P5", "P5", Payments, Run, 60),
];

/// Maximum number of rounds until a point is hit.
const ROUNDS_MAX: usize = 60;

struct Matrix {
    services: Services,
    database: Option<Database>,
    imported: i64,
    rounds: usize,
}

#[test]
fn killed_at_each_named_point_every_invoice_is_charged_once() {
    prove(Proof::of("kill matrix, SQLite"), None);
}

#[test]
fn killed_at_each_named_point_on_postgres_every_invoice_is_charged_once() {
    let Some(database) = Database::fresh("the kill matrix") else { return };
    prove(Proof::of("kill matrix, PostgreSQL"), Some(database));
}

fn prove(proof: Proof, database: Option<Database>) {
    let (mut rng, hits) = (SeededRng::random(), size("KILL_HITS", 1));
    let seed = rng.seed();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let faults = folder.path().join("faults.toml");
    fs::write(&faults, FAULTS).expect("a script can be written");
    let flags =
        [format!("--faults={}", faults.display()), "--success-rate=0.9".to_owned(), "--seed=1".to_owned()];
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_flags(flags)
        .billing_env("TINJIS_TRIAL_TEMPO", TEMPO);
    let services = match &database {
        Some(database) => services.database(database.url()).start(),
        None => services.start(),
    };
    let mut matrix = Matrix { services, database, imported: 0, rounds: 0 };
    let (mut kills, mut verdict) = (0, Verdict::default());
    for (number, point, victim, trigger, drawn_from) in POINTS {
        let random = 3 + usize::try_from(rng.below(drawn_from)).unwrap_or_default();
        // The small size uses one of the three hits, in rotation.
        let all = [1, 2, random];
        let chosen = if hits >= all.len() { &all[..] } else { &all[kills % all.len()..][..1] };
        for &nth in chosen {
            matrix.die_at(point, nth, victim, trigger);
            matrix.services.pay_until_true(WITHIN);
            verdict = matrix.judge();
            let all = matrix.imported;
            let wanted = Verdict { invoices: all, paid: all, charges: all, ..Verdict::default() };
            assert_eq!(
                verdict, wanted,
                "SEED={seed}: after {number} ({point}), hit {nth}: each is charged once"
            );
            kills += 1;
        }
    }
    let figure = |count: i64| u64::try_from(count).unwrap_or(u64::MAX);
    let points = POINTS.len();
    proof.end(
        &format!("{kills} kills at {points} points, {} invoices, SEED={seed}", verdict.invoices),
        figure(verdict.double),
        figure(verdict.lost),
    );
}

#[test]
fn what_a_crash_left_open_is_settled_at_once_after_a_start() {
    let proof = Proof::of("recovery at start, SQLite");
    let kills = size("RECOVERIES", 2);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let faults = folder.path().join("faults.toml");
    fs::write(&faults, ALL_HELD).unwrap();
    // Time is not shortened: the test must not have to wait for leases of a minute.
    let mut services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .payments_flags([format!("--faults={}", faults.display()), "--success-rate=1".to_owned()])
        .start();
    let open = "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";
    let (mut left_open, mut struck, mut round) = (0, 0, 0);
    while struck < kills {
        round += 1;
        services.import(&format!("C{round}-"), INVOICES);
        let _run = services.start_run();
        wait_until("attempts to be open, or the run to be over already", WITHIN, || {
            services.ask_billing(open) >= OPEN_MIN || services.ask_billing(RUNNING) == 0
        });
        services.billing.kill();
        let left = services.ask_billing(open);
        services.billing.start_again();
        wait_until("what was open to be settled", SETTLED_WITHIN, || services.ask_billing(open) == 0);
        // A kill with too few open attempts proves nothing.
        if left >= OPEN_MIN {
            struck += 1;
            left_open += left;
        }
    }
    services.pay_until_true(WITHIN);
    let verdict = services.judge();
    let all = verdict.invoices;
    assert_eq!(verdict, Verdict { invoices: all, paid: all, charges: all, ..Verdict::default() });
    proof.end(&format!("{kills} kills, {left_open} attempts left open, {all} invoices"), 0, 0);
}

impl Matrix {
    fn victim(&mut self, victim: Victim) -> &mut Process {
        match victim {
            Victim::Billing => &mut self.services.billing,
            Victim::Payments => &mut self.services.payments,
        }
    }

    fn judge(&self) -> Verdict {
        self.services.judge()
    }

    /// Kills the victim at this hit of the point, with as many starts as necessary, and then starts it normally.
    fn die_at(&mut self, point: &'static str, nth: usize, victim: Victim, trigger: Trigger) {
        let hits = self.services.dir().join(format!("{point}-{nth}.hits"));
        let process = self.victim(victim);
        process.kill();
        process.set_env("TINJIS_CRASH", format!("{point}:{nth}"));
        process.set_env("TINJIS_CRASH_HITS", hits.to_str().expect("a test's path is UTF-8"));
        if trigger == Trigger::NewStore {
            self.forget_stores();
        }
        let mut rounds = 0;
        while !self.is_dead_after(victim, trigger) {
            rounds += 1;
            assert!(
                rounds < ROUNDS_MAX,
                "{point}: hit {nth} was not reached in {rounds} rounds: {}",
                reached(&hits, point)
            );
        }
        assert_eq!(
            reached(&hits, point),
            nth,
            "{point}: dead at another hit than the one that was asked for"
        );
        let process = self.victim(victim);
        process.set_env("TINJIS_CRASH", "");
        process.set_env("TINJIS_CRASH_HITS", "");
        if trigger == Trigger::NewStore {
            self.forget_stores();
            self.make_stores();
        }
        self.victim(victim).start_again();
    }

    /// Runs one round; returns whether the victim died by SIGKILL.
    fn is_dead_after(&mut self, victim: Victim, trigger: Trigger) -> bool {
        self.rounds += 1;
        if trigger == Trigger::NewStore {
            return self.is_dead_after_new_store();
        }
        let process = self.victim(victim);
        if !process.is_running() && is_dead_at_start(process) {
            return true;
        }
        self.import(trigger);
        self.ask_for_run();
        match trigger {
            Trigger::Restart => {
                self.wait_for_open(victim);
                self.services.billing.kill();
                is_dead_at_start(&mut self.services.billing)
            }
            Trigger::Stop => {
                self.wait_for_open(victim);
                let died = self.services.billing.stop().signal() == Some(9);
                died || is_dead_at_start(&mut self.services.billing)
            }
            Trigger::Resolve => {
                self.say_not_charged();
                self.is_dead_after_run(victim)
            }
            _ => self.is_dead_after_run(victim),
        }
    }

    fn is_dead_after_new_store(&mut self) -> bool {
        if self.database.is_some() {
            // On PostgreSQL a job creates the schema.
            let died = self.services.billing.try_run("migrate").signal() == Some(9);
            if !died {
                self.forget_stores();
            }
            return died;
        }
        self.services.billing.kill();
        let is_new = !self.services.billing.db().exists();
        let died = is_dead_at_start(&mut self.services.billing);
        // The next round needs a new store again, unless this one was created only partly.
        if !died && is_new {
            self.services.billing.kill();
            self.forget_stores();
        }
        died
    }

    /// Waits until the run or the victim ends; returns whether the victim died.
    fn is_dead_after_run(&mut self, victim: Victim) -> bool {
        wait_until("a run to end, or the victim", WITHIN, || {
            self.victim(victim).ended().is_some() || self.services.ask_billing(RUNNING) == 0
        });
        let Some(status) = self.victim(victim).ended() else { return false };
        assert_eq!(status.signal(), Some(9), "it dies by SIGKILL");
        self.victim(victim).kill();
        true
    }

    fn import(&mut self, trigger: Trigger) {
        let round = self.rounds;
        if matches!(trigger, Trigger::Restart | Trigger::Resolve | Trigger::Stop | Trigger::LongRun) {
            let row = format!(
                "{{\"reference\":\"held-{round}\",\"customer_id\":{HELD},\"currency\":\"EUR\",\"amount\":\"12.15\"}}\n"
            );
            let url = format!("{}/v1/imports", self.services.billing_url());
            let answer =
                http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], row.as_bytes());
            assert_eq!(answer.status, 200, "import: {}", answer.text());
            self.imported += 1;
        }
        self.services.import(&format!("R{round}-"), INVOICES);
        self.imported += i64::try_from(INVOICES).expect("a round is smaller than 2^63");
    }

    /// Requests a run; billing may die before it can answer.
    fn ask_for_run(&self) {
        let _lost = http::try_call("POST", &format!("{}/v1/runs", self.services.billing_url()), &[], b"");
    }

    /// Waits for an open attempt, or for the end of the victim or the run: after a missed attempt another round
    /// follows.
    fn wait_for_open(&mut self, victim: Victim) {
        let open = "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";
        wait_until("an attempt to be open", WITHIN, || {
            self.services.ask_billing(open) > 0
                || self.victim(victim).ended().is_some()
                || self.services.ask_billing(RUNNING) == 0
        });
    }

    /// Resolves an open attempt as not charged. A refused decision and an answer lost with the process are allowed.
    fn say_not_charged(&mut self) {
        self.wait_for_open(Victim::Billing);
        let word = br#"{"decision":"not_charged","reason":"looked it up","actor":"anna"}"#;
        let base = format!("{}/v1/attempts", self.services.billing_url());
        let held = format!(
            "SELECT coalesce(min(invoice_id), 0) FROM attempts WHERE customer_id = {HELD} AND state IN ('INTENT', 'IN_DOUBT')"
        );
        let invoice = self.services.ask_billing(&held);
        let page = http::try_call("GET", &format!("{base}?after={invoice}.0&limit=1"), &[], b"");
        let Ok(page) = page else { return };
        let Some(key) = page.json()["items"][0]["key"].as_str().map(ToOwned::to_owned) else { return };
        let headers = [("Content-Type", "application/json")];
        let _lost = http::try_call("POST", &format!("{base}/{key}/resolve"), &headers, word);
        pause(Duration::from_millis(1));
    }

    /// Deletes the stores; nothing may have been charged before.
    fn forget_stores(&mut self) {
        assert_eq!(self.imported, 0, "a store that charged must not be forgotten");
        if let Some(database) = &self.database {
            self.services.payments.kill();
            database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        }
        for end in ["", "-wal", "-shm"] {
            let file = format!("{}{end}", self.services.billing.db().display());
            let _missing = fs::remove_file(file);
        }
    }
}

impl Matrix {
    /// Creates the schemas of a new database before the services start.
    fn make_stores(&mut self) {
        if self.database.is_some() {
            self.services.billing.run_to_end("migrate");
            self.services.payments.run_to_end("migrate");
            self.services.payments.start_again();
        }
    }
}

/// Starts the process; returns whether it died before it was ready.
fn is_dead_at_start(process: &mut Process) -> bool {
    match process.try_start() {
        Ok(()) => false,
        Err(status) => {
            assert_eq!(status.signal(), Some(9), "it dies by SIGKILL: {}", process.log());
            true
        }
    }
}

fn reached(hits: &PathBuf, point: &str) -> usize {
    fs::read_to_string(hits).unwrap_or_default().lines().filter(|line| *line == point).count()
}
