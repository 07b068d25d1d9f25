//! A payment provider on a real socket that answers by a test's script, and records its requests.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chassis::server::{Limits, Server};
use chassis::shutdown::Shutdown;
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use tokio::net::TcpListener;

/// Status and body for the request with this `invoice_id`.
type Script = fn(u64) -> (u16, &'static str);

/// A provider, which ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Provider {
    script: Script,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Provider {
    /// Starts a provider; returns it and its URL.
    pub(crate) async fn start(script: Script) -> (Self, String) {
        let provider = Self { script, asked: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/charge", listener.local_addr().unwrap());
        let router = Router::new().route("/charge", post(charge)).with_state(provider.clone());
        tokio::spawn(Server::new(listener, router, Limits::default()).serve(Shutdown::new()));
        (provider, url)
    }

    /// The invoices that it was asked to charge, sorted.
    pub(crate) fn asked(&self) -> Vec<u64> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_unstable();
        asked
    }
}

async fn charge(State(provider): State<Provider>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let invoice = body["invoice_id"].as_u64().unwrap();
    provider.asked.lock().unwrap().push(invoice);
    let (status, answer) = (provider.script)(invoice);
    let key = headers.get("idempotency-key").unwrap().clone();
    let headers =
        [("idempotency-key", key), (header::CONTENT_TYPE.as_str(), "application/json".parse().unwrap())];
    (StatusCode::from_u16(status).unwrap(), headers, answer).into_response()
}
