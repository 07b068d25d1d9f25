//! Detects whether two simulations were equal: a hash over all log events, in order.
//! Knows no service; the simulation itself is in `tests/simulation`.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Hashes each event with its fields, of the network and of the services. Clones share the hash.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    hash: Sha256,
    events: u64,
    kept: Option<String>,
}

impl Trace {
    /// A trace that also keeps the text, to find the first difference between two traces.
    #[must_use]
    pub fn keeping() -> Self {
        let trace = Self::default();
        trace.lock().kept = Some(String::new());
        trace
    }

    /// Records a fact that is in no event.
    pub fn note(&self, line: &str) {
        let mut log = self.lock();
        log.events += 1;
        log.hash.update(line.as_bytes());
        log.hash.update(b"\n");
        if let Some(kept) = &mut log.kept {
            kept.push_str(line);
            kept.push('\n');
        }
    }

    /// The first 16 hex digits of SHA-256 over all events so far, and their number.
    #[must_use]
    pub fn digest(&self) -> (String, u64) {
        let log = self.lock();
        let digest = log.hash.clone().finalize();
        let hex = digest.iter().take(8).fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        });
        (hex, log.events)
    }

    /// The text, if this trace keeps it.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.lock().kept.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Trace {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        self.note(&line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_notes_give_the_same_digest_and_another_order_another() {
        let of = |lines: &[&str]| {
            let trace = Trace::default();
            lines.iter().for_each(|line| trace.note(line));
            trace.digest()
        };
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["ab"]), of(&["a", "b"]));
    }
}
