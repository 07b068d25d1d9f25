//! Refuses parameters that a route does not take, by name, since ignoring a switch would do its opposite. Must not know
//! what any parameter means.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::{FieldError, Problem};

/// The error about a parameter that a route does not know.
#[must_use]
pub fn unknown_parameter(name: &str) -> FieldError {
    FieldError::new(name, "is not a parameter of this route")
}

/// Answers 400 to a request with any parameter: for routes that take none.
pub async fn refuse_parameters(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let errors: Vec<_> =
        form_urlencoded::parse(query.as_bytes()).map(|(name, _)| unknown_parameter(&name)).collect();
    if errors.is_empty() { next.run(request).await } else { Problem::validation(errors).into_response() }
}
