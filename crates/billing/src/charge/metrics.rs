//! The engine's metrics. Knows no attempt and no store.

use chassis::telemetry::Metrics;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::invoice::InvoiceState;
use crate::protocol::transition::Outcome;
use crate::store::Counts;

/// The engine's metrics.
#[derive(Clone, Debug)]
pub(super) struct ChargeMetrics {
    attempts: IntCounterVec,
    invoices: IntGaugeVec,
    /// Settlements that met another outcome: must stay 0.
    pub(super) conflicts: IntCounter,
    /// 1 while the breaker is open.
    pub(super) breaker_open: IntGauge,
}

impl ChargeMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let metrics = Self {
            attempts: metrics.counters(
                "billing_attempts_total",
                "Deliveries of attempts by recorded outcome",
                &["outcome"],
            ),
            invoices: metrics.gauges("billing_invoices", "Invoices by state", &["state"]),
            conflicts: metrics.counter(
                "billing_settle_conflicts_total",
                "Responses that contradict the recorded outcome. Must stay 0",
            ),
            breaker_open: metrics.gauge("billing_breaker_open", "1 while the circuit breaker is open"),
        };
        for word in ["charged", "refused", "rejected", "voided", "in_doubt", "not_sent"] {
            metrics.attempts.with_label_values(&[word]).reset();
        }
        metrics.invoices(Counts::default());
        metrics
    }

    pub(super) fn attempt(&self, outcome: Outcome) {
        let word = match outcome {
            Outcome::Charged => "charged",
            Outcome::Refused => "refused",
            Outcome::Rejected => "rejected",
            Outcome::Voided => "voided",
            Outcome::InDoubt(_) => "in_doubt",
            Outcome::NotSent => "not_sent",
        };
        self.attempts.with_label_values(&[word]).inc();
    }

    pub(super) fn invoices(&self, counts: Counts) {
        for &state in InvoiceState::ALL {
            let count = match state {
                InvoiceState::Pending => counts.pending,
                InvoiceState::Charging => counts.charging,
                InvoiceState::Paid => counts.paid,
                InvoiceState::Attention => counts.attention,
            };
            self.invoices.with_label_values(&[state.as_str()]).set(count);
        }
    }
}
