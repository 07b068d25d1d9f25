//! The routes of the billing service, all in one table: both legacy APIs and `/v1` on one port. Assigns every status
//! code; knows the store and the engine by their contracts only.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use axum::{Extension, Router};
use chassis::query;
use chassis::server::{Limits, NotExecuted, Panicked, Shed};
use http::{StatusCode, Uri, header};
use tower::ServiceExt;

use crate::charge::Engine;
use crate::scheduler::Scheduler;
use crate::store::Store;

mod access;
mod antaeus;
mod console;
mod error;
mod invoice_app;
mod list;
mod path;
mod pay;
mod v1;

pub use v1::control::stopped_line;

pub use access::{Access, AccessRules, LegacyRoutes};

/// The OpenAPI document of these routes, written by `make pages`.
pub const OPENAPI: &str = include_str!("../../../../docs/reference/openapi/billing.json");

/// Antaeus' health call.
const HEALTH: &str = "/rest/health";

/// Antaeus' pay call.
const ANTAEUS_PAY: &str = "/rest/v1/invoices/pay";

/// The invoice-app's pay call.
const INVOICE_APP_PAY: &str = "/invoices/pay";

/// State of the routes; clones share it.
#[derive(Clone)]
pub struct AppState {
    /// The store, for plain reads and imports.
    pub store: Arc<dyn Store>,
    /// The engine, for everything that charges.
    pub engine: Engine,
    /// The scheduler, which invoices subscriptions.
    pub scheduler: Arc<Scheduler>,
    /// The access rules.
    pub access: Access,
}

/// The router table.
pub fn router(state: AppState) -> Router {
    // A path under /rest that is not in the table is matched once more, in the table's spelling.
    let waiting = Extension(pay::Waiting::default());
    let table =
        antaeus_routes(any(not_found), &waiting, &state).fallback(not_found).with_state(state.clone());
    // The middleware that counts requests cannot see a route matched in this table, so the response carries its name.
    let table = table.layer(from_fn(name_route));
    let respell = move |request: Request| normalize_path(table.clone(), request);
    antaeus_routes(any(respell.clone()), &waiting, &state)
        .merge(invoice_app_routes(&waiting, &state))
        .merge(v1_routes(&state))
        .merge(console::routes(&state))
        .fallback(respell)
        .with_state(state)
}

/// The routes of Antaeus; `other` answers other methods. The health route is never closed.
fn antaeus_routes(
    other: MethodRouter<AppState>,
    waiting: &Extension<pay::Waiting>,
    state: &AppState,
) -> Router<AppState> {
    let at = || other.clone();
    Router::new()
        .route("/rest/v1/customers", at().get(antaeus::customers))
        .route("/rest/v1/customers/{id}", at().get(antaeus::customer))
        .route("/rest/v1/invoices", at().get(antaeus::invoices))
        .route(ANTAEUS_PAY, at().post(antaeus::pay).layer(waiting.clone()))
        .route("/rest/v1/invoices/{id}", at().get(antaeus::invoice))
        .route_layer(from_fn_with_state(state.access.clone(), access::guard_legacy))
        .route(HEALTH, at().get(antaeus::health))
}

/// The routes of the invoice-app, with or without a trailing slash, and the health paths of its known forks. The health
/// paths are never closed.
fn invoice_app_routes(waiting: &Extension<pay::Waiting>, state: &AppState) -> Router<AppState> {
    let (mut routes, mut health) = (Router::new(), Router::new());
    for slash in ["", "/"] {
        let pay = any(not_found).post(invoice_app::pay).layer(waiting.clone());
        routes = routes
            .route(&format!("/invoices{slash}"), any(not_found).get(invoice_app::invoices))
            .route(&format!("{INVOICE_APP_PAY}{slash}"), pay);
        for path in invoice_app::HEALTH_PATHS {
            health = health.route(&format!("{path}{slash}"), any(not_found).get(invoice_app::healthz));
        }
    }
    routes.route_layer(from_fn_with_state(state.access.clone(), access::guard_legacy)).merge(health)
}

