//! One call: admitted or shed, run behind a guard against panics, and its answer replaced when the body broke a
//! limit. Knows no route.

use super::body::{AnswerBody, InFlight, RequestBody};
use super::host;
use super::limits::{Limits, NotExecuted};
use super::metrics::ServerMetrics;
use super::registry::HalfOpen;
use super::state::{BodyFailure, Phase, State};
use super::{Connection, Routes};
use crate::problem::Problem;
use crate::tls::ServerTls;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderValue, Request, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::time::Instant;
use tower::Service;

/// Shared by all connections of a server.
pub(super) struct ServerContext {
    pub(super) routes: Routes,
    pub(super) tls: Option<ServerTls>,
    pub(super) half_open: HalfOpen,
    pub(super) limits: Limits,
    /// Whether answers carry the machine's own date.
    pub(super) is_dated: bool,
    pub(super) metrics: ServerMetrics,
    pub(super) in_flight: Arc<AtomicUsize>,
    /// A new connection waits for a place.
    pub(super) is_crowded: AtomicBool,
}

/// Answers one request of a connection.
pub(super) async fn answer(
    shared: Arc<ServerContext>,
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<http::Response<AnswerBody>, Infallible> {
    let (mut head, incoming) = request.into_parts();
    let has_body = !incoming.is_end_stream();
    state.begin_call(has_body, shared.limits.body_bytes_max);
    if let Err(why) = host::check(&head) {
        shared.metrics.refused_host();
        drop(RequestBody::new(incoming, state.clone()));
        let mut response = Problem::new(StatusCode::BAD_REQUEST).detail(why).into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Ok(finish(&shared, &state, response).map(|inner| AnswerBody { inner, _place: None }));
    }
    let Some(place) = InFlight::take(&shared.in_flight, shared.limits.in_flight_max) else {
        shared.metrics.shed();
        drop(RequestBody::new(incoming, state.clone()));
        let response = finish(&shared, &state, shared.limits.shed.answer(&head.uri, NotExecuted::Overloaded));
        return Ok(response.map(|inner| AnswerBody { inner, _place: None }));
    };
    head.extensions.insert(Connection {
        state: state.clone(),
        asked_at: Instant::now(),
        is_tls: shared.tls.is_some(),
    });
    if let Some(name) = state.peer_name.get() {
        head.extensions.insert(name.clone());
    }
    let body = match has_body {
        true => Body::new(RequestBody::new(incoming, state.clone())),
        false => Body::empty(),
    };
    let request = Request::from_parts(head, body);
    let response = run(&shared, request).await;
    let response = match state.seen_body_failure() {
        None => response,
        Some(failure) => {
            shared.metrics.refused_body(failure);
            refused_body(failure, response)
        }
    };
    Ok(finish(&shared, &state, response).map(|inner| AnswerBody { inner, _place: Some(place) }))
}

/// Marks the response as the last one of the connection: the rest of the request's body is not read, another
/// connection waits for this place, or the connection is old.
fn finish(shared: &ServerContext, state: &State, mut response: Response) -> Response {
    if !state.is_body_whole() || shared.is_crowded.load(Relaxed) || state.is_aged() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    state.enter(Phase::Answer);
    response
}

/// Calls the router; a panic fails only this call.
async fn run(shared: &ServerContext, request: Request<Body>) -> Response {
    let mut router = shared.routes.now();
    let uri = request.uri().clone();
    match AssertUnwindSafe(async move { router.call(request).await }).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => {
            tracing::error!(panic = panic_message(&*panic), "a handler panicked");
            shared.limits.panicked.answer(&uri)
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}

/// The answer to a call whose body failed. The handler cannot have had the whole body, so that its answer is replaced;
/// only for a broken body its own 400 is kept.
fn refused_body(failure: BodyFailure, by_handler: Response) -> Response {
    let status = match failure {
        BodyFailure::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        BodyFailure::Late => StatusCode::REQUEST_TIMEOUT,
        BodyFailure::Broken if by_handler.status() == StatusCode::BAD_REQUEST => return by_handler,
        BodyFailure::Broken => StatusCode::BAD_REQUEST,
    };
    Problem { detail: failure.to_string(), ..Problem::new(status) }.into_response()
}
