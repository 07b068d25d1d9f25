//! A server with mutual TLS in a folder of its own, and clients of it.

use crate::authority::{Authority, Pair};
use axum::Router;
use axum::extract::{Path as AxumPath, Request};
use axum::routing::{any, get};
use bytes::Bytes;
use chassis::client::{Client, ClientConfig, Connect as _, Failure, Stream};
use chassis::clock::Clock;
use chassis::server::{Limits, Server, ServerMetrics};
use chassis::shutdown::Shutdown;
use chassis::telemetry::Telemetry;
use chassis::tls::{
    ClientFiles, ClientRules, PeerName, Refusal, SanAllowList, ServerFiles, ServerTls, Source, TlsConnect,
    TlsMetrics,
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) const NAME: &str = "spiffe://cluster.local/ns/antaeus/sa/antaeus";
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) tls: ServerTls,
    pub(crate) telemetry: Telemetry,
    pub(crate) authority: Authority,
}

pub(crate) fn source(path: PathBuf) -> Source {
    Source { setting: "--a-file (A_FILE)".into(), path }
}

pub(crate) fn put(folder: &Path, name: &str, pair: &Pair) {
    std::fs::write(folder.join(format!("{name}.pem")), &pair.certificate).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), &pair.key).unwrap();
}

pub(crate) fn pair_of(folder: &Path, name: &str) -> (Source, Source) {
    (source(folder.join(format!("{name}.pem"))), source(folder.join(format!("{name}.key"))))
}

pub(crate) fn server_files(folder: &Path, allowed: &str) -> ServerFiles {
    let (certificate, key) = pair_of(folder, "server");
    let clients = ClientRules {
        ca: source(folder.join("client-ca.pem")),
        allowed: SanAllowList::parse(allowed).unwrap(),
        is_required: true,
        must_name_usage: true,
    };
    ServerFiles { certificate, key, clients: Some(clients) }
}

impl Site {
    pub(crate) async fn open() -> Self {
        Self::open_with(Limits::default()).await
    }

    pub(crate) async fn open_with(limits: Limits) -> Self {
        Self::open_at(limits, Clock::system()).await
    }

    /// A server whose clock is `clock`.
    pub(crate) async fn open_at(limits: Limits, clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("first");
        put(folder.path(), "server", &authority.server());
        std::fs::write(folder.path().join("client-ca.pem"), authority.pem()).unwrap();
        let telemetry = Telemetry::new("shop", "1", "a");
        let metrics = TlsMetrics::new(&telemetry.metrics);
        let files = server_files(folder.path(), &format!("{NAME},client.test"));
        let tls = ServerTls::open(files, clock, &metrics).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let figures = ServerMetrics::new();
        figures.register(telemetry.registry()).unwrap();
        let server = Server::new(listener, routes(), limits).metrics(figures).tls(Some(tls.clone()));
        tokio::spawn(server.serve(Shutdown::new()));
        Self { folder, address, tls, telemetry, authority }
    }

    /// A client that presents this certificate, if any, and trusts the site's CA.
    pub(crate) fn client(&self, shows: Option<&Pair>) -> Client {
        self.client_at(shows, Clock::system())
    }

    /// A client whose clock is `clock`.
    pub(crate) fn client_at(&self, shows: Option<&Pair>, clock: Clock) -> Client {
        let folder = self.folder.path();
        std::fs::write(folder.join("provider-ca.pem"), self.authority.pem()).unwrap();
        if let Some(pair) = shows {
            put(folder, "client", pair);
        }
        let files = ClientFiles {
            trusted: Some(source(folder.join("provider-ca.pem"))),
            system_too: false,
            identity: shows.map(|_| pair_of(folder, "client")),
        };
        Client::with_connect(ClientConfig::default(), connect_at(files, clock))
    }

    /// A connection of its own, on which a test sends HTTP as raw bytes.
    pub(crate) async fn bytes(&self) -> Box<dyn Stream> {
        let _writes_the_files = self.client(Some(&self.authority.client(NAME)));
        let folder = self.folder.path();
        let files = ClientFiles {
            trusted: Some(source(folder.join("provider-ca.pem"))),
            system_too: false,
            identity: Some(pair_of(folder, "client")),
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        connect(files).connect("localhost", self.address.port(), deadline).await.unwrap()
    }

    pub(crate) async fn ask(&self, client: &Client) -> Result<String, Failure> {
        ask(client, self.address).await
    }

    /// A counter's value by a part of its line.
    pub(crate) fn figure(&self, part: &str) -> i64 {
        let page = String::from_utf8(self.telemetry.metrics.render()).unwrap();
        let line = page.lines().find(|line| line.starts_with(part));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(-1)
    }

    pub(crate) fn refusals(&self, why: Refusal) -> i64 {
        self.figure(&format!("tls_refusals_total{{reason=\"{}\"}}", why.label()))
    }

    pub(crate) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let looks = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looks).await.expect("it happens within the patience of the test");
    }
}

pub(crate) fn connect(files: ClientFiles) -> TlsConnect {
    connect_at(files, Clock::system())
}

fn connect_at(files: ClientFiles, clock: Clock) -> TlsConnect {
    let telemetry = Telemetry::new("caller", "1", "a");
    TlsConnect::open(files, clock, &TlsMetrics::new(&telemetry.metrics)).unwrap()
}

pub(crate) async fn ask(client: &Client, address: SocketAddr) -> Result<String, Failure> {
    let uri = format!("https://localhost:{}/who", address.port());
    let request = http::Request::post(uri).body(Bytes::from_static(b"hello")).unwrap();
    Ok(String::from_utf8(client.send(request).await?.into_body().to_vec()).unwrap())
}

/// Routes that answer with the name that the connection proves.
fn routes() -> Router {
    let who = |request: Request| async move {
        let name = request.extensions().get::<PeerName>().map(|name| name.as_str().to_owned());
        name.unwrap_or_else(|| "no name".to_owned())
    };
    let large = |AxumPath(kib): AxumPath<usize>| async move { vec![b'x'; kib * 1024] };
    Router::new().route("/who", any(who)).route("/large/{kib}", get(large))
}
