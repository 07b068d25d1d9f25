//! The command line: from text to checked types, all mistakes in one message. Opens only the deployment table and the
//! token files that it names; runs nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use chassis::caller::Tokens;
use chassis::config::{Problems, Secret, TokenSource, load, non_empty, unquote};

use crate::deployments::{Billings, DeploymentsArgs, Pairs};
use crate::http::{Api, BaseUrl, Scheme};
use crate::reach::TlsArgs;
#[cfg(feature = "services")]
use crate::{backup, demo, simulate};
use crate::{control, doctor, import, resolve, run, schedule, subscriptions, verify};

const BILLING_DEFAULT: &str = "http://127.0.0.1:8000";
const PAYMENTS_DEFAULT: &str = "http://127.0.0.1:9000";

/// Charges every invoice exactly once: a billing service, a payment service and their tools.
#[derive(Debug, clap::Parser)]
#[command(name = "tinjis", version, arg_required_else_help = false)]
struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    #[cfg(feature = "services")]
    #[command(flatten)]
    Demo(demo::Sub),
    /// Bill months of subscriptions on a virtual clock, with declines, faults and kills, and judge each month: exit code 0
    /// right, 1 wrong, 2 could not check
    #[cfg(feature = "services")]
    Simulate(simulate::SimulateArgs),
    /// Charge every unpaid invoice: start a run or join the current one, and follow it
    Pay(PayArgs),
    /// Import invoices from a .csv, .json or .ndjson file into billing
    Import(ImportArgs),
    /// Verify billing against the provider's ledger: exit code 0 consistent, 1 inconsistent, 2 could not check
    Verify(VerifyArgs),
    /// List attempts that need manual resolution, resolve them by key or by reason, or list past decisions
    Resolve(ResolveArgs),
    /// Import, list and change subscriptions
    #[command(subcommand)]
    Subscriptions(subscriptions::Sub),
    /// Show the schedule of subscriptions, or run it up to a date
    #[command(subcommand)]
    Schedule(schedule::Sub),
    /// Stop all charging at once, on every replica; open attempts are still settled
    Stop(control::NoteArgs),
    /// Let charging go on after `stop`, from the next run on
    Start(control::NoteArgs),
    /// Hold, release or cancel one invoice
    Invoice(control::InvoiceArgs),
    /// Hold or release all invoices of a customer
    Customer(control::CustomerArgs),
    /// Copy a SQLite database to a new file while its service runs, and check the copy
    #[cfg(feature = "services")]
    Backup(backup::BackupArgs),
    /// Test the isolation of a Kubernetes environment: exit code 0 green, 1 red, 2 inconclusive
    Doctor(doctor::DoctorArgs),
    /// Run one service in this process, with the service's own settings: run billing, run payments, run pinger, run ponger
    Run {
        /// The service
        #[arg(value_name = "SERVICE", value_parser = run::names())]
        service: String,
        /// Its settings; `tinjis run SERVICE --help` lists them
        #[arg(value_name = "SETTINGS", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Send many requests to one URL and print one line of JSON about them: `tinjis load --help`
    Load {
        #[arg(value_name = "SETTINGS", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct BillingArgs {
    /// Base URL of billing [default: http://127.0.0.1:8000]
    #[arg(long, value_name = "URL")]
    billing: Option<String>,
    /// File whose first token is an operator's, for a billing that asks for one
    #[arg(long, env = "OPERATOR_TOKEN_FILE", value_name = "FILE")]
    operator_token_file: Option<String>,
    /// File whose first token is a reader's, enough for commands that only read; an operator's token beats it
    #[arg(long, env = "READER_TOKEN_FILE", value_name = "FILE")]
    reader_token_file: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Debug, clap::Args)]
struct PayArgs {
    #[command(flatten)]
    billing: BillingArgs,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// File with the invoices: reference, customer_id, currency, amount and, optionally, status
    file: PathBuf,
    /// Print a proposed profile for the file, with reasons; import nothing
    #[arg(long, conflicts_with_all = ["dry_run", "skip_bad", "update", "profile"])]
    explain: bool,
    #[command(flatten)]
    settings: import::FileSettings,
    #[command(flatten)]
    billing: BillingArgs,
    #[command(flatten)]
    deployments: DeploymentsArgs,
    /// Validate the file and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Skip invalid rows and write the others
    #[arg(long)]
    skip_bad: bool,
    /// Update known invoices whose data differ, unless an attempt is open or charged
    #[arg(long)]
    update: bool,
}

