//! What the judge is told: billing's invoices and attempts, and the ledger's rows, as lists show them.
//! Plain data and its JSON; knows neither where it came from nor what is right.

use serde::Deserialize;

/// Billing's word for an invoice's state.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum InvoiceState {
    /// Nothing is under way.
    Pending,
    /// One attempt is open.
    Charging,
    /// Paid.
    Paid,
    /// A person must decide.
    Attention,
}

/// How an invoice came to be PAID.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PaidBy {
    /// By a charge, which a ledger row must back.
    Charge,
    /// The source said so.
    Import,
    /// A person said so.
    Resolve,
}

/// One invoice of billing.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct InvoiceFact {
    /// Its number in billing; attempts name it by this.
    pub(crate) id: i64,
    /// Its name at the source.
    pub(crate) reference: String,
    /// Who pays.
    pub(crate) customer_id: i64,
    /// Of what.
    pub(crate) currency: String,
    /// How much.
    pub(crate) amount_minor: i64,
    /// Where it stands.
    pub(crate) state: InvoiceState,
    /// How it came to be PAID.
    #[serde(default)]
    pub(crate) paid_by: Option<PaidBy>,
}

/// Billing's word for an attempt's state.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum AttemptState {
    /// Journaled; may or may not have left.
    Intent,
    /// Charged.
    Charged,
    /// Refused.
    Refused,
    /// Invalid.
    Rejected,
    /// Left, and no definite answer came.
    InDoubt,
    /// Will never be charged.
    Voided,
}

impl AttemptState {
    /// As billing says it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Intent => "INTENT",
            Self::Charged => "CHARGED",
            Self::Refused => "REFUSED",
            Self::Rejected => "REJECTED",
            Self::InDoubt => "IN_DOUBT",
            Self::Voided => "VOIDED",
        }
    }

    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Intent | Self::InDoubt)
    }
}

/// One attempt of billing.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AttemptFact {
    /// Names the charge to the provider.
    pub(crate) key: String,
    /// Which invoice.
    pub(crate) invoice_id: i64,
    /// Which of its attempts; its key follows from it.
    pub(crate) number: u32,
    /// Who pays.
    pub(crate) customer_id: i64,
    /// Of what.
    pub(crate) currency: String,
    /// How much.
    pub(crate) amount_minor: i64,
    /// Where it stands.
    pub(crate) state: AttemptState,
    /// How many requests may have left.
    #[serde(default)]
    pub(crate) sends: i64,
}

/// The ledger's word for a row's state.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum RowState {
    /// Money moved.
    Charged,
    /// Refused.
    Refused,
    /// A tombstone: this key will never be charged.
    Voided,
}

/// One row of the provider's ledger.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct LedgerRow {
    /// Its place in the ledger.
    pub(crate) seq: i64,
    /// The key it was sent under.
    #[serde(default)]
    pub(crate) key: Option<String>,
    /// The `id` of the request's body.
    #[serde(default)]
    pub(crate) reference: Option<String>,
    /// Who pays; a tombstone of an unknown key has none.
    #[serde(default)]
    pub(crate) customer_id: Option<i64>,
    /// Of what.
    #[serde(default)]
    pub(crate) currency: Option<String>,
    /// How much.
    #[serde(default)]
    pub(crate) amount_minor: Option<i64>,
    /// What became of it.
    pub(crate) state: RowState,
}
