//! The open connections of one server: a message can be sent to all, and the one that was idle for longest can be closed. Does
//! not count them: that is the accept loop's semaphore.

use super::state::{CLOSE, DRAIN, Phase, State};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Default)]
pub(super) struct ConnectionRegistry(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    next: u64,
    open: HashMap<u64, Arc<State>>,
}

/// Keeps a connection on the roster until dropped.
pub(super) struct Entry {
    id: u64,
    registry: ConnectionRegistry,
}

impl ConnectionRegistry {
    pub(super) fn enter(&self, state: Arc<State>) -> Entry {
        let mut entries = self.lock();
        let id = entries.next;
        entries.next += 1;
        entries.open.insert(id, state);
        Entry { id, registry: self.clone() }
    }

    pub(super) fn ask_all(&self, what: u32) {
        for state in self.lock().open.values() {
            state.ask(what);
        }
    }

    /// Closes the connection that was idle for longest, since its last response or since it was opened without a request,
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

/// The handshakes under way, the oldest first.
pub(super) struct HalfOpen {
    count_max: usize,
    under_way: Mutex<(u64, BTreeMap<u64, Arc<State>>)>,
}

/// Counts a handshake until dropped.
pub(super) struct HalfOpened<'a> {
    id: u64,
    among: &'a HalfOpen,
}

impl HalfOpen {
    pub(super) fn new(count_max: usize) -> Self {
        Self { count_max, under_way: Mutex::default() }
    }

    /// Takes one more; beyond the limit the oldest is asked to go.
    pub(super) fn enter(&self, state: Arc<State>) -> HalfOpened<'_> {
        let mut under_way = self.lock();
        under_way.0 += 1;
        let id = under_way.0;
        if under_way.1.len() >= self.count_max
            && let Some((_, oldest)) = under_way.1.pop_first()
        {
            oldest.ask(CLOSE);
        }
        under_way.1.insert(id, state);
        HalfOpened { id, among: self }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<State>>)> {
        self.under_way.lock().expect("nothing panics with the handshakes locked")
    }
}

impl Drop for HalfOpened<'_> {
    fn drop(&mut self) {
        self.among.lock().1.remove(&self.id);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().open.remove(&self.id);
    }
}
