//! `subscriptions`: import a file of them, list them, and change one. Billing judges every field; this module only checks
//! arguments and shows answers. Must not know when a subscription is due.

use std::path::PathBuf;

use api::billing::{ChangeRequest, Page, Subscription};
use billing::money::Amount;
use billing::subscription::SubscriptionState;
use bytes::Bytes;
use chassis::config::Problems;
use serde_json::Value;

use crate::cli::{BillingArgs, Command};
use crate::control::check_recorded;
use crate::deployments::DeploymentsArgs;
use crate::http::{Api, SUBSCRIPTIONS_PAGE, encode_segment};
use crate::import::{self, FileSettings, Options};
use crate::output::result;
use crate::preview::parse_date_setting;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Sub {
    /// Import subscriptions from a .csv, .json or .ndjson file: exit code 0 all taken, 1 some rows are wrong
    Import(Box<ImportArgs>),
    /// List subscriptions with their next period
    List(ListArgs),
    /// Bill no further period until `resume`
    Pause(PauseArgs),
    /// Bill again, without the periods of the pause
    Resume(ResumeArgs),
    /// End a subscription, which is final
    End(EndArgs),
    /// Set the amount of the periods from a date on
    ChangePrice(ChangePriceArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// File with reference, customer_id or customer_reference, currency, amount, starts_on and, optionally, anchor_day, every_months, zone, at,
    /// ends_on and holidays; JSON may have prices instead of amount
    file: PathBuf,
    /// Print a proposed profile for the file, with reasons; import nothing
    #[arg(long, conflicts_with_all = ["dry_run", "profile"])]
    explain: bool,
    #[command(flatten)]
    settings: FileSettings,
    #[command(flatten)]
    billing: BillingArgs,
    #[command(flatten)]
    deployments: DeploymentsArgs,
    /// Validate the file and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    billing: BillingArgs,
    /// Only those in this state: active, paused or ended
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WhoArgs {
    /// Reference of the subscription
    reference: String,
    #[command(flatten)]
    billing: BillingArgs,
    /// Why; kept for ever
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Who says so; kept for ever
    #[arg(long, value_name = "NAME")]
    actor: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    who: WhoArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// First date that is billed [default: the first due date that has not come yet]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EndArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Last date that is billed [default: no period is billed any more]
    #[arg(long, value_name = "DATE")]
    on: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChangePriceArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// First due date with this amount; after the last one that is invoiced
    #[arg(long, value_name = "DATE")]
    from: String,
    /// The amount, as 12.90
    #[arg(long, value_name = "AMOUNT")]
    amount: String,
}

/// The requested action.
#[derive(Debug)]
pub(crate) enum SubscriptionCommand {
    List { state: Option<SubscriptionState>, json: bool },
    Change { reference: String, change: &'static str, body: ChangeRequest },
}

impl Sub {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let (billing, what) = match self {
            Self::Import(args) => return args.resolve(problems),
            Self::List(args) => {
                let state = args.state.map(|state| {
                    let state = state.parse().map_err(|_| "must be active, paused or ended");
                    problems.check("--state", state)
                });
                let state = state.map_or(Some(None), |state| state.map(Some));
                let what = state.map(|state| SubscriptionCommand::List { state, json: args.json });
                (args.billing.resolve(problems), what)
            }
            Self::Pause(args) => args.who.change("pause", ChangeRequest::default(), problems),
            Self::Resume(args) => {
                check_date(problems, "--from", args.from.as_deref());
                let fields = ChangeRequest { from: args.from, ..ChangeRequest::default() };
                args.who.change("resume", fields, problems)
            }
            Self::End(args) => {
                check_date(problems, "--on", args.on.as_deref());
                let fields = ChangeRequest { ends_on: args.on, ..ChangeRequest::default() };
                args.who.change("end", fields, problems)
            }
            Self::ChangePrice(args) => {
                check_date(problems, "--from", Some(&args.from));
                // Which decimals the subscription's currency has, billing says.
                problems.check("--amount", Amount::check(&args.amount));
                let (from, amount) = (Some(args.from), Some(args.amount));
                let fields = ChangeRequest { from, amount, ..ChangeRequest::default() };
                args.who.change("change-price", fields, problems)
            }
        };
        Some(Command::Subscriptions { billing: billing?, what: what? })
    }
}

fn check_date(problems: &mut Problems, setting: &str, text: Option<&str>) {
    text.and_then(|text| parse_date_setting(problems, setting, text));
}

impl ImportArgs {
    fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let billings = self.deployments.billings(&self.billing, problems);
        let Self { file, explain, settings, dry_run, .. } = self;
        let (format, dialect) = settings.resolve(&file, &import::SUBSCRIPTIONS, problems)?;
        if explain {
            return Some(Command::Explain { file, format, target: &import::SUBSCRIPTIONS });
        }
        let options = Options { file, format, dialect, dry_run, skip_bad: false, update: false };
        let options = Box::new(options);
        Some(Command::ImportSubscriptions { billings: billings?, options })
    }
}

impl WhoArgs {
    fn change(
        self,
        change: &'static str,
        fields: ChangeRequest,
        problems: &mut Problems,
    ) -> (Option<Api>, Option<SubscriptionCommand>) {
        let Self { reference, billing, why, actor } = self;
        check_recorded(problems, &why, &actor);
        let body = ChangeRequest { reason: why, actor, ..fields };
        (billing.resolve(problems), Some(SubscriptionCommand::Change { reference, change, body }))
    }
}

pub(crate) async fn command(billing: &Api, what: SubscriptionCommand) -> anyhow::Result<u8> {
    match what {
        SubscriptionCommand::List { state, json } => list(billing, state, json).await,
        SubscriptionCommand::Change { reference, change, body } => {
            let path = format!("/v1/subscriptions/{}/{change}", encode_segment(&reference));
            let body = Bytes::from(serde_json::to_vec(&body)?);
            let changed: Subscription = billing.post(&path, "application/json", body).await?;
            result(display(&changed));
            Ok(0)
        }
    }
}

fn display(row: &Subscription) -> String {
    let Subscription { reference, currency, state, .. } = row;
    let next = row.next_on.as_deref().map_or(String::new(), |on| format!(", next due {on}"));
    let ends = row.ends_on.as_deref().map_or(String::new(), |on| format!(", ends {on}"));
    let prices: Vec<String> =
        row.prices.iter().map(|price| format!("{} from {}", price.amount, price.from)).collect();
    format!("{reference}: {state}{next}{ends}, {currency} {}", prices.join(", "))
}

async fn list(billing: &Api, state: Option<SubscriptionState>, json: bool) -> anyhow::Result<u8> {
    let only = state.map_or(String::new(), |state| format!("&state={}", state.as_str()));
    let mut after = String::new();
    loop {
        let path = format!("/v1/subscriptions?limit={SUBSCRIPTIONS_PAGE}{only}{after}");
        let page: Page<Value> = billing.get(&path).await?;
        for item in page.items {
            if json {
                result(item);
            } else {
                result(display(&serde_json::from_value(item)?));
            }
        }
        match page.next {
            Some(next) => after = format!("&after={}", encode_segment(&next)),
            None => return Ok(0),
        }
    }
}