#[derive(clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    billing: BillingArgs,
    #[command(flatten)]
    deployments: DeploymentsArgs,
    /// First repair billing from the ledger, row by row, after billing was restored from a backup
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    acknowledge: verify::acknowledge::AcknowledgeArgs,
    /// Base URL of the payment service [default: http://127.0.0.1:9000]
    #[arg(long, value_name = "URL")]
    payments: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Token of the payment service. Prefer the file
    #[arg(long, env = "PAYMENTS_API_TOKEN", value_name = "TOKEN")]
    payments_api_token: Option<String>,
    /// File whose first token is the payment service's
    #[arg(long, env = "PAYMENTS_API_TOKEN_FILE", value_name = "FILE")]
    payments_api_token_file: Option<String>,
}

impl std::fmt::Debug for VerifyArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyArgs").finish_non_exhaustive()
    }
}

#[derive(Debug, clap::Args)]
struct ResolveArgs {
    /// Key of the attempt to resolve; to resolve several, see --reason-is
    #[arg(value_name = "KEY")]
    attempt: Option<String>,
    #[command(flatten)]
    billing: BillingArgs,
    /// Resolve every attempt with this attention reason, for example in-doubt-without-keys
    #[arg(long, value_name = "REASON")]
    reason_is: Option<String>,
    /// Decision: charged or not-charged
    #[arg(long, value_name = "charged|not-charged")]
    decision: Option<String>,
    /// Reason for the decision, recorded permanently
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Name of the operator, recorded permanently
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Print what would be resolved and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Accept this ledger id from now on, after the provider's ledger was replaced or restored
    #[arg(long, value_name = "UUID", conflicts_with_all = ["attempt", "reason_is", "decision", "dry_run", "log"])]
    accept_ledger: Option<String>,
    /// List every decision
    #[arg(long, conflicts_with_all = ["attempt", "reason_is", "decision", "why", "actor", "dry_run"])]
    log: bool,
}

/// A command with its checked options.
#[derive(Debug)]
pub(crate) enum Command {
    #[cfg(feature = "services")]
    Demo(demo::DemoCommand),
    #[cfg(feature = "services")]
    Simulate(Box<simulate::Options>),
    Pay {
        billing: Api,
    },
    Import {
        billings: Billings,
        options: Box<import::Options>,
    },
    ImportSubscriptions {
        billings: Billings,
        options: Box<import::Options>,
    },
    Explain {
        file: PathBuf,
        format: import::Format,
        target: &'static import::Target,
    },
    Resolve {
        billing: Api,
        what: resolve::ResolveCommand,
    },
    Subscriptions {
        billing: Api,
        what: subscriptions::SubscriptionCommand,
    },
    Schedule {
        billing: Api,
        what: schedule::ScheduleCommand,
    },
    Control {
        billing: Api,
        what: control::ControlCall,
    },
    Verify {
        billing: Api,
        payments: Api,
        json: bool,
        repair: bool,
        acknowledge: Option<verify::acknowledge::Acknowledge>,
    },
    VerifyAll {
        pairs: Box<Pairs>,
        json: bool,
    },
    #[cfg(feature = "services")]
    Backup(backup::ServiceBackup),
    Doctor(Box<doctor::DoctorCommand>),
}

impl Command {
    fn control((billing, what): (Api, control::ControlCall)) -> Self {
        Self::Control { billing, what }
    }
}

/// Parses argv, program name first, into a command; or returns the exit code after help or after all mistakes.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    load(args, |args: Args, problems| args.command.resolve(problems))
}

