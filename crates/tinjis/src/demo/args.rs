//! Arguments of the demo, and of the naive biller that it starts as its control group. Runs nothing.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use chassis::config::Problems;

use super::{INVOICES, INVOICES_DEFAULT, Options, PLOT_DEFAULT};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Sub {
    /// Run both services, charge invoices, kill billing during the run, and verify that no customer was charged twice;
    /// then invoice and charge a quarter of subscriptions, and draw it
    Demo(Args),
    /// The demo's control group: a biller without keys
    #[command(hide = true)]
    NaiveBiller(NaiveArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seed for invoices, refusals and faults [default: random]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<String>,
    /// Number of invoices to charge under faults [default: 1000]
    #[arg(long, value_name = "NUMBER")]
    invoices: Option<String>,
    /// Do not kill any process
    #[arg(long)]
    no_kill: bool,
    /// Use mutual TLS for every connection, and rotate the certificates during the run
    #[arg(long)]
    mtls: bool,
    /// Keep the services running, and print their addresses and example curl commands
    #[arg(long)]
    keep: bool,
    /// File for the picture of the quarter, as SVG; is overwritten
    #[arg(long, value_name = "FILE.svg", default_value = PLOT_DEFAULT)]
    plot: PathBuf,
    /// For tests: the provider forgets keys, and the demo must notice
    #[arg(long, hide = true)]
    forget_key: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NaiveArgs {
    #[arg(long)]
    pub(super) invoices: PathBuf,
    #[arg(long)]
    pub(super) paid: PathBuf,
    #[arg(long)]
    pub(super) provider: String,
    #[arg(long)]
    pub(super) pki: Option<PathBuf>,
}

/// The parsed command.
#[derive(Debug)]
pub(crate) enum DemoCommand {
    Demo(Options),
    NaiveBiller(NaiveArgs),
}

impl Sub {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<DemoCommand> {
        match self {
            Self::Demo(args) => args.resolve(problems).map(DemoCommand::Demo),
            Self::NaiveBiller(args) => Some(DemoCommand::NaiveBiller(args)),
        }
    }
}

impl Args {
    fn resolve(&self, problems: &mut Problems) -> Option<Options> {
        let seed = self.seed.as_deref().map(|text| problems.check("--seed", number(text, 0..=u64::MAX)));
        let invoices =
            self.invoices.as_deref().map(|text| problems.check("--invoices", number(text, INVOICES)));
        Some(Options {
            seed: seed.map_or(Some(None), |seed| seed.map(Some))?,
            invoices: invoices.unwrap_or(Some(INVOICES_DEFAULT))?,
            kill: !self.no_kill,
            mtls: self.mtls,
            keep: self.keep,
            plot: self.plot.clone(),
            forget_key: self.forget_key,
        })
    }
}

fn number(text: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.replace(['_', ','], "").parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| {
        format!("must be a whole number from {} to {}, not {text:?}", allowed.start(), allowed.end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        sub: Sub,
    }

    /// Parses these words into the options, or all mistakes.
    fn parsed(words: &str) -> Result<Options, String> {
        let line = Line::try_parse_from(std::iter::once("tinjis").chain(words.split_whitespace())).unwrap();
        let mut problems = Problems::new();
        let what = line.sub.resolve(&mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        let Some(DemoCommand::Demo(options)) = what else { panic!() };
        Ok(options)
    }

    #[test]
    fn numbers_may_be_grouped() {
        let options = parsed("demo --seed 8213 --invoices 10_000").unwrap();
        assert_eq!((options.seed, options.invoices), (Some(8213), 10_000));
    }

    #[test]
    fn all_mistakes_come_in_one_message() {
        let mistakes = parsed("demo --seed x --invoices 3").unwrap_err();
        assert!(mistakes.contains("--seed") && mistakes.contains("--invoices"), "{mistakes}");
    }
}
