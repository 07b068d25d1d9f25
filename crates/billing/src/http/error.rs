//! The one place where a failure becomes a response: JSON strings on legacy routes, problem+json on `/v1`. Internal
//! errors are logged here, once; clients get only the texts of this file.

use axum::response::Response;
use chassis::problem::Problem;
use http::StatusCode;

use super::{antaeus, json};
use crate::store::StoreError;

/// The response to an unknown path, an unknown id or a wrong method, on legacy and unknown paths.
pub(super) fn not_found_response() -> Response {
    json(StatusCode::NOT_FOUND, antaeus::CONTENT_TYPE, "\"not found\"")
}

/// The response to a failure of the store, on a legacy route other than pay.
pub(super) fn legacy_failure_response(error: &StoreError) -> Response {
    log_failure(error);
    match error {
        StoreError::Unavailable(_) => unavailable_response(),
        StoreError::Corrupt(_) => internal_error_response(),
    }
}

/// The response when nothing can be served now, on a legacy route other than pay.
pub(super) fn unavailable_response() -> Response {
    json(StatusCode::SERVICE_UNAVAILABLE, antaeus::CONTENT_TYPE, "\"unavailable\"")
}

/// The response to an internal error, on a legacy route other than pay.
pub(super) fn internal_error_response() -> Response {
    json(StatusCode::INTERNAL_SERVER_ERROR, antaeus::CONTENT_TYPE, "\"internal error\"")
}

/// The problem for a failure of the store, on a `/v1` route.
pub(super) fn problem_of(error: &StoreError) -> Problem {
    log_failure(error);
    let detail = match error {
        StoreError::Unavailable(_) => "the store cannot be used now; try again later",
        StoreError::Corrupt(_) => "the store holds what it must not; see the log",
    };
    Problem::new(status(error)).detail(detail)
}

fn status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::Corrupt(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Writes a failure and its causes to the log.
pub(super) fn log_failure(error: &StoreError) {
    tracing::error!(error = error as &dyn std::error::Error, "store operation failed");
}
