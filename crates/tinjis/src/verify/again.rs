//! Looks at each finding again by its reference and keys: what was only read in two moments of a moving store goes
//! away, what is wrong stays. Judges by the one judge; knows no report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::judge::{Finding, Judgement, Kind, judge};
use super::source::{BillingApi, LedgerApi};
use super::watch::Watch;
use crate::http::CallError;

/// How often each finding is looked at again, and how long between two looks.
const LOOKS: usize = 3;
const BETWEEN: Duration = Duration::from_secs(2);

/// References that are looked at side by side.
const ABREAST: usize = 16;

/// Takes back what later looks do not confirm. Findings beyond those with names keep counting: nobody looked at them.
/// Answers how many of these there are.
pub(super) async fn look_again(
    billing: &BillingApi,
    ledger: &LedgerApi,
    judgement: &mut Judgement,
    deployment: Option<Uuid>,
    watch: &Watch,
) -> Result<u64, CallError> {
    let named = u64::try_from(judgement.findings.len()).unwrap_or(u64::MAX);
    let unseen = judgement.findings_total().saturating_sub(named);
    for look in 0..LOOKS {
        if judgement.findings.is_empty() {
            break;
        }
        if look > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        let found = judgement.findings.len();
        watch.say(format_args!("again at what was found: {found}, look {} of {LOOKS}", look + 1));
        let run = billing.deployment().await?.unfinished_run.is_some();
        let findings = std::mem::take(&mut judgement.findings);
        let confirmed = confirm(billing, ledger, findings, run, deployment).await?;
        for (kind, count) in confirmed.gone {
            let counted = judgement.counts.entry(kind).or_default();
            *counted = counted.saturating_sub(count);
            if kind == Kind::InDoubt {
                judgement.in_doubt = judgement.in_doubt.saturating_sub(count);
            }
        }
        judgement.findings = confirmed.kept;
    }
    Ok(unseen)
}

struct Confirmed {
    kept: Vec<Finding>,
    gone: BTreeMap<Kind, u64>,
}

async fn confirm(
    billing: &BillingApi,
    ledger: &LedgerApi,
    findings: Vec<Finding>,
    run: bool,
    deployment: Option<Uuid>,
) -> Result<Confirmed, CallError> {
    let mut subjects: BTreeMap<(String, Option<i64>), Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        // Rows that name nothing have nothing in common.
        let alone = finding.reference.is_empty().then(|| finding.seqs.first().copied()).flatten();
        subjects.entry((finding.reference.clone(), alone)).or_default().push(finding);
    }
    let looks = subjects.into_values().map(|findings| async move {
        let now = one(billing, ledger, &findings, run, deployment).await?;
        Ok::<_, CallError>(findings.into_iter().map(move |finding| (now.count(finding.kind) > 0, finding)))
    });
    let looked: Vec<_> = stream::iter(looks).buffered(ABREAST).try_collect().await?;
    let mut confirmed = Confirmed { kept: Vec::new(), gone: BTreeMap::new() };
    for (stays, finding) in looked.into_iter().flatten() {
        if stays {
            confirmed.kept.push(finding);
        } else {
            *confirmed.gone.entry(finding.kind).or_default() += 1;
        }
    }
    confirmed.kept.sort_by(|a, b| (a.kind, &a.reference).cmp(&(b.kind, &b.reference)));
    Ok(confirmed)
}

/// Judges one reference as it is now.
async fn one(
    billing: &BillingApi,
    ledger: &LedgerApi,
    findings: &[Finding],
    run: bool,
    deployment: Option<Uuid>,
) -> Result<Judgement, CallError> {
    let reference = findings.first().map(|finding| finding.reference.as_str()).unwrap_or_default();
    let invoice = if reference.is_empty() { None } else { billing.invoice(reference).await? };
    let attempts = match &invoice {
        Some(invoice) => billing.attempts_of(invoice.id).await?,
        None => Vec::new(),
    };
    let known = attempts.iter().map(|attempt| &attempt.key);
    let keys: BTreeSet<&String> = known.chain(findings.iter().flat_map(|finding| &finding.keys)).collect();
    let mut rows = BTreeMap::new();
    for key in keys {
        if let Some(row) = ledger.row(key).await? {
            rows.insert(row.seq, row);
        }
    }
    let seqs: BTreeSet<i64> = findings.iter().flat_map(|finding| finding.seqs.iter().copied()).collect();
    for seq in seqs {
        if !rows.contains_key(&seq)
            && let Some(row) = ledger.row_at(seq).await?
        {
            rows.insert(seq, row);
        }
    }
    Ok(judge(invoice, attempts, rows.into_values(), run, deployment))
}
