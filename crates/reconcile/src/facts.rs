//! The data to be compared: billing's invoices and attempts, and the ledger's rows, as their lists show them. Plain
//! data and its JSON; knows neither its source nor what is correct.

use serde::Deserialize;

/// An invoice's state, as billing spells it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum InvoiceState {
    /// Not being charged.
    Pending,
    /// One attempt is open.
    Charging,
    /// Paid.
    Paid,
    /// An operator must decide.
    Attention,
    /// Never to be charged.
    Cancelled,
}

/// Cause of PAID.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PaidBy {
    /// Paid by a charge, which a ledger row must back.
    Charge,
    /// Paid according to the imported source.
    Import,
    /// Paid by an operator's decision.
    Resolve,
}

/// Decimals of amounts from a source without them: before currencies had their own decimals, all amounts had two.
#[must_use]
pub fn hundredths() -> u8 {
    2
}

/// One invoice of billing.
#[derive(Clone, Debug, Deserialize)]
pub struct InvoiceFact {
    /// The invoice's id in billing, which attempts refer to.
    pub id: i64,
    /// The invoice's name at its source.
    pub reference: String,
    /// Id of the customer who pays.
    pub customer_id: i64,
    pub currency: String,
    pub amount_minor: i64,
    /// Decimals of the amount.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    pub state: InvoiceState,
    /// How the invoice became PAID.
    #[serde(default)]
    pub paid_by: Option<PaidBy>,
}

/// An attempt's state, as billing spells it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AttemptState {
    /// Journaled; its request may or may not have been sent.
    Intent,
    /// Charged.
    Charged,
    /// Refused.
    Refused,
    /// Invalid.
    Rejected,
    /// Sent, and no definite response arrived.
    InDoubt,
    /// Will never be charged.
    Voided,
}

impl AttemptState {
    /// The state's name in billing's API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "INTENT",
            Self::Charged => "CHARGED",
            Self::Refused => "REFUSED",
            Self::Rejected => "REJECTED",
            Self::InDoubt => "IN_DOUBT",
            Self::Voided => "VOIDED",
        }
    }

    /// Whether the attempt has no final outcome yet.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Intent | Self::InDoubt)
    }
}

/// One attempt of billing.
#[derive(Clone, Debug, Deserialize)]
pub struct AttemptFact {
    /// The idempotency key of the attempt.
    pub key: String,
    /// Id of the invoice.
    pub invoice_id: i64,
    /// Number of the attempt within its invoice; the key follows from it.
    pub number: u32,
    /// Id of the customer who pays.
    pub customer_id: i64,
    pub currency: String,
    pub amount_minor: i64,
    /// Decimals of the amount.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    pub state: AttemptState,
    /// Number of requests that may have been sent.
    #[serde(default)]
    pub sends: i64,
}

/// A ledger row's state, as the ledger spells it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum RowState {
    /// The customer was charged.
    Charged,
    /// Refused.
    Refused,
    /// A tombstone: this key will never be charged.
    Voided,
}

/// One row of the provider's ledger.
#[derive(Clone, Debug, Deserialize)]
pub struct LedgerRow {
    /// The row's position in the ledger, from 1.
    pub seq: i64,
    /// The idempotency key of the request.
    #[serde(default)]
    pub key: Option<String>,
    /// The `id` of the request's body.
    #[serde(default)]
    pub reference: Option<String>,
    /// Id of the customer who pays; a tombstone of an unknown key has none.
    #[serde(default)]
    pub customer_id: Option<i64>,
    #[serde(default)]
    pub currency: Option<String>,
    #[serde(default)]
    pub amount_minor: Option<i64>,
    /// Decimals of the amount.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    /// The decision.
    pub state: RowState,
}
