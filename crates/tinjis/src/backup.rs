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
pub(crate) struct ServiceBackup {
    run_service: fn(Vec<OsString>) -> ExitCode,
    args: Vec<OsString>,
}

impl BackupArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<ServiceBackup> {
        type Run = fn(Vec<OsString>) -> ExitCode;
        let (service, run_service, url): (&str, Run, String) = match (self.billing, self.payments) {
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
        let args =
            [OsString::from(service), "backup".into(), self.file.into(), "--database-url".into(), url.into()];
        Some(ServiceBackup { run_service, args: args.into() })
    }
}

/// Runs the service's command in this process.
pub(crate) fn command(backup: ServiceBackup) -> ExitCode {
    (backup.run_service)(backup.args)
}
