//! What the service counts about its business. Knows no routes; requests are counted elsewhere.

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
    /// Registers them, so that each series is there from the start.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let charges = metrics.counters("payments_charges_total", "Executions by their decision", &["state"]);
        let faults = metrics.counters("payments_faults_total", "Faults done on purpose", &["fault"]);
        for word in Fault::WORDS {
            faults.with_label_values(&[word]).inc_by(0);
        }
        Self {
            charged: charges.with_label_values(&[State::Charged.word()]),
            refused: charges.with_label_values(&[State::Refused.word()]),
            replays: metrics.counter("payments_replays_total", "Answers repeated for a known key"),
            faults,
        }
    }

    /// One more execution.
    pub fn executed(&self, state: State) {
        if state == State::Charged { self.charged.inc() } else { self.refused.inc() }
    }

    /// One more answer out of the ledger.
    pub fn replayed(&self) {
        self.replays.inc();
    }

    /// One more fault.
    pub fn struck(&self, fault: Fault) {
        self.faults.with_label_values(&[fault.word()]).inc();
    }
}
