//! One way from the arguments of a program to its exit code: settings, logs, a runtime, its work. Also the parts that
//! each service has before its own. Must not know what a service does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context;
use axum::Router;

use crate::admin::{LogLevelAccess, Readiness, admin_router};
use crate::caller::Callers;
use crate::config::{Common, Traces};
use crate::server::Limits;
use crate::service::{Listeners, keep_memory_private};
use crate::shutdown::Shutdown;
#[cfg(feature = "otlp")]
use crate::telemetry::Exported;
use crate::telemetry::{LogConfig, LogHandle, Telemetry, Tracer, init_logs};
use crate::tls::TlsMetrics;

/// Version of the workspace, which is that of each program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Source revision of the build, if known.
const REVISION: &str = match option_env!("TINJIS_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What a program does once its settings are read and its log is open. Boxed in the program's crate, so that the
/// service is compiled once, and not again in each binary that starts it.
pub type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// Runs the whole program and returns its exit code. `loaded` has its settings, or the exit code when there are none.
/// An error of its work is logged and is a failure.
pub fn run<C>(
    loaded: Result<C, ExitCode>,
    log: fn(&C) -> &LogConfig,
    work: fn(C, LogHandle) -> Work,
) -> ExitCode {
    let config = match loaded {
        Ok(config) => config,
        Err(code) => return code,
    };
    keep_memory_private();
    let log = init_logs(log(&config));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(work(config, log.clone())));
    if let Err(error) = &done {
        tracing::error!("{error:#}");
    }
    log.flush();
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The metrics of a program of this workspace.
#[must_use]
pub fn new_telemetry(service: &'static str) -> Telemetry {
    Telemetry::new(service, VERSION, REVISION)
}

/// Exports the traces of a service, if a collector is configured.
#[cfg(feature = "otlp")]
fn tracer(traces: &Traces, telemetry: &Telemetry, tls: &TlsMetrics) -> anyhow::Result<Tracer> {
    for warning in &traces.warnings {
        tracing::warn!(warning, "a setting of traces cannot be used");
    }
    let Some(settings) = &traces.settings else { return Ok(Tracer::default()) };
    let endpoint = settings.endpoint.to_string();
    tracing::info!(endpoint, sampler = ?settings.sampler, "exporting traces");
    let exported = Exported::start(settings.clone(), VERSION, &telemetry.metrics, tls);
    Ok(Tracer::to(exported.context("cannot export traces")?))
}

/// A build without the exporter logs a warning, so that an operator does not wait for traces.
#[cfg(not(feature = "otlp"))]
fn tracer(traces: &Traces, _: &Telemetry, _: &TlsMetrics) -> anyhow::Result<Tracer> {
    if traces.settings.is_some() {
        tracing::warn!(
            "this build exports no traces, although a collector is set: it is made without the feature otlp"
        );
    }
    Ok(Tracer::default())
}

/// A shutdown that signals trigger.
#[must_use]
pub fn shutdown_on_signals() -> Shutdown {
    let shutdown = Shutdown::new();
    shutdown.on_signals();
    shutdown
}

/// The parts that a service has before its own.
pub struct Service {
    /// Address of the business port.
    pub listen: SocketAddr,
    /// Metrics of the service.
    pub telemetry: Telemetry,
    /// Metrics of certificates, also of those that the service's clients use.
    pub tls: TlsMetrics,
    /// The conditions that keep the service from being ready.
    pub readiness: Readiness,
    /// The shutdown, triggered by signals.
    pub shutdown: Shutdown,
    admin_listen: SocketAddr,
    connections_per_peer: usize,
}

impl Service {
    /// Binds both ports, the business port with TLS if it is configured.
    ///
    /// # Errors
    /// When a port is not available, or a certificate is invalid.
    pub async fn bind(name: &'static str, common: &Common) -> anyhow::Result<(Self, Listeners)> {
        let shutdown = shutdown_on_signals();
        let listeners = Listeners::bind(common).await?;
        let (listen, admin_listen) = listeners.addresses()?;
        let mut telemetry = new_telemetry(name);
        let tls = TlsMetrics::new(&telemetry.metrics);
        telemetry.tracer = tracer(&common.traces, &telemetry, &tls)?;
        let listeners = listeners.secure(common.tls.as_ref(), &tls)?;
        let readiness = Readiness::new(&shutdown);
        let connections_per_peer = common.connections_per_peer;
        let service =
            Self { listen, telemetry, tls, readiness, shutdown, admin_listen, connections_per_peer };
        Ok((service, listeners))
    }

    /// The router of the admin port: probes, metrics, and the log level for these operators.
    pub fn admin(&self, log: LogHandle, operators: Option<Callers>) -> Router {
        let access = LogLevelAccess::new(self.admin_listen, operators);
        admin_router(&self.telemetry, self.readiness.clone(), log, access)
    }

    /// These limits, with the configured share of a peer.
    #[must_use]
    pub fn limits(&self, limits: Limits) -> Limits {
        Limits { connections_per_peer: self.connections_per_peer, ..limits }
    }
}
