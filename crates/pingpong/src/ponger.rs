//! The ponger: answers every request of `/ping`, with any method, with a pong. Knows no caller.

use std::ffi::OsString;
use std::process::ExitCode;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use chassis::admin::Readiness;
use chassis::program::{self, Work};
use chassis::server::Limits;
use chassis::service::{self, Listeners};
use chassis::telemetry::{LogHandle, Telemetry, observe};
use chassis::tls::{PeerName, TlsMetrics};
use http::{StatusCode, header};
use prometheus::IntCounterVec;

use crate::admin;
use crate::config::PongerConfig;

/// Runs the whole program, from argv (program name first) to the exit code. Also behind `tinjis run ponger`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    program::run(PongerConfig::load(args), |config| &config.common.log, work)
}

fn work(config: PongerConfig, log: LogHandle) -> Work {
    Box::pin(start(config, log))
}

async fn start(config: PongerConfig, log: LogHandle) -> anyhow::Result<()> {
    if config.common.is_healthcheck {
        return service::healthcheck(config.common.metrics.address).await;
    }
    let shutdown = program::shutdown_on_signals();
    let telemetry = program::new_telemetry("ponger");
    let (business, metrics) = (service::bind(config.listen)?, &config.common.metrics);
    let listeners = Listeners { business, admin: metrics.bind()?, tls: None };
    let listeners = listeners.secure(config.tls.as_ref(), &TlsMetrics::new(&telemetry.metrics))?;
    config.common.warn_about_unread();
    if config.leaves_tls_unused {
        tracing::warn!("certificates are configured but protocol is http, pings are received in plain text");
    }
    let readiness = Readiness::new(&shutdown);
    let admin = admin(&telemetry, readiness, log, metrics.address, &metrics.endpoint);
    let routes = observe(routes(&telemetry), &telemetry);
    service::serve(listeners, routes, admin, Limits::default(), shutdown, &telemetry).await
}

fn routes(telemetry: &Telemetry) -> Router {
    let pings = telemetry.metrics.counters("ping_requests_total", "Pings received by result", &["result"]);
    pings.with_label_values(&["success"]).inc_by(0);
    Router::new().fallback(answer).with_state(pings)
}

/// Answers by the path without a router: several slashes before it count as one.
async fn answer(State(pings): State<IntCounterVec>, request: Request) -> Response {
    let path = request.uri().path();
    if path.trim_start_matches('/') != "ping" {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    }
    pings.with_label_values(&["success"]).inc();
    let peer = request.extensions().get::<PeerName>().map(PeerName::as_str);
    tracing::info!(peer.name = peer, "Received {} /ping", request.method());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "pong").into_response()
}
