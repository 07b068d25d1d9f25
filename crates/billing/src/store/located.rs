//! The row of an attempt, found by its key. Knows no SQL.

use crate::invoice::{InvoiceId, Reference};
use crate::protocol::key::Key;
use crate::protocol::transition::Settlement;
use crate::store::LedgerFact;

/// An attempt that a caller or a ledger names by its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) key: &'a Key,
    /// The invoice's reference: then only the invoice's attempts are searched. Without a reference, any attempt with
    /// the key is found: by the index of keys that are not settled, or else by reading all attempts.
    pub(super) reference: Option<&'a Reference>,
}

/// The row of an attempt. Its key is compared whenever the row is read or changed: a row with another key is another
/// attempt.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) key: Key,
    pub(super) invoice: InvoiceId,
    pub(super) number: u32,
}

impl From<&Settlement> for Located {
    fn from(settlement: &Settlement) -> Self {
        Self { key: settlement.key.clone(), invoice: settlement.invoice, number: settlement.number }
    }
}

impl<'a> From<&'a LedgerFact> for Wanted<'a> {
    fn from(row: &'a LedgerFact) -> Self {
        Self { key: &row.key, reference: row.reference.as_ref() }
    }
}
