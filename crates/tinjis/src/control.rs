//! `stop`, `start`, `invoice` and `customer`: an operator stops charging, or goes on with it, as a whole or for one invoice
//! or customer. Billing checks and records each; knows its routes only.

use chassis::config::Problems;
use serde::Deserialize;
use serde_json::json;

use crate::cli::BillingArgs;
use crate::http::{Api, CallError, segment};
use crate::output::{note, result};

/// Exit code when billing refused.
const REFUSED: u8 = 1;

/// Who, why and where.
#[derive(Debug, clap::Args)]
pub(crate) struct NoteArgs {
    /// Reason, recorded permanently
    #[arg(long, value_name = "TEXT", required = true)]
    why: String,
    /// Name of the operator, recorded permanently
    #[arg(long, value_name = "NAME", required = true)]
    actor: String,
    #[command(flatten)]
    billing: BillingArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InvoiceArgs {
    /// hold: no run claims it until release; cancel: it is never charged, finally
    #[arg(value_name = "hold|release|cancel", value_parser = ["hold", "release", "cancel"])]
    action: String,
    /// Reference of the invoice
    reference: String,
    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CustomerArgs {
    /// hold: no run claims an invoice of the customer until release
    #[arg(value_name = "hold|release", value_parser = ["hold", "release"])]
    action: String,
    /// Number of the customer
    id: i64,
    #[command(flatten)]
    note: NoteArgs,
}

/// One call of billing.
#[derive(Debug)]
pub(crate) struct What {
    path: String,
    why: String,
    actor: String,
}

impl NoteArgs {
    pub(crate) fn stop(self, problems: &mut Problems) -> Option<(Api, What)> {
        self.call("/v1/charging/stop".to_owned(), problems)
    }

    pub(crate) fn start(self, problems: &mut Problems) -> Option<(Api, What)> {
        self.call("/v1/charging/start".to_owned(), problems)
    }

    fn call(self, path: String, problems: &mut Problems) -> Option<(Api, What)> {
        for (setting, text) in [("--why", &self.why), ("--actor", &self.actor)] {
            if text.trim().is_empty() {
                problems.add(setting, "must not be empty: it is recorded");
            }
        }
        let billing = self.billing.resolve(problems)?;
        Some((billing, What { path, why: self.why, actor: self.actor }))
    }
}

impl InvoiceArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<(Api, What)> {
        self.note.call(format!("/v1/invoices/{}/{}", segment(&self.reference), self.action), problems)
    }
}

impl CustomerArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<(Api, What)> {
        self.note.call(format!("/v1/customers/{}/{}", self.id, self.action), problems)
    }
}

/// Whether all charging is stopped.
#[derive(Deserialize)]
pub(crate) struct Charging {
    stopped: bool,
    reason: Option<String>,
    actor: Option<String>,
    since: Option<String>,
}

impl Charging {
    /// As billing says now; a billing of an earlier version knows no stop.
    pub(crate) async fn look(billing: &Api) -> Result<Option<Self>, CallError> {
        billing.find("/v1/charging").await
    }

    /// `None` while nothing is stopped.
    pub(crate) fn display(&self) -> Option<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        self.stopped.then(|| {
            let (actor, since, reason) = (text(&self.actor), text(&self.since), text(&self.reason));
            format!("charging is stopped by {actor} since {since}: {reason}; `tinjis start` ends it")
        })
    }
}

/// What any of the routes answers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Charging(Charging),
    Invoice { reference: String, state: String, held: bool },
    Customer { id: i64, held: bool },
}

impl Answer {
    fn display(&self) -> String {
        let hold = |held: &bool| if *held { "held" } else { "not held" };
        match self {
            Self::Charging(charging) => {
                charging.display().unwrap_or_else(|| "charging is not stopped".to_owned())
            }
            Self::Invoice { reference, state, held } => {
                format!("invoice {reference}: {state}, {}", hold(held))
            }
            Self::Customer { id, held } => format!("customer {id}: {}", hold(held)),
        }
    }
}

/// Sends one action and prints what is so afterwards.
pub(crate) async fn command(billing: &Api, what: What) -> anyhow::Result<u8> {
    let body = json!({ "reason": what.why, "actor": what.actor }).to_string();
    match billing.post::<Answer>(&what.path, "application/json", body.into()).await {
        Ok(answer) => {
            result(answer.display());
            Ok(0)
        }
        Err(CallError::Refused { detail, status, .. }) => {
            note(format_args!("refused: {status}{detail}"));
            Ok(REFUSED)
        }
        Err(error) => Err(error.into()),
    }
}
