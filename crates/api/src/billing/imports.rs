//! The types of an import: a row per line in the request, counts and faulty lines in the response.

use serde::{Deserialize, Serialize};

use crate::Text;

/// An invoice to be imported; one line of NDJSON. Billing's `import_row` has the rules for each value.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRow {
    pub reference: String,
    pub customer_id: i32,
    /// ISO 4217 code in upper case.
    pub currency: String,
    /// Decimal text, with at most the decimals of the currency; a JSON number is accepted too.
    pub amount: String,
    /// PENDING or PAID.
    #[serde(default = "pending")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub status: Text,
}

fn pending() -> Text {
    Text::Borrowed("PENDING")
}

/// Counts of an import or of a dry run.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImportReport {
    pub created: u64,
    pub unchanged: u64,
    #[serde(default)]
    pub updated: u64,
    pub errors_total: u64,
    /// The first faulty lines; `errors_total` counts all.
    pub errors: Vec<LineFault>,
    #[serde(default)]
    pub dry_run: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warnings_total: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<LineWarning>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The first mistake of one line.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LineFault {
    /// Counted from 1.
    pub line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The wrong field, or `line` if the line as a whole is wrong.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub field: Text,
    pub message: String,
}

/// A warning about an accepted row: people can hardly tell its reference from another one.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LineWarning {
    pub line: u64,
    pub reference: String,
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub field: Text,
    /// The earlier line with the similar reference; null when that reference is already stored.
    pub like_line: Option<u64>,
    pub message: String,
}
