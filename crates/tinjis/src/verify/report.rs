//! The output of `verify`: one JSON object with fixed names, or a few lines of text. Reads nothing and compares
//! nothing.

use reconcile::{CurrencySum, Finding, FindingKind, Reconciliation};
use serde::Serialize;

use crate::output::{amount, grouped};

/// Maximum number of findings that are shown.
pub(super) const SHOWN_MAX: usize = 100;

/// The verdict of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Proven consistent.
    Ok,
    /// Inconsistent.
    Wrong,
    /// Not proven.
    Unknown,
}

impl Verdict {
    /// The verdict of two parts of one verification. A wrong part makes the whole wrong, even if the other is not
    /// proven.
    pub(super) fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Wrong, _) | (_, Self::Wrong) => Self::Wrong,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Ok, Self::Ok) => Self::Ok,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "right",
            Self::Wrong => "WRONG",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Wrong => 1,
            Self::Unknown => 2,
        }
    }
}

/// A verification with its figures.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    pub(crate) deployment_id: Option<String>,
    pub(crate) ledger_id: Option<String>,
    /// Whether a run was unfinished at the end.
    pub(crate) run: bool,
    pub(crate) result: Reconciliation,
    /// Why the result is not proven, and other remarks.
    pub(crate) remarks: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Json<'a> {
    verdict: Verdict,
    deployment_id: Option<&'a str>,
    ledger_id: Option<&'a str>,
    #[serde(flatten)]
    figures: TotalsJson<'a>,
    findings: &'a [Finding],
    findings_total: u64,
}

/// Counts and sums, of one deployment or of all.
#[derive(Serialize)]
pub(super) struct TotalsJson<'a> {
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
    exponent: u8,
}

impl<'a> TotalsJson<'a> {
    pub(super) fn of(result: &'a Reconciliation) -> Self {
        let sum = |(currency, sum): (&'a String, &CurrencySum)| SumJson {
            currency,
            paid_minor: sum.paid_minor,
            charged_minor: sum.charged_minor,
            exponent: sum.exponent,
        };
        Self {
            invoices: result.invoices,
            paid: result.paid,
            charges: result.charges,
            double: result.count(FindingKind::Double),
            lost: result.count(FindingKind::Lost),
            in_doubt: result.in_doubt,
            open: result.open,
            unkeyed: result.unkeyed,
            imported_paid: result.imported_paid,
            mismatch: Mismatch {
                amount: result.count(FindingKind::Amount),
                currency: result.count(FindingKind::Currency),
                customer: result.count(FindingKind::Customer),
                unbacked: result.count(FindingKind::Unbacked),
                unknown_key: result.count(FindingKind::UnknownKey),
            },
            sums: result.sums.iter().map(sum).collect(),
        }
    }
}

impl Report {
    /// The report when a side could not be read.
    pub(crate) fn unknown() -> Self {
        Self {
            verdict: Verdict::Unknown,
            deployment_id: None,
            ledger_id: None,
            run: false,
            result: Reconciliation::default(),
            remarks: Vec::new(),
        }
    }

