//! The result of a comparison, as parts that can be added up: one comparison of everything, or many of separate parts,
//! give the same [`Reconciliation`]. Decides nothing about a reference.

use std::collections::BTreeMap;

use crate::amounts;
use crate::currencies::Currencies;
use crate::findings::{CurrencySum, Finding, FindingKind, NAMED_FINDINGS_MAX, Reconciliation};
use crate::index::InvoiceSlot;

/// One currency's amounts, in [`amounts::to_scaled`].
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) paid: i128,
    pub(crate) charged: i128,
    /// The largest number of decimals of a row.
    pub(crate) row_exponent: u8,
}

/// The place of a finding among others of its kind: invoices by their ids, then rows without an invoice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Invoice {
        id: i64,
        /// Distinguishes two invoices that have the same id in a faulty list.
        slot: InvoiceSlot,
    },
    Row {
        seq: i64,
        reference: String,
    },
}

/// Counts, sums and findings; `result` has all but the sums and the named findings.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) result: Reconciliation,
    /// Sums by the currency numbers of [`Totals::currencies`].
    pub(crate) sums: BTreeMap<u8, Sums>,
    pub(crate) named: BTreeMap<(FindingKind, Place), Finding>,
    pub(crate) currencies: Currencies,
}

impl Totals {
    pub(crate) fn of(currencies: Currencies) -> Self {
        Self { currencies, ..Self::default() }
    }

    /// Adds another part, whose currency numbers must come from this one.
    pub(crate) fn add(&mut self, part: Self) {
        self.result.add_counts(&part.result);
        for (currency, part) in part.sums {
            let sums = self.sums.entry(currency).or_default();
            sums.paid += part.paid;
            sums.charged += part.charged;
            sums.row_exponent = sums.row_exponent.max(part.row_exponent);
        }
        self.named.extend(part.named);
        while self.named.len() > NAMED_FINDINGS_MAX {
            self.named.pop_last();
        }
    }

    pub(crate) fn into_reconciliation(mut self) -> Reconciliation {
        for (currency, sums) in &self.sums {
            let code = self.currencies.code(*currency).to_owned();
            let exponent = self.currencies.exponent(*currency).unwrap_or(sums.row_exponent);
            let exponent = amounts::common_exponent(exponent, &[sums.paid, sums.charged]);
            let minor = |sum| amounts::from_scaled(sum, exponent).unwrap_or_default();
            let (paid_minor, charged_minor) = (minor(sums.paid), minor(sums.charged));
            self.result.sums.insert(code, CurrencySum { paid_minor, charged_minor, exponent });
        }
        self.result.findings = self.named.into_values().collect();
        self.result
    }
}
