//! Counters, gauges and histograms of one service, in a registry of its own, printed for Prometheus.
//! Must not know the metrics of a service.

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Media type of the text from [`Metrics::render`].
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds in seconds: from a local answer to the longest wait of a legacy route.
const SECONDS_BUCKETS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];

/// One service's metrics. Clones share the registry. Each function registers a new name and panics when the name is
/// in use or invalid, because that is a mistake in the code that every start would show.
#[derive(Clone, Debug)]
pub struct Metrics(Registry);

impl Metrics {
    pub(super) fn new(version: &str, revision: &str) -> Self {
        let metrics = Self(Registry::new());
        metrics
            .0
            .register(Box::new(ProcessCollector::for_self()))
            .expect("an empty registry takes any collector");
        let info = metrics.gauges(
            "build_info",
            "Version and revision of the running program. Always 1",
            &["version", "revision"],
        );
        info.with_label_values(&[version, revision]).set(1);
        metrics
    }

    /// The registry itself.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0
    }

    /// A counter without labels.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect("metric names in the code are sound"))
    }

    /// A counter per combination of labels.
    #[must_use]
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(
            IntCounterVec::new(Opts::new(name, help), labels).expect("metric names in the code are sound"),
        )
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect("metric names in the code are sound"))
    }

    /// A gauge per combination of labels.
    #[must_use]
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(
            IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names in the code are sound"),
        )
    }

    /// A histogram of seconds per combination of labels; its name ends in `_seconds`.
    #[must_use]
    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(SECONDS_BUCKETS.to_vec());
        self.register(HistogramVec::new(options, labels).expect("metric names in the code are sound"))
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.0.gather(), &mut text).expect("a vector takes any text");
        text
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect("each metric name is registered once");
        collector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render()).unwrap()
    }

    #[test]
    fn build_and_process_are_there_from_the_start() {
        let text = text(&Metrics::new("1.2.3", "abc123"));
        assert!(text.contains(r#"build_info{revision="abc123",version="1.2.3"} 1"#), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn what_is_counted_is_printed() {
        let metrics = Metrics::new("1", "a");
        metrics.counter("settle_conflicts_total", "Conflicts").inc();
        metrics.counters("attempts_total", "Attempts", &["outcome"]).with_label_values(&["paid"]).inc_by(3);
        metrics.gauge("breaker_open", "Open").set(1);
        metrics.seconds("wait_seconds", "Wait", &["route"]).with_label_values(&["/"]).observe(0.004);
        let text = text(&metrics);
        for line in [
            "# TYPE settle_conflicts_total counter",
            "settle_conflicts_total 1",
            r#"attempts_total{outcome="paid"} 3"#,
            "breaker_open 1",
            r#"wait_seconds_bucket{route="/",le="0.0025"} 0"#,
            r#"wait_seconds_bucket{route="/",le="0.005"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn two_services_in_one_process_do_not_share_figures() {
        let (one, other) = (Metrics::new("1", "a"), Metrics::new("1", "a"));
        one.counter("ours_total", "Ours").inc();
        assert!(!text(&other).contains("ours_total"));
    }

    #[test]
    #[should_panic(expected = "registered once")]
    fn a_name_registered_twice_stops_the_start() {
        let metrics = Metrics::new("1", "a");
        let _first = metrics.counter("ours_total", "Ours");
        let _second = metrics.counter("ours_total", "Ours");
    }
}
