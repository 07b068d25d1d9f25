//! What a verification reports: the kinds of finding, each finding with what it can be looked up by, and the totals.
//! Plain data; decides nothing and knows no output format but its own JSON names.

use std::collections::BTreeMap;

use serde::Serialize;

/// The most findings that are kept by name; all are counted. Of more, which ones are named is not defined.
pub const NAMED_FINDINGS_MAX: usize = 10_000;

/// The most keys, and the most ledger rows, that one finding lists.
pub(crate) const LISTED_MAX: usize = 16;

/// What can be wrong with a reference, or with a row that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Two or more CHARGED rows, or one of billing's for an invoice that was imported as PAID.
    Double,
    /// CHARGED, and the invoice neither PAID nor open.
    Lost,
    /// The ledger or the attempt has another amount.
    Amount,
    /// The ledger or the attempt has another currency.
    Currency,
    /// The ledger or the attempt has another customer.
    Customer,
    /// PAID by charge without a CHARGED row, or without the one that its journal names. Until acknowledged.
    Unbacked,
    /// A row under a key of billing's that its reference's journal does not have, a row that names another reference
    /// than its key's, or an attempt under a key that is not its own.
    UnknownKey,
    /// No run is unfinished, and billing does not know whether the invoice was charged.
    InDoubt,
    /// CHARGED under billing's account, and neither its key nor its reference belongs to billing. Until acknowledged.
    Unattributed,
    /// An open attempt whose key the ledger holds for another account: it can never be charged under it.
    KeyTaken,
    /// A ledger row with a number that no ledger gives: below 1.
    InvalidSeq,
    /// An invoice in more than one deployment. Only found across deployments.
    Duplicate,
}

impl FindingKind {
    /// One bit for each kind.
    pub(crate) fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// One reference that is wrong in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// In which way.
    pub kind: FindingKind,
    /// Empty for a row that names none.
    pub reference: String,
    /// Keys to look it up by, of the journal and of the ledger.
    pub keys: Vec<String>,
    /// Its rows in the ledger.
    pub seqs: Vec<i64>,
}

/// One currency's totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrencySum {
    /// Sum of invoices PAID otherwise than by import.
    pub paid_minor: i128,
    /// Sum of CHARGED rows.
    pub charged_minor: i128,
    /// Decimals of both: the currency's, or more where a row has more.
    pub exponent: u8,
}

/// The result of comparing both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Invoices of billing.
    pub invoices: u64,
    /// How many of these are PAID.
    pub paid: u64,
    /// How many of these by import.
    pub imported_paid: u64,
    /// CHARGED rows.
    pub charges: u64,
    /// How many of these have no key.
    pub unkeyed: u64,
    /// CHARGED rows that belong to no invoice of billing, and that an operator has acknowledged.
    pub acknowledged: u64,
    /// Invoices PAID by a charge that the ledger has lost, and an operator has acknowledged that.
    pub acknowledged_unbacked: u64,
    /// Rows of other deployments under the same account that charged nothing; in no other figure.
    pub foreign: u64,
    /// Invoices with an open attempt.
    pub open: u64,
    /// Invoices of which billing does not know whether they were charged.
    pub in_doubt: u64,
    /// CHARGED attempts of billing that have a CHARGED row under their key.
    pub confirmed: u64,
    /// Requests of attempts beyond the first of each, all under its key; no fault.
    pub resent: u64,
    /// By currency code.
    pub sums: BTreeMap<String, CurrencySum>,
    /// References wrong in each way.
    pub counts: BTreeMap<FindingKind, u64>,
    /// Those of the counts that are named; at most [`NAMED_FINDINGS_MAX`].
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
    /// Adds the counts of another one.
    pub(crate) fn add_counts(&mut self, part: &Self) {
        // By all its fields, so that none can be forgotten here.
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

    /// Adds the counts and sums of another deployment; findings stay with the deployment that they are of.
    pub fn add_deployment(&mut self, other: &Self) {
        self.add_counts(other);
        for (currency, sum) in &other.sums {
            self.sums.entry(currency.clone()).or_default().add(sum);
        }
    }

    /// How many references are wrong in this way.
    #[must_use]
    pub fn count(&self, kind: FindingKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// All findings, named or not.
    #[must_use]
    pub fn findings_total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether nothing is wrong.
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
