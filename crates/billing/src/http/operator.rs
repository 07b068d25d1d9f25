//! Authorization of writes through `/v1`: open on a loopback listener without configured tokens, else operators only.
//! Knows tokens and addresses, no route; every refusal looks alike.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chassis::caller::{Callers, Presented, Refusal, bearer};
use chassis::problem::Problem;
use http::{HeaderMap, StatusCode, header};

/// Decides about one call.
#[derive(Clone)]
pub struct OperatorGuard {
    operators: Callers,
    loopback: bool,
}

impl OperatorGuard {
    /// Guards the listener at this address. Without tokens in `operators`, only a loopback listener takes writes.
    #[must_use]
    pub fn new(operators: Callers, listener: SocketAddr) -> Self {
        Self { operators, loopback: listener.ip().to_canonical().is_loopback() }
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.operators.is_open() {
            let presented = Presented { token: bearer(headers), ..Presented::default() };
            return self.operators.admit(&presented).await.map(|_| ()).map_err(|(why, _)| why);
        }
        if !self.loopback {
            return Err(self.operators.refuse(Refusal::Closed));
        }
        // A browser on this machine can reach loopback on behalf of any page; such requests have `Origin`.
        if headers.contains_key(header::ORIGIN) {
            Err(self.operators.refuse(Refusal::Origin))
        } else {
            Ok(())
        }
    }
}

/// Accepts operators; other callers get 403 without details.
pub(super) async fn guard(State(guard): State<OperatorGuard>, request: Request, next: Next) -> Response {
    let Err(why) = guard.admit(request.headers()).await else { return next.run(request).await };
    tracing::warn!(reason = why.label(), "rejected a write without an operator token");
    let detail =
        "this route writes: send `Authorization: Bearer` with an operator token (--operator-token-file)";
    Problem::new(StatusCode::FORBIDDEN).detail(detail).into_response()
}
