//! Who may come in, decided on the head of a request alone, and the ledger's name on every answer.
//! Knows no route's meaning.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};

use super::App;

/// Carries the token; what old clients send.
const TOKEN: HeaderName = HeaderName::from_static("x-token");

/// Names the ledger in each answer.
const LEDGER_ID: HeaderName = HeaderName::from_static("ledger-id");

/// Lets a request with a good token pass, with its account; all refusals look alike.
pub(super) async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let presented = request.headers().get(TOKEN).map(|value| value.to_str().unwrap_or_default());
    let Some(account) = app.0.callers.authenticate(presented) else {
        tracing::info!("Unauthenticated user");
        return (StatusCode::FORBIDDEN, "Forbidden\n").into_response();
    };
    tracing::info!("Authenticated user {account}");
    request.extensions_mut().insert(account);
    next.run(request).await
}

/// Adds the ledger's name to an answer.
pub(super) async fn name_ledger(ledger_id: HeaderValue, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(LEDGER_ID, ledger_id);
    response
}
