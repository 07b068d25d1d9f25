//! Whether a charge costs the same among few and among many invoices: a small and a large pay run, side by side, on
//! each database. Judges CPU, rate and memory.

use std::io::{self, Write};

use crate::legs::{self, Leg, Measured};
use crate::{grouped, mebibytes, micros};

/// Invoices of the small run, which the large run is compared with.
const SMALL: usize = 10_000;
/// How often the small run is measured; the figure is the median, since a clock tick is 3 % of it.
const SMALL_ROUNDS: usize = 5;
/// Maximum CPU of a charge in the large run, in hundredths of the small run's.
const CPU_OF_SMALL_MAX: u64 = 105;
/// Minimum charges per second in the large run, in hundredths of the small run's.
const RATE_OF_SMALL_MIN: u64 = 90;
/// Memory of any process in the large run must stay below this, in KiB.
const PEAK_KIB_MAX: u64 = 64 * 1024;

/// Measures both databases, or SQLite alone where there is no PostgreSQL, and prints a verdict for each; returns
/// whether all stay within the limits.
pub(crate) fn report(out: &mut impl Write, large: usize, on_postgres: bool) -> io::Result<bool> {
    writeln!(out, "a charge among {} and among {}, success rate 1", grouped(SMALL), grouped(large))?;
    let mut all = true;
    for leg in [Leg::PayRun, Leg::Postgres] {
        if leg.is_on_postgres() && !on_postgres {
            writeln!(out, "{:<34} left out: no PostgreSQL", leg.name())?;
            continue;
        }
        let mut small = Vec::with_capacity(SMALL_ROUNDS);
        for _ in 0..SMALL_ROUNDS {
            small.push(legs::run(leg, SMALL)?);
        }
        small.sort_by_key(cpu_us);
        let small = small.swap_remove(small.len() / 2);
        line(out, leg, SMALL, &small)?;
        let many = legs::run(leg, large)?;
        line(out, leg, large, &many)?;
        all &= judge(out, &small, &many)?;
    }
    Ok(all)
}

/// CPU of all processes that a charge uses: both services, and the database where it is a process of its own.
fn cpu_us(figures: &Measured) -> u64 {
    figures.cpu_billing_us.unwrap_or(0) + figures.cpu_payments_us + figures.cpu_database_us.unwrap_or(0)
}

fn line(out: &mut impl Write, leg: Leg, invoices: usize, figures: &Measured) -> io::Result<()> {
    writeln!(
        out,
        "{:<34} {:>9}: {:>7}/s, CPU billing {}, payments {}, database {}; peak {} and {}",
        leg.name(),
        grouped(invoices),
        grouped(figures.per_second),
        micros(figures.cpu_billing_us),
        micros(Some(figures.cpu_payments_us)),
        micros(figures.cpu_database_us),
        mebibytes(figures.peak_billing_kib.unwrap_or(0)),
        mebibytes(figures.peak_payments_kib),
    )
}

fn judge(out: &mut impl Write, small: &Measured, many: &Measured) -> io::Result<bool> {
    let grown = cpu_us(many) * 100 / cpu_us(small).max(1);
    let rate = many.per_second * 100 / small.per_second.max(1);
    let peak = many.peak_billing_kib.unwrap_or(0).max(many.peak_payments_kib);
    let verdict = |met| if met { "met" } else { "MISSED" };
    let (steady, fast, bounded) = (grown <= CPU_OF_SMALL_MAX, rate >= RATE_OF_SMALL_MIN, peak < PEAK_KIB_MAX);
    writeln!(
        out,
        "  CPU {grown} % of the small run's, goal ≤ {CPU_OF_SMALL_MAX} %   {}
  rate {rate} % of the small run's, goal ≥ {RATE_OF_SMALL_MIN} %   {}
  peak {}, goal < {}   {}",
        verdict(steady),
        verdict(fast),
        mebibytes(peak),
        mebibytes(PEAK_KIB_MAX),
        verdict(bounded),
    )?;
    Ok(steady && fast && bounded)
}
