//! The open routes that legacy environments probe, and the answer for unknown paths. Must not ask the ledger: readiness
//! is on the admin port.

use axum::response::{IntoResponse, Response};
use chassis::problem::Problem;
use http::{StatusCode, header};

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

/// Health paths of the existing payment service and of its known forks; they answer alike, without a token.
pub(super) const PATHS: [&str; 10] = [
    "/health",
    "/health/",
    "/health.json",
    "/healthcheck",
    "/rest/health",
    "/rest/ready",
    "/rest/alive",
    "/v1/healthz",
    "/liveness",
    "/readiness",
];

/// `GET /ping`
pub(super) async fn ping() -> impl IntoResponse {
    (JSON, r#"{"ping":"pong"}"#)
}

/// `GET` on each of [`PATHS`].
pub(super) async fn health() -> impl IntoResponse {
    (JSON, r#"{"alive":"true"}"#)
}

/// `GET /healthz`
pub(super) async fn healthz() -> impl IntoResponse {
    (JSON, r#"{"status":"ok"}"#)
}

/// The answer to every other path.
pub(super) async fn unknown_path() -> Response {
    Problem::new(StatusCode::NOT_FOUND).into_response()
}
