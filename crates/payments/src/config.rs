//! Settings of the payment service: flags and variables to real types, every mistake in one message.
//! Opens nothing but the files that settings name.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chassis::caller::CallerRules;
use chassis::config::{
    CallerArgs, Common, CommonArgs, CommonDefaults, DatabaseUrl, Problems, Setting, TokenSource, checked,
    load, parse_bool, parse_on_or_off, parse_path, read_regular_text, token_file,
};

use crate::faults::draw::{Seed, Share};
use crate::faults::script::Script;
use crate::ledger::failover::Failover;

/// Default listen addresses.
pub const DEFAULTS: CommonDefaults = CommonDefaults {
    service: "payments",
    listen: "127.0.0.1:9000",
    admin_listen: "127.0.0.1:9001",
    database_url: "sqlite:./payments.db",
};

/// Bytes of a fault script; one of the most rules with the longest bodies has half of it.
const SCRIPT_BYTES_MAX: u64 = 1024 * 1024;

/// The payment service: executes each idempotency key once and records every decision in its ledger
#[derive(Debug, clap::Parser)]
#[command(name = "payments", version, mut_args = |arg| DEFAULTS.declare(arg))]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    callers: CallerArgs,
    /// Accept unauthenticated callers on addresses other than loopback
    #[arg(long, env = "ALLOW_ANONYMOUS", value_name = "BOOL", help_heading = "Callers",
          num_args = 0..=1, default_missing_value = "true", default_value = "false",
          value_parser = checked(parse_bool))]
    allow_anonymous: Setting<bool>,
    /// File with one token per line of operators, who alone write through /v1 of billing, declare deployments at payments
    /// and, off loopback, set /log-level; off loopback a token needs 16 bytes [default: off]
    #[arg(long, env = "OPERATOR_TOKEN_FILE", value_name = "FILE", help_heading = "Callers",
          value_parser = checked(parse_path))]
    operator_token_file: Setting<PathBuf>,
    /// Fraction of charges that succeed, from 0 to 1
    #[arg(long, env = "SUCCESS_RATE", value_name = "SHARE", help_heading = "Decisions", default_value = "0.5",
          value_parser = checked(parse_share))]
    success_rate: Setting<Share>,
    /// Seed for outcomes and faults [default: the script's, else random and logged]
    #[arg(long, env = "SEED", value_name = "NUMBER", help_heading = "Decisions", value_parser = checked(parse_seed))]
    seed: Setting<Seed>,
    /// Charge a reference under one key only: another key gets 409 with the first one
    #[arg(long, env = "ONE_CHARGE_PER_REFERENCE", value_name = "BOOL", help_heading = "Decisions",
          num_args = 0..=1, default_missing_value = "true", default_value = "false",
          value_parser = checked(parse_bool))]
    one_charge_per_reference: Setting<bool>,
    /// Amounts 4001 to 4005, in minor units, decide by themselves beside a key, for tests only
    #[arg(long, env = "TEST_AMOUNTS", value_name = "BOOL", help_heading = "Decisions",
          num_args = 0..=1, default_missing_value = "true", default_value = "false",
          value_parser = checked(parse_bool))]
    test_amounts: Setting<bool>,
    /// on: operators set rates and faults while the service runs, for tests only; what they set stays in the database. off:
    /// neither is possible, and what was set is not in force
    #[arg(long, env = "RUN_TIME_FAULTS", value_name = "ON|OFF", help_heading = "Decisions", default_value = "on",
          value_parser = checked(parse_on_or_off))]
    run_time_faults: Setting<bool>,
    /// Fault script (TOML), for tests only [default: none]
    #[arg(long, env = "FAULTS", value_name = "FILE", help_heading = "Decisions", value_parser = checked(parse_path))]
    faults: Setting<PathBuf>,
    /// What a promoted PostgreSQL standby may lack: manual executes nothing on it before `payments new-ledger-id`;
    /// synchronous states that promotion loses no commit, and goes on
    #[arg(long, env = "LEDGER_FAILOVER", value_name = "MANUAL|SYNCHRONOUS", help_heading = "Data", default_value = "manual",
          value_parser = checked(str::parse::<Failover>))]
    ledger_failover: Setting<Failover>,
    /// Command to run [default: serve]
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Sub {
    /// Migrate the database schema, then exit
    Migrate,
    /// Check whether the running service is ready: exit code 0 or 1
    Healthcheck,
    /// Copy a SQLite database to a new file while the service runs, and check the copy
    Backup {
        /// The file to write; must not exist
        file: PathBuf,
    },
    /// Give a restored ledger a new id, so that callers notice the restore
    NewLedgerId,
    /// Make keys unique per account in a ledger from an earlier version, which can no longer use it
    KeysPerAccount,
}