/// The `/v1` API: writes need an operator's token, reads a reader's or an operator's. Its OpenAPI document has no data
/// and is open.
fn v1_routes(state: &AppState) -> Router<AppState> {
    let short = DefaultBodyLimit::max(v1::attempts::RESOLVE_BODY_BYTES_MAX);
    let pages = DefaultBodyLimit::max(v1::repairs::BODY_BYTES_MAX);
    let places = from_fn_with_state(v1::imports::Places::default(), v1::imports::place);
    let writing = Router::new()
        .route("/v1/attempts/{key}/resolve", post(v1::attempts::resolve).layer(short))
        .route("/v1/ledger/accept", post(v1::ledgers::accept))
        .route("/v1/ledger/acknowledgements", post(v1::acknowledgements::create).layer(short))
        .route("/v1/charging/start", post(v1::control::start).layer(short))
        .route("/v1/charging/stop", post(v1::control::stop).layer(short))
        .route("/v1/customers/{id}/hold", post(v1::control::hold_customer).layer(short))
        .route("/v1/customers/{id}/instrument-changed", post(v1::control::change_instrument).layer(short))
        .route("/v1/customers/{id}/network", post(v1::control::set_network).layer(short))
        .route("/v1/customers/{id}/release", post(v1::control::release_customer).layer(short))
        .route("/v1/invoices/{reference}/cancel", post(v1::control::cancel_invoice).layer(short))
        .route("/v1/invoices/{reference}/hold", post(v1::control::hold_invoice).layer(short))
        .route("/v1/invoices/{reference}/release", post(v1::control::release_invoice).layer(short))
        .route("/v1/ledger/unbacked-acknowledgements", post(v1::unbacked::create).layer(short))
        .route("/v1/repairs", post(v1::repairs::create).layer(pages).layer(from_fn(v1::repairs::expect_page)))
        .route("/v1/runs", post(v1::runs::start).layer(short))
        .route("/v1/schedule/runs", post(v1::schedule::run).layer(short))
        .route("/v1/subscriptions", post(v1::subscriptions::create).layer(short))
        .route("/v1/subscriptions/{reference}/{change}", post(v1::subscriptions::change).layer(short))
        .route_layer(from_fn(query::refuse_parameters))
        .route("/v1/imports", post(v1::imports::create).route_layer(places.clone()))
        .route("/v1/subscriptions/imports", post(v1::subscriptions::import).route_layer(places))
        .route_layer(from_fn_with_state(state.access.clone(), access::guard_write));
    Router::new()
        .route("/v1/charging", get(v1::control::show))
        .route("/v1/deployment", get(v1::deployment))
        .route("/v1/invoices/{reference}", get(v1::invoices::one))
        .route("/v1/runs/{id}", get(v1::runs::one))
        .route("/v1/schedule", get(v1::schedule::status))
        .route("/v1/subscriptions/{reference}", get(v1::subscriptions::one))
        .route_layer(from_fn(query::refuse_parameters))
        .route("/v1/attempts", get(v1::attempts::list))
        .route("/v1/runs", get(v1::runs::list))
        .route("/v1/schedule/runs", get(v1::schedule::list))
        .route("/v1/subscriptions", get(v1::subscriptions::list))
        .route("/v1/subscriptions/{reference}/actions", get(v1::subscriptions::actions))
        .route("/v1/invoices", get(v1::invoices::list))
        .route("/v1/ledger/acknowledgements", get(v1::acknowledgements::list))
        .route("/v1/ledger/unbacked-acknowledgements", get(v1::unbacked::list))
        .route("/v1/resolutions", get(v1::resolutions::list))
        .route_layer(from_fn_with_state(state.access.clone(), access::guard_read))
        .merge(writing)
        .merge(
            Router::new()
                .route("/v1/openapi.json", get(v1::openapi))
                .route_layer(from_fn(query::refuse_parameters)),
        )
        .method_not_allowed_fallback(v1::wrong_method)
}

async fn name_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn not_found() -> Response {
    error::not_found_response()
}

async fn normalize_path(table: Router, mut request: Request) -> Response {
    if let Some(uri) = path::normalize_path(request.uri()) {
        *request.uri_mut() = uri;
        return table.oneshot(request).await.unwrap_or_else(|never| match never {});
    }
    if is_v1(request.uri().path()) {
        v1::unknown_path_problem().into_response()
    } else {
        error::not_found_response()
    }
}

