//! The open routes that old environments probe, and the answer for what is no route.
//! Must not ask the ledger: readiness is on the admin port.

use axum::response::{IntoResponse, Response};
use chassis::problem::Problem;
use http::{StatusCode, header};

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// `GET /ping`
pub(super) async fn ping() -> impl IntoResponse {
    (JSON, r#"{"ping":"pong"}"#)
}

/// `GET /health`
pub(super) async fn health() -> impl IntoResponse {
    (JSON, r#"{"alive":"true"}"#)
}

/// `GET /healthz`
pub(super) async fn healthz() -> impl IntoResponse {
    (JSON, r#"{"status":"ok"}"#)
}

/// Everything else.
pub(super) async fn unknown_path() -> Response {
    Problem::new(StatusCode::NOT_FOUND).into_response()
}
