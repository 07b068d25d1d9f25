//! `resolve`: lists attempts that need manual resolution, and sends an operator's decision to billing, one key after
//! the other. Knows billing's routes; billing checks the preconditions of a decision.

use std::collections::BTreeMap;

use api::Text;
use api::billing::{AcceptRequest, Accepted, Attempt, Decision, Invoice, Page, Resolution, ResolveRequest};
use bytes::Bytes;
use reconcile::AttemptState;
use serde::Serialize;

use crate::http::{AUDIT_PAGE, Api, CallError, PAGE, encode_segment};
use crate::output::{amount, grouped, note, result};

/// Maximum number of attempts that are read of one invoice.
const ATTEMPTS_MAX: usize = 1000;
/// Exit code when billing refused a decision.
const REFUSED: u8 = 1;

/// The requested action.
#[derive(Debug)]
pub(crate) enum ResolveCommand {
    /// Show the attempts that need manual resolution.
    List(Which),
    /// Show all decisions.
    Log,
    /// Let billing settle with another ledger.
    AcceptLedger {
        ledger_id: String,
        reason: String,
        actor: String,
    },
    Decide {
        which: Which,
        resolution: OperatorDecision,
        dry_run: bool,
    },
}

/// The selected attempts.
#[derive(Debug)]
pub(crate) enum Which {
    /// The attempt with this key.
    Key(String),
    /// Attempts of invoices with this attention reason.
    Reason(String),
    /// All attempts that need manual resolution.
    All,
}

/// An operator's decision.
#[derive(Debug)]
pub(crate) struct OperatorDecision {
    pub(crate) charged: bool,
    pub(crate) reason: String,
    pub(crate) actor: String,
}

/// Billing's attention reasons: why an invoice needs an operator's decision.
const ATTENTION_REASONS: [&str; 6] =
    ["in-doubt-without-keys", "rejected", "key-reused", "not-accepted", "contradiction", "charged-late"];

/// Checks that billing has this reason: a search by an unknown reason would never find anything.
pub(crate) fn parse_attention_reason(text: &str) -> Result<String, String> {
    match ATTENTION_REASONS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("\"{text}\" is none of {}", ATTENTION_REASONS.join(", "))),
    }
}

/// Parses `charged` or `not-charged`.
pub(crate) fn parse_charged(text: &str) -> Result<bool, String> {
    match text {
        "charged" => Ok(true),
        "not-charged" => Ok(false),
        _ => Err(format!("must be charged or not-charged, not {text:?}")),
    }
}

/// An invoice that needs manual resolution, and the attempt to decide.
struct Waiting {
    reason: String,
    reference: String,
    attempt: Option<Attempt>,
}

pub(crate) async fn command(billing: &Api, what: ResolveCommand) -> anyhow::Result<u8> {
    match what {
        ResolveCommand::Log => Ok(log(billing).await.map(|()| 0)?),
        ResolveCommand::AcceptLedger { ledger_id, reason, actor } => {
            let body = body(&AcceptRequest { ledger_id, reason, actor });
            match billing.post::<Accepted>("/v1/ledger/accept", "application/json", body).await {
                Ok(Accepted { ledger_from, ledger_to }) => {
                    let former = ledger_from.as_deref().unwrap_or("none");
                    result(format_args!("ledger {former} -> {ledger_to}"));
                    Ok(0)
                }
                Err(CallError::Refused { detail, status, .. }) => {
                    note(format_args!("refused: {status}{detail}"));
                    Ok(REFUSED)
                }
                Err(error) => Err(error.into()),
            }
        }
        ResolveCommand::List(which) => {
            Ok(print_waiting(&which, &fetch_waiting(billing, &which, None).await?))
        }
        ResolveCommand::Decide { which: Which::Key(key), resolution, dry_run: false } => {
            Ok(decide(billing, &[key], &resolution).await?)
        }
        ResolveCommand::Decide { which, resolution, dry_run } => {
            let found = fetch_waiting(billing, &which, Some(resolution.charged)).await?;
            if dry_run {
                let code = print_waiting(&which, &found);
                note("nothing was decided: --dry-run");
                return Ok(code);
            }
            let keys: Vec<String> =
                found.into_iter().filter_map(|waits| waits.attempt).map(|attempt| attempt.key).collect();
            Ok(decide(billing, &keys, &resolution).await?)
        }
    }
}

/// Sends the decision for each key; a rejected decision does not stop the others.
async fn decide(billing: &Api, keys: &[String], resolution: &OperatorDecision) -> Result<u8, CallError> {
    let OperatorDecision { charged, reason, actor } = resolution;
    let decision = if *charged { Decision::Charged } else { Decision::NotCharged };
    let body = body(&ResolveRequest { decision, reason: reason.clone(), actor: actor.clone() });
    let decision = decision.as_str();
    let mut refused = 0;
    for key in keys {
        let path = format!("/v1/attempts/{}/resolve", encode_segment(key));
        match billing.post::<Attempt>(&path, "application/json", body.clone()).await {
            Ok(attempt) => result(format_args!("{key}  {}  {}", attempt.reference, attempt.state)),
            Err(CallError::Refused { detail, status, .. }) => {
                refused += 1;
                note(format_args!("{key}  refused: {status}{detail}"));
            }
            Err(error) => return Err(error),
        }
    }
    note(format_args!(
        "decided {decision}: {}, refused: {}",
        grouped((keys.len() - refused) as i64),
        refused
    ));
    Ok(if refused > 0 { REFUSED } else { 0 })
}

