//! TLS metrics: reloads, expiry and rejected handshakes by reason. Knows no files and no connections.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use crate::telemetry::Metrics;

/// Why a TLS handshake was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client presented no certificate, and one is required.
    NoCertificate,
    /// No trusted CA signed the certificate.
    UnknownCa,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate's name is missing or not on the SAN allow-list.
    WrongName,
    /// The certificate has more than one name.
    SeveralNames,
    /// The certificate is not a client certificate.
    WrongUsage,
    /// The client does not speak TLS.
    Plaintext,
    /// The handshake was not finished in time.
    HandshakeTimeout,
    /// Any other reason: an unsupported version or suite, a client that refused the server, a broken handshake.
    Other,
}

impl Refusal {
    pub const ALL: [Self; 10] = [
        Self::NoCertificate,
        Self::UnknownCa,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongName,
        Self::SeveralNames,
        Self::WrongUsage,
        Self::Plaintext,
        Self::HandshakeTimeout,
        Self::Other,
    ];

    /// The refusal's label in `tls_refusals_total`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongName => "wrong_name",
            Self::SeveralNames => "several_names",
            Self::WrongUsage => "wrong_usage",
            Self::Plaintext => "plaintext",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Other => "other",
        }
    }
}

/// TLS metrics of one service, as server and client. Clones share them.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    reloads: IntCounterVec,
    failing: IntGauge,
    expiry: IntGaugeVec,
    refusals: IntCounterVec,
    handshakes: IntCounterVec,
}

impl TlsMetrics {
    /// Registers the metrics in a service's registry; called once per service.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let figures = Self {
            reloads: metrics.counters(
                "tls_reloads_total",
                "Reloads of changed TLS material by result (ok, bad)",
                &["result"],
            ),
            failing: metrics.gauge(
                "tls_reload_failing",
                "Sets of TLS files that changed and were refused; the previous ones stay in force",
            ),
            expiry: metrics.gauges(
                "tls_certificate_expiry_seconds",
                "Expiry of the first certificate of this role, in seconds since the epoch",
                &["of"],
            ),
            refusals: metrics.counters(
                "tls_refusals_total",
                "Rejected TLS handshakes by reason",
                &["reason"],
            ),
            handshakes: metrics.counters(
                "tls_handshakes_total",
                "Accepted TLS connections by kind of handshake (full, resumed)",
                &["kind"],
            ),
        };
        for result in ["ok", "bad"] {
            figures.reloads.with_label_values(&[result]).inc_by(0);
        }
        for kind in ["full", "resumed"] {
            figures.handshakes.with_label_values(&[kind]).inc_by(0);
        }
        for reason in Refusal::ALL {
            figures.refusals.with_label_values(&[reason.label()]).inc_by(0);
        }
        figures
    }

    pub(super) fn reloaded(&self, is_good: bool) {
        self.reloads.with_label_values(&[if is_good { "ok" } else { "bad" }]).inc();
    }

    /// Records that a set of files has become invalid, or valid again.
    pub(super) fn failing(&self, is_failing: bool) {
        if is_failing { self.failing.inc() } else { self.failing.dec() }
    }

    pub(super) fn expiries(&self, expiries: &[(&'static str, i64)]) {
        for (of, seconds) in expiries {
            self.expiry.with_label_values(&[of]).set(*seconds);
        }
    }

    pub(super) fn record_accepted(&self, is_resumed: bool) {
        self.handshakes.with_label_values(&[if is_resumed { "resumed" } else { "full" }]).inc();
    }

    pub(crate) fn refused(&self, reason: Refusal) {
        self.refusals.with_label_values(&[reason.label()]).inc();
    }
}
