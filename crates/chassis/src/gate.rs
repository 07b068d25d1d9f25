//! Refuses requests before any route runs, where they could only be executed later: while the store is known to be
//! unusable, no write begins. Later, what waits for the store checks that its caller is still connected. Knows no route
//! and no store.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};

use crate::admin::Unmet;
use crate::presence::Presence;
use crate::server::{NotExecuted, Shed, is_safe};

/// Whether the store can be used, from memory.
pub type Usable = Arc<dyn Fn() -> Result<(), Unmet> + Send + Sync>;

/// Wraps all routes that the router has so far. Reads pass: they fail by themselves and change nothing.
pub fn while_usable(router: Router, usable: Usable, shed: Shed) -> Router {
    let gate = move |request: Request, next: Next| {
        let passes = is_safe(request.method()) || usable().is_ok();
        let shed = shed.clone();
        async move {
            if passes && is_safe(request.method()) {
                return next.run(request).await;
            }
            if passes {
                let caller = Presence::of(request.extensions().get());
                return caller.scope(next.run(request)).await;
            }
            shed.answer(request.uri(), NotExecuted::NotUsable)
        }
    };
    router.layer(from_fn(gate))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::server::NOT_EXECUTED;

    #[tokio::test]
    async fn only_what_writes_is_refused_and_only_while_the_store_cannot_be_used() {
        let is_usable = Arc::new(AtomicBool::new(false));
        let look = Arc::clone(&is_usable);
        let usable: Usable =
            Arc::new(
                move || if look.load(Ordering::SeqCst) { Ok(()) } else { Err("away".to_owned().into()) },
            );
        let routes = Router::new().route("/", get(|| async { "read" }).post(|| async { "written" }));
        let router = while_usable(routes, usable, Shed::default());
        let status = |method: &'static str| {
            let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
            let router = router.clone();
            async move {
                let answer = router.oneshot(request).await.unwrap();
                (answer.status().as_u16(), answer.headers().contains_key(NOT_EXECUTED))
            }
        };
        assert_eq!(status("GET").await, (200, false));
        assert_eq!(status("POST").await, (503, true));
        is_usable.store(true, Ordering::SeqCst);
        assert_eq!(status("POST").await, (200, false));
    }
}
