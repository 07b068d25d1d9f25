//! Invoices, their attempts, and operators' decisions on attempts.

use serde::{Deserialize, Serialize};

use crate::Text;

/// An invoice. Fields are named as the columns.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invoice {
    pub id: i64,
    pub reference: String,
    #[serde(default)]
    pub customer_id: i64,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub currency: Text,
    #[serde(default)]
    pub amount_minor: i64,
    /// Decimals of the currency.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    /// PENDING, CHARGING, PAID, ATTENTION or CANCELLED.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: Text,
    /// charge, import or resolve.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub paid_by: Option<Text>,
    /// Why an operator must act.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attention_reason: Option<Text>,
    /// Due time in RFC 3339, UTC, with milliseconds, as are all times.
    pub due_at: Option<String>,
    pub next_attempt_at: Option<String>,
    /// How the declines of the invoice are followed up.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub dunning: Option<Text>,
    /// Whether declines have used up all attempts.
    #[serde(default)]
    pub exhausted: bool,
    #[serde(default)]
    pub created_at: String,
    #[serde(default)]
    pub updated_at: String,
    /// Whether an operator holds it back.
    #[serde(default)]
    pub held: bool,
}

/// An attempt to charge an invoice: the columns of its row, and its invoice's reference.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    pub key: String,
    pub invoice_id: i64,
    pub reference: String,
    /// Number of the attempt within its invoice, from 1.
    #[serde(default)]
    pub number: u32,
    #[serde(default)]
    pub customer_id: i64,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub currency: Text,
    pub amount_minor: i64,
    /// Decimals of the currency.
    #[serde(default = "hundredths")]
    pub exponent: u8,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: Text,
    /// How often its request was sent.
    #[serde(default)]
    pub sends: u32,
    #[serde(default)]
    pub run_id: i64,
    #[serde(default)]
    pub lease_until: String,
    pub created_at: String,
    pub settled_at: Option<String>,
    /// Class of a refusal: hard, fix, soft or unknown.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub decline_class: Option<Text>,
    pub decline_code: Option<String>,
}

/// The exponent in documents of earlier versions, which knew only hundredths.
fn hundredths() -> u8 {
    2
}

/// An operator's decision on an attempt.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    pub decision: Decision,
    /// The reason, recorded permanently.
    pub reason: String,
    /// Name of the operator, recorded permanently.
    pub actor: String,
}

/// Whether an attempt was charged, as an operator decides.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Charged,
    NotCharged,
}

impl Decision {
    /// The decision as it is written in requests and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::NotCharged => "not_charged",
        }
    }
}

/// A recorded decision.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resolution {
    #[serde(default)]
    pub id: i64,
    pub key: String,
    pub reference: String,
    /// charged or `not_charged`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub decision: Text,
    /// States before and after the decision; null in records of earlier versions.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attempt_from: Option<Text>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub attempt_to: Option<Text>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub invoice_from: Option<Text>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub invoice_to: Option<Text>,
    pub reason: String,
    pub actor: String,
    pub created_at: String,
}
