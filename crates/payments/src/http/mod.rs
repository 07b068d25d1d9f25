//! The routes of the three replaced systems and of the ledger, on one port. Knows no SQL and decides no charge; only
//! this module names status codes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use chassis::caller::Callers;
use chassis::query;
use chassis::server::{CrossSiteGuard, NotExecuted, Shed};
use chassis::shutdown::Shutdown;
use http::{HeaderValue, Uri};

use crate::charge::Charger;
use crate::controls::Controls;
use crate::deployments::guard::Guard;
use crate::ledger::{Ledger, LedgerId};

mod antaeus;
mod challenge;
mod controls;
mod deliver;
mod deployments;
mod fields;
mod guard;
mod half;
mod health;
mod pieces;
mod provider;
mod v1;

/// The OpenAPI document of these routes; `make pages` writes it.
pub const OPENAPI: &str = include_str!("../../../../docs/reference/openapi/payments.json");

/// State of the routes. Clones share it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

struct Parts {
    charger: Charger,
    ledger: Arc<dyn Ledger>,
    controls: Controls,
    deployments: Guard,
    /// Operators, who alone may declare deployments. With `None` every caller that may charge may also declare.
    operators: Option<Callers>,
    ledger_id: LedgerId,
    ledger_id_header: HeaderValue,
    callers: Callers,
    /// Guard for callers without credentials: no page of another site may charge.
    cross_site: CrossSiteGuard,
    /// Whether only programs of this machine can reach the routes.
    is_loopback: bool,
    shutdown: Shutdown,
}

impl App {
    /// State for routes over this charger and its ledger.
    #[must_use]
    pub fn new(
        charger: Charger,
        ledger: Arc<dyn Ledger>,
        ledger_id: LedgerId,
        callers: Callers,
        operators: Option<Callers>,
        listen: SocketAddr,
        shutdown: Shutdown,
    ) -> Self {
        let controls = charger.controls().clone();
        let deployments = Guard::new(Arc::clone(&ledger));
        let ledger_id_header =
            HeaderValue::from_str(&ledger_id.to_string()).expect("a uuid is a sound header value");
        Self(Arc::new(Parts {
            charger,
            controls,
            ledger,
            deployments,
            operators,
            ledger_id,
            ledger_id_header,
            callers,
            cross_site: CrossSiteGuard::new(listen),
            is_loopback: listen.ip().is_loopback(),
            shutdown,
        }))
    }
}

/// Every route. All except the open ones authenticate callers, if this is configured; each answer has the ledger's id.
pub fn router(app: App) -> Router {
    let of_one_key = Router::new()
        .route("/v1/ledger/{key}", get(v1::row))
        .route("/v1/ledger/{key}/void", post(v1::void))
        .route_layer(from_fn(query::refuse_parameters));
    let set_by_operators = Router::new()
        .route("/v1/faults", get(controls::faults).put(controls::set_faults).delete(controls::reset_faults))
        .route("/v1/rates", get(controls::rates).put(controls::set_rates).delete(controls::reset_rates))
        .route_layer(DefaultBodyLimit::max(controls::BODY_BYTES_MAX))
        .route_layer(from_fn(query::refuse_parameters));
    let guarded = Router::new()
        .route("/", post(antaeus::pay))
        .route("//", post(antaeus::pay))
        .route("/payments", post(challenge::pay))
        .route("/payments/", post(challenge::pay))
        .route("/payments.json", post(challenge::pay))
        .route("/payments/pay", post(provider::pay))
        .route("/payments/pay/", post(provider::pay))
        .route("/v1/ledger", get(v1::page))
        .route("/v1/deployments", get(deployments::list).post(deployments::declare))
        .merge(of_one_key)
        .merge(set_by_operators)
        .route_layer(from_fn_with_state(app.clone(), guard::authenticate));
    let document = Router::new()
        .route("/v1/openapi.json", get(v1::openapi))
        .route_layer(from_fn(query::refuse_parameters));
    let open = open_routes().merge(document).fallback(health::unknown_path);
    let ledger_id = app.0.ledger_id_header.clone();
    let names_ledger = from_fn(move |request, next| guard::name_ledger(ledger_id.clone(), request, next));
    guarded.merge(open).layer(names_ledger).with_state(app)
}

fn open_routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let routes = Router::new().route("/ping", get(health::ping)).route("/healthz", get(health::healthz));
    health::PATHS.into_iter().fold(routes, |routes, path| routes.route(path, get(health::health)))
}

/// Routes until the ledger is open: they answer that the process is alive, and that nothing was executed.
pub fn routes_until_open() -> Router {
    let not_executed = |uri: Uri| async move { Shed::default().answer(&uri, NotExecuted::NotUsable) };
    open_routes().fallback(not_executed)
}

#[cfg(test)]
mod tests {
    use super::controls::tests::routes;

    #[tokio::test]
    async fn the_document_lists_every_route_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let router = routes(dir.path(), "127.0.0.1:9000", None, true).await;
        let findings = testkit::routes::differences(&format!("{router:?}"), super::OPENAPI, "/no-such-path");
        assert_eq!(findings, Vec::<String>::new(), "crates/tinjis/tests/tidy/openapi/payments.rs");
    }
}