/// The routes until the store is open: health paths answer; all other calls get the response for a call that was not
/// executed.
pub fn routes_until_open() -> Router {
    let answer = |uri: Uri| async move {
        let spelled = path::normalize_path(&uri);
        let path = spelled.as_ref().unwrap_or(&uri).path();
        if path == HEALTH {
            return antaeus::health().await;
        }
        if invoice_app::HEALTH_PATHS.contains(&path.strip_suffix('/').unwrap_or(path)) {
            return invoice_app::healthz().await;
        }
        not_executed().answer(&uri, NotExecuted::NotUsable)
    };
    Router::new().fallback(answer)
}

/// The limits of the business port, with each API's response for a shed call and for a panic.
#[must_use]
pub fn limits() -> Limits {
    Limits { shed: not_executed(), panicked: Panicked::new(panic_response), ..Limits::default() }
}

/// The responses to calls that were not executed.
#[must_use]
pub fn not_executed() -> Shed {
    Shed::new(shed_response)
}

/// The response to one call that was not executed.
fn shed_response(uri: &Uri, why: NotExecuted) -> Response {
    response_in_format_of(uri, || Shed::problem(why), error::unavailable_response)
}

/// Response to a call whose handler panicked.
fn panic_response(uri: &Uri) -> Response {
    response_in_format_of(uri, Panicked::problem, error::internal_error_response)
}

/// A response without a handler's result, in the format of the path's API. A pay call answers `false` in any spelling.
fn response_in_format_of(uri: &Uri, v1: impl Fn() -> Response, old: fn() -> Response) -> Response {
    let spelled = path::normalize_path(uri);
    match spelled.as_ref().unwrap_or(uri).path() {
        path if [ANTAEUS_PAY, INVOICE_APP_PAY].contains(&path.trim_end_matches('/')) => {
            antaeus::bool_response(StatusCode::SERVICE_UNAVAILABLE, false)
        }
        path if is_v1(path) => v1(),
        _ => old(),
    }
}

fn is_v1(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/")
}

/// A small response with its length.
fn json(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use chassis::server::Server;
    use chassis::shutdown::Shutdown;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn read(answer: Response) -> (u16, String, String) {
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, 4096).await.unwrap();
        let content_type = head.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (head.status.as_u16(), content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn shed_answer(path: &str) -> (u16, String, String) {
        let head = Request::builder().method("POST").uri(path).body(Body::empty()).unwrap().into_parts().0;
        read(shed_response(&head.uri, NotExecuted::Overloaded)).await
    }

    fn bare_false() -> (u16, String, String) {
        (503, "application/json".to_owned(), "false".to_owned())
    }

    #[tokio::test]
    async fn a_pay_call_that_is_shed_is_answered_false_however_it_is_spelled() {
        for path in ["/rest/v1/invoices/pay", "/Rest/V1/Invoices/Pay/", "/invoices/pay", "/invoices/pay/"] {
            assert_eq!(shed_answer(path).await, bare_false(), "{path}");
        }
    }

    #[tokio::test]
    async fn other_calls_that_are_shed_are_reported_in_the_words_of_their_api() {
        let old = (503, "application/json".to_owned(), "\"unavailable\"".to_owned());
        assert_eq!(shed_answer("/rest/v1/invoices").await, old);
        let (status, content_type, _) = shed_answer("/v1/runs").await;
        assert_eq!((status, content_type.as_str()), (503, "application/problem+json"));
    }

    /// ANT-15
    #[tokio::test]
    async fn a_pay_call_that_panics_is_answered_false_and_others_in_the_words_of_their_api() {
        async fn panics() {
            panic!("a broken invariant");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let server = Server::new(listener, Router::new().fallback(panics), limits());
        let serving = tokio::spawn(server.serve(shutdown.clone()));
        for (path, status, end) in [
            ("/rest/v1/invoices/pay", 503, "\r\n\r\nfalse"),
            ("/REST/v1/invoices/pay/", 503, "\r\n\r\nfalse"),
            ("/invoices/pay", 503, "\r\n\r\nfalse"),
            ("/invoices", 500, "\r\n\r\n\"internal error\""),
            ("/v1/runs", 500, "\"status\":500}"),
        ] {
            let mut peer = TcpStream::connect(address).await.unwrap();
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            peer.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            peer.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            assert!(answer.ends_with(end), "{path}: {answer}");
        }
        shutdown.trigger();
        serving.await.unwrap();
    }
}
