//! The open connections of one server: all can be told something, and the one idle for longest asked to go. Does
//! not count them: that is the accept loop's semaphore.

use super::state::{DRAIN, Phase, State};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Default)]
pub(super) struct Roster(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    next: u64,
    open: HashMap<u64, Arc<State>>,
}

/// Keeps a connection on the roster until dropped.
pub(super) struct Entry {
    id: u64,
    roster: Roster,
}

impl Roster {
    pub(super) fn enter(&self, state: Arc<State>) -> Entry {
        let mut entries = self.lock();
        let id = entries.next;
        entries.next += 1;
        entries.open.insert(id, state);
        Entry { id, roster: self.clone() }
    }

    pub(super) fn ask_all(&self, what: u32) {
        for state in self.lock().open.values() {
            state.ask(what);
        }
    }

    /// Asks the connection that has been idle for longest, since an answer or since it was opened and said nothing,
    /// to close, if that is long enough. One that meanwhile has a request answers it first.
    pub(super) fn make_room(&self, idle_since_ms_max: u64) {
        let entries = self.lock();
        let idle = entries.open.values().filter(|state| {
            let is_due = state.since_ms.load(Relaxed) <= idle_since_ms_max;
            is_due && matches!(state.phase(), Phase::FirstByte | Phase::Idle)
        });
        if let Some(state) = idle.min_by_key(|state| state.since_ms.load(Relaxed)) {
            state.ask(DRAIN);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("nothing panics with the roster locked")
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.lock().open.remove(&self.id);
    }
}
