//! `subscriptions`: imports a file of them, lists them, and changes one. Billing validates every field; this module
//! only reads files and shows answers. Must not know when a subscription is due.

use std::path::PathBuf;

use anyhow::bail;
use api::billing::{ChangeRequest, ImportReport, Page, Subscription};
use bytes::Bytes;
use chassis::config::Problems;
use serde_json::Value;

use crate::cli::{BillingArgs, Command};
use crate::deployments::{Billings, DeploymentsArgs, Line, SUBSCRIPTIONS};
use crate::http::{Api, SUBSCRIPTIONS_PAGE, segment};
use crate::import::{
    self, Dialect, Fault, FileSettings, Format, Identity, SubscriptionRow, SubscriptionRows,
};
use crate::output::{grouped, note, result};

/// Exit code when rows are bad.
const BAD_ROWS: u8 = 1;
/// Rows and bytes of one request.
const ROWS_MAX: usize = 1000;
const BYTES_MAX: usize = 512 * 1024;
/// Maximum number of faults that are shown; all are counted.
const SHOWN_MAX: usize = 100;

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
pub(crate) enum What {
    List { state: Option<String>, json: bool },
    Change { reference: String, change: &'static str, body: ChangeRequest },
}

/// A file of subscriptions, and the dialect that it is written in.
#[derive(Debug)]
pub(crate) struct ImportOptions {
    file: PathBuf,
    format: Format,
    dialect: Dialect,
    dry_run: bool,
}

impl Sub {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let (billing, what) = match self {
            Self::Import(args) => return args.resolve(problems),
            Self::List(args) => {
                (args.billing.resolve(problems), Some(What::List { state: args.state, json: args.json }))
            }
            Self::Pause(args) => args.who.change("pause", ChangeRequest::default(), problems),
            Self::Resume(args) => {
                let fields = ChangeRequest { from: args.from, ..ChangeRequest::default() };
                args.who.change("resume", fields, problems)
            }
            Self::End(args) => {
                let fields = ChangeRequest { ends_on: args.on, ..ChangeRequest::default() };
                args.who.change("end", fields, problems)
            }
            Self::ChangePrice(args) => {
                let (from, amount) = (Some(args.from), Some(args.amount));
                let fields = ChangeRequest { from, amount, ..ChangeRequest::default() };
                args.who.change("change-price", fields, problems)
            }
        };
        Some(Command::Subscriptions { billing: billing?, what: what? })
    }
}

impl ImportArgs {
    fn resolve(self, problems: &mut Problems) -> Option<Command> {
        let billings = self.deployments.billings(&self.billing, problems);
        let Self { file, explain, settings, dry_run, .. } = self;
        let (format, dialect) = settings.resolve(&file, &import::SUBSCRIPTIONS, problems)?;
        if explain {
            return Some(Command::Explain { file, format, target: &import::SUBSCRIPTIONS });
        }
        let options = Box::new(ImportOptions { file, format, dialect, dry_run });
        Some(Command::ImportSubscriptions { billings: billings?, options })
    }
}

impl WhoArgs {
    fn change(
        self,
        change: &'static str,
        fields: ChangeRequest,
        problems: &mut Problems,
    ) -> (Option<Api>, Option<What>) {
        let Self { reference, billing, why, actor } = self;
        let body = ChangeRequest { reason: why, actor, ..fields };
        (billing.resolve(problems), Some(What::Change { reference, change, body }))
    }
}

pub(crate) async fn command(billing: &Api, what: What) -> anyhow::Result<u8> {
    match what {
        What::List { state, json } => list(billing, state.as_deref(), json).await,
        What::Change { reference, change, body } => {
            let path = format!("/v1/subscriptions/{}/{change}", segment(&reference));
            let body = Bytes::from(serde_json::to_vec(&body)?);
            let changed: Subscription = billing.post(&path, "application/json", body).await?;
            result(display(&changed));
            Ok(0)
        }
    }
}

/// `subscriptions import`: checks the whole file first, and writes it only if every row is right.
pub(crate) async fn import(billings: &Billings, options: &ImportOptions) -> anyhow::Result<u8> {
    let rows = match options.open()? {
        Ok(rows) => rows,
        Err(fault) => {
            note(format_args!("{fault}"));
            note("nothing was written: the file cannot be read");
            return Ok(BAD_ROWS);
        }
    };
    if !rows.ignored().is_empty() {
        note(format_args!("columns passed over: {}", rows.ignored().join(", ")));
    }
    let identity = rows.identity();
    billings.check_ids().await?;
    let would = send(billings, rows, true).await?;
    if would.errors_total > 0 {
        let rows = grouped(would.errors_total);
        note(format_args!("nothing was written: rows that are wrong: {rows}; fix them and import again"));
        return Ok(BAD_ROWS);
    }
    let (words, done) = match options.dry_run {
        true => ("would be ", would),
        false => ("", send(billings, options.open_again(&identity)?, false).await?),
    };
    let ImportReport { created, unchanged, errors_total, .. } = done;
    result(format_args!("{words}{} created, {} unchanged", grouped(created), grouped(unchanged)));
    Ok(if errors_total > 0 { BAD_ROWS } else { 0 })
}