impl Sub {
    fn resolve(self, problems: &mut Problems) -> Option<Command> {
        match self {
            #[cfg(feature = "services")]
            Self::Demo(sub) => sub.resolve(problems).map(Command::Demo),
            #[cfg(feature = "services")]
            Self::Simulate(args) => args.resolve(problems).map(Box::new).map(Command::Simulate),
            Self::Pay(args) => args.billing.resolve(problems).map(|billing| Command::Pay { billing }),
            Self::Import(args) => args.resolve(problems),
            Self::Verify(args) => args.resolve(problems),
            Self::Resolve(args) => args.resolve(problems),
            Self::Subscriptions(sub) => sub.resolve(problems),
            Self::Schedule(sub) => sub.resolve(problems),
            Self::Stop(args) => args.stop(problems).map(Command::control),
            Self::Start(args) => args.start(problems).map(Command::control),
            Self::Invoice(args) => args.resolve(problems).map(Command::control),
            Self::Customer(args) => args.resolve(problems).map(Command::control),
            #[cfg(feature = "services")]
            Self::Backup(args) => args.resolve(problems).map(Command::Backup),
            Self::Doctor(args) => args.resolve(problems).map(Box::new).map(Command::Doctor),
            // `run` and `load` are handled before the command line is parsed; they are listed here for `--help`.
            Self::Run { .. } | Self::Load { .. } => {
                problems.add("run", run::WHICH);
                None
            }
        }
    }
}

impl BillingArgs {
    pub(crate) fn resolve(&self, problems: &mut Problems) -> Option<Api> {
        let base = self.base(problems)?;
        self.tls.check_needed([&base], problems);
        self.at(base, None, problems)
    }

    fn base(&self, problems: &mut Problems) -> Option<BaseUrl> {
        parse_base_url(problems, "--billing", &self.billing, BILLING_DEFAULT)
    }

    pub(crate) fn tls(&self) -> &TlsArgs {
        &self.tls
    }

    /// The API of the billing at `base`. `own`, a setting and its token file, replaces the token of the flags.
    pub(crate) fn at(
        &self,
        base: BaseUrl,
        own: Option<(&'static str, PathBuf)>,
        problems: &mut Problems,
    ) -> Option<Api> {
        const OPERATOR: &str = "--operator-token-file (OPERATOR_TOKEN_FILE)";
        const READER: &str = "--reader-token-file (READER_TOKEN_FILE)";
        let operator = non_empty(&self.operator_token_file).map(|path| (OPERATOR, path.into()));
        let reader = non_empty(&self.reader_token_file).map(|path| (READER, path.into()));
        let api = self.tls.api(base, problems);
        let (setting, path) = own.or(operator).or(reader).unzip();
        with_credentials(
            problems,
            setting.unwrap_or(OPERATOR),
            api,
            Scheme::Bearer,
            path.map(TokenSource::file),
        )
    }
}

impl ImportArgs {
    fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let billings = self.deployments.billings(&self.billing, problems);
        let Self { file, settings, explain, dry_run, skip_bad, update, .. } = self;
        let (format, dialect) = settings.resolve(&file, &import::INVOICES, problems)?;
        if explain {
            return Some(Command::Explain { file, format, target: &import::INVOICES });
        }
        let options = import::Options { file, format, dialect, dry_run, skip_bad, update };
        Some(Command::Import { billings: billings?, options: Box::new(options) })
    }
}

impl VerifyArgs {
    fn resolve(&self, problems: &mut Problems) -> Option<Command> {
        let (setting, token) = self.payments_token(problems)?;
        if self.deployments.is_given() {
            return self.all(setting, token, problems);
        }
        let billing = self.billing.base(problems);
        let payments = parse_base_url(problems, "--payments", &self.payments, PAYMENTS_DEFAULT);
        if let (Some(billing), Some(payments)) = (&billing, &payments) {
            self.billing.tls.check_needed([billing, payments], problems);
        }
        let billing = billing.and_then(|base| self.billing.at(base, None, problems));
        let payments = payments.and_then(|base| self.billing.tls.api(base, problems));
        let payments = with_credentials(problems, setting, payments, Scheme::XToken, token);
        let acknowledge = self.acknowledge.resolve(problems);
        let Self { json, repair, .. } = *self;
        Some(Command::Verify { billing: billing?, payments: payments?, json, repair, acknowledge })
    }