    /// The report as one line of JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(&self.object()).expect("texts and numbers are always JSON")
    }

    pub(super) fn object(&self) -> Json<'_> {
        let result = &self.result;
        Json {
            verdict: self.verdict,
            deployment_id: self.deployment_id.as_deref(),
            ledger_id: self.ledger_id.as_deref(),
            figures: TotalsJson::of(result),
            findings: &result.findings[..result.findings.len().min(SHOWN_MAX)],
            findings_total: result.findings_total(),
        }
    }

    /// The report as lines of text.
    pub(crate) fn lines(&self) -> Vec<String> {
        let result = &self.result;
        let word = self.verdict.word();
        let mut lines = vec![format!("{word}: {} invoices against the ledger", grouped(result.invoices))];
        lines.extend(figure_lines(result));
        if self.run {
            lines.push(
                "  a run is unfinished: open attempts are no fault, and the ledger was read after billing"
                    .to_owned(),
            );
        }
        lines.extend(result.findings.iter().take(SHOWN_MAX).map(finding_line));
        let more = result.findings_total().saturating_sub(SHOWN_MAX as u64);
        if more > 0 {
            lines.push(format!("  and {} more findings", grouped(more)));
        }
        if result.count(FindingKind::Unattributed) > 0 {
            lines.push(
                "  a charge of no invoice that is in order: tinjis verify --acknowledge ROW --why TEXT --actor NAME"
                    .to_owned(),
            );
        }
        // With the token of another account no row belongs to billing, and every payment is unbacked.
        if result.count(FindingKind::Unbacked) > 0 && result.confirmed > 0 {
            lines.push(
                "  an unbacked invoice whose row the ledger has lost: tinjis verify --acknowledge-unbacked REFERENCE \
                 --why TEXT --actor NAME"
                    .to_owned(),
            );
        }
        lines.extend(self.remarks.iter().map(|remark| format!("  {remark}")));
        lines
    }
}

/// Counts and sums as text.
pub(super) fn figure_lines(result: &Reconciliation) -> Vec<String> {
    let count = |kind| grouped(result.count(kind));
    let mut lines = vec![
        format!(
            "  double {}   lost {}   in doubt {}   open {}",
            count(FindingKind::Double),
            count(FindingKind::Lost),
            grouped(result.in_doubt),
            grouped(result.open)
        ),
        format!(
            "  mismatch: amount {}, currency {}, customer {}, unbacked {}, unknown key {}",
            count(FindingKind::Amount),
            count(FindingKind::Currency),
            count(FindingKind::Customer),
            count(FindingKind::Unbacked),
            count(FindingKind::UnknownKey)
        ),
        format!(
            "  paid {} (of these imported as paid {})   charges {} (of these without a key {})",
            grouped(result.paid),
            grouped(result.imported_paid),
            grouped(result.charges),
            grouped(result.unkeyed)
        ),
    ];
    lines.extend(unattributed_line(result));
    for (currency, sum) in &result.sums {
        let name = if currency.is_empty() { "no currency" } else { currency };
        let (paid, charged) = (amount(sum.paid_minor, sum.exponent), amount(sum.charged_minor, sum.exponent));
        lines.push(format!("  {name}: paid {paid}, charged {charged}"));
    }
    lines
}

/// The figures that are shown only if they are not zero.
fn unattributed_line(result: &Reconciliation) -> Option<String> {
    let figures = [
        ("charges of no invoice", result.count(FindingKind::Unattributed)),
        ("acknowledged", result.acknowledged),
        ("unbacked acknowledged", result.acknowledged_unbacked),
        ("keys taken by another account", result.count(FindingKind::KeyTaken)),
        ("invalid row numbers", result.count(FindingKind::InvalidSeq)),
        ("invoices in several deployments", result.count(FindingKind::Duplicate)),
    ];
    let shown = figures.into_iter().filter(|(_, count)| *count > 0);
    let shown: Vec<String> = shown.map(|(name, count)| format!("{name} {}", grouped(count))).collect();
    (!shown.is_empty()).then(|| format!("  {}", shown.join("   ")))
}

pub(super) fn kind_name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Double => "double",
        FindingKind::Lost => "lost",
        FindingKind::Amount => "other amount",
        FindingKind::Currency => "other currency",
        FindingKind::Customer => "other customer",
        FindingKind::Unbacked => "unbacked",
        FindingKind::UnknownKey => "unknown key",
        FindingKind::InDoubt => "in doubt",
        FindingKind::Unattributed => "charge of no invoice",
        FindingKind::KeyTaken => "key taken by another account",
        FindingKind::InvalidSeq => "invalid row number",
        FindingKind::Duplicate => "in several deployments",
    }
}

fn finding_line(finding: &Finding) -> String {
    let kind = kind_name(finding.kind);
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
        let result = Reconciliation::default();
        let report = Report {
            verdict: Verdict::Ok,
            deployment_id: None,
            ledger_id: None,
            run: false,
            result,
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
