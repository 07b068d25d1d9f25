//! Charges per second, side by side in one run: billing's pay run, plain and over mutual TLS, wrk against the same
//! endpoint of payments with its ledger on, the naive biller, and one and three replicas on PostgreSQL. Rounds
//! alternate, figures are medians, and the ledger is counted after each leg. BENCH_GROWTH compares a small and a large
//! run instead; BENCH_DEPLOYMENTS one, two and four deployments; BENCH_PARTITIONS tables with and without partitions.
//! Exits with 1 when a goal is missed. Knows the services from outside only.

mod deployments;
mod edge;
mod generation;
mod growth;
mod legs;
mod partitions;
mod replicas;
mod start;

use std::io::{self, Write};
use std::process::ExitCode;

use testkit::size;

use crate::legs::{Leg, Measured};

/// How often every leg runs, unless `BENCH_ROUNDS` sets another number; figures are medians.
const ROUNDS: usize = 3;

/// The goal of one leg relative to another of the same round; docs/explanation/scale.md has the measured figures.
struct Goal {
    what: &'static str,
    leg: Leg,
    than: Leg,
    limit: Limit,
}

/// A limit in hundredths of the other leg.
#[derive(Clone, Copy)]
enum Limit {
    /// Minimum charges per second.
    Rate(u64),
    /// Maximum CPU of a charge in both services.
    Cpu(u64),
}

const GOALS: [Goal; 7] = [
    Goal { what: "rate, pay run ÷ wrk", leg: Leg::PayRun, than: Leg::Wrk, limit: Limit::Rate(75) },
    Goal { what: "CPU, pay run ÷ wrk", leg: Leg::PayRun, than: Leg::Wrk, limit: Limit::Cpu(170) },
    Goal { what: "rate, pay run ÷ the loop", leg: Leg::PayRun, than: Leg::Loop, limit: Limit::Rate(1500) },
    Goal { what: "CPU, mutual TLS ÷ plain", leg: Leg::PayRunTls, than: Leg::PayRun, limit: Limit::Cpu(105) },
    Goal {
        what: "rate, PostgreSQL ÷ wrk",
        leg: Leg::Postgres,
        than: Leg::WrkPostgres,
        limit: Limit::Rate(60),
    },
    Goal {
        what: "rate, 3 replicas ÷ wrk",
        leg: Leg::PostgresThree,
        than: Leg::WrkPostgres,
        limit: Limit::Rate(60),
    },
    Goal {
        what: "rate, 3 replicas ÷ 1",
        leg: Leg::PostgresThree,
        than: Leg::Postgres,
        limit: Limit::Rate(100),
    },
];

fn main() -> io::Result<ExitCode> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stdout().lock();
    let on_postgres = replicas::can_run();
    if std::env::var_os("BENCH_GROWTH").is_some() {
        let met = growth::report(&mut out, size("BENCH_GROWTH", 1_000_000), on_postgres)?;
        return ended(&mut out, met);
    }
    if std::env::var_os("BENCH_DEPLOYMENTS").is_some() {
        let invoices = size("BENCH_DEPLOYMENTS", 20_000);
        let met = deployments::report(&mut out, invoices, size("BENCH_ROUNDS", deployments::ROUNDS))?;
        return ended(&mut out, met);
    }
    if std::env::var_os("BENCH_PARTITIONS").is_some() {
        partitions::report(&mut out, size("BENCH_PARTITIONS", 10_000_000), size("BENCH_ROUNDS", ROUNDS))?;
        return ended(&mut out, true);
    }
    let invoices = size("BENCH_INVOICES", 100_000);
    let rounds = size("BENCH_ROUNDS", ROUNDS);
    writeln!(
        out,
        "{} invoices a leg, {rounds} rounds, medians; success rate 1, SQLite with FULL",
        grouped(invoices)
    )?;
    let legs = wanted()?.into_iter().filter(|leg| on_postgres || !leg.is_on_postgres());
    let legs = legs.filter(|leg| *leg != Leg::PayRunOther || legs::other().is_some());
    let mut results: Vec<(Leg, Vec<Measured>)> = legs.map(|leg| (leg, Vec::new())).collect();
    for round in 0..rounds {
        for step in 0..results.len() {
            let turn = (round + step) % results.len();
            let (leg, measured) = &mut results[turn];
            let figures = legs::run(*leg, invoices)?;
            writeln!(out, "  round {}: {:<34} {:>8}/s", round + 1, leg.name(), grouped(figures.per_second))?;
            measured.push(figures);
        }
    }
    let paired = [(Leg::PayRunTraced, Leg::PayRun), (Leg::PayRun, Leg::PayRunOther)];
    let paired = paired.map(|(leg, than)| (leg, than, paired_ratio(&results, leg, than, cpu_us, 1000)));
    let judged = GOALS.map(|goal| {
        let of = match goal.limit {
            Limit::Rate(_) => |figures: &Measured| figures.per_second,
            Limit::Cpu(_) => cpu_us,
        };
        (paired_ratio(&results, goal.leg, goal.than, of, 100), goal)
    });
    let medians: Vec<(Leg, Measured)> =
        results.into_iter().map(|(leg, measured)| (leg, median(measured))).collect();
    table(&mut out, &medians)?;
    let met = compare(&mut out, &judged)?;
    for (leg, than, ratio) in paired {
        if let Some(ratio) = ratio {
            let (leg, than) = (leg.as_str(), than.as_str());
            writeln!(out, "CPU of a charge, {leg} ÷ {than}: {}.{:03}", ratio / 1000, ratio % 1000)?;
        }
    }
    edge::report(&mut out, invoices)?;
    generation::report(&mut out, size("BENCH_GENERATED", 10 * invoices), on_postgres)?;
    start::report(&mut out)?;
    ended(&mut out, met)
}

