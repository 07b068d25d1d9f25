//! The console: pages for operators in a browser, complete without scripts and read-only. Knows what a page shows and
//! who may see it; no page knows SQL, and no page writes.

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{HeaderName, HeaderValue, StatusCode, header};
use maud::html;

use self::layout::{Failure, Page};
use super::AppState;
use super::access::Access;

mod assets;
mod attention;
mod charged;
mod customer;
mod invoice;
mod layout;
mod live;
mod overview;
mod query;
mod runs;
mod session;
mod subscriptions;

/// The most rows of one page of a list.
const PAGE_ROWS: usize = 50;

/// Headers of every response. Style and script are served from here only, and no other page may frame this one.
/// `same-origin` instead of `no-referrer`: with the latter a browser sends `Origin: null` with the login form.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// The routes below `/console`.
pub(super) fn routes(state: &AppState) -> Router<AppState> {
    let pages = Router::new()
        .route("/console", get(overview::show))
        .route("/console/attention", get(attention::show))
        .route("/console/customers/{id}", get(customer::show))
        .route("/console/find", get(invoice::find))
        .route("/console/invoices/{reference}", get(invoice::show))
        .route("/console/runs", get(runs::list))
        .route("/console/runs/{id}", get(runs::show))
        .route("/console/subscriptions", get(subscriptions::list))
        .route("/console/subscriptions/{reference}", get(subscriptions::show))
        .route("/console/events", get(live::events).layer(Extension(live::Live::default())))
        .route_layer(from_fn_with_state(state.access.clone(), guard));
    let short = DefaultBodyLimit::max(session::BODY_BYTES_MAX);
    Router::new()
        .route("/console/login", get(session::form).post(session::log_in).layer(short))
        .route("/console/logout", post(session::log_out))
        .route("/console/style.css", get(assets::style))
        .route("/console/script.js", get(assets::script))
        .route("/console/icon.svg", get(assets::icon))
        .merge(pages)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(add_headers))
}

/// Redirects callers without a session to the login form.
async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let session = session::cookie(request.headers());
    if access.may_see_console(request.headers(), session).await {
        return next.run(request).await;
    }
    Redirect::to("/console/login").into_response()
}

async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn wrong_method() -> Response {
    let body = html! { p { "The console only reads: its pages take no other method than GET." } };
    Page::new("Method not allowed", body).answer(StatusCode::METHOD_NOT_ALLOWED)
}

/// A page, or the reason why it cannot be shown.
type Shown = Result<Response, Failure>;
