//! A running server, and a client that sends and reads raw bytes.

use axum::Router;
use chassis::server::{Limits, Server, ServerMetrics};
use chassis::shutdown::Shutdown;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Time limit of each wait: far longer than any step here, and shorter than any deadline that a test does not set.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: prometheus::Registry,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) async fn start(router: Router, limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let (figures, metrics) = (ServerMetrics::new(), prometheus::Registry::new());
    figures.register(&metrics).unwrap();
    let server = Server::new(listener, router, limits).metrics(figures);
    let task = tokio::spawn(server.serve(shutdown.clone()));
    Running { address, shutdown, metrics, task }
}

impl Running {
    pub(crate) async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.unwrap())
    }

    /// The complete response to one request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut peer = self.connect().await;
        peer.send(request).await;
        peer.shut().await;
        peer.rest().await
    }

    /// The sum of a metric over its labels that contain `label`.
    pub(crate) fn figure(&self, name: &str, label: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().filter(|family| family.name() == name);
        let metrics = family.flat_map(prometheus::proto::MetricFamily::get_metric);
        let labelled = metrics
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label));
        labelled.map(|metric| metric.get_counter().get_value().max(metric.get_gauge().get_value())).sum()
    }

    pub(crate) async fn until_figure(&self, name: &str, label: &str, wanted: f64) {
        until(|| self.figure(name, label) >= wanted).await;
    }
}

pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Shuts this side of the connection: nothing more will be sent.
    pub(crate) async fn shut(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    /// Reads one answer: its head, and its body by `content-length`.
    pub(crate) async fn answer(&mut self) -> String {
        patiently(async {
            let mut text = String::new();
            while !text.contains("\r\n\r\n") {
                self.more(&mut text).await;
            }
            let (head, _) = text.split_once("\r\n\r\n").unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let whole = head.len() + 4 + length.map_or(0, |length| length.parse::<usize>().unwrap());
            while text.len() < whole {
                self.more(&mut text).await;
            }
            assert_eq!(text.len(), whole, "more than one answer: {text}");
            text
        })
        .await
    }

    async fn more(&mut self, text: &mut String) {
        let mut buf = [0; 4096];
        let bytes = self.0.read(&mut buf).await.unwrap();
        assert_ne!(bytes, 0, "the connection ended after {text:?}");
        text.push_str(std::str::from_utf8(&buf[..bytes]).unwrap());
    }

    /// Reads everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        patiently(self.0.read_to_end(&mut text)).await.unwrap();
        String::from_utf8(text).unwrap()
    }
}

/// Waits until the server has read all that this peer has sent, and the kernel's queue on the server's side is empty.
/// Server and test share one thread, so that the server has also processed what it read.
pub(crate) async fn until_taken(server: SocketAddr, peer: &Peer) {
    let ends = [server, peer.0.local_addr().unwrap()].map(in_proc);
    until(|| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|fields| fields.len() > 4 && fields[1] == ends[0] && fields[2] == ends[1]);
        line.is_some_and(|fields| fields[4].ends_with(":00000000"))
    })
    .await;
}

/// An IPv4 address as proc(5) writes it: the bytes of the address in the machine's order, and the port.
fn in_proc(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens within the patience of the test")
}

/// Waits until a condition is true.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let looks = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    patiently(looks).await;
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
