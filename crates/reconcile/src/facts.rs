//! What is compared: billing's invoices and attempts, and the ledger's rows, as their lists show them.
//! Plain data and its JSON; knows neither where it came from nor what is right.

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
    /// By a charge, which a ledger row must back.
    Charge,
    /// The source said so.
    Import,
    /// An operator decided so.
    Resolve,
}

/// Decimals of amounts where a source does not say them: before currencies had their own, all amounts had two.
#[must_use]
pub fn hundredths() -> u8 {
    2
}

/// One invoice of billing.
#[derive(Clone, Debug, Deserialize)]
pub struct InvoiceFact {
    /// Its number in billing; attempts name it by this.
    pub id: i64,
    /// Its name at the source.
    pub reference: String,
    /// Who pays.
    pub customer_id: i64,
    pub currency: String,
    pub amount_minor: i64,
    /// Decimals of the amount.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    pub state: InvoiceState,
    /// How it came to be PAID.
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
    /// As billing spells it.
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

    /// Whether its outcome is still to come.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Intent | Self::InDoubt)
    }
}

/// One attempt of billing.
#[derive(Clone, Debug, Deserialize)]
pub struct AttemptFact {
    /// Names the charge to the provider.
    pub key: String,
    /// Which invoice.
    pub invoice_id: i64,
    /// Which of its attempts; its key follows from it.
    pub number: u32,
    /// Who pays.
    pub customer_id: i64,
    pub currency: String,
    pub amount_minor: i64,
    /// Decimals of the amount.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    pub state: AttemptState,
    /// How many requests may have been sent.
    #[serde(default)]
    pub sends: i64,
}

/// A ledger row's state, as the ledger spells it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum RowState {
    /// Money moved.
    Charged,
    /// Refused.
    Refused,
    /// A tombstone: this key will never be charged.
    Voided,
}

/// One row of the provider's ledger.
#[derive(Clone, Debug, Deserialize)]
pub struct LedgerRow {
    /// Its position in the ledger, from 1.
    pub seq: i64,
    /// The key it was sent under.
    #[serde(default)]
    pub key: Option<String>,
    /// The `id` of the request's body.
    #[serde(default)]
    pub reference: Option<String>,
    /// Who pays; a tombstone of an unknown key has none.
    #[serde(default)]
    pub customer_id: Option<i64>,
    #[serde(default)]
    pub currency: Option<String>,
    #[serde(default)]
    pub amount_minor: Option<i64>,
    /// Decimals of the amount.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    /// What became of it.
    pub state: RowState,
}
