//! The one place where a failure becomes an answer: old routes speak in JSON strings, `/v1` in problem+json.
//! Internal errors are logged here, once; clients get only the texts of this file.

use axum::response::Response;
use chassis::problem::Problem;
use http::StatusCode;

use super::{antaeus, json};
use crate::store::StoreError;

/// Unknown path, unknown id, or wrong method, on old and unknown paths.
pub(super) fn not_found() -> Response {
    json(StatusCode::NOT_FOUND, antaeus::CONTENT_TYPE, "\"not found\"")
}

/// A store's failure, on an old route other than pay.
pub(super) fn legacy_failure(error: &StoreError) -> Response {
    log_failure(error);
    match error {
        StoreError::Unavailable(_) => unavailable(),
        StoreError::Corrupt(_) => internal(),
    }
}

/// Nothing can be served now, on an old route other than pay.
pub(super) fn unavailable() -> Response {
    json(StatusCode::SERVICE_UNAVAILABLE, antaeus::CONTENT_TYPE, "\"unavailable\"")
}

/// Something is broken here, on an old route other than pay.
pub(super) fn internal() -> Response {
    json(StatusCode::INTERNAL_SERVER_ERROR, antaeus::CONTENT_TYPE, "\"internal error\"")
}

/// A store's failure, on a `/v1` route.
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
