//! Whether the database accepts writes, by the result of its last commit. Knows no job's meaning.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::writer::{Job, Task};

/// Result of the writer's last commit.
#[derive(Debug, Default)]
pub(super) struct Health {
    is_failing: AtomicBool,
    is_probing: AtomicBool,
}

impl Health {
    /// Records the result of a commit.
    pub(super) fn record_commit(&self, is_failed: bool) {
        self.is_failing.store(is_failed, Relaxed);
        self.is_probing.store(false, Relaxed);
    }

    /// Answers from memory. After a failed commit, queues a test write to the schema's own page, one at a time.
    pub(super) fn check(&self, jobs: Option<&mpsc::Sender<Box<dyn Job>>>) -> Result<(), String> {
        if !self.is_failing.load(Relaxed) {
            return Ok(());
        }
        if let Some(jobs) = jobs
            && !self.is_probing.swap(true, Relaxed)
        {
            let rewrite = |connection: &Connection| {
                let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
                connection.pragma_update(None, "user_version", version)
            };
            let (reply, _not_awaited) = oneshot::channel();
            if jobs.try_send(Box::new(Task::new(rewrite, reply))).is_err() {
                self.is_probing.store(false, Relaxed);
            }
        }
        Err("the last commit failed".to_owned())
    }
}
