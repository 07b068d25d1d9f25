//! Charges a second, side by side in one run: billing's pay run, plain and over mutual TLS, wrk against the same endpoint
//! of payments with its ledger on, the naive biller, and one and three replicas on PostgreSQL.
//! Alternating rounds, medians, and the ledger counted after each leg. With BENCH_GROWTH, a small and a large run
//! instead; with BENCH_DEPLOYMENTS, one, two and four deployments; with BENCH_PARTITIONS, tables with and without partitions. Exit 1 when a goal is missed. Knows the services from outside only.

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

/// Times that every leg runs, unless `BENCH_ROUNDS` says otherwise; figures are medians.
const ROUNDS: usize = 3;
/// Of what wrk gets from the same endpoint, in hundredths, at least this.
const OF_WRK_MIN: u64 = 55;
/// Where the ledger is on PostgreSQL too, at least this.
const POSTGRES_OF_WRK_MIN: u64 = 45;
/// Times the loop's rate, in hundredths, at least this.
const OF_LOOP_MIN: u64 = 1500;
/// Of what the plain pay run gets, in hundredths, the one over mutual TLS at least this.
const TLS_OF_PLAIN_MIN: u64 = 75;

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
        let invoices = size("BENCH_DEPLOYMENTS", 100_000);
        let met = deployments::report(&mut out, invoices, size("BENCH_ROUNDS", ROUNDS))?;
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
    let paired = paired.map(|(leg, than)| (leg, than, cpu_ratio(&results, leg, than)));
    let medians: Vec<(Leg, Measured)> =
        results.into_iter().map(|(leg, measured)| (leg, median(measured))).collect();
    table(&mut out, &medians)?;
    let met = compare(&mut out, &medians)?;
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

/// What the benchmark ends with; `BENCH_GOALS=off` shows a miss and does not fail for it.
fn ended(out: &mut impl Write, met: bool) -> io::Result<ExitCode> {
    let goals = std::env::var_os("BENCH_GOALS").is_none_or(|text| text != "off");
    if met || !goals {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "MISSED: at least one goal")?;
    Ok(ExitCode::FAILURE)
}

/// All legs, or those that `BENCH_LEGS` names, such as `sqlite,postgres`.
fn wanted() -> io::Result<Vec<Leg>> {
    let named = std::env::var_os("BENCH_LEGS").and_then(|text| text.into_string().ok());
    let Some(named) = named.filter(|text| !text.is_empty()) else { return Ok(Leg::ALL.to_vec()) };
    let find = |word: &str| {
        let found = Leg::ALL.into_iter().find(|leg| leg.as_str() == word);
        found.ok_or_else(|| io::Error::other(format!("BENCH_LEGS: no leg is called {word}")))
    };
    named.split(',').map(find).collect()
}

/// What a charge costs both services in one leg against another of the same round, in thousandths: the median of rounds.
/// Shown and not judged: a machine that others use is not quiet enough for hundredths.
fn cpu_ratio(results: &[(Leg, Vec<Measured>)], leg: Leg, than: Leg) -> Option<u64> {
    let rounds = |wanted: Leg| results.iter().find(|(leg, _)| *leg == wanted).map(|(_, rounds)| rounds);
    let cpu = |figures: &Measured| figures.cpu_billing_us.unwrap_or(0) + figures.cpu_payments_us;
    let pairs = rounds(leg)?.iter().zip(rounds(than)?);
    let mut ratios: Vec<u64> = pairs.map(|(one, other)| cpu(one) * 1000 / cpu(other).max(1)).collect();
    ratios.sort_unstable();
    ratios.get(ratios.len() / 2).copied()
}

/// The round in the middle by rate.
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

/// Prints the ratios; whether all goals are met.
fn compare(out: &mut impl Write, medians: &[(Leg, Measured)]) -> io::Result<bool> {
    let rate = |wanted: Leg| {
        let found = medians.iter().find(|(leg, _)| *leg == wanted);
        found.map_or(1, |(_, figures)| figures.per_second.max(1))
    };
    let has = |leg: Leg| medians.iter().any(|(measured, _)| *measured == leg);
    let mut all = true;
    for (what, leg, than, min) in [
        ("pay run ÷ wrk", Leg::PayRun, Leg::Wrk, OF_WRK_MIN),
        ("pay run ÷ the loop", Leg::PayRun, Leg::Loop, OF_LOOP_MIN),
        ("mutual TLS ÷ plain", Leg::PayRunTls, Leg::PayRun, TLS_OF_PLAIN_MIN),
        ("PostgreSQL ÷ wrk", Leg::Postgres, Leg::WrkPostgres, POSTGRES_OF_WRK_MIN),
        ("3 replicas ÷ wrk", Leg::PostgresThree, Leg::WrkPostgres, POSTGRES_OF_WRK_MIN),
    ] {
        if ![leg, than].iter().all(|leg| has(*leg)) {
            writeln!(out, "{what:<19}    left out: not measured")?;
            continue;
        }
        let ratio = rate(leg) * 100 / rate(than);
        let met = ratio >= min;
        all &= met;
        let verdict = if met { "met" } else { "MISSED" };
        writeln!(out, "{what:<19} {:>7}   goal ≥ {:>5}   {verdict}", hundredths(ratio), hundredths(min))?;
    }
    if has(Leg::PayRun) && has(Leg::LoopWal) {
        let ratio = rate(Leg::PayRun) * 100 / rate(Leg::LoopWal);
        writeln!(out, "{:<19} {:>7}   no goal", "pay run ÷ WAL loop", hundredths(ratio))?;
    }
    Ok(all)
}

fn hundredths(number: u64) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

/// A dash where there is no such process.
fn micros(number: Option<u64>) -> String {
    number.map_or("–".to_owned(), |number| format!("{number} µs"))
}

/// KiB as MiB with one decimal.
fn mebibytes(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

/// `100,000`.
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
