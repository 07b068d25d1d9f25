//! Operators' requests about the provider's ledger: accept another ledger, explain rows, accept that rows are lost,
//! send rows that billing has lost.

use serde::{Deserialize, Serialize};

/// An operator's decision to settle with another ledger.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// A UUID.
    pub ledger_id: String,
    pub reason: String,
    pub actor: String,
}

/// The ledgers before and after an operator's decision.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Accepted {
    pub ledger_from: Option<String>,
    pub ledger_to: String,
}

/// Ledger rows that belong to no invoice and are in order.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgementRequest {
    /// A UUID.
    pub ledger_id: String,
    pub seq_first: i64,
    pub seq_last: i64,
    pub reason: String,
    pub actor: String,
}

/// A recorded acknowledgement.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acknowledgement {
    pub id: i64,
    pub ledger_id: String,
    pub seq_first: i64,
    pub seq_last: i64,
    pub reason: String,
    pub actor: String,
    pub created_at: String,
}

/// An invoice that is PAID by a charge whose row this ledger has lost.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnbackedAcknowledgementRequest {
    /// A UUID: the ledger that billing settles with.
    pub ledger_id: String,
    pub reference: String,
    /// The reason, recorded permanently.
    pub reason: String,
    /// Name of the operator, recorded permanently.
    pub actor: String,
}

/// A recorded acceptance of a lost ledger row.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnbackedAcknowledgement {
    pub id: i64,
    pub ledger_id: String,
    pub reference: String,
    pub reason: String,
    pub actor: String,
    pub created_at: String,
}

/// A page of the provider's ledger, as billing reads it. Unknown fields are ignored, unlike those of other bodies: a
/// caller passes on the page as payments sent it, and a later version of payments may add fields.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Deserialize)]
pub struct RepairPage {
    pub ledger_id: String,
    pub items: Vec<RepairRow>,
}

/// The fields of a ledger row that billing reads; earlier versions of payments omit some of them.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Deserialize)]
pub struct RepairRow {
    pub key: Option<String>,
    pub reference: Option<String>,
    pub customer_id: Option<i64>,
    pub currency: Option<String>,
    pub amount_minor: Option<i64>,
    /// Decimals of the amount; hundredths when absent.
    pub exponent: Option<u8>,
    pub state: EntryState,
    /// Class of a refusal: hard, fix, soft or unknown.
    pub decline_class: Option<String>,
    pub decline_code: Option<String>,
}

/// The states of a ledger row.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EntryState {
    Charged,
    Refused,
    Voided,
}

/// Counts of a repair, in rows.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RepairReport {
    /// Rows that billing already had.
    pub known: u64,
    /// Rows that settled an open attempt.
    pub settled: u64,
    /// Rows whose attempt billing had lost.
    pub adopted: u64,
    /// Rows that contradict billing and need a decision.
    pub conflicts: u64,
    /// Rows of another deployment, or of no invoice here.
    pub unknown: u64,
}
