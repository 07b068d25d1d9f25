//! What `verify` says: one JSON object with fixed names, or a few lines for people.
//! Reads nothing and judges nothing.

use serde::Serialize;

use super::judge::{Finding, Judgement, Kind};
use crate::output::{amount, grouped};

/// The most findings that are shown.
const SHOWN_MAX: usize = 100;

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Right.
    Ok,
    /// Wrong.
    Wrong,
    /// Nobody can say.
    Unknown,
}

impl Verdict {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Wrong => 1,
            Self::Unknown => 2,
        }
    }
}

/// Everything that a verification found out.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) deployment_id: Option<String>,
    pub(crate) ledger_id: Option<String>,
    /// A run was unfinished while we looked.
    pub(crate) run: bool,
    pub(crate) judgement: Judgement,
    /// Why nobody can say, and other remarks.
    pub(crate) remarks: Vec<String>,
}

#[derive(Serialize)]
struct Json<'a> {
    verdict: Verdict,
    deployment_id: Option<&'a str>,
    ledger_id: Option<&'a str>,
    invoices: u64,
    paid: u64,
    charges: u64,
    double: u64,
    lost: u64,
    in_doubt: u64,
    open: u64,
    unkeyed: u64,
    imported_paid: u64,
    mismatch: Mismatch,
    sums: Vec<SumJson<'a>>,
    findings: &'a [Finding],
    findings_total: u64,
}

#[derive(Serialize)]
struct Mismatch {
    amount: u64,
    currency: u64,
    customer: u64,
    unbacked: u64,
    unknown_key: u64,
}

#[derive(Serialize)]
struct SumJson<'a> {
    currency: &'a str,
    paid_minor: i128,
    charged_minor: i128,
}

impl Report {
    /// Nobody could look.
    pub(crate) fn unknown() -> Self {
        Self {
            verdict: Verdict::Unknown,
            deployment_id: None,
            ledger_id: None,
            run: false,
            judgement: Judgement::default(),
            remarks: Vec::new(),
        }
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let judgement = &self.judgement;
        let json = Json {
            verdict: self.verdict,
            deployment_id: self.deployment_id.as_deref(),
            ledger_id: self.ledger_id.as_deref(),
            invoices: judgement.invoices,
            paid: judgement.paid,
            charges: judgement.charges,
            double: judgement.count(Kind::Double),
            lost: judgement.count(Kind::Lost),
            in_doubt: judgement.in_doubt,
            open: judgement.open,
            unkeyed: judgement.unkeyed,
            imported_paid: judgement.imported_paid,
            mismatch: Mismatch {
                amount: judgement.count(Kind::Amount),
                currency: judgement.count(Kind::Currency),
                customer: judgement.count(Kind::Customer),
                unbacked: judgement.count(Kind::Unbacked),
                unknown_key: judgement.count(Kind::UnknownKey),
            },
            sums: judgement
                .sums
                .iter()
                .map(|(currency, sum)| SumJson {
                    currency,
                    paid_minor: sum.paid_minor,
                    charged_minor: sum.charged_minor,
                })
                .collect(),
            findings: &judgement.findings[..judgement.findings.len().min(SHOWN_MAX)],
            findings_total: judgement.findings_total(),
        };
        serde_json::to_string(&json).expect("texts and numbers are always JSON")
    }

    /// Lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let judgement = &self.judgement;
        let count = |kind| grouped(judgement.count(kind));
        let word = match self.verdict {
            Verdict::Ok => "right",
            Verdict::Wrong => "WRONG",
            Verdict::Unknown => "unknown",
        };
        let mut lines = vec![
            format!("{word}: {} invoices against the ledger", grouped(judgement.invoices)),
            format!(
                "  double {}   lost {}   in doubt {}   open {}",
                count(Kind::Double),
                count(Kind::Lost),
                grouped(judgement.in_doubt),
                grouped(judgement.open)
            ),
            format!(
                "  mismatch: amount {}, currency {}, customer {}, unbacked {}, unknown key {}",
                count(Kind::Amount),
                count(Kind::Currency),
                count(Kind::Customer),
                count(Kind::Unbacked),
                count(Kind::UnknownKey)
            ),
            format!(
                "  paid {} (of these imported as paid {})   charges {} (of these without a key {})",
                grouped(judgement.paid),
                grouped(judgement.imported_paid),
                grouped(judgement.charges),
                grouped(judgement.unkeyed)
            ),
        ];
        for (currency, sum) in &judgement.sums {
            let name = if currency.is_empty() { "no currency" } else { currency };
            let (paid, charged) = (amount(sum.paid_minor), amount(sum.charged_minor));
            lines.push(format!("  {name}: paid {paid}, charged {charged}"));
        }
        if self.run {
            lines.push(
                "  a run is unfinished: what is open is no fault, and the ledger was read after billing"
                    .to_owned(),
            );
        }
        lines.extend(judgement.findings.iter().take(SHOWN_MAX).map(finding_line));
        let more = judgement.findings_total().saturating_sub(SHOWN_MAX as u64);
        if more > 0 {
            lines.push(format!("  and {} more findings", grouped(more)));
        }
        lines.extend(self.remarks.iter().map(|remark| format!("  {remark}")));
        lines
    }
}

fn finding_line(finding: &Finding) -> String {
    let kind = match finding.kind {
        Kind::Double => "double",
        Kind::Lost => "lost",
        Kind::Amount => "other amount",
        Kind::Currency => "other currency",
        Kind::Customer => "other customer",
        Kind::Unbacked => "unbacked",
        Kind::UnknownKey => "unknown key",
        Kind::InDoubt => "in doubt",
    };
    let name = if finding.reference.is_empty() { "(no reference)" } else { &finding.reference };
    let mut line = format!("  {kind}: {name}");
    if !finding.keys.is_empty() {
        line.push_str(&format!("   key {}", finding.keys.join(", ")));
    }
    if !finding.seqs.is_empty() {
        let seqs: Vec<_> = finding.seqs.iter().map(i64::to_string).collect();
        line.push_str(&format!("   ledger row {}", seqs.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_exactly_the_published_names() {
        let judgement = Judgement::default();
        let report = Report {
            verdict: Verdict::Ok,
            deployment_id: None,
            ledger_id: None,
            run: false,
            judgement,
            remarks: Vec::new(),
        };
        assert_eq!(
            report.json(),
            "{\"verdict\":\"ok\",\"deployment_id\":null,\"ledger_id\":null,\"invoices\":0,\"paid\":0,\"charges\":0,\
             \"double\":0,\"lost\":0,\"in_doubt\":0,\"open\":0,\"unkeyed\":0,\"imported_paid\":0,\
             \"mismatch\":{\"amount\":0,\"currency\":0,\"customer\":0,\"unbacked\":0,\"unknown_key\":0},\
             \"sums\":[],\"findings\":[],\"findings_total\":0}"
        );
    }
}
