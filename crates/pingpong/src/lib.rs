//! The ping pair: a pinger that sends pings for ever, and a ponger that answers, with certificates that users bring.
//! Depends on `chassis` only; knows no other service's code.

pub mod config;
pub mod pinger;
pub mod ponger;

use std::net::SocketAddr;

use chassis::admin::{LogLevelAccess, Readiness, admin_router};
use chassis::telemetry::{LogHandle, Telemetry};

/// Routes of probes and metrics; the metrics also under the configured path.
fn admin(
    telemetry: &Telemetry,
    readiness: Readiness,
    log: LogHandle,
    listener: SocketAddr,
    endpoint: &str,
) -> axum::Router {
    let router = admin_router(telemetry, readiness, log, LogLevelAccess::new(listener, None));
    if ["/metrics", "/livez", "/readyz", "/log-level"].contains(&endpoint) {
        return router;
    }
    let metrics = telemetry.metrics.clone();
    let page = move || async move {
        ([(http::header::CONTENT_TYPE, chassis::telemetry::TEXT_FORMAT)], metrics.render())
    };
    router.route(endpoint, axum::routing::get(page))
}
