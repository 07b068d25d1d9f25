//! Idle connections by authority, the last used first, and how long they are kept. Knows no request.

use super::exchange::Exclusive;
use http::uri::Authority;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Pool {
    idle_for_max: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    connections: HashMap<Authority, Vec<Exclusive>>,
    count: usize,
    /// A task looks after connections that idle for too long.
    is_watched: bool,
}

impl Pool {
    pub(super) fn new(idle_for_max: Duration) -> Self {
        Self { idle_for_max, idle: Mutex::default() }
    }

    /// The connection used last, unless it has idled for too long (then so have all others).
    pub(super) fn take(&self, authority: &Authority) -> Option<Exclusive> {
        let mut idle = self.lock();
        let connection = idle.connections.get_mut(authority)?.pop()?;
        idle.count -= 1;
        drop(idle);
        (connection.idle_since.elapsed() < self.idle_for_max).then_some(connection)
    }

    pub(super) fn put(self: &Arc<Self>, authority: Authority, mut connection: Exclusive) {
        connection.idle_since = Instant::now();
        let mut idle = self.lock();
        idle.connections.entry(authority).or_default().push(connection);
        idle.count += 1;
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self), self.idle_for_max));
        }
    }

    /// Drops idle connections until at most so many are left.
    pub(super) fn keep_at_most(&self, count_max: usize) {
        let mut idle = self.lock();
        let Idle { connections, count, .. } = &mut *idle;
        connections.retain(|_, of_one| {
            let surplus = count.saturating_sub(count_max).min(of_one.len());
            of_one.drain(..surplus);
            *count -= surplus;
            !of_one.is_empty()
        });
    }

    /// Drops what has idled for too long; false when nothing is left.
    fn drop_expired(&self) -> bool {
        let mut idle = self.lock();
        let Idle { connections, count, is_watched } = &mut *idle;
        connections.retain(|_, of_one| {
            let before = of_one.len();
            of_one.retain(|connection| connection.idle_since.elapsed() < self.idle_for_max);
            *count -= before - of_one.len();
            !of_one.is_empty()
        });
        *is_watched = !connections.is_empty();
        *is_watched
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("nothing panics with the pool locked")
    }
}

/// Closes connections that nobody asks for any more; ends with the last one, or with the pool.
async fn watch(pool: std::sync::Weak<Pool>, idle_for_max: Duration) {
    loop {
        tokio::time::sleep(idle_for_max).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.drop_expired() {
            return;
        }
    }
}
