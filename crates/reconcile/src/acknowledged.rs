//! What operators have acknowledged about a ledger, with a recorded reason: charges that belong to no invoice of this
//! billing, by row number; and invoices whose charge the ledger has lost, by reference. No acknowledgement excuses
//! another kind of finding.

use std::collections::HashSet;

use serde::Deserialize;

/// One acknowledgement: the rows of one ledger from `seq_first` to `seq_last`, both included.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The ledger: row numbers mean nothing in another one.
    pub ledger_id: String,
    /// The first row.
    pub seq_first: i64,
    /// The last row.
    pub seq_last: i64,
}

/// All acknowledged rows of one ledger, as ranges that do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcknowledgedRows(Vec<(i64, i64)>);

impl AcknowledgedRows {
    /// The acknowledged rows of this ledger; none without a ledger id.
    pub fn of_ledger(
        acknowledgements: impl IntoIterator<Item = Acknowledgement>,
        ledger_id: Option<&str>,
    ) -> Self {
        let of_ledger = acknowledgements.into_iter().filter(|one| ledger_id == Some(&*one.ledger_id));
        let mut ranges: Vec<(i64, i64)> = of_ledger.map(|one| (one.seq_first, one.seq_last)).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// Whether this row is acknowledged.
    #[must_use]
    pub fn contains(&self, seq: i64) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= seq);
        at > 0 && seq <= self.0[at - 1].1
    }
}

/// One acknowledgement that a ledger has lost the charge of an invoice.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct UnbackedAcknowledgement {
    /// The ledger: another one may have lost other rows.
    pub ledger_id: String,
    /// Reference of the invoice.
    pub reference: String,
}

/// The invoices whose charge one ledger has lost, as operators have acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcknowledgedUnbacked(HashSet<String>);

impl AcknowledgedUnbacked {
    /// The acknowledged references of this ledger; none without a ledger id.
    pub fn of_ledger(
        acknowledgements: impl IntoIterator<Item = UnbackedAcknowledgement>,
        ledger_id: Option<&str>,
    ) -> Self {
        let of_ledger = acknowledgements.into_iter().filter(|one| ledger_id == Some(&*one.ledger_id));
        Self(of_ledger.map(|one| one.reference).collect())
    }

    /// Whether the loss of this invoice's charge is acknowledged.
    #[must_use]
    pub fn contains(&self, reference: &str) -> bool {
        self.0.contains(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(ledger_id: &str, seq_first: i64, seq_last: i64) -> Acknowledgement {
        Acknowledgement { ledger_id: ledger_id.to_owned(), seq_first, seq_last }
    }

    #[test]
    fn ranges_are_merged_and_looked_up_by_row() {
        let all = [one("a", 9, 9), one("a", 1, 3), one("a", 2, 5), one("a", 6, 6), one("b", 7, 8)];
        let rows = AcknowledgedRows::of_ledger(all, Some("a"));
        assert_eq!(rows.0, [(1, 6), (9, 9)]);
        let acknowledged: Vec<i64> = (-1..12).filter(|seq| rows.contains(*seq)).collect();
        assert_eq!(acknowledged, [1, 2, 3, 4, 5, 6, 9]);
    }

    #[test]
    fn an_acknowledgement_holds_for_its_own_ledger_only() {
        assert_eq!(AcknowledgedRows::of_ledger([one("a", 1, 9)], None), AcknowledgedRows::default());
        assert!(!AcknowledgedRows::of_ledger([one("a", 1, 9)], Some("b")).contains(1));
        assert!(!AcknowledgedRows::of_ledger([one("a", 5, 1)], Some("a")).contains(3));
    }

    #[test]
    fn a_lost_charge_is_acknowledged_for_its_own_ledger_and_reference_only() {
        let one = |ledger_id: &str, reference: &str| UnbackedAcknowledgement {
            ledger_id: ledger_id.to_owned(),
            reference: reference.to_owned(),
        };
        let all = || [one("a", "I1"), one("b", "I2"), one("a", "I1")];
        let of = |ledger_id: Option<&str>| {
            let lost = AcknowledgedUnbacked::of_ledger(all(), ledger_id);
            ["I1", "I2", "i1"].map(|reference| lost.contains(reference))
        };
        assert_eq!(of(Some("a")), [true, false, false]);
        assert_eq!(of(Some("b")), [false, true, false]);
        assert_eq!(of(None), [false; 3]);
    }
}
