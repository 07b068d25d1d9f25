//! What a charge costs where 1, 2 and 4 deployments share the same invoices on one machine: rows are sent by
//! `tinjis import --deployments`, all pay at the same time, and each round compares its own measurements.
//! Judges CPU, no rate: on one machine more deployments have no more of it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use testkit::ledger::charged_keys;
use testkit::wait::timed;
use testkit::{Services, http};

use crate::legs::{RUN_WITHIN, count};
use crate::{grouped, micros};

/// How many deployments share the invoices; the first is what the others are compared with.
const DEPLOYMENTS: [usize; 3] = [1, 2, 4];
/// CPU of a charge, in thousandths of that with one deployment: at most this.
const CPU_OF_ONE_MAX: u64 = 1050;
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

/// Measures all in each round, in turn, and prints a verdict for each; whether all stay within the limit.
pub(crate) fn report(out: &mut impl Write, invoices: usize, rounds: usize) -> io::Result<bool> {
    writeln!(
        out,
        "{} invoices on SQLite shared by 1, 2 and 4 deployments, {rounds} rounds",
        grouped(invoices)
    )?;
    let mut measured: [Vec<Measured>; DEPLOYMENTS.len()] = Default::default();
    for round in 0..rounds {
        for step in 0..DEPLOYMENTS.len() {
            let turn = (round + step) % DEPLOYMENTS.len();
            let figures = run(DEPLOYMENTS[turn], invoices)?;
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
    let [one, more @ ..] = &measured;
    let mut all = true;
    for (deployments, figures) in DEPLOYMENTS[1..].iter().zip(more) {
        let mut ratios: Vec<u64> =
            figures.iter().zip(one).map(|(many, one)| many.cpu_ns() * 1000 / one.cpu_ns().max(1)).collect();
        ratios.sort_unstable();
        let (ratio, least, most) = (ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1]);
        let met = ratio <= CPU_OF_ONE_MAX;
        all &= met;
        writeln!(
            out,
            "CPU of a charge, {deployments} deployments ÷ 1: {} (rounds {} to {})   goal ≤ {}   {}",
            thousandths(ratio),
            thousandths(least),
            thousandths(most),
            thousandths(CPU_OF_ONE_MAX),
            if met { "met" } else { "MISSED" },
        )?;
    }
    Ok(all)
}

fn run(deployments: usize, invoices: usize) -> io::Result<Measured> {
    let start = |_| {
        Services::of(TINJIS)
            .payments_flags(["--success-rate=1", "--seed=1", "--log-level=warn"])
            .billing_flags(["--log-level=warn"])
            .inside(env!("CARGO_TARGET_TMPDIR"))
            .start()
    };
    let pairs: Vec<Services> = (0..deployments).map(start).collect();
    import(&pairs, invoices)?;
    let cpu = || {
        let sum = |of: fn(&Services) -> u64| pairs.iter().map(of).sum::<u64>();
        (sum(|pair| pair.billing.cpu_ms()), sum(|pair| pair.payments.cpu_ms()))
    };
    let before = cpu();
    let (paid, took) = timed(|| {
        let runs: Vec<String> = pairs.iter().map(Services::start_run).collect();
        let ends = pairs.iter().zip(runs).map(|(pair, run)| pair.wait_run(&run, RUN_WITHIN));
        ends.filter_map(|run| run["paid"].as_u64()).sum::<u64>()
    });
    let after = cpu();
    let charged = count(invoices);
    assert_eq!(paid, charged, "the runs paid all");
    let keys: i64 = pairs.iter().map(|pair| charged_keys(&pair.payments.db())).sum();
    assert_eq!(u64::try_from(keys).ok(), Some(charged), "one charge an invoice");
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    Ok(Measured {
        per_second: charged * 1_000_000 / micros,
        cpu_billing_ns: (after.0 - before.0) * 1_000_000 / charged,
        cpu_payments_ns: (after.1 - before.1) * 1_000_000 / charged,
    })
}

/// By the command and a table, so that what is measured is what is shipped.
fn import(pairs: &[Services], invoices: usize) -> io::Result<()> {
    let folder = pairs[0].dir();
    let (table, file) = (folder.join("deployments.toml"), folder.join("invoices.csv"));
    std::fs::write(&table, of_table(pairs))?;
    let mut rows = "reference,customer_id,currency,amount\n".to_owned();
    for number in 1..=invoices {
        writeln!(rows, "B{number},{},EUR,{}.15", number % 100 + 1, number % 490 + 10)
            .map_err(io::Error::other)?;
    }
    std::fs::write(&file, rows)?;
    let words: [&Path; 4] = [Path::new("import"), &file, Path::new("--deployments"), &table];
    let output = Command::new(TINJIS).args(words).env_clear().output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with(&format!("{} created", grouped(invoices))), "{said}");
    Ok(())
}

/// A table that gives each deployment as many buckets.
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
