//! Arguments of `simulate`. Runs nothing.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use chassis::config::Problems;

use super::Options;
use super::plan::SUBSCRIPTIONS_MIN;

const MONTHS: RangeInclusive<u64> = 1..=120;
const SUBSCRIPTIONS: RangeInclusive<u64> = SUBSCRIPTIONS_MIN..=2_000_000;
const KILLS: RangeInclusive<u64> = 0..=1000;
/// Maximum seed of the payment service.
const SEED_MAX: u64 = i64::MAX.unsigned_abs();

#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// Months to simulate, from 15 January 2028 on [default: 3]
    #[arg(long, value_name = "NUMBER")]
    months: Option<String>,
    /// Monthly subscriptions [default: 2000]
    #[arg(long, value_name = "NUMBER")]
    subscriptions: Option<String>,
    /// Seed for declines, faults and kills [default: 1]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<String>,
    /// How often a process is killed by SIGKILL, evenly over the time [default: 0]
    #[arg(long, value_name = "NUMBER")]
    kills: Option<String>,
    /// Script of the provider's faults [default: 2 % of responses lost, and three customers whose cards are always declined]
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Empty PostgreSQL database for billing, which then has two replicas [default: a SQLite file, one replica]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Draw the months as SVG to this file; is overwritten
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print one JSON object per month and one with totals instead of text
    #[arg(long)]
    json: bool,
}

impl SimulateArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<Options> {
        let mut take = |setting: &str, text: Option<&String>, default: u64, allowed: RangeInclusive<u64>| {
            problems.check(setting, text.map_or(Ok(default), |text| number(text, &allowed)))
        };
        let months = take("--months", self.months.as_ref(), 3, MONTHS);
        let subscriptions = take("--subscriptions", self.subscriptions.as_ref(), 2000, SUBSCRIPTIONS);
        let seed = take("--seed", self.seed.as_ref(), 1, 0..=SEED_MAX);
        let kills = take("--kills", self.kills.as_ref(), 0, KILLS);
        // Checked before the simulation: a message at the end of a long run would be too late.
        if let Some(error) = self.plot.as_ref().and_then(|path| writable(path).err()) {
            problems.add("--plot", &error);
        }
        if let Some(error) = self.faults.as_ref().and_then(|path| std::fs::read(path).err()) {
            problems.add("--faults", format!("cannot be read: {error}"));
        }
        let is_postgres = |url: &String| url.starts_with("postgres://") || url.starts_with("postgresql://");
        if self.database_url.as_ref().is_some_and(|url| !is_postgres(url)) {
            problems.add("--database-url", "must be postgres://USER:PASSWORD@HOST/NAME of an empty database");
            return None;
        }
        Some(Options {
            months: months?,
            subscriptions: subscriptions?,
            seed: seed?,
            kills: kills?,
            faults: self.faults,
            database_url: self.database_url,
            plot: self.plot,
            json: self.json,
        })
    }
}

/// Checks that the file can be written, without changing its content.
fn writable(path: &Path) -> Result<(), String> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|error| format!("cannot be written: {error}"))
}

fn number(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.replace(['_', ','], "").parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| {
        format!("must be a whole number from {} to {}, not {text:?}", allowed.start(), allowed.end())
    })
}
