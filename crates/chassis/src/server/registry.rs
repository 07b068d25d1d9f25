//! The open connections of one server: all can be signalled, and those that hold a place without use are closed. Does
//! not count them: that is the accept loop's semaphore.

use super::state::{CLOSE, DRAIN, EVICT, Phase, State};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

/// Number of connections that are closed when one place is needed: in a flood the next new connections find a place
/// without another search.
const EVICTED_AT_ONCE: usize = 4;

#[derive(Clone, Default)]
pub(super) struct ConnectionRegistry(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    next: u64,
    open: HashMap<u64, Arc<State>>,
}

/// Keeps a connection in the registry until dropped.
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

    /// Closes the connection that was idle for longest, since its last response or its accept, if that is long enough.
    /// If it has a request by then, it answers that first.
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

    /// Closes connections that take long over sending a request or over their last answer: the oldest of any peer that
    /// has more than its share, whatever their age, else the oldest of all that are old enough. Returns whether there
    /// were any.
    pub(super) fn evict(&self, share: usize, since_ms_max: Option<u64>) -> bool {
        let entries = self.lock();
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for state in entries.open.values() {
            *held.entry(state.peer.ip()).or_default() += 1;
        }
        let is_over = |state: &State| held.get(&state.peer.ip()).is_some_and(|count| *count > share);
        let takes_long = |state: &State| match state.phase() {
            Phase::Handshake | Phase::Head | Phase::Body | Phase::LongBody | Phase::Closing => true,
            // These count as idle otherwise: only a peer with too many connections loses one early.
            Phase::FirstByte => is_over(state),
            Phase::Idle | Phase::Call | Phase::Answer => false,
        };
        // The maximum at first: the connection's driver has not begun.
        let slow = entries
            .open
            .values()
            .filter(|state| state.since_ms.load(Relaxed) != u64::MAX && takes_long(state));
        let (mut over, mut old): (Vec<_>, Vec<_>) = slow.partition(|state| is_over(state));
        old.retain(|state| since_ms_max.is_some_and(|max| state.since_ms.load(Relaxed) <= max));
        let victims = if over.is_empty() { &mut old } else { &mut over };
        victims.sort_unstable_by_key(|state| state.since_ms.load(Relaxed));
        for state in victims.iter().take(EVICTED_AT_ONCE) {
            state.ask(if state.phase() == Phase::FirstByte { DRAIN } else { EVICT });
        }
        !victims.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("nothing panics with the roster locked")
    }
}

/// The handshakes under way, with the oldest first.
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

    /// Adds a handshake; beyond the limit the oldest is closed.
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
