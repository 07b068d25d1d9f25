//! `stop`, `start`, `invoice` and `customer`: an operator stops or resumes charging, as a whole or for one invoice or
//! customer. Billing checks and records each change; this module knows its routes only.

use api::billing::{Charging, Customer, Invoice, NetworkRequest, NoteRequest, REASON_BYTES_MAX};
use bytes::Bytes;
use chassis::config::Problems;
use serde::Deserialize;

use crate::cli::BillingArgs;
use crate::http::{Api, CallError, encode_segment};
use crate::output::{note, result};

/// Exit code when billing refused the change.
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
    /// hold: no run claims it until release; cancel: no run claims it any more
    #[arg(value_name = "hold|release|cancel", value_parser = ["hold", "release", "cancel"])]
    action: String,
    /// Reference of the invoice
    reference: String,
    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CustomerArgs {
    /// hold: no run claims an invoice of the customer until release; instrument-changed: the customer pays with another
    /// instrument, so that its declined invoices are tried again; network: whose limits of retries hold (--network)
    #[arg(value_name = "hold|release|instrument-changed|network",
        value_parser = ["hold", "release", "instrument-changed", "network"])]
    action: String,
    /// Number of the customer
    id: i64,
    /// Network of the customer's instrument, for the action network
    #[arg(long, value_name = "none|visa|mastercard|sepa", value_parser = ["none", "visa", "mastercard", "sepa"])]
    network: Option<String>,
    #[command(flatten)]
    note: NoteArgs,
}

/// One request to billing.
#[derive(Debug)]
pub(crate) struct ControlCall {
    path: String,
    network: Option<String>,
    why: String,
    actor: String,
}

/// Texts that billing records with what an operator does.
pub(crate) fn check_recorded(problems: &mut Problems, why: &str, actor: &str) {
    for (setting, text) in [("--why", why), ("--actor", actor)] {
        if text.trim().is_empty() {
            problems.add(setting, "must not be empty: it is recorded");
        } else if text.len() > REASON_BYTES_MAX {
            problems.add(setting, format_args!("must have at most {REASON_BYTES_MAX} bytes"));
        }
    }
}

impl NoteArgs {
    pub(crate) fn stop(self, problems: &mut Problems) -> Option<(Api, ControlCall)> {
        self.call("/v1/charging/stop".to_owned(), problems)
    }

    pub(crate) fn start(self, problems: &mut Problems) -> Option<(Api, ControlCall)> {
        self.call("/v1/charging/start".to_owned(), problems)
    }

    fn call(self, path: String, problems: &mut Problems) -> Option<(Api, ControlCall)> {
        check_recorded(problems, &self.why, &self.actor);
        let billing = self.billing.resolve(problems)?;
        Some((billing, ControlCall { path, network: None, why: self.why, actor: self.actor }))
    }
}

impl InvoiceArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<(Api, ControlCall)> {
        self.note.call(format!("/v1/invoices/{}/{}", encode_segment(&self.reference), self.action), problems)
    }
}

impl CustomerArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> Option<(Api, ControlCall)> {
        if (self.action == "network") != self.network.is_some() {
            problems.add("--network", "is needed by the action network, and by no other");
        }
        let call = self.note.call(format!("/v1/customers/{}/{}", self.id, self.action), problems);
        call.map(|(billing, what)| (billing, ControlCall { network: self.network, ..what }))
    }
}

/// Whether all charging is stopped, according to billing; `None` for an earlier version of billing without this route.
pub(crate) async fn fetch_charging(billing: &Api) -> Result<Option<Charging>, CallError> {
    billing.find("/v1/charging").await
}

/// One line about a stop; `None` while nothing is stopped.
pub(crate) fn stop_notice(charging: &Charging) -> Option<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    charging.stopped.then(|| {
        let (actor, since, reason) = (text(&charging.actor), text(&charging.since), text(&charging.reason));
        format!("charging is stopped by {actor} since {since}: {reason}; `tinjis start` ends it")
    })
}

/// The answer of any of the routes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Charging(Charging),
    Invoice(Box<Invoice>),
    Customer(Customer),
}

impl Answer {
    fn display(&self) -> String {
        let hold = |held: &bool| if *held { "held" } else { "not held" };
        match self {
            Self::Charging(charging) => {
                stop_notice(charging).unwrap_or_else(|| "charging is not stopped".to_owned())
            }
            Self::Invoice(invoice) => {
                let Invoice { reference, state, held, .. } = invoice.as_ref();
                format!("invoice {reference}: {state}, {}", hold(held))
            }
            Self::Customer(Customer { id, held, network, instrument_changed_at, .. }) => {
                let network = network.as_ref().filter(|network| *network != "none");
                let network = network.map(|network| format!(", network {network}")).unwrap_or_default();
                let changed = instrument_changed_at.as_ref().map(|at| format!(", instrument changed {at}"));
                format!("customer {id}: {}{network}{}", hold(held), changed.unwrap_or_default())
            }
        }
    }
}

/// Sends one change and prints the state after it.
pub(crate) async fn command(billing: &Api, what: ControlCall) -> anyhow::Result<u8> {
    let ControlCall { path, network, why: reason, actor } = what;
    let body = match network {
        Some(network) => serde_json::to_vec(&NetworkRequest { network, reason, actor }),
        None => serde_json::to_vec(&NoteRequest { reason, actor }),
    };
    let body = Bytes::from(body.expect("texts make JSON"));
    match billing.post::<Answer>(&path, "application/json", body).await {
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