    fn all(
        &self,
        setting: &'static str,
        token: Option<TokenSource>,
        problems: &mut Problems,
    ) -> Option<Command> {
        let pairs = self.deployments.pairs(&self.billing, (setting, token), problems);
        for (flag, is_given) in [
            ("--payments", self.payments.is_some()),
            ("--repair", self.repair),
            ("--acknowledge", self.acknowledge.is_given()),
        ] {
            if is_given {
                problems.add(flag, "is for one deployment: give its --billing and no --deployments");
            }
        }
        Some(Command::VerifyAll { pairs: Box::new(pairs?), json: self.json })
    }

    /// The setting that gives the token, and the token; `None` when a mistake was recorded.
    fn payments_token(&self, problems: &mut Problems) -> Option<(&'static str, Option<TokenSource>)> {
        const TOKEN: &str = "--payments-api-token (PAYMENTS_API_TOKEN)";
        const FILE: &str = "--payments-api-token-file (PAYMENTS_API_TOKEN_FILE)";
        let token = non_empty(&self.payments_api_token).map(unquote).map(Secret::new);
        match (token, non_empty(&self.payments_api_token_file)) {
            (Some(_), Some(_)) => {
                problems.add(FILE, format_args!("{TOKEN} is given too; give one of the two"));
                None
            }
            (Some(token), None) => Some((TOKEN, Some(TokenSource::value(token)))),
            (None, file) => Some((FILE, file.map(TokenSource::file))),
        }
    }
}

impl ResolveArgs {
    fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let billing = self.billing.resolve(problems);
        let what = if self.log { Some(resolve::ResolveCommand::Log) } else { self.parse_command(problems) };
        Some(Command::Resolve { billing: billing?, what: what? })
    }

    fn parse_command(&self, problems: &mut Problems) -> Option<resolve::ResolveCommand> {
        if let Some(ledger_id) = non_empty(&self.accept_ledger) {
            let why = require_option(problems, "--why", self.why.as_deref());
            let actor = require_option(problems, "--actor", self.actor.as_deref());
            let ledger_id = ledger_id.to_owned();
            return Some(resolve::ResolveCommand::AcceptLedger { ledger_id, reason: why?, actor: actor? });
        }
        let (key, reason) = (non_empty(&self.attempt), non_empty(&self.reason_is));
        let which = match (key, reason) {
            (Some(_), Some(_)) => {
                problems.add("--reason-is", "a key is given too; give one of the two");
                return None;
            }
            (Some(key), None) => resolve::Which::Key(key.to_owned()),
            (None, Some(reason)) => resolve::Which::Reason(
                problems.check("--reason-is", resolve::parse_attention_reason(reason))?,
            ),
            (None, None) => resolve::Which::All,
        };
        let Some(decision) = non_empty(&self.decision) else {
            return Some(resolve::ResolveCommand::List(which));
        };
        let charged = problems.check("--decision", resolve::parse_charged(decision));
        if matches!(which, resolve::Which::All) {
            problems.add("--decision", "of what: give a key or --reason-is");
            return None;
        }
        let why = require_option(problems, "--why", self.why.as_deref());
        let actor = require_option(problems, "--actor", self.actor.as_deref());
        let resolution = resolve::OperatorDecision { charged: charged?, reason: why?, actor: actor? };
        Some(resolve::ResolveCommand::Decide { which, resolution, dry_run: self.dry_run })
    }
}

fn require_option(problems: &mut Problems, setting: &str, text: Option<&str>) -> Option<String> {
    let text = text.filter(|text| !text.trim().is_empty()).map(str::to_owned);
    if text.is_none() {
        problems.add(setting, "must be given with a decision");
    }
    text
}

fn parse_base_url(
    problems: &mut Problems,
    setting: &str,
    text: &Option<String>,
    default: &str,
) -> Option<BaseUrl> {
    problems.check(setting, BaseUrl::from_str(non_empty(text).unwrap_or(default)))
}

