//! Counts what the accept loop does: connections open, why they were ended, calls shed. Knows no route.

use super::drive::End;
use super::state::BodyFailure;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The metrics of one server; always counted, exported once registered.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    open: IntGauge,
    ended: IntCounterVec,
    shed: IntCounter,
    accept_errors: IntCounter,
}

impl ServerMetrics {
    /// Metrics that are not exported.
    ///
    /// # Panics
    /// Never: the names are constants and valid.
    pub fn new() -> Self {
        let ended = Opts::new("http_connections_ended_total", "Connections that the server ended, by reason");
        Self {
            open: IntGauge::new("http_connections_open", "Connections open now").expect("a valid name"),
            ended: IntCounterVec::new(ended, &["reason"]).expect("a valid name"),
            shed: IntCounter::new("http_requests_shed_total", "Calls answered as not executed")
                .expect("a valid name"),
            accept_errors: IntCounter::new("http_accept_errors_total", "Accepts that failed")
                .expect("a valid name"),
        }
    }

    /// Exports the metrics in a registry.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.open.clone()))?;
        registry.register(Box::new(self.ended.clone()))?;
        registry.register(Box::new(self.shed.clone()))?;
        registry.register(Box::new(self.accept_errors.clone()))
    }

    pub(super) fn opened(&self) {
        self.open.inc();
    }

    pub(super) fn closed(&self, end: End) {
        self.open.dec();
        if let Some(reason) = end.reason() {
            self.ended.with_label_values(&[reason]).inc();
        }
    }

    pub(super) fn shed(&self) {
        self.shed.inc();
    }

    pub(super) fn refused_body(&self, failure: BodyFailure) {
        let reason = match failure {
            BodyFailure::TooLarge => "body_too_large",
            BodyFailure::Late => "body_late",
            BodyFailure::Broken => "body_broken",
        };
        self.ended.with_label_values(&[reason]).inc();
    }

    pub(super) fn refused_host(&self) {
        self.ended.with_label_values(&["bad_host"]).inc();
    }

    pub(super) fn accept_failed(&self) {
        self.accept_errors.inc();
    }
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self::new()
    }
}
