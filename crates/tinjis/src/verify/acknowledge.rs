//! `verify --acknowledge`, `--acknowledge-through` and `--acknowledge-unbacked`. Before verifying, an operator explains
//! charges without an invoice, or accepts that the ledger has lost charges. Checks each claim; billing keeps the
//! record. Knows no report.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use api::billing::{AcknowledgementRequest, UnbackedAcknowledgementRequest};
use chassis::config::Problems;
use reconcile::{
    AcknowledgedRows, AcknowledgedUnbacked, AttemptState, Finding, FindingKind, LedgerContext, RowState,
};

use super::source::{BillingApi, KeyLookup, LedgerApi};
use super::{Billing, ReadProgress};
use crate::http::{Api, CallError};
use crate::output::note;

const ONE: &str = "--acknowledge";
const THROUGH: &str = "--acknowledge-through";
const UNBACKED: &str = "--acknowledge-unbacked";

/// Maximum number of references in one command line.
const UNBACKED_MAX: usize = 1000;

/// The acknowledged rows or references, with reason and actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledge {
    what: RowsToAcknowledge,
    reason: String,
    actor: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RowsToAcknowledge {
    /// One row of the ledger without an invoice.
    Row(i64),
    /// All such rows, from the first row of the ledger to this one.
    Through(i64),
    /// References of invoices whose row the ledger has lost.
    Unbacked(BTreeSet<String>),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AcknowledgeArgs {
    /// First record that this ledger row, a charge of no invoice here, is in order; needs --why and --actor
    #[arg(long, value_name = "SEQ")]
    acknowledge: Option<String>,
    /// The same for all such charges up to this ledger row
    #[arg(long, value_name = "SEQ")]
    acknowledge_through: Option<String>,
    /// First verify, and record that the ledger has lost the charge of this invoice; may be repeated; needs --why and --actor
    #[arg(long, value_name = "REFERENCE")]
    acknowledge_unbacked: Vec<String>,
    /// Why this is accepted; kept for ever
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Who says so; kept for ever
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

impl AcknowledgeArgs {
    pub(crate) fn is_given(&self) -> bool {
        self.acknowledge.is_some()
            || self.acknowledge_through.is_some()
            || !self.acknowledge_unbacked.is_empty()
    }

    /// `None` when nothing is to be acknowledged, or when a mistake was recorded.
    pub(crate) fn resolve(&self, problems: &mut Problems) -> Option<Acknowledge> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let (reason, actor) = (given(&self.why), given(&self.actor));
        let asked = [
            (ONE, self.acknowledge.is_some()),
            (THROUGH, self.acknowledge_through.is_some()),
            (UNBACKED, !self.acknowledge_unbacked.is_empty()),
        ];
        let asked: Vec<&str> =
            asked.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        let flag = match asked[..] {
            [] => {
                for (setting, text) in [("--why", &reason), ("--actor", &actor)] {
                    if text.is_some() {
                        problems.add(setting, format_args!("needs {ONE}, {THROUGH} or {UNBACKED}"));
                    }
                }
                return None;
            }
            [one] => one,
            [one, other, ..] => {
                problems.add(other, format_args!("{one} is given too; give one of them"));
                return None;
            }
        };
        for (setting, text) in [("--why", &reason), ("--actor", &actor)] {
            if text.is_none() {
                problems.add(setting, format_args!("must be given with {flag}"));
            }
        }
        let what = self.parse_rows(problems);
        Some(Acknowledge { what: what?, reason: reason?, actor: actor? })
    }

    fn parse_rows(&self, problems: &mut Problems) -> Option<RowsToAcknowledge> {
        if let Some(text) = &self.acknowledge {
            return problems.check(ONE, parse_seq(text)).map(RowsToAcknowledge::Row);
        }
        if let Some(text) = &self.acknowledge_through {
            return problems.check(THROUGH, parse_seq(text)).map(RowsToAcknowledge::Through);
        }
        let references = &self.acknowledge_unbacked;
        if references.len() > UNBACKED_MAX {
            problems
                .add(UNBACKED, format_args!("may be given {UNBACKED_MAX} times, not {}", references.len()));
            return None;
        }
        if references.iter().any(String::is_empty) {
            problems.add(UNBACKED, "must be the reference of an invoice, not empty");
            return None;
        }
        Some(RowsToAcknowledge::Unbacked(references.iter().cloned().collect()))
    }
}

fn parse_seq(text: &str) -> Result<i64, String> {
    let seq = text.parse().ok().filter(|seq: &i64| *seq >= 1);
    seq.ok_or_else(|| format!("must be the number of a ledger row, from 1, not {text:?}"))
}

/// Acknowledgements of operators for one ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    rows: AcknowledgedRows,
    unbacked: AcknowledgedUnbacked,
}

