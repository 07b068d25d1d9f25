//! Whether the caller for whom a task works is still connected when something is about to begin. Code that waits for a
//! database asks just before, so that nothing is executed for a caller that has left meanwhile. Knows no route and no
//! database.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::server::Connection;

tokio::task_local! {
    static OF_THIS_TASK: Presence;
}

/// The caller of one request, if a task works for one. Clones agree on whether something has begun.
#[derive(Clone, Debug, Default)]
pub struct Presence(Option<Arc<Request>>);

#[derive(Debug)]
struct Request {
    connection: Connection,
    has_begun: AtomicBool,
}

impl Presence {
    /// The presence of the caller whose request came on this connection.
    #[must_use]
    pub fn of(connection: Option<&Connection>) -> Self {
        let request = |connection: &Connection| Request {
            connection: connection.clone(),
            has_begun: AtomicBool::new(false),
        };
        Self(connection.map(|connection| Arc::new(request(connection))))
    }

    /// The caller that this task works for; none in a background task of a service.
    #[must_use]
    pub fn of_this_task() -> Self {
        OF_THIS_TASK.try_with(Clone::clone).unwrap_or_default()
    }

    /// Runs a future for this caller. A task that it spawns has no caller, unless it is given a scope too.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        OF_THIS_TASK.scope(self, future).await
    }

    /// Whether something may begin for the caller: `false` when the caller is gone. Once something has begun, the rest
    /// follows even if the caller leaves.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        let Some(request) = &self.0 else { return true };
        if request.has_begun.load(Ordering::Relaxed) {
            return true;
        }
        let stays = !request.connection.is_abandoned();
        if stays {
            request.has_begun.store(true, Ordering::Relaxed);
        }
        stays
    }
}