/// The command of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Serve,
    /// Bring the schema up to date.
    Migrate,
    /// Ask whether the running service is ready.
    Healthcheck,
    /// Copy the database to this file.
    Backup(PathBuf),
    /// Rename a restored ledger.
    NewLedgerId,
    /// Drop the uniqueness of keys over all accounts.
    KeysPerAccount,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Common settings.
    pub common: Common,
    /// Authentication rules.
    pub callers: CallerRules,
    /// Operator tokens, if any.
    pub operators: Option<TokenSource>,
    /// The command.
    pub command: Command,
    /// The share of charges that succeed.
    pub success_rate: Share,
    /// The operator's statement about promoted standbys.
    pub failover: Failover,
    /// Seed of outcomes and faults; `None` draws one.
    pub seed: Option<Seed>,
    /// Whether the seed comes from the setting.
    pub is_seed_set: bool,
    /// The faults to inject.
    pub script: Script,
    /// Whether a reference can be charged under one key only.
    pub one_charge_per_reference: bool,
    /// Whether amounts of tests decide a charge by themselves.
    pub test_amounts: bool,
    /// Whether operators may set rates and faults at run time.
    pub run_time_faults: bool,
}

impl Config {
    /// Reads argv (program name first) and the environment.
    ///
    /// # Errors
    /// The code to exit with, after help, version or all mistakes were printed.
    pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Self, ExitCode> {
        load(args, |args: Args, problems| args.resolve(problems))
    }
}

impl Args {
    fn resolve(self, problems: &mut Problems) -> Option<Config> {
        let command = match self.command {
            None => Command::Serve,
            Some(Sub::Migrate) => Command::Migrate,
            Some(Sub::Healthcheck) => Command::Healthcheck,
            Some(Sub::Backup { file }) => Command::Backup(file),
            Some(Sub::NewLedgerId) => Command::NewLedgerId,
            Some(Sub::KeysPerAccount) => Command::KeysPerAccount,
        };
        let common = self.common.resolve(&DEFAULTS, problems);
        let anonymous = self.allow_anonymous.value(problems);
        let listener = common.as_ref().map(|common| common.listen);
        let operators = token_file(&self.operator_token_file, listener, problems);
        let success_rate = self.success_rate.value(problems);
        let seed = self.seed.optional(problems);
        let failover = self.ledger_failover.value(problems);
        let run_time_faults = self.run_time_faults.value(problems);
        let test_amounts = self.test_amounts.value(problems);
        let once = self.one_charge_per_reference.value(problems);
        let script = self.faults.and_then(|path| read_script(&path)).optional(problems);
        let writes = !matches!(command, Command::Healthcheck | Command::Backup(_));
        if let (Some(common), true) = (&common, writes) {
            self.common.database.check_writable(&common.database_url, problems);
        }
        // The database dates the rows of a ledger in PostgreSQL.
        if let Some(Common { database_url: DatabaseUrl::Postgres(_), clock, .. }) = &common
            && clock.as_virtual().is_some()
        {
            let what = "needs --database-url sqlite:PATH: no other ledger has one";
            problems.add(self.common.database.virtual_clock.name(), what);
        }
        let (mut common, anonymous, script) = (common?, anonymous?, script?.unwrap_or_default());
        let callers = self.callers.resolve(&self.common, &mut common, problems)?;
        let is_open = callers.tokens.is_none() && callers.certificates.is_none() && callers.jwt.is_none();
        if command == Command::Serve && is_open && !anonymous && !common.listen.ip().is_loopback() {
            problems.add(
                self.common.payments_api_token.name(),
                "is missing, and --listen is not loopback: anybody could charge. Set a token, --jwt-audience or \
                 --tls-client-ca, or say --allow-anonymous (ALLOW_ANONYMOUS=true)",
            );
        }
        let (is_seed_set, seed) = (self.seed.is_given(), seed?.or(script.seed));
        let (success_rate, failover) = (success_rate?, failover?);
        let (run_time_faults, test_amounts, once) = (run_time_faults?, test_amounts?, once?);
        Some(Config {
            common,
            callers,
            operators,
            command,
            success_rate,
            failover,
            seed,
            is_seed_set,
            script,
            one_charge_per_reference: once,
            test_amounts,
            run_time_faults,
        })
    }
}