impl Acknowledged {
    pub(super) async fn read(billing: &BillingApi, ledger_id: Option<&str>) -> Result<Self, CallError> {
        Ok(Self {
            rows: AcknowledgedRows::of_ledger(billing.acknowledgements().await?, ledger_id),
            unbacked: AcknowledgedUnbacked::of_ledger(billing.unbacked_acknowledgements().await?, ledger_id),
        })
    }

    pub(super) fn context(&self, last_seq_before_billing: i64) -> LedgerContext {
        let (acknowledged, acknowledged_unbacked) = (self.rows.clone(), self.unbacked.clone());
        LedgerContext { last_seq_before_billing, acknowledged, acknowledged_unbacked }
    }
}

/// Records the acknowledgement in billing, or fails. Nothing is recorded before everything was checked.
pub(crate) async fn command(billing: &Api, payments: &Api, asked: &Acknowledge) -> anyhow::Result<()> {
    let (billing, ledger) = (BillingApi(billing.clone()), LedgerApi(payments.clone()));
    let ledger_id = settled_ledger(&billing, &ledger).await?;
    match &asked.what {
        RowsToAcknowledge::Row(seq) => {
            check_row(&billing, &ledger, *seq).await?;
            record_rows(&billing, ledger_id, (*seq, *seq), asked).await
        }
        RowsToAcknowledge::Through(seq) => {
            let last = ledger.last_seq().await?;
            if *seq > last {
                bail!(
                    "the last row that the ledger shows this account is {last}: give that or an earlier one"
                );
            }
            record_rows(&billing, ledger_id, (1, *seq), asked).await
        }
        RowsToAcknowledge::Unbacked(references) => {
            let lost = find_unbacked(&billing, &ledger, &ledger_id, references).await?;
            record_unbacked(&billing, ledger_id, &lost, asked).await
        }
    }
}

/// The ledger that both sides name.
async fn settled_ledger(billing: &BillingApi, ledger: &LedgerApi) -> anyhow::Result<String> {
    let ledger_id = ledger.id().await?.context("the ledger does not say which ledger it is")?;
    if let Some(settled) = billing.deployment().await?.ledger_id.filter(|settled| *settled != ledger_id) {
        bail!("billing settles with ledger {settled}, and this is ledger {ledger_id}");
    }
    Ok(ledger_id)
}

/// Allows only rows that `verify` reports as unattributed: any other row is a difference to be resolved, not explained.
async fn check_row(billing: &BillingApi, ledger: &LedgerApi, seq: i64) -> anyhow::Result<()> {
    let Some(row) = ledger.row_at(seq).await? else { bail!("the ledger shows this account no row {seq}") };
    if row.state != RowState::Charged {
        bail!("row {seq} is no charge: there is nothing to acknowledge");
    }
    if let Some(reference) = row.reference.filter(|reference| !reference.is_empty())
        && billing.invoice(&reference).await?.is_some()
    {
        bail!("row {seq} names the invoice {reference}: it is compared with it and needs no acknowledgement");
    }
    Ok(())
}

async fn record_rows(
    billing: &BillingApi,
    ledger_id: String,
    (seq_first, seq_last): (i64, i64),
    asked: &Acknowledge,
) -> anyhow::Result<()> {
    let (reason, actor) = (asked.reason.clone(), asked.actor.clone());
    billing.acknowledge(&AcknowledgementRequest { ledger_id, seq_first, seq_last, reason, actor }).await?;
    note(format_args!("acknowledged: charges of no invoice in ledger rows {seq_first} to {seq_last}"));
    Ok(())
}

/// The references that are not acknowledged yet. A whole verification must find each of them unbacked now: only reading
/// all rows finds a charge under a key that is not in the journal.
async fn find_unbacked<'r>(
    billing: &BillingApi,
    ledger: &LedgerApi,
    ledger_id: &str,
    references: &'r BTreeSet<String>,
) -> anyhow::Result<Vec<&'r String>> {
    let acknowledged = Acknowledged::read(billing, Some(ledger_id)).await?;
    let progress = ReadProgress::visible("verifying");
    let report = super::verify(&Billing::Service(billing.0.clone()), ledger.0.clone(), &progress).await?;
    drop(progress);
    let now = settled_ledger(billing, ledger).await?;
    if report.ledger_id.as_deref() != Some(ledger_id) || now != ledger_id {
        bail!("the ledger was replaced while it was read: nothing was recorded, verify again");
    }
    let findings = report.result.findings.iter().filter(|finding| finding.kind == FindingKind::Unbacked);
    let found: BTreeMap<&str, &Finding> = findings.map(|finding| (&*finding.reference, finding)).collect();
    let new: Vec<&String> =
        references.iter().filter(|reference| !acknowledged.unbacked.contains(reference)).collect();
    for reference in &new {
        let Some(finding) = found.get(&***reference) else {
            bail!("verify does not find {reference} unbacked in ledger {ledger_id}: nothing was recorded");
        };
        check_lost(billing, ledger, finding).await?;
    }
    Ok(new)
}

