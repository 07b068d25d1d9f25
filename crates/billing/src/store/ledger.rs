//! What billing stores about the provider's ledger, and the data of a ledger row for a repair. Plain values: knows no
//! SQL, and decides nothing about an attempt.

use crate::invoice::{CustomerId, Decline, Reference};
use crate::money::Money;
use crate::protocol::key::Key;
use crate::protocol::transition::Outcome;

/// An operator's decision to settle with a replaced ledger, kept for ever in `ledger_acceptances`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAcceptance {
    /// The ledger to settle with from now on.
    pub ledger_id: String,
    /// Why the operator is sure.
    pub reason: String,
    pub actor: String,
}

/// The last known row of a provider's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSeen {
    /// The ledger's id.
    pub ledger_id: String,
    /// The last row that any answer named; 0 before the first one.
    pub seq: i64,
}

/// Rows of the provider's ledger that belong to no invoice of this store and that an operator has explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAcknowledgement {
    /// The ledger of the rows; row numbers mean nothing in another ledger.
    pub ledger_id: String,
    /// The first row, from 1.
    pub seq_first: i64,
    /// The last row, at least the first.
    pub seq_last: i64,
    /// Why these charges are in order.
    pub reason: String,
    /// The operator who says so.
    pub actor: String,
}

/// One row of `ledger_acknowledgements`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAcknowledgementRow {
    /// The row's position, which grows with each row.
    pub id: i64,
    /// What was acknowledged, why, and by whom.
    pub acknowledgement: LedgerAcknowledgement,
    /// The time, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// An operator's acceptance that a ledger has lost the row of a charge by which an invoice is PAID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnbackedAcknowledgement {
    /// The ledger that lost the row; another ledger may have lost other rows.
    pub ledger_id: String,
    /// Reference of the invoice, as stored.
    pub reference: Reference,
    /// Why the loss is accepted.
    pub reason: String,
    /// The operator who says so.
    pub actor: String,
}

/// One row of `unbacked_acknowledgements`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnbackedAcknowledgementRow {
    /// The row's position, which grows with each row.
    pub id: i64,
    /// What was acknowledged, why, and by whom.
    pub acknowledgement: UnbackedAcknowledgement,
    /// The time, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// A row of the provider's ledger, for a repair. The ledger's outcome of a key is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerFact {
    pub key: Key,
    /// The reference in the request; the tombstone of an unknown key has none.
    pub reference: Option<Reference>,
    /// The row's customer; `None` if its route has no customer.
    pub customer_id: Option<CustomerId>,
    /// The row's amount; `None` when it is not representable here.
    pub money: Option<Money>,
    /// CHARGED, REFUSED or VOIDED; a ledger records nothing else.
    pub outcome: Outcome,
    /// Reason of a refusal.
    pub decline: Option<Decline>,
}

impl LedgerFact {
    /// Whether the row has this customer and exactly this amount. A row of a route without a customer fits any
    /// customer.
    #[must_use]
    pub fn has_terms(&self, customer_id: CustomerId, money: Money) -> bool {
        self.money == Some(money) && self.customer_id.is_none_or(|customer| customer == customer_id)
    }
}

/// Result of one repaired row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// The outcome was recorded already.
    Known,
    /// The attempt was open and is settled now.
    Settled,
    /// The store did not have this attempt of its own deployment; it is stored now, settled.
    Adopted,
    /// Another outcome was recorded, or the row differs from the invoice: the invoice is in ATTENTION now.
    Conflict,
    /// The key belongs to another deployment or to another system.
    Unknown,
}

impl Repaired {
    /// Whether the store has changed.
    #[must_use]
    pub fn changed(self) -> bool {
        matches!(self, Self::Settled | Self::Adopted | Self::Conflict)
    }
}

/// How many numbers after the last known attempt of an invoice a repair tries for a key: attempts without a row in the
/// ledger (rejected ones) may lie between.
pub const REPAIR_NUMBERS_MAX: u32 = 100;
