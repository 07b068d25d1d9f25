//! Authentication by the head of a request alone, and the ledger's id on every response.
//! Knows no route's meaning.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chassis::caller::{Presented, Refusal, bearer};
use chassis::problem::Problem;
use chassis::server::{CrossSite, NOT_EXECUTED, is_safe};
use chassis::tls::PeerName;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::App;

/// Header with the token of legacy clients.
const TOKEN: HeaderName = HeaderName::from_static("x-token");

/// Header with the ledger's id in each answer.
const LEDGER_ID: HeaderName = HeaderName::from_static("ledger-id");

/// Authenticates a request and adds its account; all rejections get the same response.
pub(super) async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if app.0.callers.is_open()
        && !is_safe(request.method())
        && let Err(why) = app.0.cross_site.check(request.uri(), request.headers())
    {
        return cross_site_response(app.0.callers.refuse(why.into()), why);
    }
    let headers = request.headers();
    // The first of several headers counts, as in the existing payment service. A value that is no text authenticates no
    // caller.
    let token = headers.get(TOKEN).map(|value| value.to_str().unwrap_or_default());
    let name = request.extensions().get::<PeerName>();
    let presented = Presented { name, bearer: bearer(headers), token };
    match app.0.callers.admit(&presented).await {
        Ok(account) => {
            tracing::info!("Authenticated user {account}");
            request.extensions_mut().insert(account);
            next.run(request).await
        }
        Err((why, Some(wait))) => {
            tracing::warn!(reason = why.label(), "an account exceeded its rate limit");
            rate_limited_response(wait)
        }
        Err((why, None)) => {
            tracing::info!(reason = why.label(), "Unauthenticated user");
            (StatusCode::FORBIDDEN, "Forbidden\n").into_response()
        }
    }
}

/// The refusal of a write by a page of another site, or under a rebound name; nothing was executed.
fn cross_site_response(refusal: Refusal, why: CrossSite) -> Response {
    tracing::warn!(reason = refusal.label(), "a write from another site without a credential was refused");
    let mut response = Problem::new(StatusCode::FORBIDDEN).detail(why.reason()).into_response();
    response.headers_mut().insert(NOT_EXECUTED, HeaderValue::from_static("true"));
    response
}

/// The refusal above the rate limit: nothing was executed, and the same call may be repeated.
fn rate_limited_response(wait: Duration) -> Response {
    let seconds = HeaderValue::from(wait.as_secs().max(1));
    let problem =
        Problem::new(StatusCode::TOO_MANY_REQUESTS).detail("this account calls more often than it may");
    let mut response = problem.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response.headers_mut().insert(NOT_EXECUTED, HeaderValue::from_static("true"));
    response
}

/// Adds the ledger's id to an answer.
pub(super) async fn name_ledger(ledger_id: HeaderValue, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(LEDGER_ID, ledger_id);
    response
}