impl ImportOptions {
    fn open(&self) -> anyhow::Result<Result<SubscriptionRows, Fault>> {
        SubscriptionRows::open(&self.file, self.format, &self.dialect)
    }

    fn open_again(&self, earlier: &Identity) -> anyhow::Result<SubscriptionRows> {
        let rows = self.open()?.map_err(|fault| anyhow::anyhow!("{fault}"))?;
        rows.check_same(&self.file, earlier)?;
        Ok(rows)
    }
}

/// Rows that are not sent yet, and the results of the earlier rows.
#[derive(Default)]
struct Sending {
    total: ImportReport,
    shown: usize,
    rows: Vec<Line>,
    /// The line in the file of each row.
    lines: Vec<u64>,
    bytes: usize,
}

impl Sending {
    fn add(&mut self, row: SubscriptionRow) {
        let json = (Value::Object(row.object).to_string() + "\n").into_bytes();
        self.bytes += json.len();
        self.rows.push(Line { reference: row.reference, json });
        self.lines.push(row.line);
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// Prints every mistake of one row.
    fn tell(&mut self, faults: &[Fault]) {
        self.total.errors_total += 1;
        for Fault { line, reference, column, reason, .. } in faults {
            self.note(*line, reference.as_deref(), column, reason);
        }
    }

    fn note(&mut self, line: u64, reference: Option<&str>, column: &str, reason: &str) {
        if self.shown < SHOWN_MAX {
            let name = reference.map_or(String::new(), |reference| format!(" ({reference})"));
            note(format_args!("line {line}{name}: {column} {reason}"));
            self.shown += 1;
        }
    }

    async fn flush(
        &mut self,
        billings: &Billings,
        path: &str,
        rows: &SubscriptionRows,
    ) -> anyhow::Result<()> {
        self.bytes = 0;
        let (waiting, lines) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.lines));
        let places = billings.places(&SUBSCRIPTIONS, &waiting).await?;
        for (place, billing) in billings.apis.iter().enumerate() {
            let (mut body, mut of_body) = (Vec::new(), Vec::new());
            for ((row, line), _) in waiting.iter().zip(&lines).zip(&places).filter(|(_, to)| **to == place) {
                body.extend_from_slice(&row.json);
                of_body.push(*line);
            }
            if !body.is_empty() {
                self.send(billing, path, Bytes::from(body), &of_body, rows).await?;
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        billing: &Api,
        path: &str,
        body: Bytes,
        lines: &[u64],
        rows: &SubscriptionRows,
    ) -> anyhow::Result<()> {
        let answer: ImportReport = billing.post(path, "application/x-ndjson", body).await?;
        self.total.created += answer.created;
        self.total.unchanged += answer.unchanged;
        self.total.errors_total += answer.errors_total;
        for error in answer.errors {
            let at = error.line.checked_sub(1).and_then(|at| usize::try_from(at).ok());
            let line = at.and_then(|at| lines.get(at)).copied().unwrap_or(0);
            let column = rows.column(&error.field);
            self.note(line, error.reference.as_deref(), &column, &error.message);
        }
        Ok(())
    }
}

async fn send(
    billings: &Billings,
    mut rows: SubscriptionRows,
    dry_run: bool,
) -> anyhow::Result<ImportReport> {
    let path = format!("/v1/subscriptions/imports?dry_run={dry_run}");
    let mut sending = Sending::default();
    loop {
        let row = rows.next().unwrap_or_else(|fault| {
            sending.tell(&[fault]);
            None
        });
        let is_end = row.is_none();
        match row {
            Some(Ok(row)) => sending.add(row),
            Some(Err(faults)) => sending.tell(&faults),
            None => {}
        }
        if is_end || sending.is_full() {
            sending.flush(billings, &path, &rows).await?;
        }
        if is_end {
            return Ok(sending.total);
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

async fn list(billing: &Api, state: Option<&str>, json: bool) -> anyhow::Result<u8> {
    if state.is_some_and(|state| !["active", "paused", "ended"].contains(&state)) {
        bail!("--state must be active, paused or ended");
    }
    let only = state.map_or(String::new(), |state| format!("&state={state}"));
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
            Some(next) => after = format!("&after={}", segment(&next)),
            None => return Ok(0),
        }
    }
}
