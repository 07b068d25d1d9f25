//! Subscriptions, their changes, and operators' actions on them.

use serde::{Deserialize, Serialize};

use crate::Text;

/// A subscription.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subscription {
    pub reference: String,
    #[serde(default)]
    pub customer_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_reference: Option<String>,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub currency: Text,
    pub prices: Vec<Price>,
    #[serde(default)]
    pub anchor_day: i8,
    #[serde(default)]
    pub every_months: i32,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub zone: Text,
    /// Local time such as 06:00.
    #[serde(default)]
    pub at: String,
    #[serde(default)]
    pub starts_on: String,
    pub ends_on: Option<String>,
    /// Rule for holidays: as-is, next or previous.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub holidays: Text,
    /// active, paused or ended.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: Text,
    /// The first period without an invoice.
    pub next_on: Option<String>,
    pub next_charge_at: Option<String>,
    /// The last period with an invoice.
    pub last_on: Option<String>,
    #[serde(default)]
    pub created_at: String,
    #[serde(default)]
    pub updated_at: String,
}

/// The amount of each period from a date on.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Price {
    pub from: String,
    /// Decimal text.
    pub amount: String,
}

/// What an operator did to a subscription.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubscriptionAction {
    pub id: i64,
    pub action: String,
    pub detail: Option<String>,
    pub reason: String,
    pub actor: String,
    pub created_at: String,
}

/// The body of a change; each route says which fields it takes.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    pub reason: String,
    pub actor: String,
    /// The first date, for resume and change-price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The last date, for end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_on: Option<String>,
    /// The new amount as decimal text, for change-price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
}
