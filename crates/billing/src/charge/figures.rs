//! The engine's metrics. Knows no attempt and no store.

use chassis::telemetry::Metrics;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::invoice::InvoiceState;
use crate::protocol::transition::Outcome;
use crate::store::Counts;

/// What the engine counts and shows.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    attempts: IntCounterVec,
    invoices: IntGaugeVec,
    /// Settlements that met another outcome: must stay 0.
    pub(super) conflicts: IntCounter,
    /// 1 while the breaker is open.
    pub(super) breaker_open: IntGauge,
}

impl Figures {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let figures = Self {
            attempts: metrics.counters(
                "billing_attempts_total",
                "Deliveries of attempts, by what was recorded of them",
                &["outcome"],
            ),
            invoices: metrics.gauges("billing_invoices", "Invoices by state", &["state"]),
            conflicts: metrics.counter(
                "billing_settle_conflicts_total",
                "Answers that contradict what was recorded; anything but 0 needs a person",
            ),
            breaker_open: metrics.gauge("billing_breaker_open", "1 while the provider is not called"),
        };
        for word in ["charged", "refused", "rejected", "voided", "in_doubt", "not_sent"] {
            figures.attempts.with_label_values(&[word]).reset();
        }
        figures.invoices(Counts::default());
        figures
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
            self.invoices.with_label_values(&[state.word()]).set(count);
        }
    }
}
