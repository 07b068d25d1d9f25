//! The provider's ledger as this process knows it: the ledger that the store settles with, and its last row that was
//! seen. Requests are built from this state; the store holds the durable copy. Knows no answer and no HTTP.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::store::LedgerSeen;

/// Former ledgers that are remembered. An operator accepted each replacement.
const FORMER_MAX: usize = 100;

/// The remembered ledger, if any.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    known: RwLock<Option<Arc<Known>>>,
    /// Ids of ledgers that were replaced while this process ran, the latest last.
    former: Mutex<Vec<String>>,
}

/// One ledger. Each newly accepted ledger is a new value, so that rows of the former ledger are not counted as its own.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: String,
    /// The last row that any answer named; 0 before the first one.
    seen: AtomicI64,
    /// The last row that the store holds.
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
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the ledger to settle with from now on.
    pub(super) fn remember(&self, ledger: &str) {
        self.take_in(Some(LedgerSeen { ledger_id: ledger.to_owned(), seq: 0 }));
    }

    /// Accepts this ledger by an operator's decision here, also a ledger that was replaced before.
    pub(super) fn accept(&self, ledger: &str) {
        self.former.lock().unwrap_or_else(PoisonError::into_inner).retain(|former| former != ledger);
        self.remember(ledger);
    }

    /// Applies what the store holds: another process may have seen more. Ignores a ledger that was replaced: a store
    /// that names it is a database server from before a failover, and its ledger may be just as old.
    pub(super) fn take_in(&self, stored: Option<LedgerSeen>) {
        let Some(LedgerSeen { ledger_id, seq }) = stored else { return };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.id == ledger_id) {
            known.seen.fetch_max(seq, Ordering::Relaxed);
            known.kept.fetch_max(seq, Ordering::Relaxed);
            return;
        }
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        if former.contains(&ledger_id) {
            tracing::error!(
                ledger.id = ledger_id,
                "the store names a ledger that was replaced: it may be a database server of before a failover, \
                 unless an operator has accepted that ledger again elsewhere and billing has to be started again"
            );
            return;
        }
        let next = Arc::new(Known { id: ledger_id, seen: seq.into(), kept: seq.into() });
        if let Some(replaced) = known.replace(next) {
            former.push(replaced.id.clone());
            if former.len() > FORMER_MAX {
                former.remove(0);
            }
        }
    }

    /// Records that an answer of this ledger named this row.
    pub(super) fn see(&self, ledger: &str, seq: i64) {
        if let Some(known) = self.known().filter(|known| known.id == ledger) {
            known.seen.fetch_max(seq, Ordering::Relaxed);
        }
    }

    /// The last row that was seen, if the store does not hold it yet.
    pub(super) fn unkept(&self) -> Option<LedgerSeen> {
        let known = self.known()?;
        let seq = known.seen.load(Ordering::Relaxed);
        (seq > known.kept.load(Ordering::Relaxed)).then(|| LedgerSeen { ledger_id: known.id.clone(), seq })
    }

    /// Records that the store now holds this row.
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
    fn a_ledger_that_was_replaced_comes_back_only_by_an_operator() {
        let ledger = Ledger::new(Some(LedgerSeen { ledger_id: "a".to_owned(), seq: 5 }));
        let id = || ledger.known().map(|known| known.id.clone());
        ledger.accept("b");
        ledger.take_in(Some(LedgerSeen { ledger_id: "a".to_owned(), seq: 9 }));
        assert_eq!(id().as_deref(), Some("b"), "a server of before the failover");
        ledger.take_in(Some(LedgerSeen { ledger_id: "c".to_owned(), seq: 0 }));
        assert_eq!(id().as_deref(), Some("c"), "accepted at another process");
        ledger.accept("a");
        assert_eq!(id().as_deref(), Some("a"));
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
