//! What a charge costs where 1, 2 and 4 deployments share the same invoices on one machine. `tinjis import
//! --deployments` sends the rows, all deployments pay at the same time, and each round compares its own measurements.
//! Judges CPU and no rate: more deployments on one machine have no more CPU.
//!
//! All deployments stay up for the whole run and pay in short turns, because other load on a shared machine comes in
//! bursts of a second. Loops keep every CPU busy: two threads of one core cost more while both are busy, and four
//! deployments keep both busy for longer than one deployment does. So the figures hold for busy CPUs. Each turn adds
//! invoices: at the end one deployment has as many as the four have together. Run it without a CPU quota: the loops use
//! up a quota at any priority.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::ledger::charged_keys;
use testkit::wait::timed;
use testkit::{Services, http, runs};

use crate::legs::{RUN_WITHIN, count};
use crate::{grouped, micros};

/// How many deployments share the invoices; the others are compared with the first.
const DEPLOYMENTS: [usize; 3] = [1, 2, 4];
/// Maximum CPU of a charge, in thousandths of the CPU with one deployment.
const CPU_OF_ONE_MAX: u64 = 1050;
/// Rounds, unless `BENCH_ROUNDS` says otherwise.
pub(crate) const ROUNDS: usize = 30;
const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
const BUCKETS: usize = 1024;

/// One number of deployments in one round. CPU is per charge, in nanoseconds.
#[derive(Clone, Copy)]
struct Measured {
    per_second: u64,
    cpu_billing_ns: u64,
    cpu_payments_ns: u64,
}

impl Measured {
    fn cpu_ns(&self) -> u64 {
        self.cpu_billing_ns + self.cpu_payments_ns
    }
}

/// Measures every number of deployments in each round, up and down, and prints a verdict for each; returns whether all
/// stay within the limit.
pub(crate) fn report(out: &mut impl Write, invoices: usize, rounds: usize) -> io::Result<bool> {
    writeln!(
        out,
        "{} invoices a round on SQLite shared by 1, 2 and 4 deployments, {rounds} rounds",
        grouped(invoices)
    )?;
    let mut shared = DEPLOYMENTS.map(Shared::start);
    let mut busy = Busy::start()?;
    let mut measured: [Vec<Measured>; DEPLOYMENTS.len()] = Default::default();
    for round in 0..rounds {
        for step in 0..DEPLOYMENTS.len() {
            let turn = if round % 2 == 0 { step } else { DEPLOYMENTS.len() - 1 - step };
            let figures = shared[turn].pay(invoices)?;
            writeln!(
                out,
                "  round {}: deployments {} {:>8}/s, CPU billing {}, payments {}",
                round + 1,
                DEPLOYMENTS[turn],
                grouped(figures.per_second),
                micros(Some(figures.cpu_billing_ns / 1000)),
                micros(Some(figures.cpu_payments_ns / 1000)),
            )?;
            measured[turn].push(figures);
        }
    }
    busy.check()?;
    let [one, more @ ..] = &measured;
    let mut all = true;
    for (deployments, figures) in DEPLOYMENTS[1..].iter().zip(more) {
        let mut ratios: Vec<u64> =
            figures.iter().zip(one).map(|(many, one)| many.cpu_ns() * 1000 / one.cpu_ns().max(1)).collect();
        ratios.sort_unstable();
        let (low, high) = (ratios[ratios.len() / 4], ratios[ratios.len() - 1 - ratios.len() / 4]);
        let ratio = (ratios[ratios.len() / 2] + ratios[(ratios.len() - 1) / 2]) / 2;
        let met = ratio <= CPU_OF_ONE_MAX;
        all &= met;
        writeln!(
            out,
            "CPU of a charge, {deployments} deployments ÷ 1: {} (half of the rounds {} to {})   goal ≤ {}   {}",
            thousandths(ratio),
            thousandths(low),
            thousandths(high),
            thousandths(CPU_OF_ONE_MAX),
            if met { "met" } else { "MISSED" },
        )?;
    }
    Ok(all)
}

/// Deployments that share invoices, and the number of invoices so far.
struct Shared {
    pairs: Vec<Services>,
    table: PathBuf,
    invoices: usize,
}