/// Checks that the ledger has no row of the charge. A row with other data is a contradiction, and no loss.
async fn check_lost(billing: &BillingApi, ledger: &LedgerApi, finding: &Finding) -> anyhow::Result<()> {
    let reference = &finding.reference;
    if let Some(seq) = finding.seqs.first() {
        bail!("ledger row {seq} charges {reference} under another key: nothing was recorded");
    }
    let invoice = billing.invoice(reference).await?.context("an invoice is gone: nothing was recorded")?;
    let attempts = billing.attempts_of(invoice.id).await?;
    let charged: Vec<_> = attempts.iter().filter(|attempt| attempt.state == AttemptState::Charged).collect();
    if charged.is_empty() {
        bail!("billing has no CHARGED attempt of {reference}, so the ledger lost none: nothing was recorded");
    }
    for attempt in charged {
        if !matches!(ledger.by_key(&attempt.key).await?, KeyLookup::Absent) {
            bail!("the ledger has the key {} of {reference}: nothing was recorded", attempt.key);
        }
    }
    Ok(())
}

async fn record_unbacked(
    billing: &BillingApi,
    ledger_id: String,
    references: &[&String],
    asked: &Acknowledge,
) -> anyhow::Result<()> {
    for reference in references {
        let request = UnbackedAcknowledgementRequest {
            ledger_id: ledger_id.clone(),
            reference: (*reference).clone(),
            reason: asked.reason.clone(),
            actor: asked.actor.clone(),
        };
        billing.acknowledge_unbacked(&request).await?;
        note(format_args!("acknowledged: ledger {ledger_id} has lost the charge of {reference}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses these flags and values; returns the selection, and the mistakes.
    fn resolved(flags: &[(&str, &str)]) -> (Option<RowsToAcknowledge>, String) {
        let values = |flag: &str| {
            let given = flags.iter().filter(|(name, _)| *name == flag);
            given.map(|(_, value)| (*value).to_owned()).collect::<Vec<String>>()
        };
        let first = |flag| values(flag).into_iter().next();
        let mut problems = Problems::new();
        let args = AcknowledgeArgs {
            acknowledge: first(ONE),
            acknowledge_through: first(THROUGH),
            acknowledge_unbacked: values(UNBACKED),
            why: first("--why"),
            actor: first("--actor"),
        };
        let what = args.resolve(&mut problems).map(|asked| asked.what);
        (what, problems.finish().map_or_else(|problems| problems.to_string(), |()| String::new()))
    }

    const WHY: (&str, &str) = ("--why", "w");
    const ACTOR: (&str, &str) = ("--actor", "a");

    #[test]
    fn what_is_acknowledged_reason_and_actor_are_needed_together() {
        let unbacked = |references: &[&str]| {
            RowsToAcknowledge::Unbacked(references.iter().map(|&name| name.to_owned()).collect())
        };
        for (flags, what) in [
            (&[(ONE, "7"), WHY, ACTOR][..], Some(RowsToAcknowledge::Row(7))),
            (&[(THROUGH, "7"), WHY, ACTOR], Some(RowsToAcknowledge::Through(7))),
            (
                &[(UNBACKED, "I2"), (UNBACKED, "I1"), (UNBACKED, "I2"), WHY, ACTOR],
                Some(unbacked(&["I1", "I2"])),
            ),
            (&[], None),
        ] {
            assert_eq!(resolved(flags), (what, String::new()), "{flags:?}");
        }
        let too_many = [vec![(UNBACKED, "I"); UNBACKED_MAX + 1], vec![WHY, ACTOR]].concat();
        for (flags, mistakes) in [
            (&[(ONE, "7"), (THROUGH, "8"), WHY, ACTOR][..], &["--acknowledge-through:"][..]),
            (&[(ONE, "7"), (UNBACKED, "I1"), WHY, ACTOR], &["--acknowledge-unbacked:"]),
            (&[(ONE, "7"), ("--why", " ")], &["--why:", "--actor:"]),
            (&[(UNBACKED, "I1"), WHY], &["--actor:"]),
            (&[(UNBACKED, ""), WHY, ACTOR], &["--acknowledge-unbacked:"]),
            (&too_many, &["--acknowledge-unbacked:"]),
            (&[(ONE, "0"), WHY, ACTOR], &["--acknowledge:"]),
            (&[(THROUGH, "x"), ACTOR], &["--acknowledge-through:", "--why:"]),
            (&[WHY], &["--why:"]),
        ] {
            let (what, problems) = resolved(flags);
            assert_eq!(what, None, "{problems}");
            assert!(mistakes.iter().all(|mistake| problems.contains(mistake)), "{mistakes:?}: {problems}");
        }
    }
}
