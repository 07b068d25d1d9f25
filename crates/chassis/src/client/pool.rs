//! Idle connections by authority, most recently used first. Knows no request.

use super::exchange::Http1Connection;
use http::uri::Authority;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) struct Pool {
    idle_for_max: Duration,
    idle: Mutex<Idle>,
    kept: Notify,
}

#[derive(Default)]
struct Idle {
    connections: HashMap<Authority, Vec<Http1Connection>>,
    /// Whether the task that closes expired connections is running.
    is_watched: bool,
}

impl Pool {
    pub(super) fn new(idle_for_max: Duration) -> Self {
        Self { idle_for_max, idle: Mutex::default(), kept: Notify::new() }
    }

    /// The connection used last, unless it has been idle for too long (then so have all others).
    pub(super) fn take(&self, authority: &Authority) -> Option<Http1Connection> {
        let connection = self.lock().connections.get_mut(authority)?.pop()?;
        (connection.idle_since.elapsed() < self.idle_for_max).then_some(connection)
    }

    pub(super) fn put(self: &Arc<Self>, authority: Authority, mut connection: Http1Connection) {
        connection.idle_since = Instant::now();
        let mut idle = self.lock();
        idle.connections.entry(authority).or_default().push(connection);
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(run_expiry_loop(Arc::downgrade(self), self.idle_for_max));
        }
        drop(idle);
        self.kept.notify_waiters();
    }

    /// Waits until a connection is given back, but no longer than `at_most`.
    pub(super) async fn wait_for_kept(&self, at_most: Duration) {
        let _nothing_came = tokio::time::timeout(at_most, self.kept.notified()).await;
    }

    /// Drops idle connections until at most `count_max` are left.
    pub(super) fn keep_at_most(&self, count_max: usize) {
        let mut idle = self.lock();
        let mut surplus = idle.connections.values().map(Vec::len).sum::<usize>().saturating_sub(count_max);
        for of_one in idle.connections.values_mut() {
            let dropped = surplus.min(of_one.len());
            of_one.drain(..dropped);
            surplus -= dropped;
        }
    }

    /// Drops connections that were idle for too long; false when none is left.
    fn drop_expired(&self) -> bool {
        let mut idle = self.lock();
        idle.connections.retain(|_, of_one| {
            of_one.retain(|connection| connection.idle_since.elapsed() < self.idle_for_max);
            !of_one.is_empty()
        });
        idle.is_watched = !idle.connections.is_empty();
        idle.is_watched
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().expect("nothing panics with the pool locked")
    }
}

/// Closes expired idle connections. Ends with the last connection, or with the pool.
async fn run_expiry_loop(pool: std::sync::Weak<Pool>, idle_for_max: Duration) {
    loop {
        tokio::time::sleep(idle_for_max).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.drop_expired() {
            return;
        }
    }
}
