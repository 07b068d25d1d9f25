//! Error responses as RFC 9457 `application/problem+json`. Knows no type of problem by name.

use serde::{Deserialize, Serialize};

use crate::Text;

/// Media type of every problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Prefix of all our problem types.
pub const TYPE_PREFIX: &str = "urn:tinjis:problem:";

/// Why a request was refused. A reader takes any JSON object: other servers omit members.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// `about:blank`, or a stable name such as `urn:tinjis:problem:key-voided`.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub type_: Text,
    /// The short text that all problems of this type have.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub title: Text,
    /// The status of the response.
    pub status: u16,
    /// What is wrong with this request; absent where the title is sufficient.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Each field that was wrong; absent when no field was wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A wrong field.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Name of the field as the client wrote it.
    pub field: String,
    /// The mistake and what is allowed.
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
