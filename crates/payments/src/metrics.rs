//! Business metrics. Knows no routes; requests are counted by chassis.

use chassis::telemetry::Metrics;
use prometheus::{IntCounter, IntCounterVec};

use crate::faults::script::Fault;
use crate::ledger::State;

/// The business counters of one service. Clones share them.
#[derive(Clone, Debug)]
pub struct Counters {
    charged: IntCounter,
    refused: IntCounter,
    replays: IntCounter,
    faults: IntCounterVec,
}

impl Counters {
    /// Registers the counters, so that each series exists from the start.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let charges = metrics.counters("payments_charges_total", "Executed charges by state", &["state"]);
        let faults = metrics.counters("payments_faults_total", "Injected faults by kind", &["fault"]);
        for word in Fault::NAMES {
            faults.with_label_values(&[word]).inc_by(0);
        }
        Self {
            charged: charges.with_label_values(&[State::Charged.as_str()]),
            refused: charges.with_label_values(&[State::Refused.as_str()]),
            replays: metrics.counter("payments_replays_total", "Responses replayed for a known key"),
            faults,
        }
    }

    /// Counts one execution.
    pub fn executed(&self, state: State) {
        if state == State::Charged { self.charged.inc() } else { self.refused.inc() }
    }

    /// Counts one answer from the ledger.
    pub fn replayed(&self) {
        self.replays.inc();
    }

    /// Counts one fault.
    pub fn count_fault(&self, fault: &Fault) {
        self.faults.with_label_values(&[fault.as_str()]).inc();
    }
}
