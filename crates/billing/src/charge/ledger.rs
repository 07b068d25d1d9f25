//! The provider's ledger as this process knows it: which one the store settles with, and the last of its rows that was
//! seen. What is sent comes from here; what is durable, from the store. Knows no answer and no HTTP.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::store::LedgerSeen;

/// The remembered ledger, if any.
#[derive(Debug, Default)]
pub(super) struct Ledger(RwLock<Option<Arc<Known>>>);

/// One ledger. Another one that is accepted is another value, so that rows of the former are not taken for its own.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: String,
    /// The last row that any answer named; 0 before the first.
    seen: AtomicI64,
    /// As far as the store holds it.
    kept: AtomicI64,
}

impl Known {
    /// The last row that was seen.
    pub(super) fn seen(&self) -> Option<i64> {
        Some(self.seen.load(Ordering::Relaxed)).filter(|seq| *seq > 0)
    }
}

impl Ledger {
    pub(super) fn new(stored: Option<LedgerSeen>) -> Self {
        let ledger = Self::default();
        ledger.take_in(stored);
        ledger
    }

    pub(super) fn known(&self) -> Option<Arc<Known>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ledger to settle with from now on.
    pub(super) fn remember(&self, ledger: &str) {
        self.take_in(Some(LedgerSeen { ledger_id: ledger.to_owned(), seq: 0 }));
    }

    /// What the store holds: another process may have seen more.
    pub(super) fn take_in(&self, stored: Option<LedgerSeen>) {
        let Some(LedgerSeen { ledger_id, seq }) = stored else { return };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref().filter(|known| known.id == ledger_id) {
            Some(known) => {
                known.seen.fetch_max(seq, Ordering::Relaxed);
                known.kept.fetch_max(seq, Ordering::Relaxed);
            }
            None => *known = Some(Arc::new(Known { id: ledger_id, seen: seq.into(), kept: seq.into() })),
        }
    }

    /// An answer of this ledger named this row.
    pub(super) fn see(&self, ledger: &str, seq: i64) {
        if let Some(known) = self.known().filter(|known| known.id == ledger) {
            known.seen.fetch_max(seq, Ordering::Relaxed);
        }
    }

    /// What the store does not hold yet.
    pub(super) fn unkept(&self) -> Option<LedgerSeen> {
        let known = self.known()?;
        let seq = known.seen.load(Ordering::Relaxed);
        (seq > known.kept.load(Ordering::Relaxed)).then(|| LedgerSeen { ledger_id: known.id.clone(), seq })
    }

    /// The store holds it now.
    pub(super) fn kept(&self, stored: &LedgerSeen) {
        if let Some(known) = self.known().filter(|known| known.id == stored.ledger_id) {
            known.kept.fetch_max(stored.seq, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ledger: &Ledger) -> Option<i64> {
        ledger.known().and_then(|known| known.seen())
    }

    #[test]
    fn the_last_row_only_grows_and_rows_of_another_ledger_do_not_count() {
        let ledger = Ledger::new(None);
        ledger.see("a", 7);
        assert_eq!(seen(&ledger), None, "no ledger is remembered yet");
        ledger.remember("a");
        for (name, seq) in [("a", 7), ("a", 3), ("b", 9)] {
            ledger.see(name, seq);
        }
        assert_eq!(seen(&ledger), Some(7));
        ledger.take_in(Some(LedgerSeen { ledger_id: "a".to_owned(), seq: 8 }));
        assert_eq!(seen(&ledger), Some(8), "another replica has seen more");
        ledger.remember("b");
        assert_eq!(seen(&ledger), None, "an operator has accepted another ledger");
    }

    #[test]
    fn what_the_store_holds_is_not_written_again() {
        let ledger = Ledger::new(Some(LedgerSeen { ledger_id: "a".to_owned(), seq: 5 }));
        assert_eq!(ledger.unkept(), None);
        ledger.see("a", 6);
        let unkept = ledger.unkept().unwrap();
        assert_eq!(unkept.seq, 6);
        ledger.kept(&unkept);
        assert_eq!(ledger.unkept(), None);
    }
}
