//! Continuous requests without retries: by our client to all three servers, and pay runs that make billing charge.
//! Counts requests, and keeps failures.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chassis::client::{Client, ClientConfig};
use chassis::clock::Clock;
use chassis::telemetry::Telemetry;
use chassis::tls::{ClientFiles, Source, TlsConnect, TlsMetrics};
use http::{Method, Request};
use testkit::wait_until;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::mount::Mount;
use crate::site::Site;
use crate::tokens::Shown;

/// Number of callers for each server.
const CALLERS: usize = 3;
/// Invoices of one pay run.
const INVOICES: usize = 100;
const DONE_WITHIN: Duration = Duration::from_secs(600);

pub(crate) struct Load {
    runtime: Runtime,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    folder: std::path::PathBuf,
}

struct Shared {
    client: Client,
    done: AtomicUsize,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
    /// The credentials of the callers, besides their certificate.
    shown: Mutex<Shown>,
}

fn client(trusted: std::path::PathBuf, folder: &std::path::Path) -> Client {
    let source = |path| Source { setting: "the load".into(), path };
    let files = ClientFiles {
        trusted: Some(source(trusted)),
        system_too: false,
        identity: Some((source(folder.join("client.pem")), source(folder.join("client.key")))),
    };
    let telemetry = Telemetry::new("load", "", "");
    let connect = TlsConnect::open(files, Clock::system(), &TlsMetrics::new(&telemetry.metrics));
    let config = ClientConfig { deadline: Duration::from_secs(60), ..ClientConfig::default() };
    Client::with_connect(config, connect.expect("the mount is sound"))
}

impl Load {
    pub(crate) fn start(mount: &Mount, site: &Site, shown: Shown) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let folder = mount.folder().to_owned();
        let (urls, billing) = (site.calls(), site.urls()[0].replace("/rest/health", ""));
        let shared = runtime.block_on(async {
            Arc::new(Shared {
                client: client(folder.join("ca.pem"), &folder),
                done: AtomicUsize::new(0),
                stop: AtomicBool::new(false),
                failures: Mutex::default(),
                shown: Mutex::new(shown),
            })
        });
        let mut tasks: Vec<JoinHandle<()>> = Vec::new();
        for url in urls {
            for _ in 0..CALLERS {
                let (shared, url) = (shared.clone(), url.clone());
                tasks.push(runtime.spawn(async move {
                    while !shared.stop.load(Relaxed) {
                        shared.call(Method::GET, url.clone(), Bytes::new()).await;
                    }
                }));
            }
        }
        let runs = shared.clone();
        tasks.push(runtime.spawn(async move { pay(&runs, &billing).await }));
        Self { runtime, shared, tasks, folder }
    }

    /// Sets the credentials for all further requests.
    pub(crate) fn show(&self, shown: Shown) {
        *self.shared.shown.lock().expect("no caller panics") = shown;
    }

    /// The status with which payments answer these credentials.
    pub(crate) fn status(&self, site: &Site, shown: &Shown) -> u16 {
        let request = shown.request(Method::GET, &site.calls()[1], Bytes::new());
        let answer = self.runtime.block_on(self.shared.client.send(request));
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Relaxed)
    }

    pub(crate) fn failed(&self) -> usize {
        self.shared.failures.lock().expect("no caller panics").len()
    }

    pub(crate) fn until(&self, requests: usize) {
        wait_until("requests to be answered", DONE_WITHIN, || self.done() >= requests || self.failed() > 0);
    }

    /// Waits until this many more requests are answered.
    pub(crate) fn until_another(&self, requests: usize) {
        self.until(self.done() + requests.max(100));
    }

    /// Whether all three servers use this certificate: a client that trusts only it gets an answer.
    pub(crate) fn is_trusted(&self, site: &Site, certificate: &str) -> bool {
        let pinned = self.folder.join("pinned.pem");
        testkit::certs::replace(&pinned, certificate);
        let urls = site.urls();
        self.runtime.block_on(async {
            let client = client(pinned, &self.folder);
            for url in urls {
                let request = Request::get(url).body(Bytes::new()).expect("a request");
                if client.send(request).await.is_err() {
                    return false;
                }
            }
            true
        })
    }

    /// Stops the load; returns the number of answered requests, and the failures.
    pub(crate) fn end(self) -> (usize, Vec<String>) {
        self.shared.stop.store(true, Relaxed);
        for task in self.tasks {
            self.runtime.block_on(task).expect("no caller panics");
        }
        let failures = self.shared.failures.lock().expect("no caller panics").clone();
        (self.shared.done.load(Relaxed), failures)
    }
}

impl Shared {
    /// Sends one request, without a retry.
    async fn call(&self, method: Method, url: String, body: Bytes) -> Option<Bytes> {
        let request = self.shown.lock().expect("no caller panics").request(method, &url, body);
        let failure = match self.client.send(request).await {
            Ok(answer) if answer.status().is_success() => {
                self.done.fetch_add(1, Relaxed);
                return Some(answer.into_body());
            }
            Ok(answer) => format!("{url}: {}", answer.status()),
            Err(failure) => format!("{url}: {failure}: {}", failure.cause()),
        };
        self.failures.lock().expect("no caller panics").push(failure);
        None
    }
}

/// Repeatedly imports a few invoices and lets billing charge them.
async fn pay(shared: &Shared, billing: &str) {
    for round in 0.. {
        let invoices: String = (0..INVOICES)
            .map(|nth| {
                format!("{{\"reference\":\"R{round}-{nth}\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":\"1.25\"}}\n")
            })
            .collect();
        shared.call(Method::POST, format!("{billing}/v1/imports"), Bytes::from(invoices)).await;
        while let Some(answer) =
            shared.call(Method::POST, format!("{billing}/rest/v1/invoices/pay"), Bytes::new()).await
        {
            if answer.as_ref() == b"true" {
                break;
            }
        }
        if shared.stop.load(Relaxed) {
            return;
        }
    }
}
