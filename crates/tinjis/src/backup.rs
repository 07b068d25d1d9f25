//! `tinjis backup --billing|--payments URL FILE`: the services' own command, for an operator with the database but without
//! the service's settings. Knows no table.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use chassis::config::Problems;

/// Flags of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// Database URL of billing, such as sqlite:/data/billing.db
    #[arg(long, value_name = "URL")]
    billing: Option<String>,
    /// Database URL of payments, such as sqlite:/data/payments.db
    #[arg(long, value_name = "URL")]
    payments: Option<String>,
    /// The file to write; must not exist
    file: PathBuf,
}

/// The backup command of one service, and its arguments.
#[derive(Debug)]
pub(crate) struct What {
    run: fn(Vec<OsString>) -> ExitCode,
    words: Vec<OsString>,
}

impl BackupArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<What> {
        type Run = fn(Vec<OsString>) -> ExitCode;
        let (service, run, url): (&str, Run, String) = match (self.billing, self.payments) {
            (Some(url), None) => ("billing", |words| billing::run(words), url),
            (None, Some(url)) => ("payments", |words| payments::run(words), url),
            (Some(_), Some(_)) => {
                problems.add("--payments", "--billing is given too; give one of the two");
                return None;
            }
            (None, None) => {
                problems.add("--billing", "is missing, and so is --payments: give the URL of one database");
                return None;
            }
        };
        let words =
            [OsString::from(service), "backup".into(), self.file.into(), "--database-url".into(), url.into()];
        Some(What { run, words: words.into() })
    }
}

/// Runs the service's command in this process.
pub(crate) fn command(what: What) -> ExitCode {
    (what.run)(what.words)
}