/// The exit code of the benchmark; `BENCH_GOALS=off` shows a missed goal and does not fail for it.
fn ended(out: &mut impl Write, met: bool) -> io::Result<ExitCode> {
    let goals = std::env::var_os("BENCH_GOALS").is_none_or(|text| text != "off");
    if met || !goals {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "MISSED: at least one goal")?;
    Ok(ExitCode::FAILURE)
}

/// All legs, or the legs that `BENCH_LEGS` names, such as `sqlite,postgres`.
fn wanted() -> io::Result<Vec<Leg>> {
    let named = std::env::var_os("BENCH_LEGS").and_then(|text| text.into_string().ok());
    let Some(named) = named.filter(|text| !text.is_empty()) else { return Ok(Leg::ALL.to_vec()) };
    let find = |word: &str| {
        let found = Leg::ALL.into_iter().find(|leg| leg.as_str() == word);
        found.ok_or_else(|| io::Error::other(format!("BENCH_LEGS: no leg is called {word}")))
    };
    named.split(',').map(find).collect()
}

/// CPU of a charge in both services, without the CPU of wrk.
fn cpu_us(figures: &Measured) -> u64 {
    figures.cpu_billing_us.unwrap_or(0) + figures.cpu_payments_us
}

/// The median over rounds of one leg divided by another of the same round, in parts of `unit`. `None`: not measured.
fn paired_ratio(
    results: &[(Leg, Vec<Measured>)],
    leg: Leg,
    than: Leg,
    of: fn(&Measured) -> u64,
    unit: u64,
) -> Option<u64> {
    let rounds = |wanted: Leg| results.iter().find(|(leg, _)| *leg == wanted).map(|(_, rounds)| rounds);
    let pairs = rounds(leg)?.iter().zip(rounds(than)?);
    let mut ratios: Vec<u64> = pairs.map(|(one, other)| of(one) * unit / of(other).max(1)).collect();
    ratios.sort_unstable();
    ratios.get(ratios.len() / 2).copied()
}

/// The round with the median rate.
fn median(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by_key(|figures| figures.per_second);
    measured.swap_remove(measured.len() / 2)
}

fn table(out: &mut impl Write, medians: &[(Leg, Measured)]) -> io::Result<()> {
    writeln!(
        out,
        "\n{:<34} {:>10} {:>12} {:>12} {:>12} {:>10} {:>10} {:>10} {:>9}",
        "",
        "charges/s",
        "CPU billing",
        "CPU payments",
        "CPU database",
        "peak bill.",
        "peak pay.",
        "keys",
        "WAL"
    )?;
    for (leg, figures) in medians {
        writeln!(
            out,
            "{:<34} {:>10} {:>12} {:>12} {:>12} {:>10} {:>10} {:>10} {:>9}",
            leg.name(),
            grouped(figures.per_second),
            micros(figures.cpu_billing_us),
            micros(Some(figures.cpu_payments_us)),
            micros(figures.cpu_database_us),
            figures.peak_billing_kib.map_or("–".to_owned(), mebibytes),
            mebibytes(figures.peak_payments_kib),
            figures.keys,
            figures.wal_bytes.map_or("–".to_owned(), |bytes| format!("{bytes} B")),
        )?;
    }
    writeln!(
        out,
        "CPU and WAL are per charge; peaks are of the largest process. keys: distinct CHARGED keys in the ledger, as many as were charged.\n"
    )
}

/// Prints the ratios; returns whether all goals are met.
fn compare(out: &mut impl Write, judged: &[(Option<u64>, Goal)]) -> io::Result<bool> {
    let mut all = true;
    for (ratio, Goal { what, limit, .. }) in judged {
        let Some(ratio) = *ratio else {
            writeln!(out, "{what:<24}    left out: not measured")?;
            continue;
        };
        let (met, sign, limit) = match *limit {
            Limit::Rate(min) => (ratio >= min, '≥', min),
            Limit::Cpu(max) => (ratio <= max, '≤', max),
        };
        all &= met;
        let verdict = if met { "met" } else { "MISSED" };
        writeln!(
            out,
            "{what:<24} {:>7}   goal {sign} {:>5}   {verdict}",
            hundredths(ratio),
            hundredths(limit)
        )?;
    }
    Ok(all)
}

fn hundredths(number: u64) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

/// The number with its unit, or a dash where there is no such process.
fn micros(number: Option<u64>) -> String {
    number.map_or("–".to_owned(), |number| format!("{number} µs"))
}

/// KiB as MiB with one decimal.
fn mebibytes(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

/// The number with commas: `100,000`.
fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or_default().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
