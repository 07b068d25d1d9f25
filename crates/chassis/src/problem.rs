//! An error answer as RFC 9457 `application/problem+json`: a stable type and a short text for the client.
//! Must not know which route failed, and never carries internal text, a source error or a `result`.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// Media type of every problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Type of a problem that its status describes completely.
const BLANK: &str = "about:blank";

/// The text for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Status of the answer, repeated in the body.
    pub status: StatusCode,
    /// `about:blank`, or a stable name such as `urn:tinjis:problem:key-voided`.
    pub type_: Cow<'static, str>,
    /// The same short text for each problem of this type.
    pub title: Cow<'static, str>,
    /// The detail; left out when empty.
    pub detail: String,
    /// Fields that were wrong; left out when empty.
    pub errors: Vec<FieldError>,
}

/// One field that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Name of the field as the client wrote it.
    pub field: String,
    /// The mistake and what is allowed.
    pub message: String,
}

impl Problem {
    /// Prefix of all our problem types.
    pub const TYPE_PREFIX: &str = "urn:tinjis:problem:";

    /// A problem without a type of its own: the status is all that a client can branch on.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { status, type_: BLANK.into(), title: title.into(), detail: String::new(), errors: Vec::new() }
    }

    /// A problem that clients branch on: `name` is put behind `urn:tinjis:problem:`.
    #[must_use]
    pub fn named(status: StatusCode, name: &str, title: &'static str) -> Self {
        Self {
            type_: format!("{}{name}", Self::TYPE_PREFIX).into(),
            title: title.into(),
            ..Self::new(status)
        }
    }

    /// 400 with the fields that were wrong.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::named(StatusCode::BAD_REQUEST, "validation", "The request is not valid") }
    }

    /// The same problem with its detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

impl FieldError {
    /// One wrong field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            type_: &self.type_,
            title: &self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&body).expect("a struct of texts and numbers is JSON");
        let mut response = (self.status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(problem: Problem) -> (StatusCode, String, String) {
        let response = problem.into_response();
        let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        (status, media, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_blank_problem_says_no_more_than_its_status() {
        let (status, media, body) = sent(Problem::new(StatusCode::NOT_FOUND)).await;
        assert_eq!((status, media.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
        assert_eq!(body, r#"{"type":"about:blank","title":"Not Found","status":404}"#);
    }

    #[tokio::test]
    async fn a_named_problem_carries_its_urn_and_its_detail() {
        let problem =
            Problem::named(StatusCode::GONE, "key-voided", "The key was voided").detail("no charge");
        assert_eq!(
            sent(problem).await.2,
            r#"{"type":"urn:tinjis:problem:key-voided","title":"The key was voided","status":410,"detail":"no charge"}"#
        );
    }

    #[tokio::test]
    async fn a_validation_problem_lists_every_field() {
        let errors = vec![FieldError::new("value", "is below 0"), FieldError::new("currency", "is missing")];
        let (status, _, body) = sent(Problem::validation(errors)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.starts_with(r#"{"type":"urn:tinjis:problem:validation""#), "{body}");
        assert!(
            body.ends_with(
                r#""errors":[{"field":"value","message":"is below 0"},{"field":"currency","message":"is missing"}]}"#
            ),
            "{body}"
        );
    }
}
