//! What a verification reports: the kinds of finding, each finding with the keys and rows by which it can be looked up,
//! and the totals. Plain data; decides nothing and knows no output format but its own JSON names.

use std::collections::BTreeMap;

use serde::Serialize;

/// Maximum number of findings that are kept by name; all are counted. Which ones are named beyond this number is not
/// defined.
pub const NAMED_FINDINGS_MAX: usize = 10_000;

/// Maximum number of keys, and of ledger rows, that one finding lists.
pub(crate) const LISTED_MAX: usize = 16;

/// The kinds of a finding about a reference, or about a row without a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Two or more CHARGED rows, or one CHARGED row of billing's for an invoice that was imported as PAID.
    Double,
    /// A CHARGED row, and the invoice is neither PAID nor open.
    Lost,
    /// The ledger or the attempt has another amount.
    Amount,
    /// The ledger or the attempt has another currency.
    Currency,
    /// The ledger or the attempt has another customer.
    Customer,
    /// An invoice that is PAID by a charge without a CHARGED row, or without the row that its journal names. Not
    /// reported once acknowledged.
    Unbacked,
    /// A row under a key of billing's that is missing in the journal of its reference, a row that names another
    /// reference than its key's, or an attempt under a key that is not its own.
    UnknownKey,
    /// No run is unfinished, and billing does not know whether the invoice was charged.
    InDoubt,
    /// A CHARGED row of billing's account whose key and reference do not belong to billing. Not reported once
    /// acknowledged.
    Unattributed,
    /// An open attempt whose key the ledger holds for another account: the attempt can never be charged under this key.
    KeyTaken,
    /// A ledger row with a number below 1, which no ledger gives.
    InvalidSeq,
    /// An invoice in more than one deployment. Only found across deployments.
    Duplicate,
}

impl FindingKind {
    /// The kind's own bit.
    pub(crate) fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// One reference with one kind of finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of the finding.
    pub kind: FindingKind,
    /// Reference; empty for a row that names none.
    pub reference: String,
    /// Keys of the journal and of the ledger, by which it can be looked up.
    pub keys: Vec<String>,
    /// Positions of its rows in the ledger.
    pub seqs: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrencySum {
    /// Sum of invoices PAID otherwise than by import.
    pub paid_minor: i128,
    /// Sum of CHARGED rows.
    pub charged_minor: i128,
    /// Decimals of both sums: the currency's, or more where a row has more.
    pub exponent: u8,
}

/// The result of comparing both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Number of billing's invoices.
    pub invoices: u64,
    /// Number of PAID invoices.
    pub paid: u64,
    /// Number of invoices that are PAID by import.
    pub imported_paid: u64,
    /// Number of CHARGED rows.
    pub charges: u64,
    /// Number of CHARGED rows without a key.
    pub unkeyed: u64,
    /// Number of CHARGED rows that belong to no invoice of billing, and that an operator has acknowledged.
    pub acknowledged: u64,
    /// Number of invoices that are PAID by a charge that the ledger has lost, where an operator has acknowledged the
    /// loss.
    pub acknowledged_unbacked: u64,
    /// Number of rows of other deployments under the same account that charged nothing; no other number includes them.
    pub foreign: u64,
    /// Number of invoices with an open attempt.
    pub open: u64,
    /// Number of invoices for which billing does not know whether they were charged.
    pub in_doubt: u64,
    /// Number of CHARGED attempts of billing that have a CHARGED row under their key.
    pub confirmed: u64,
    /// Number of repeated requests of attempts, each under the attempt's key; these are no fault.
    pub resent: u64,
    /// Sums by currency code.
    pub sums: BTreeMap<String, CurrencySum>,
    /// Number of references by kind of finding.
    pub counts: BTreeMap<FindingKind, u64>,
    /// The findings that are named; at most [`NAMED_FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

impl CurrencySum {
    fn add(&mut self, other: &Self) {
        let exponent = self.exponent.max(other.exponent);
        let rescaled =
            |minor: i128, from: u8| minor.saturating_mul(10_i128.saturating_pow((exponent - from).into()));
        for (sum, more) in
            [(&mut self.paid_minor, other.paid_minor), (&mut self.charged_minor, other.charged_minor)]
        {
            *sum = rescaled(*sum, self.exponent).saturating_add(rescaled(more, other.exponent));
        }
        self.exponent = exponent;
    }
}

impl Reconciliation {
    /// Adds the counts of another part.
    pub(crate) fn add_counts(&mut self, part: &Self) {
        // All fields are listed, so that none can be forgotten here.
        let Self {
            invoices,
            paid,
            imported_paid,
            charges,
            unkeyed,
            acknowledged,
            acknowledged_unbacked,
            foreign,
            open,
            in_doubt,
            confirmed,
            resent,
            sums: _,
            counts,
            findings: _,
        } = part;
        for (sum, count) in [
            (&mut self.invoices, invoices),
            (&mut self.paid, paid),
            (&mut self.imported_paid, imported_paid),
            (&mut self.charges, charges),
            (&mut self.unkeyed, unkeyed),
            (&mut self.acknowledged, acknowledged),
            (&mut self.acknowledged_unbacked, acknowledged_unbacked),
            (&mut self.foreign, foreign),
            (&mut self.open, open),
            (&mut self.in_doubt, in_doubt),
            (&mut self.confirmed, confirmed),
            (&mut self.resent, resent),
        ] {
            *sum += count;
        }
        for (kind, count) in counts {
            *self.counts.entry(*kind).or_default() += count;
        }
    }

    /// Adds the counts and sums of another deployment; findings stay with their own deployment.
    pub fn add_deployment(&mut self, other: &Self) {
        self.add_counts(other);
        for (currency, sum) in &other.sums {
            self.sums.entry(currency.clone()).or_default().add(sum);
        }
    }

    /// Number of references with this kind of finding.
    #[must_use]
    pub fn count(&self, kind: FindingKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// Number of all findings, named or not.
    #[must_use]
    pub fn findings_total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether there are no findings.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings_total() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(paid_minor: i128, charged_minor: i128, exponent: u8) -> CurrencySum {
        CurrencySum { paid_minor, charged_minor, exponent }
    }

    #[test]
    fn deployments_add_up_whatever_the_decimals_of_their_sums() {
        let mut all = Reconciliation::default();
        for (invoices, paid, exponent) in [(2, 990, 2), (3, 1, 0), (4, 15, 3)] {
            let part = Reconciliation {
                invoices,
                sums: BTreeMap::from([("EUR".to_owned(), sum(paid, 2 * paid, exponent))]),
                counts: BTreeMap::from([(FindingKind::Double, 1)]),
                ..Reconciliation::default()
            };
            all.add_deployment(&part);
        }
        assert_eq!((all.invoices, all.count(FindingKind::Double)), (9, 3));
        assert_eq!(all.sums["EUR"], sum(10_915, 21_830, 3));
    }
}
