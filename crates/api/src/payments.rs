//! Requests and responses of payments' `/v1`. The legacy routes have formats of their own, each in one file of the
//! service.

use serde::{Deserialize, Serialize};

use crate::Text;

/// Maximum number of rows in a page of the ledger.
pub const LEDGER_PAGE_MAX: usize = 1000;

/// The longest reference and the longest currency of a ledger row, in bytes.
pub const LEDGER_TEXT_BYTES_MAX: usize = 256;

/// The longest JSON of a ledger row: each byte of its two texts may be a control character, which JSON writes as six
/// bytes. Half of the remaining bytes are for the account, whose name an operator configures.
pub const LEDGER_ROW_JSON_BYTES_MAX: usize = 2 * 6 * LEDGER_TEXT_BYTES_MAX + 2048;

/// The longest JSON of a page of the ledger. Clients that read full pages, and billing's `POST /v1/repairs`, accept
/// bodies of this size.
pub const LEDGER_PAGE_JSON_BYTES_MAX: usize = LEDGER_PAGE_MAX * (LEDGER_ROW_JSON_BYTES_MAX + 1) + 256;

/// One page of the ledger.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerPage {
    /// Id of the ledger that holds these rows.
    pub ledger_id: String,
    /// Rows of the caller's account, ordered by `seq`.
    pub items: Vec<LedgerRow>,
    /// Cursor of the next page; null at the end.
    pub next: Option<i64>,
}

/// A row of the ledger. Fields are named as the columns.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerRow {
    pub seq: i64,
    /// Null for a charge that came without a key.
    pub key: Option<String>,
    pub account: String,
    /// Digest of what was to be charged.
    pub fingerprint: String,
    /// The `id` of the request's body.
    pub reference: Option<String>,
    /// 0 where the route names no customer.
    pub customer_id: i64,
    pub currency: String,
    pub amount_minor: i64,
    /// Decimals of the amount.
    pub exponent: u8,
    /// CHARGED, REFUSED or VOIDED.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: Text,
    /// Class of a refusal: hard, fix, soft or unknown.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub decline_class: Option<Text>,
    pub decline_code: Option<String>,
    /// The route by which the charge came.
    pub route: String,
    /// RFC 3339 in UTC with milliseconds.
    pub created_at: String,
}

/// An operator's declaration of a deployment.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclareRequest {
    /// A UUID.
    pub deployment_id: String,
    /// The operator's reason: one line, recorded permanently.
    pub why: String,
    /// The operator's name: one line, recorded permanently.
    pub actor: String,
}

/// A deployment of billing that may charge under an account.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployment {
    pub deployment_id: String,
    pub account: String,
    /// How the deployment became known: declared by an operator, or by its first charge.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub how: Text,
    pub why: Option<String>,
    pub actor: Option<String>,
    /// RFC 3339 in UTC with milliseconds.
    pub created_at: String,
}

/// All deployments of an account.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeploymentList {
    pub items: Vec<Deployment>,
    /// Always null: an account has few deployments, all in one page.
    pub next: Option<i64>,
}

/// The problem `reference-charged`.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReferenceCharged {
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub type_: Text,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub title: Text,
    pub status: u16,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub detail: Text,
    /// Key of the charge; null when the charge came without a key.
    pub key: Option<String>,
}
