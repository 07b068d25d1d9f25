//! The spans of an attempt in billing: the whole attempt, from its journal row to its settlement, and the settlement.
//! Decides nothing; knows no exporter. Holds nothing unless the attempt's trace is sampled.

use std::collections::HashMap;

use chassis::telemetry::{Kind, Span, TraceContext};

use super::engine::EngineContext;
use crate::invoice::Attempt;
use crate::protocol::key::Key;
use crate::protocol::transition::{Outcome, Settlement};

/// An attempt that has its response and waits for its settlement. If dropped earlier, it records no span of the whole
/// attempt: the process that settles the attempt later does that.
#[derive(Debug)]
pub(super) struct AttemptTrace {
    whole: Span,
    settling: Span,
}

/// The sampled attempts of one batch.
pub(super) type AttemptTraces = HashMap<Key, AttemptTrace>;

impl EngineContext {
    /// Begins the settlement span of this attempt; `None` unless sampled. `run` is the span in which the attempt was
    /// sent.
    pub(super) fn trace_settlement(
        &self,
        whole: Option<TraceContext>,
        run: Option<TraceContext>,
        attempt: &Attempt,
    ) -> Option<AttemptTrace> {
        let context = whole.filter(TraceContext::is_sampled)?;
        let tracer = self.provider.tracer();
        let mut whole = tracer.span(context, None, Kind::Internal, "charge");
        // Not with a simulation's clock: all other spans use the machine's clock.
        if self.clock.as_virtual().is_none() {
            whole.began_at_ms(attempt.created_at);
        }
        whole.set_attribute("attempt.key", attempt.key.as_str().to_owned());
        whole.set_attribute("attempt.number", i64::from(attempt.number));
        whole.set_attribute("attempt.sends", i64::from(attempt.sends));
        whole.set_attribute("invoice.id", attempt.invoice_id.0);
        whole.set_attribute("run.id", attempt.run_id.0);
        if let Some(run) = run {
            whole.set_attribute("run.trace_id", run.trace_id());
        }
        let settling = tracer.span(context.child(&self.random), Some(context), Kind::Internal, "settle");
        Some(AttemptTrace { whole, settling })
    }
}

impl AttemptTrace {
    /// Records that the outcome is durable. This ends the span of the whole attempt, unless the attempt is sent again.
    pub(super) fn settled(mut self, settlement: &Settlement) {
        drop(std::mem::take(&mut self.settling));
        let outcome = settlement.outcome;
        let Some(state) = outcome.attempt().filter(|_| outcome != Outcome::InDoubt(None)) else { return };
        self.whole.set_attribute("attempt.state", state.as_str());
        if let Some(reason) = outcome.attention() {
            self.whole.fail(reason.as_str());
        }
        drop(std::mem::take(&mut self.whole));
    }
}

impl Drop for AttemptTrace {
    fn drop(&mut self) {
        self.whole.discard();
        self.settling.discard();
    }
}
