//! A server short of file descriptors, in a process of its own (this program again) under `ulimit -n`: a thousand
//! idle and slow connections, more connections than it can open, and none left to accept with.

use crate::support::{Peer, get, millis, patiently};
use axum::Router;
use axum::routing::get as on_get;
use chassis::server::{Limits, Server};
use chassis::shutdown::Shutdown;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Variable that is set in the process that serves.
const SERVING: &str = "EDGE_CROWD_SERVER";
const ADDRESS: &str = "serving on ";
const CROWD: usize = 1000;
const CALLS: usize = 1000;
/// The crowd is smaller than the server's limit by this number. At the limit idle connections would be closed, and a
/// closed connection counts until the server has noticed.
const OTHERS: usize = 4;
const P99_MAX: Duration = Duration::from_millis(100);

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Runs `test` of this program again, under a limit of open files; that process serves.
    fn start(test: &str, open_files: usize) -> Self {
        let own = std::env::current_exe().unwrap();
        let script = format!("ulimit -n {open_files} && exec \"$0\" --exact --nocapture {test}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(own)
            .env(SERVING, "yes")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| Some(line.unwrap().split_once(ADDRESS)?.1.parse().unwrap()));
        Self { child, address: address.expect("it says where it serves") }
    }

    async fn connect(&self) -> Peer {
        Peer(patiently(TcpStream::connect(self.address)).await.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Serves until killed, in the process that is to serve. In any other process it does nothing.
async fn serve_if_asked() {
    if std::env::var_os(SERVING).is_none() {
        return;
    }
    let hoard: Arc<Mutex<Vec<File>>> = Arc::default();
    let full = hoard.clone();
    let fill = move || async move {
        let files = std::iter::from_fn(|| File::open("/dev/null").ok());
        full.lock().unwrap().extend(files);
        "full"
    };
    let empty = move || async move {
        hoard.lock().unwrap().clear();
        "empty"
    };
    let router = Router::new()
        .route("/", on_get(|| async { "hello" }).post(|body: String| async move { body }))
        .route("/fill", on_get(fill))
        .route("/empty", on_get(empty));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{ADDRESS}{}", listener.local_addr().unwrap());
    Server::new(listener, router, Limits::default()).serve(Shutdown::new()).await;
}

async fn call(peer: &mut Peer) {
    peer.send(&get("/")).await;
    assert!(peer.answer().await.ends_with("hello"));
}

#[tokio::test]
async fn a_thousand_idle_and_slow_connections_leave_others_alone_even_with_1024_open_files() {
    serve_if_asked().await;
    chassis::service::raise_open_files();
    let test = "crowd::a_thousand_idle_and_slow_connections_leave_others_alone_even_with_1024_open_files";
    let server = Process::start(test, 1024);
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let mut peer = server.connect().await;
        match n % 4 {
            0 => {}
            1 => call(&mut peer).await,
            2 => peer.send("GET / HTTP/1.1\r\nho").await,
            _ => peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nhalf").await,
        }
        crowd.push(peer);
    }
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        others.push(server.connect().await);
    }
    let mut taken = Vec::new();
    for n in 0..CALLS {
        let began = Instant::now();
        if n % 5 == 0 {
            drop(others.remove(n % OTHERS));
            others.insert(n % OTHERS, server.connect().await);
        }
        call(&mut others[n % OTHERS]).await;
        taken.push(began.elapsed());
    }
    taken.sort();
    let p99 = taken[CALLS * 99 / 100];
    assert!(p99 < P99_MAX, "p99 {p99:?}");
    for (n, mut peer) in crowd.into_iter().enumerate() {
        let (rest, answer) = match n % 4 {
            0 | 1 => (get("/"), "hello"),
            2 => ("st: test\r\n\r\n".to_owned(), "hello"),
            _ => (" more".to_owned(), "half more"),
        };
        peer.send(&rest).await;
        assert!(peer.answer().await.ends_with(answer), "number {n} was dropped");
    }
}

#[tokio::test]
async fn more_connections_than_the_process_can_open_wait_and_are_served_later() {
    serve_if_asked().await;
    let test = "crowd::more_connections_than_the_process_can_open_wait_and_are_served_later";
    let server = Process::start(test, 40);
    let mut all = Vec::new();
    for _ in 0..60 {
        let mut peer = server.connect().await;
        peer.send(&get("/")).await;
        all.push(peer);
    }
    let mut served = 0;
    for mut peer in all {
        assert!(peer.answer().await.ends_with("hello"));
        served += 1;
    }
    assert_eq!(served, 60);
}

#[tokio::test]
async fn a_server_without_a_descriptor_to_accept_with_goes_on_once_there_is_one() {
    serve_if_asked().await;
    let test = "crowd::a_server_without_a_descriptor_to_accept_with_goes_on_once_there_is_one";
    let server = Process::start(test, 64);
    let mut kept = server.connect().await;
    call(&mut kept).await;
    kept.send(&get("/fill")).await;
    kept.answer().await;
    let mut waiting = server.connect().await;
    waiting.send(&get("/")).await;
    let early = tokio::time::timeout(millis(100), waiting.0.peek(&mut [0; 1])).await;
    assert!(early.is_err(), "it was accepted without a descriptor");
    call(&mut kept).await;
    kept.send(&get("/empty")).await;
    kept.answer().await;
    assert!(waiting.answer().await.ends_with("hello"));
}