/// The exit code: a key that names nothing was mistyped, or was decided before.
fn print_waiting(which: &Which, found: &[Waiting]) -> u8 {
    if let (Which::Key(key), []) = (which, found) {
        note(format_args!(
            "no attempt that needs manual resolution has the key {key}: `tinjis resolve` lists those that do, \
             and `tinjis resolve --log` what was decided"
        ));
        return REFUSED;
    }
    let mut groups: BTreeMap<&str, Vec<&Waiting>> = BTreeMap::new();
    for waits in found {
        groups.entry(&waits.reason).or_default().push(waits);
    }
    for (reason, group) in &groups {
        result(format_args!("{reason}: {}", grouped(group.len() as i64)));
        for waits in group {
            match &waits.attempt {
                None => result(format_args!("  {}  no attempt", waits.reference)),
                Some(attempt) => result(format_args!(
                    "  {}  {}  {} {}  {} since {}",
                    attempt.key,
                    waits.reference,
                    amount(attempt.amount_minor.into(), attempt.exponent),
                    attempt.currency,
                    attempt.state,
                    attempt.created_at
                )),
            }
        }
    }
    if groups.is_empty() {
        result("no attempt needs manual resolution");
    }
    0
}

async fn log(billing: &Api) -> Result<(), CallError> {
    let mut after = None;
    loop {
        let page: Page<Resolution> =
            billing.get(&list("/v1/resolutions?", AUDIT_PAGE, after.as_deref())).await?;
        for resolution in &page.items {
            let change = |from: &Option<Text>, to: &Option<Text>| match (from, to) {
                (Some(from), Some(to)) => format!("{from} -> {to}"),
                _ => "unknown".to_owned(),
            };
            result(format_args!(
                "{}  {}  {}  {}  {}  attempt {}  invoice {}  {}",
                resolution.created_at,
                resolution.actor,
                resolution.decision,
                resolution.key,
                resolution.reference,
                change(&resolution.attempt_from, &resolution.attempt_to),
                change(&resolution.invoice_from, &resolution.invoice_to),
                resolution.reason
            ));
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// The invoices in ATTENTION, each with the attempt to decide: the open one; else, for `charged`, the CHARGED one; else
/// the last.
async fn fetch_waiting(
    billing: &Api,
    which: &Which,
    charged: Option<bool>,
) -> Result<Vec<Waiting>, CallError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let path = list("/v1/invoices?state=ATTENTION&", PAGE, after.as_deref());
        let page: Page<Invoice> = billing.get(&path).await?;
        for invoice in page.items {
            let reason = invoice.attention_reason.unwrap_or_default().into_owned();
            if matches!(which, Which::Reason(wanted) if *wanted != reason) {
                continue;
            }
            let attempts = attempts_of(billing, invoice.id).await?;
            if let Which::Key(key) = which {
                let named = attempts.into_iter().find(|attempt| attempt.key == *key);
                found.extend(named.map(|attempt| Waiting {
                    reason,
                    reference: invoice.reference,
                    attempt: Some(attempt),
                }));
                continue;
            }
            let open = attempts.iter().find(|attempt| is_open(attempt));
            let named = || attempts.iter().find(|attempt| attempt.state == AttemptState::Charged.as_str());
            let decides = open.or_else(|| if charged == Some(true) { named() } else { None });
            let attempt = decides.or(attempts.last()).cloned();
            found.push(Waiting { reason, reference: invoice.reference, attempt });
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

/// Whether the outcome of the attempt is still unknown.
fn is_open(attempt: &Attempt) -> bool {
    [AttemptState::Intent, AttemptState::InDoubt].iter().any(|state| attempt.state == state.as_str())
}

async fn attempts_of(billing: &Api, invoice: i64) -> Result<Vec<Attempt>, CallError> {
    let path = format!("/v1/attempts?limit={ATTEMPTS_MAX}&after={invoice}%2E0");
    let mut page: Page<Attempt> = billing.get(&path).await?;
    page.items.retain(|attempt| attempt.invoice_id == invoice);
    Ok(page.items)
}

fn body(request: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(request).expect("texts make JSON"))
}

fn list(path: &str, limit: usize, after: Option<&str>) -> String {
    let after = after.map(|after| format!("&after={}", encode_segment(after))).unwrap_or_default();
    format!("{path}limit={limit}{after}")
}

#[cfg(all(test, feature = "services"))]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_are_billing_s() {
        let words: Vec<&str> =
            billing::invoice::AttentionReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words, ATTENTION_REASONS);
    }
}
