//! Who may write through `/v1`: anybody who reaches a loopback listener without configured tokens, else operators.
//! Knows tokens and addresses, no route; every refusal looks alike.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chassis::caller::Callers;
use chassis::problem::Problem;
use http::{HeaderMap, StatusCode, header};

/// Decides about one call.
#[derive(Clone)]
pub struct OperatorGuard {
    operators: Arc<Callers>,
    loopback: bool,
}

impl OperatorGuard {
    /// Guards the listener at this address. Without tokens in `operators`, only a loopback listener takes writes.
    #[must_use]
    pub fn new(operators: Callers, listener: SocketAddr) -> Self {
        Self { operators: Arc::new(operators), loopback: listener.ip().to_canonical().is_loopback() }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        if self.operators.is_open() {
            // A browser on this machine reaches loopback for any page; it says so with `Origin`.
            return self.loopback && !headers.contains_key(header::ORIGIN);
        }
        self.operators.authenticate(bearer(headers)).is_some()
    }
}

/// The token of `Authorization: Bearer TOKEN`; `None` when there is none, or more than one such header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let only = values.next().is_none();
    (only && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// Lets operators through; everybody else gets 403 and learns nothing.
pub(super) async fn guard(State(guard): State<OperatorGuard>, request: Request, next: Next) -> Response {
    if guard.admits(request.headers()) {
        return next.run(request).await;
    }
    tracing::warn!("A write without an operator token was refused");
    let detail =
        "this route writes: send `Authorization: Bearer` with an operator token (--operator-token-file)";
    Problem::new(StatusCode::FORBIDDEN).detail(detail).into_response()
}