fn parse_share(text: &str) -> Result<Share, String> {
    Share::parse(text).ok_or_else(|| format!("\"{text}\" is no number from 0 to 1"))
}

fn parse_seed(text: &str) -> Result<Seed, String> {
    text.parse().map(Seed).map_err(|_| format!("\"{text}\" is no whole number from 0 to {}", u64::MAX))
}

/// The fault script in this file.
///
/// # Errors
/// When it cannot be read, or is no script.
pub fn read_script(path: &Path) -> Result<Script, String> {
    let named = |error: &dyn Display| format!("{}: {error}", path.display());
    let text = read_regular_text(path, SCRIPT_BYTES_MAX).map_err(|error| named(&error))?;
    Script::parse(&text).map_err(|error| named(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn resolve(words: &[&str]) -> Result<Config, String> {
        let mut problems = Problems::new();
        let words = ["payments"].iter().chain(words);
        let config = Args::try_parse_from(words).map_err(|error| error.to_string())?.resolve(&mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(config.unwrap())
    }

    #[test]
    fn by_default_it_listens_on_loopback_and_refuses_half() {
        let config = resolve(&[]).unwrap();
        assert_eq!(config.command, Command::Serve);
        assert_eq!(config.common.listen.to_string(), "127.0.0.1:9000");
        assert_eq!(Some(config.success_rate), Share::parse("0.5"));
        assert_eq!(config.seed, None);
    }

    #[test]
    fn anonymous_access_off_loopback_must_be_asked_for() {
        let open = ["--listen", "0.0.0.0:9000"];
        let refused = resolve(&open).unwrap_err();
        assert!(refused.contains("--allow-anonymous"), "{refused}");
        assert!(resolve(&[&open[..], &["--payments-api-token", "TestToken"]].concat()).is_ok());
        assert!(resolve(&[&open[..], &["--allow-anonymous"]].concat()).is_ok());
        assert!(resolve(&[&open[..], &["--allow-anonymous=true"]].concat()).is_ok());
        assert!(resolve(&[&open[..], &["--allow-anonymous=false"]].concat()).is_err());
        assert!(resolve(&[&open[..], &["migrate"]].concat()).is_ok());
        assert!(resolve(&["--listen", "[::1]:9000"]).is_ok());
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let words =
            ["--success-rate", "1.5", "--seed", "x", "--faults", "/nowhere/at-all.toml", "--listen", "9000"];
        let mistakes = resolve(&words).unwrap_err();
        for setting in ["--success-rate", "--seed", "--faults", "--listen"] {
            assert!(mistakes.contains(setting), "{setting} is not in {mistakes}");
        }
    }

    #[test]
    fn a_script_is_a_regular_file_of_a_limited_size() {
        assert_eq!(read_script(Path::new("/dev/zero")).unwrap_err(), "/dev/zero: not a regular file");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faults.toml");
        std::fs::write(&path, "#".repeat(1024 * 1024)).unwrap();
        assert!(read_script(&path).is_ok());
        std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
        assert!(read_script(&path).unwrap_err().ends_with("faults.toml: larger than 1048576 bytes"));
    }

    #[test]
    fn the_flag_beats_the_seed_of_the_script() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faults.toml");
        std::fs::write(&path, "seed = 8213").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(resolve(&["--faults", path]).unwrap().seed, Some(Seed(8213)));
        assert_eq!(resolve(&["--faults", path, "--seed", "7"]).unwrap().seed, Some(Seed(7)));
    }
}