impl Shared {
    fn start(deployments: usize) -> Self {
        let start = |_| {
            Services::of(TINJIS)
                .payments_flags(["--success-rate=1", "--seed=1", "--log-level=warn"])
                .billing_flags(["--log-level=warn"])
                .inside(env!("CARGO_TARGET_TMPDIR"))
                .start()
        };
        let pairs: Vec<Services> = (0..deployments).map(start).collect();
        let table = pairs[0].dir().join("deployments.toml");
        std::fs::write(&table, of_table(&pairs)).expect("the table is written");
        Self { pairs, table, invoices: 0 }
    }

    /// Imports this many invoices, and measures how they are paid.
    fn pay(&mut self, invoices: usize) -> io::Result<Measured> {
        self.import(invoices)?;
        let before = self.cpu_ms();
        let (paid, took) = timed(|| {
            let runs: Vec<String> = self.pairs.iter().map(Services::start_run).collect();
            let ends = runs.iter().map(|run| runs::wait(run, RUN_WITHIN));
            ends.filter_map(|run| run["paid"].as_u64()).sum::<u64>()
        });
        let after = self.cpu_ms();
        let charged = count(invoices);
        assert_eq!(paid, charged, "the runs paid all");
        let keys: i64 = self.pairs.iter().map(|pair| charged_keys(&pair.payments.db())).sum();
        assert_eq!(u64::try_from(keys).ok(), Some(count(self.invoices)), "one charge an invoice");
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        Ok(Measured {
            per_second: charged * 1_000_000 / micros,
            cpu_billing_ns: (after.0 - before.0) * 1_000_000 / charged,
            cpu_payments_ns: (after.1 - before.1) * 1_000_000 / charged,
        })
    }

    fn cpu_ms(&self) -> (u64, u64) {
        let sum = |of: fn(&Services) -> u64| self.pairs.iter().map(of).sum::<u64>();
        (sum(|pair| pair.billing.cpu_ms()), sum(|pair| pair.payments.cpu_ms()))
    }

    /// Imports by the shipped command and a table, so that the shipped import is measured.
    fn import(&mut self, invoices: usize) -> io::Result<()> {
        let file = self.table.with_file_name("invoices.csv");
        let mut rows = "reference,customer_id,currency,amount\n".to_owned();
        for number in self.invoices + 1..=self.invoices + invoices {
            writeln!(rows, "B{number},{},EUR,{}.15", number % 100 + 1, number % 490 + 10)
                .map_err(io::Error::other)?;
        }
        std::fs::write(&file, rows)?;
        let words: [&Path; 4] = [Path::new("import"), &file, Path::new("--deployments"), &self.table];
        let output = Command::new(TINJIS).args(words).env_clear().output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with(&format!("{} created", grouped(invoices))), "{said}");
        self.invoices += invoices;
        Ok(())
    }
}

/// Loops of idle priority that use the spare time of every CPU, and end with this program however it ends.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> io::Result<Self> {
        let mut busy = Self(Vec::new());
        for _ in 0..std::thread::available_parallelism()?.get() {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--pdeathsig", "KILL", "chrt", "--idle", "0", "sh", "-c", "while :; do :; done"]);
            busy.0.push(setpriv.stdin(Stdio::null()).spawn().map_err(|error| {
                io::Error::other(format!("setpriv of util-linux, for a loop, does not start: {error}"))
            })?);
        }
        Ok(busy)
    }

    /// Fails if a loop has ended: then fewer CPUs were kept busy than the figures assume.
    fn check(&mut self) -> io::Result<()> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("a loop that keeps a CPU busy has ended: {status}")));
            }
        }
        Ok(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A deployment table in which all deployments have the same number of buckets.
fn of_table(pairs: &[Services]) -> String {
    let entry = |(place, pair): (usize, &Services)| {
        let (billing, payments) = (pair.billing_url(), pair.payments_url());
        let deployment = http::get(&format!("{billing}/v1/deployment")).json();
        let (first, next) = (place * BUCKETS / pairs.len(), (place + 1) * BUCKETS / pairs.len());
        format!(
            "[[deployment]]\nid = {}\nbilling = \"{billing}\"\npayments = \"{payments}\"\nbuckets = [\"{first}-{}\"]\n",
            deployment["deployment_id"],
            next - 1
        )
    };
    pairs.iter().enumerate().map(entry).collect()
}

fn thousandths(number: u64) -> String {
    format!("{}.{:03}", number / 1000, number % 1000)
}
