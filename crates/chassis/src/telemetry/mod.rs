//! Logs, metrics and trace ids. Nothing here is global except the log.
//! Must not know any business metric; services register theirs.

mod http;
mod level;
mod logs;
mod metrics;
mod trace;
mod tracer;

pub use http::observe;
pub use level::LogLevel;
pub use logs::{LogConfig, LogFormat, LogHandle, init_logs};
pub use metrics::{Metrics, TEXT_FORMAT};
pub use trace::{TRACEPARENT, TraceContext};
pub use tracer::{Kind, Sampler, Span, Tracer, Value};

#[cfg(feature = "otlp")]
pub use tracer::Exported;

use prometheus::Registry;

use crate::clock::Random;

/// The metrics of one service in this process, and the source of its trace ids. Clones share them.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Registry of counters, gauges and histograms.
    pub metrics: Metrics,
    /// Makes spans, if traces are exported.
    pub tracer: Tracer,
    service: &'static str,
    random: Random,
}

impl Telemetry {
    /// Telemetry with its own registry, the process metrics and `build_info{version,revision}`.
    #[must_use]
    pub fn new(service: &'static str, version: &str, revision: &str) -> Self {
        Self {
            metrics: Metrics::new(version, revision),
            tracer: Tracer::default(),
            service,
            random: Random::system(),
        }
    }

    /// The same telemetry, with trace ids drawn from a seed.
    #[must_use]
    pub fn with_random(mut self, random: Random) -> Self {
        self.random = random;
        self
    }

    #[must_use]
    pub fn service_name(&self) -> &'static str {
        self.service
    }

    /// Random source of span and trace ids.
    #[must_use]
    pub fn random(&self) -> &Random {
        &self.random
    }

    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.metrics.registry()
    }
}
