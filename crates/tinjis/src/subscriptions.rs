//! `subscriptions`: import a file of them, list them, and change one. Billing judges every field; this module only reads
//! files and shows answers. Must not know when a subscription is due.

pub(crate) mod file;

use std::path::PathBuf;

use anyhow::bail;
use bytes::Bytes;
use chassis::config::Problems;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{BillingArgs, Command};
use crate::http::{Api, segment};
use crate::output::{grouped, note, result};
use file::Records;

/// Exit code when rows are bad.
const BAD_ROWS: u8 = 1;
/// Rows and bytes of one request.
const ROWS_MAX: usize = 1000;
const BYTES_MAX: usize = 512 * 1024;
/// Faults that are shown; all are counted.
const SHOWN_MAX: usize = 100;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Sub {
    /// Import subscriptions from a .csv or .ndjson file: exit code 0 all taken, 1 some rows are wrong
    Import(ImportArgs),
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
    /// File with reference, customer_id, currency, amount, starts_on and, optionally, anchor_day, every_months, zone, at,
    /// ends_on and holidays; NDJSON may have prices instead of amount
    file: PathBuf,
    #[command(flatten)]
    billing: BillingArgs,
    /// Validate the file and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Character between the fields of a CSV file [default: ,]
    #[arg(long, value_name = "C")]
    delimiter: Option<char>,
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

/// What is to be done.
#[derive(Debug)]
pub(crate) enum What {
    Import { file: PathBuf, delimiter: u8, dry_run: bool },
    List { state: Option<String>, json: bool },
    Change { reference: String, change: &'static str, body: Value },
}

impl Sub {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let (billing, what) = match self {
            Self::Import(args) => (args.billing.resolve(problems), args.what(problems)),
            Self::List(args) => {
                (args.billing.resolve(problems), Some(What::List { state: args.state, json: args.json }))
            }
            Self::Pause(args) => args.who.change("pause", json!({}), problems),
            Self::Resume(args) => args.who.change("resume", json!({ "from": args.from }), problems),
            Self::End(args) => args.who.change("end", json!({ "ends_on": args.on }), problems),
            Self::ChangePrice(args) => {
                let fields = json!({ "from": args.from, "amount": args.amount });
                args.who.change("change-price", fields, problems)
            }
        };
        Some(Command::Subscriptions { billing: billing?, what: what? })
    }
}

impl ImportArgs {
    fn what(self, problems: &mut Problems) -> Option<What> {
        if let Err(why) = file::Format::of(&self.file) {
            problems.add("FILE", why);
            return None;
        }
        let Ok(delimiter) = u8::try_from(self.delimiter.unwrap_or(',')) else {
            problems.add("--delimiter", "must be an ASCII character");
            return None;
        };
        Some(What::Import { file: self.file, delimiter, dry_run: self.dry_run })
    }
}

impl WhoArgs {
    fn change(
        self,
        change: &'static str,
        mut body: Value,
        problems: &mut Problems,
    ) -> (Option<Api>, Option<What>) {
        let Self { reference, billing, why, actor } = self;
        body["reason"] = why.into();
        body["actor"] = actor.into();
        (billing.resolve(problems), Some(What::Change { reference, change, body }))
    }
}

/// The `subscriptions` command.
pub(crate) async fn command(billing: &Api, what: What) -> anyhow::Result<u8> {
    match what {
        What::Import { file, delimiter, dry_run } => import(billing, &file, delimiter, dry_run).await,
        What::List { state, json } => list(billing, state.as_deref(), json).await,
        What::Change { reference, change, body } => {
            let path = format!("/v1/subscriptions/{}/{change}", segment(&reference));
            let body = Bytes::from(body.to_string());
            let changed: Item = billing.post(&path, "application/json", body).await?;
            result(changed.display());
            Ok(0)
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Answer {
    created: u64,
    unchanged: u64,
    errors_total: u64,
    errors: Vec<LineError>,
}

#[derive(Debug, Deserialize)]
struct LineError {
    line: usize,
    reference: Option<String>,
    field: String,
    message: String,
}

/// The whole file is asked about first, and written only if every row is right.
async fn import(billing: &Api, path: &std::path::Path, delimiter: u8, dry_run: bool) -> anyhow::Result<u8> {
    let would = send(billing, Records::open(path, delimiter)?, true).await?;
    if would.errors_total > 0 {
        let rows = grouped(would.errors_total);
        note(format_args!("nothing was written: rows that are wrong: {rows}; fix them and import again"));
        return Ok(BAD_ROWS);
    }
    let (words, done) = match dry_run {
        true => ("would be ", would),
        false => ("", send(billing, Records::open(path, delimiter)?, false).await?),
    };
    let Answer { created, unchanged, errors_total, .. } = done;
    result(format_args!("{words}{} created, {} unchanged", grouped(created), grouped(unchanged)));
    Ok(if errors_total > 0 { BAD_ROWS } else { 0 })
}

async fn send(billing: &Api, mut records: Records, dry_run: bool) -> anyhow::Result<Answer> {
    let path = format!("/v1/subscriptions/imports?dry_run={dry_run}");
    let mut total = Answer::default();
    let mut shown = 0;
    loop {
        let (mut body, mut lines) = (Vec::new(), Vec::new());
        while lines.len() < ROWS_MAX && body.len() < BYTES_MAX {
            let Some((line, json)) = records.next()? else { break };
            body.extend_from_slice(&json);
            body.push(b'\n');
            lines.push(line);
        }
        if lines.is_empty() {
            return Ok(total);
        }
        let answer: Answer = billing.post(&path, "application/x-ndjson", Bytes::from(body)).await?;
        total.created += answer.created;
        total.unchanged += answer.unchanged;
        total.errors_total += answer.errors_total;
        for error in answer.errors.into_iter().take(SHOWN_MAX - shown) {
            let line = error.line.checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or(0);
            let name = error.reference.map_or(String::new(), |reference| format!(" ({reference})"));
            note(format_args!("line {line}{name}: {} {}", error.field, error.message));
            shown += 1;
        }
    }
}

/// A subscription as billing shows it.
#[derive(Debug, Deserialize)]
struct Item {
    reference: String,
    currency: String,
    prices: Vec<Price>,
    state: String,
    next_on: Option<String>,
    ends_on: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Price {
    from: String,
    amount: String,
}

impl Item {
    fn display(&self) -> String {
        let Self { reference, currency, state, .. } = self;
        let next = self.next_on.as_deref().map_or(String::new(), |on| format!(", next due {on}"));
        let ends = self.ends_on.as_deref().map_or(String::new(), |on| format!(", ends {on}"));
        let prices: Vec<String> =
            self.prices.iter().map(|price| format!("{} from {}", price.amount, price.from)).collect();
        format!("{reference}: {state}{next}{ends}, {currency} {}", prices.join(", "))
    }
}

async fn list(billing: &Api, state: Option<&str>, json: bool) -> anyhow::Result<u8> {
    if state.is_some_and(|state| !["active", "paused", "ended"].contains(&state)) {
        bail!("--state must be active, paused or ended");
    }
    let only = state.map_or(String::new(), |state| format!("&state={state}"));
    let mut after = String::new();
    loop {
        let page: Page = billing.get(&format!("/v1/subscriptions?limit=1000{only}{after}")).await?;
        for item in page.items {
            if json {
                result(item);
            } else {
                result(serde_json::from_value::<Item>(item)?.display());
            }
        }
        match page.next {
            Some(next) => after = format!("&after={}", segment(&next)),
            None => return Ok(0),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Value>,
    next: Option<String>,
}