pub(crate) fn with_credentials(
    problems: &mut Problems,
    setting: &str,
    api: Option<Api>,
    scheme: Scheme,
    source: Option<TokenSource>,
) -> Option<Api> {
    let tokens = match source {
        Some(source) => Some(problems.check(setting, Tokens::new(source))?.current()),
        None => None,
    };
    let api = api?;
    match tokens.as_deref().and_then(|tokens| tokens.first()) {
        Some(token) => problems.check(setting, api.with_token(scheme, &token.secret)),
        None => Some(api),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    /// Parses these words into the command, or all mistakes.
    fn parsed(words: &str) -> Result<Command, String> {
        let words = std::iter::once("tinjis").chain(words.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut problems = Problems::new();
        let command = args.command.resolve(&mut problems);
        problems.finish().map_err(|error| error.to_string())?;
        Ok(command.unwrap())
    }

    #[test]
    fn the_commands_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn all_mistakes_of_a_command_come_in_one_message() {
        let mistakes = parsed("import invoices.xls --billing localhost:8000").unwrap_err();
        assert!(mistakes.contains("--billing") && mistakes.contains("must end in .csv"), "{mistakes}");
        let mistakes = parsed("run nothing --listen x").unwrap_err();
        assert!(mistakes.contains("'nothing'") && mistakes.contains("payments"), "{mistakes}");
        let mistakes = parsed("verify --billing x --payments ftp://y").unwrap_err();
        assert!(mistakes.contains("--billing") && mistakes.contains("--payments"), "{mistakes}");
        let mistakes = parsed("verify --billing x --payments https://y").unwrap_err();
        assert!(mistakes.contains("--billing") && mistakes.contains("--ca: is missing"), "{mistakes}");
        let mistakes = parsed("doctor x.toml --read-only --ca ca.pem").unwrap_err();
        assert!(mistakes.contains("--ca: is given") && mistakes.contains("--push-metrics"), "{mistakes}");
    }

    #[test]
    fn run_and_load_are_listed_by_help() {
        let help = Args::command().render_long_help().to_string();
        for name in ["run", "load", "pay", "verify"] {
            assert!(
                help.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))),
                "{name} in {help}"
            );
        }
    }

    #[test]
    fn an_unknown_reason_is_refused_with_the_list() {
        let mistakes = parsed("resolve --reason-is in-doubt").unwrap_err();
        for part in ["--reason-is: \"in-doubt\"", "in-doubt-without-keys", "rejected", "key-reused"] {
            assert!(mistakes.contains(part), "{part} in {mistakes}");
        }
        assert!(parsed("resolve --reason-is rejected").is_ok());
    }

    #[test]
    fn files_of_tls_are_a_mistake_where_nothing_is_called_over_tls() {
        let files = "--ca /nowhere --cert /nowhere --key /nowhere";
        for command in ["pay", "import i.csv", "verify", "resolve", "schedule status"] {
            let mistakes = parsed(&format!("{command} {files}")).unwrap_err();
            for flag in ["--ca", "--cert", "--key"] {
                let mistake = format!("{flag}: is given, but http://127.0.0.1:8000 is not called over TLS");
                assert!(mistakes.contains(&mistake), "{command}: {mistakes}");
            }
        }
        // One of two services may be called over TLS.
        let mistakes = parsed(&format!("verify --payments https://localhost:9000 {files}")).unwrap_err();
        assert!(mistakes.contains("/nowhere") && !mistakes.contains("not called over TLS"), "{mistakes}");
    }

    #[test]
    fn flags_of_resolve_that_contradict_each_other_are_a_mistake() {
        let accept = "resolve --accept-ledger 00000000-0000-4000-8000-000000000001 --why w --actor a";
        let accepts = |command: &Command| {
            matches!(command, Command::Resolve { what: resolve::ResolveCommand::AcceptLedger { .. }, .. })
        };
        assert!(accepts(&parsed(accept).unwrap()));
        for more in ["--dry-run", "KEY", "--decision charged", "--reason-is rejected", "--log"] {
            let mistake = parsed(&format!("{accept} {more}")).unwrap_err();
            assert!(mistake.contains("cannot be used with"), "{more}: {mistake}");
        }
        assert!(parsed("resolve --log").is_ok());
        for more in ["--dry-run", "KEY", "--decision foo", "--reason-is rejected", "--why w", "--actor a"] {
            let mistake = parsed(&format!("resolve --log {more}")).unwrap_err();
            assert!(mistake.contains("cannot be used with"), "{more}: {mistake}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let command = parsed("verify --payments-api-token VerySecret").unwrap();
        assert!(!format!("{command:?}").contains("VerySecret"));
    }
}
