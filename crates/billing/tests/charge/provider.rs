//! A payment provider on a real socket that answers by a test's script, and records every delivery.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chassis::server::{Connection, Limits, Server};
use chassis::shutdown::Shutdown;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// The ledger id in responses, unless a test sets another.
pub(crate) const LEDGER: &str = "11111111-1111-4111-8111-111111111111";

/// One request for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) key: String,
    pub(crate) invoice: u64,
    /// 1 for the first request with this key.
    pub(crate) nth: usize,
    pub(crate) body: String,
    pub(crate) token: Option<String>,
    pub(crate) expect_ledger: Option<String>,
    pub(crate) ledger_seen: Option<String>,
    pub(crate) deployment: Option<String>,
}

/// The response to a delivery, or its absence.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    body: String,
    content_type: &'static str,
    echo: bool,
    ledger: Option<&'static str>,
    seq: Option<u32>,
    not_executed: bool,
    retry_after_s: Option<u32>,
    decline: Option<&'static str>,
    lost: bool,
    held: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: &str) -> Self {
        let (body, content_type, ledger) = (body.to_owned(), "application/json", Some(LEDGER));
        Self {
            status,
            body,
            content_type,
            echo: true,
            ledger,
            seq: None,
            not_executed: false,
            retry_after_s: None,
            decline: None,
            lost: false,
            held: false,
        }
    }

    pub(crate) fn charged() -> Self {
        Self::new(200, r#"{"result":"true"}"#)
    }

    pub(crate) fn refused() -> Self {
        Self::new(200, r#"{"result":"false"}"#)
    }

    /// Adds this `Decline` header.
    pub(crate) fn because(self, decline: &'static str) -> Self {
        Self { decline: Some(decline), ..self }
    }

    pub(crate) fn without_echo(self) -> Self {
        Self { echo: false, ..self }
    }

    pub(crate) fn of_ledger(self, ledger: &'static str) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// Adds this row of the ledger.
    pub(crate) fn with_row(self, seq: u32) -> Self {
        Self { seq: Some(seq), ..self }
    }

    pub(crate) fn not_executed(self) -> Self {
        Self { not_executed: true, ..self }
    }

    /// Adds `Retry-After` in seconds.
    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    pub(crate) fn problem(self) -> Self {
        Self { content_type: "application/problem+json", ..self }
    }

    /// Ends the connection without a response.
    pub(crate) fn lost(self) -> Self {
        Self { lost: true, ..self }
    }

    /// Delays the response until [`Provider::release`].
    pub(crate) fn held(self) -> Self {
        Self { held: true, ..self }
    }
}

type Script = Arc<dyn Fn(&Delivery) -> Reply + Send + Sync>;

/// A provider, which ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

struct Inner {
    script: Mutex<Script>,
    deliveries: Mutex<Vec<Delivery>>,
    voided: Mutex<HashMap<String, u16>>,
    /// Class and code of keys that were refused before they were voided.
    refused: Mutex<HashMap<String, (&'static str, &'static str)>>,
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
    gate: Semaphore,
}

impl Provider {
    pub(crate) async fn start(script: impl Fn(&Delivery) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/charge", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            script: Mutex::new(Arc::new(script)),
            deliveries: Mutex::default(),
            voided: Mutex::default(),
            refused: Mutex::default(),
            under_way: AtomicUsize::new(0),
            under_way_max: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        let provider = Self { url, inner };
        let router = Router::new()
            .route("/charge", post(charge))
            .route("/v1/ledger/{key}/void", post(void))
            .with_state(provider.clone());
        tokio::spawn(Server::new(listener, router, Limits::default()).serve(Shutdown::new()));
        provider
    }

    /// Sets the script for further deliveries.
    pub(crate) fn now(&self, script: impl Fn(&Delivery) -> Reply + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Arc::new(script);
    }

    /// Every delivery so far, in order.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.inner.deliveries.lock().unwrap().clone()
    }

    /// The invoices delivered so far, sorted.
    pub(crate) fn invoices(&self) -> Vec<u64> {
        let mut invoices: Vec<u64> = self.deliveries().iter().map(|delivery| delivery.invoice).collect();
        invoices.sort_unstable();
        invoices
    }

    /// The most deliveries that were ever in flight at once.
    pub(crate) fn under_way_max(&self) -> usize {
        self.inner.under_way_max.load(Ordering::SeqCst)
    }

    /// Sends all held responses, and holds none from now on.
    pub(crate) fn release(&self) {
        self.inner.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Sets the status of the response to a void of this key.
    pub(crate) fn voids(&self, key: &str, status: u16) {
        self.inner.voided.lock().unwrap().insert(key.to_owned(), status);
    }

    /// Makes a void of this key find it refused, with this class and code.
    pub(crate) fn had_refused(&self, key: &str, class: &'static str, code: &'static str) {
        self.voids(key, 200);
        self.inner.refused.lock().unwrap().insert(key.to_owned(), (class, code));
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

async fn charge(
    State(provider): State<Provider>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let inner = &provider.inner;
    let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let key = header(&headers, "idempotency-key").unwrap();
    let delivery = {
        let mut deliveries = inner.deliveries.lock().unwrap();
        let nth = deliveries.iter().filter(|earlier| earlier.key == key).count() + 1;
        let delivery = Delivery {
            nth,
            invoice: read["invoice_id"].as_u64().unwrap(),
            body: String::from_utf8(body.to_vec()).unwrap(),
            token: header(&headers, "x-token"),
            expect_ledger: header(&headers, "expect-ledger"),
            ledger_seen: header(&headers, "ledger-seen"),
            deployment: header(&headers, "deployment-id"),
            key,
        };
        deliveries.push(delivery.clone());
        delivery
    };
    let under_way = inner.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    inner.under_way_max.fetch_max(under_way, Ordering::SeqCst);
    let script = Arc::clone(&*inner.script.lock().unwrap());
    let reply = script(&delivery);
    if reply.held {
        drop(inner.gate.acquire().await.unwrap());
    }
    inner.under_way.fetch_sub(1, Ordering::SeqCst);
    if reply.lost {
        connection.close();
    }
    let mut response = (StatusCode::from_u16(reply.status).unwrap(), reply.body).into_response();
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(reply.content_type));
    if let Some(decline) = reply.decline {
        headers.insert("decline", decline.parse().unwrap());
    }
    if reply.echo {
        headers.insert("idempotency-key", delivery.key.parse().unwrap());
    }
    if let Some(ledger) = reply.ledger {
        headers.insert("ledger-id", HeaderValue::from_static(ledger));
    }
    if let Some(seq) = reply.seq {
        headers.insert("ledger-seq", HeaderValue::from(seq));
    }
    if let Some(seconds) = reply.retry_after_s {
        headers.insert("retry-after", HeaderValue::from(seconds));
    }
    if reply.not_executed {
        headers.insert("not-executed", HeaderValue::from_static("true"));
    }
    response
}

async fn void(State(provider): State<Provider>, Path(key): Path<String>) -> Response {
    let status = provider.inner.voided.lock().unwrap().get(&key).copied().unwrap_or(503);
    let refusal = provider.inner.refused.lock().unwrap().get(&key).copied();
    let state = match refusal {
        Some((class, code)) => {
            format!(r#""REFUSED","decline_class":"{class}","decline_code":"{code}""#)
        }
        None if status == 409 => r#""CHARGED""#.to_owned(),
        None => r#""VOIDED""#.to_owned(),
    };
    let body = format!(r#"{{"key":"{key}","state":{state}}}"#);
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    response.headers_mut().insert("ledger-id", HeaderValue::from_static(LEDGER));
    response
}
