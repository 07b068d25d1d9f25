//! What billing keeps of the provider's ledger, and what it takes from one of its rows. Plain values: knows no SQL, and
//! decides nothing about an attempt.

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

/// How far a ledger of the provider is known to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSeen {
    /// Which ledger.
    pub ledger_id: String,
    /// The last of its rows that any answer named; 0 before the first.
    pub seq: i64,
}

/// Rows of the provider's ledger that belong to no invoice of this store and that an operator has explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAcknowledgement {
    /// Row numbers mean nothing in another ledger.
    pub ledger_id: String,
    /// The first row, from 1.
    pub seq_first: i64,
    /// The last row, at least the first.
    pub seq_last: i64,
    /// Why these charges are in order.
    pub reason: String,
    /// Who says so.
    pub actor: String,
}

/// One row of `ledger_acknowledgements`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAcknowledgementRow {
    /// Its position: grows with each row.
    pub id: i64,
    /// What was acknowledged, why, and by whom.
    pub acknowledgement: LedgerAcknowledgement,
    /// When, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// An invoice that is PAID by a charge whose row a ledger has lost, as an operator has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnbackedAcknowledgement {
    /// Another ledger may have lost other rows.
    pub ledger_id: String,
    /// Reference of the invoice, as it is stored.
    pub reference: Reference,
    /// Why the loss is accepted.
    pub reason: String,
    /// Who says so.
    pub actor: String,
}

/// One row of `unbacked_acknowledgements`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnbackedAcknowledgementRow {
    /// Its position: grows with each row.
    pub id: i64,
    /// What was acknowledged, why, and by whom.
    pub acknowledgement: UnbackedAcknowledgement,
    /// When, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// A row of the provider's ledger, for a repair. What the ledger records for a key is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerFact {
    pub key: Key,
    /// What the request named; a tombstone of an unknown key names nothing.
    pub reference: Option<Reference>,
    /// The row's customer; `None` where its route has none.
    pub customer_id: Option<CustomerId>,
    /// The row's amount; `None` when it is not representable here.
    pub money: Option<Money>,
    /// CHARGED, REFUSED or VOIDED; a ledger records nothing else.
    pub outcome: Outcome,
    /// Reason of a refusal.
    pub decline: Option<Decline>,
}

impl LedgerFact {
    /// Whether the row is about this customer and exactly this amount. A route that names no customer is about anybody.
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
    /// The store had no such attempt, though its key is this deployment's: it has it now, settled.
    Adopted,
    /// Another outcome was recorded, or the row has other data than the invoice: the invoice is in ATTENTION now.
    Conflict,
    /// No key of ours: another deployment's, or another system's.
    Unknown,
}

impl Repaired {
    /// Whether the store has changed.
    #[must_use]
    pub fn changed(self) -> bool {
        matches!(self, Self::Settled | Self::Adopted | Self::Conflict)
    }
}

/// How far past the last attempt that a store knows of an invoice a repair looks for a key's number: attempts that
/// left no row in the ledger (rejected ones) may lie between.
pub const REPAIR_NUMBERS_MAX: u32 = 100;
