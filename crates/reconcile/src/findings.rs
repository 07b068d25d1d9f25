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
    /// Of invoices PAID otherwise than by import.
    pub paid_minor: i128,
    /// Of CHARGED rows.
    pub charged_minor: i128,
    /// Decimals of both: the currency's, or more where a row has more.
    pub exponent: u8,
}

/// The result of comparing both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Invoices of billing.
    pub invoices: u64,
    /// Of these PAID.
    pub paid: u64,
    /// Of these by import.
    pub imported_paid: u64,
    /// CHARGED rows.
    pub charges: u64,
    /// Of these without a key.
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

impl Reconciliation {
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
