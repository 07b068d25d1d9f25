//! `verify --deployments`: verifies every pair of the table, one after the other, then the references across all of
//! them; prints one report with the sums. Compares nothing itself.

use anyhow::bail;
use reconcile::{FindingKind, Reconciliation, SharedReference, SharedReferences};
use serde::Serialize;

use super::across::Across;
use super::progress::ReadProgress;
use super::report::{Json, Report, SHOWN_MAX, TotalsJson, Verdict, figure_lines, kind_name};
use super::source::{BillingApi, LedgerApi};
use super::verify_service;
use crate::deployments::{Pairs, Table, ids, wrong_ids};
use crate::output::{self, grouped};

/// A verification of all deployments.
#[derive(Debug)]
struct AllReport<'t> {
    table: &'t Table,
    verdict: Verdict,
    /// Sums over all deployments.
    result: Reconciliation,
    shared: SharedReferences,
    /// One report for each entry of the table.
    reports: Vec<Report>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct AllJson<'a> {
    verdict: Verdict,
    #[serde(flatten)]
    figures: TotalsJson<'a>,
    duplicate: u64,
    findings: Vec<SharedJson<'a>>,
    findings_total: u64,
    deployments: Vec<Json<'a>>,
}

#[derive(Serialize)]
struct SharedJson<'a> {
    kind: FindingKind,
    reference: &'a str,
    deployments: Vec<String>,
}

pub(crate) async fn command(pairs: &Pairs, json: bool) -> anyhow::Result<u8> {
    let checked = check_ids(pairs).await;
    let report = match checked {
        Ok(()) => verify(pairs).await,
        Err(error) => {
            if json {
                output::result(AllReport::unknown(&pairs.table).json());
            }
            return Err(error);
        }
    };
    if json {
        output::result(report.json());
    } else {
        report.lines().iter().for_each(output::result);
    }
    Ok(report.verdict.code())
}

/// Fails when a billing has another deployment id than the table: a wrong table makes all findings across deployments
/// worthless. An unreachable deployment is reported with the others.
async fn check_ids(pairs: &Pairs) -> anyhow::Result<()> {
    let wrong = wrong_ids(&pairs.table, &ids(&pairs.billings).await);
    if !wrong.is_empty() {
        bail!("{}: correct the table; nothing was verified", wrong.join("; "));
    }
    Ok(())
}

async fn verify(pairs: &Pairs) -> AllReport<'_> {
    let mut across = Across::new(&pairs.table);
    let (mut reports, mut remarks) = (Vec::new(), Vec::new());
    for (place, (billing, payments)) in pairs.billings.iter().zip(&pairs.payments).enumerate() {
        let progress = ReadProgress::visible("verifying");
        let (billing, ledger) = (BillingApi(billing.clone()), LedgerApi(payments.clone()));
        let report = verify_service(&billing, &ledger, &progress, Some(across.observer(place))).await;
        // The progress bar ends before anything else is printed.
        drop(progress);
        let entry = &pairs.table.entries[place];
        reports.push(report.unwrap_or_else(|error| {
            output::note(format_args!("error: deployment {}: {error:#}", entry.id));
            Report { deployment_id: Some(entry.id.to_string()), ..Report::unknown() }
        }));
    }
    let shared = match across.finish() {
        Ok((shared, remark)) => {
            remarks.extend(remark);
            Some(shared)
        }
        Err(error) => {
            output::note(format_args!("error: {error:#}"));
            remarks.push("references were not compared across deployments".to_owned());
            None
        }
    };
    AllReport::of(&pairs.table, reports, shared, remarks)
}

impl<'t> AllReport<'t> {
    /// `shared` is `None` when references could not be compared across deployments.
    fn of(
        table: &'t Table,
        reports: Vec<Report>,
        shared: Option<SharedReferences>,
        remarks: Vec<String>,
    ) -> Self {
        let mut result = Reconciliation::default();
        reports.iter().for_each(|report| result.add_deployment(&report.result));
        let across = shared
            .as_ref()
            .map_or(Verdict::Unknown, |shared| if shared.is_ok() { Verdict::Ok } else { Verdict::Wrong });
        let shared = shared.unwrap_or_default();
        for (kind, count) in
            [(FindingKind::Double, shared.double), (FindingKind::Duplicate, shared.duplicate)]
        {
            *result.counts.entry(kind).or_default() += count;
        }
        let verdict = reports.iter().map(|report| report.verdict).fold(across, Verdict::worse);
        Self { table, verdict, result, shared, reports, remarks }
    }

    /// The report when nothing was read.
    fn unknown(table: &'t Table) -> Self {
        Self::of(table, Vec::new(), None, Vec::new())
    }

    /// The report as one line of JSON.
    fn json(&self) -> String {
        let json = AllJson {
            verdict: self.verdict,
            figures: TotalsJson::of(&self.result),
            duplicate: self.shared.duplicate,
            findings: self
                .shown()
                .map(|shared| SharedJson {
                    kind: shared.kind,
                    reference: &shared.reference,
                    deployments: self.ids(shared),
                })
                .collect(),
            findings_total: self.result.findings_total(),
            deployments: self.reports.iter().map(Report::object).collect(),
        };
        serde_json::to_string(&json).expect("texts and numbers are always JSON")
    }

    /// The report as text: the sums, then each deployment; those that are not right in full.
    fn lines(&self) -> Vec<String> {
        let (word, invoices) = (self.verdict.word(), grouped(self.result.invoices));
        let mut lines =
            vec![format!("{word}: {invoices} invoices in {} deployments", self.table.entries.len())];
        lines.extend(figure_lines(&self.result));
        lines.extend(self.shown().map(|shared| {
            let (kind, ids) = (kind_name(shared.kind), self.ids(shared).join(", "));
            format!("  {kind}: {}   deployments {ids}", shared.reference)
        }));
        let more = (self.shared.duplicate + self.shared.double).saturating_sub(SHOWN_MAX as u64);
        if more > 0 {
            lines.push(format!("  and {} more findings across deployments", grouped(more)));
        }
        lines.extend(self.remarks.iter().map(|remark| format!("  {remark}")));
        for (entry, report) in self.table.entries.iter().zip(&self.reports) {
            let mut of_report = report.lines();
            let first = format!("deployment {} {}: {}", entry.id, entry.billing, of_report.remove(0));
            match report.verdict {
                Verdict::Ok => {
                    let (paid, charges) = (grouped(report.result.paid), grouped(report.result.charges));
                    lines.push(format!("{first}, paid {paid}, charges {charges}"));
                    lines.extend(report.remarks.iter().map(|remark| format!("  {remark}")));
                }
                Verdict::Wrong | Verdict::Unknown => {
                    lines.push(first);
                    lines.append(&mut of_report);
                }
            }
        }
        lines
    }

    fn shown(&self) -> impl Iterator<Item = &SharedReference> {
        self.shared.named.iter().take(SHOWN_MAX)
    }

    fn ids(&self, shared: &SharedReference) -> Vec<String> {
        let places = shared.deployments.iter();
        places.map(|place| self.table.entries[usize::from(*place)].id.to_string()).collect()
    }
}
