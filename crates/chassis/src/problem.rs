//! An error answer as RFC 9457 `application/problem+json`: a stable type and a short text for the client.
//! Must not know which route failed, and never carries internal text, a source error or a `result`.

use api::problem::Problem as Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

pub use api::problem::{CONTENT_TYPE, FieldError};

/// Type of a problem that its status describes completely.
const BLANK: &str = "about:blank";

/// The text for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Status of the answer, repeated in the body.
    pub status: StatusCode,
    /// `about:blank`, or a stable name such as `urn:tinjis:problem:key-voided`.
    pub type_: api::Text,
    /// The short text, which is the same for each problem of this type.
    pub title: api::Text,
    /// The detail; left out when empty.
    pub detail: String,
    /// The wrong fields; left out when empty.
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// Prefix of all our problem types.
    pub const TYPE_PREFIX: &str = api::problem::TYPE_PREFIX;

    /// A problem without a type of its own: the status is all that a client can branch on.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { status, type_: BLANK.into(), title: title.into(), detail: String::new(), errors: Vec::new() }
    }

    /// A problem that clients branch on: `name` is appended to `urn:tinjis:problem:`.
    #[must_use]
    pub fn named(status: StatusCode, name: &str, title: &'static str) -> Self {
        Self {
            type_: format!("{}{name}", Self::TYPE_PREFIX).into(),
            title: title.into(),
            ..Self::new(status)
        }
    }

    /// A 400 with the wrong fields.
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

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, type_, title, detail, errors } = self;
        let body = Body { type_, title, status: status.as_u16(), detail, errors };
        let body = serde_json::to_vec(&body).expect("a struct of texts and numbers is JSON");
        let mut response = (status, body).into_response();
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
