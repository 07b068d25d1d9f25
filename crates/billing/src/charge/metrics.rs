//! The engine's metrics. Knows no attempt and no store.

use std::time::Duration;

use chassis::telemetry::Metrics;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::invoice::{DeclineClass, InvoiceState};
use crate::protocol::transition::Outcome;
use crate::store::Counts;
use crate::store::ages::Ages;

#[derive(Clone, Debug)]
pub(super) struct ChargeMetrics {
    attempts: IntCounterVec,
    declines: IntCounterVec,
    invoices: IntGaugeVec,
    /// Settlements that contradict a recorded outcome: must stay 0.
    pub(super) conflicts: IntCounter,
    /// 1 while the breaker is open.
    pub(super) breaker_open: IntGauge,
    /// 1 while an operator has stopped all charging.
    pub(super) stopped: IntGauge,
    provider: Histogram,
    run_started: IntGauge,
    run_succeeded: IntGauge,
    oldest_pending: IntGauge,
    overdue: IntGauge,
    oldest_in_doubt: IntGauge,
}

impl ChargeMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let metrics = Self {
            attempts: metrics.counters(
                "billing_attempts_total",
                "Deliveries of attempts by recorded outcome",
                &["outcome"],
            ),
            declines: metrics.counters(
                "billing_declines_total",
                "Refused attempts by the class of the decline",
                &["class"],
            ),
            invoices: metrics.gauges("billing_invoices", "Invoices by state", &["state"]),
            conflicts: metrics.counter(
                "billing_settle_conflicts_total",
                "Responses that contradict the recorded outcome. Must stay 0",
            ),
            breaker_open: metrics.gauge("billing_breaker_open", "1 while the circuit breaker is open"),
            stopped: metrics
                .gauge("billing_charging_stopped", "1 while an operator has stopped all charging"),
            provider: metrics
                .seconds(
                    "billing_provider_request_duration_seconds",
                    "Time of one charge request to the provider, whatever came of it",
                    &[],
                )
                .with_label_values(&[] as &[&str]),
            run_started: metrics.gauge(
                "billing_run_last_started_timestamp_seconds",
                "When the last run began, on any replica; 0 if there was none",
            ),
            run_succeeded: metrics.gauge(
                "billing_run_last_success_timestamp_seconds",
                "When the last run ended that nothing kept from charging; 0 if there was none",
            ),
            overdue: metrics.gauge(
                "billing_overdue_invoices",
                "Declined invoices that are not tried again by themselves",
            ),
            oldest_pending: metrics.gauge(
                "billing_oldest_pending_seconds",
                "Age of the PENDING invoice that came first; 0 if there is none",
            ),
            oldest_in_doubt: metrics.gauge(
                "billing_oldest_in_doubt_seconds",
                "Age of the oldest attempt whose outcome is unknown; 0 if there is none",
            ),
        };
        for word in ["charged", "refused", "rejected", "voided", "in_doubt", "not_sent"] {
            metrics.attempts.with_label_values(&[word]).reset();
        }
        for class in DeclineClass::ALL {
            metrics.declines.with_label_values(&[class.as_str()]).reset();
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

    pub(super) fn declined(&self, class: DeclineClass) {
        self.declines.with_label_values(&[class.as_str()]).inc();
    }

    pub(super) fn provider_answered(&self, after: Duration) {
        self.provider.observe(after.as_secs_f64());
    }

    /// The number of requests sent, and their mean duration in microseconds.
    pub(super) fn provider_requests(&self) -> (u64, Option<u64>) {
        let (count, seconds) = (self.provider.get_sample_count(), self.provider.get_sample_sum());
        let total = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let mean = u32::try_from(count).ok().and_then(|count| total.checked_div(count));
        (count, mean.and_then(|mean| u64::try_from(mean.as_micros()).ok()))
    }

    pub(super) fn declines_by_class(&self) -> Vec<(DeclineClass, u64)> {
        let count = |class: DeclineClass| self.declines.with_label_values(&[class.as_str()]).get();
        DeclineClass::ALL.iter().map(|class| (*class, count(*class))).collect()
    }

    pub(super) fn ages(&self, ages: Ages, now_ms: i64) {
        const MS_PER_S: i64 = 1000;
        self.run_started.set(ages.run_started_at.unwrap_or(0) / MS_PER_S);
        self.run_succeeded.set(ages.run_succeeded_at.unwrap_or(0) / MS_PER_S);
        // The store's clock may be ahead of this process's.
        let age_s = |at: Option<i64>| at.map_or(0, |at| now_ms.saturating_sub(at).max(0)) / MS_PER_S;
        self.oldest_pending.set(age_s(ages.oldest_pending_at));
        self.oldest_in_doubt.set(age_s(ages.oldest_in_doubt_at));
        self.overdue.set(ages.overdue);
    }

    pub(super) fn invoices(&self, counts: Counts) {
        for &state in InvoiceState::ALL {
            let count = match state {
                InvoiceState::Pending => counts.pending,
                InvoiceState::Charging => counts.charging,
                InvoiceState::Paid => counts.paid,
                InvoiceState::Attention => counts.attention,
                InvoiceState::Cancelled => counts.cancelled,
            };
            self.invoices.with_label_values(&[state.as_str()]).set(count);
        }
    }
}
