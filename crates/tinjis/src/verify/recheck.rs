//! Checks each finding again by its reference and keys: findings that came from changes during the reading disappear,
//! real ones stay. Judges by the same matching as the first comparison; knows no report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reconcile::{Finding, FindingKind, InvoicePhase, Reconciliation};
use uuid::Uuid;

use super::acknowledge::Acknowledged;
use super::progress::ReadProgress;
use super::source::{BillingApi, KeyLookup, LedgerApi};
use crate::http::CallError;

/// How often each finding is checked again, and the time between two checks.
const CHECKS: usize = 3;
const INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of references that are checked at the same time.
pub(super) const CONCURRENT_MAX: usize = 16;

/// Both sides, and the facts that a check needs.
pub(super) struct Recheck<'a> {
    pub(super) billing: &'a BillingApi,
    pub(super) ledger: &'a LedgerApi,
    pub(super) deployment: Option<Uuid>,
    pub(super) acknowledged: &'a Acknowledged,
}

/// The result of one check.
struct Checked {
    confirmed: Vec<Finding>,
    gone: BTreeMap<FindingKind, u64>,
}

impl Recheck<'_> {
    /// Removes findings that later checks do not confirm. Findings beyond the named ones stay counted, because they
    /// were not checked again; returns their number.
    pub(super) async fn run(
        &self,
        result: &mut Reconciliation,
        progress: &ReadProgress,
    ) -> Result<u64, CallError> {
        let named = u64::try_from(result.findings.len()).unwrap_or(u64::MAX);
        let unchecked = result.findings_total().saturating_sub(named);
        for check in 1..=CHECKS {
            if result.findings.is_empty() {
                break;
            }
            if check > 1 {
                tokio::time::sleep(INTERVAL).await;
            }
            let found = result.findings.len();
            progress.message(format_args!("findings again: {found}, check {check} of {CHECKS}"));
            let run_is_unfinished = self.billing.deployment().await?.unfinished_run.is_some();
            let checked = self.check(std::mem::take(&mut result.findings), run_is_unfinished).await?;
            for (kind, count) in checked.gone {
                let counted = result.counts.entry(kind).or_default();
                *counted = counted.saturating_sub(count);
                if kind == FindingKind::InDoubt {
                    result.in_doubt = result.in_doubt.saturating_sub(count);
                }
            }
            result.findings = checked.confirmed;
        }
        Ok(unchecked)
    }

    async fn check(&self, findings: Vec<Finding>, run_is_unfinished: bool) -> Result<Checked, CallError> {
        let mut subjects: BTreeMap<(String, Option<i64>), Vec<Finding>> = BTreeMap::new();
        for finding in findings {
            // Rows without a reference are checked separately.
            let alone = finding.reference.is_empty().then(|| finding.seqs.first().copied()).flatten();
            subjects.entry((finding.reference.clone(), alone)).or_default().push(finding);
        }
        let checks = subjects.into_values().map(|findings| async move {
            let now = self.one(&findings, run_is_unfinished).await?;
            let stays = move |finding: Finding| (now.count(finding.kind) > 0, finding);
            Ok::<_, CallError>(findings.into_iter().map(stays))
        });
        let results: Vec<_> = stream::iter(checks).buffered(CONCURRENT_MAX).try_collect().await?;
        let mut checked = Checked { confirmed: Vec::new(), gone: BTreeMap::new() };
        for (stays, finding) in results.into_iter().flatten() {
            if stays {
                checked.confirmed.push(finding);
            } else {
                *checked.gone.entry(finding.kind).or_default() += 1;
            }
        }
        checked.confirmed.sort_by(|a, b| (a.kind, &a.reference).cmp(&(b.kind, &b.reference)));
        Ok(checked)
    }

    /// Compares the current data of both sides for one reference.
    async fn one(&self, findings: &[Finding], run_is_unfinished: bool) -> Result<Reconciliation, CallError> {
        let reference = findings.first().map(|finding| finding.reference.as_str()).unwrap_or_default();
        let invoice = if reference.is_empty() { None } else { self.billing.invoice(reference).await? };
        let attempts = match &invoice {
            Some(invoice) => self.billing.attempts_of(invoice.id).await?,
            None => Vec::new(),
        };
        let mut rows = BTreeMap::new();
        let mut taken = Vec::new();
        let known = attempts.iter().map(|attempt| &attempt.key);
        let keys: BTreeSet<&String> =
            known.chain(findings.iter().flat_map(|finding| &finding.keys)).collect();
        let lookups =
            keys.into_iter().map(async |key| Ok::<_, CallError>((key, self.ledger.by_key(key).await?)));
        let mut lookups = stream::iter(lookups).buffered(CONCURRENT_MAX);
        while let Some((key, found)) = lookups.try_next().await? {
            match found {
                KeyLookup::Row(row) => {
                    rows.insert(row.seq, row);
                }
                KeyLookup::OtherAccount => taken.push(key.clone()),
                KeyLookup::Absent => {}
            }
        }
        let seqs: BTreeSet<i64> = findings.iter().flat_map(|finding| finding.seqs.iter().copied()).collect();
        for seq in seqs {
            if !rows.contains_key(&seq)
                && let Some(row) = self.ledger.row_at(seq).await?
            {
                rows.insert(seq, row);
            }
        }
        taken.retain(|key| attempts.iter().any(|attempt| attempt.key == *key && attempt.state.is_open()));
        let mut phase = InvoicePhase::default();
        invoice.iter().for_each(|invoice| phase.add(invoice));
        let mut phase = phase.into_attempts(self.deployment);
        attempts.iter().for_each(|attempt| phase.add(attempt));
        let mut phase = phase.into_ledger(self.acknowledged.context(i64::MAX));
        rows.values().for_each(|row| phase.add(row));
        taken.iter().for_each(|key| phase.key_taken(key));
        Ok(phase.finish(run_is_unfinished))
    }
}
