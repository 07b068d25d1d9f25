//! What operators stop and resume: all charging, an invoice, a customer.

use serde::{Deserialize, Serialize};

use crate::Text;

/// The reason of an operator's action and the operator's name; both are recorded permanently.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteRequest {
    pub reason: String,
    pub actor: String,
}

/// A network, with the reason and the operator's name.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Network of the customer's instrument: none, visa, mastercard or sepa.
    pub network: String,
    pub reason: String,
    pub actor: String,
}

/// A customer.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Customer {
    pub id: i64,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub currency: Text,
    /// Whether an operator holds back all invoices of the customer.
    pub held: bool,
    /// Network of its instrument, whose limits of retries apply.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub network: Option<Text>,
    pub instrument_changed_at: Option<String>,
}

/// Whether all charging is stopped.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Charging {
    pub stopped: bool,
    pub reason: Option<String>,
    pub actor: Option<String>,
    pub since: Option<String>,
}
