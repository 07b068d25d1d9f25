//! Arguments of `simulate`. Runs nothing.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use chassis::config::Problems;
use payments::config::read_script;

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
        if let Some(error) = self.plot.as_ref().and_then(|path| check_writable(path).err()) {
            problems.add("--plot", &error);
        }
        if let Some(error) = self.faults.as_ref().and_then(|path| read_script(path).err()) {
            problems.add("--faults", error);
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

/// Leaves what the file holds, and no file where there was none.
fn check_writable(path: &Path) -> Result<(), String> {
    let is_new = std::fs::symlink_metadata(path).is_err();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let checked = opened.and_then(|_| if is_new { std::fs::remove_file(path) } else { Ok(()) });
    checked.map_err(|error| format!("cannot be written: {error}"))
}

fn number(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.replace(['_', ','], "").parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| {
        format!("must be a whole number from {} to {}, not {text:?}", allowed.start(), allowed.end())
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        simulate: SimulateArgs,
    }

    /// All mistakes, or nothing.
    fn mistakes(words: &[&str]) -> String {
        let args = Args::try_parse_from(["simulate"].iter().chain(words)).unwrap();
        let mut problems = Problems::new();
        args.simulate.resolve(&mut problems);
        problems.finish().err().map(|mistakes| mistakes.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_check_of_the_plot_leaves_no_file_and_keeps_one() {
        let folder = tempfile::tempdir().unwrap();
        let plot = folder.path().join("year.svg");
        let flags = ["--plot", plot.to_str().unwrap()];
        for months in ["0", "1"] {
            assert_eq!(mistakes(&[&flags[..], &["--months", months]].concat()).is_empty(), months == "1");
            assert!(!plot.exists(), "--months {months}");
        }
        std::fs::write(&plot, "kept").unwrap();
        assert_eq!(mistakes(&flags), "");
        assert_eq!(std::fs::read_to_string(&plot).unwrap(), "kept");
        let shown = mistakes(&["--plot", "/nowhere/at-all.svg"]);
        assert!(shown.contains("--plot: cannot be written"), "{shown}");
    }

    #[test]
    fn a_wrong_fault_script_is_a_mistake_before_anything_runs() {
        let shown = mistakes(&["--faults", "/dev/zero"]);
        assert!(shown.contains("--faults: /dev/zero: not a regular file"), "{shown}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sede = 1").unwrap();
        let shown = mistakes(&["--faults", file.path().to_str().unwrap()]);
        assert!(shown.contains("--faults: ") && shown.contains("sede"), "{shown}");
    }
}
