//! The end of a server: idle connections are closed at once, busy ones get their answer, stuck ones end at the hard
//! stop.

use crate::support::{get, patiently, post, start, until};
use axum::Router;
use axum::routing::get as on_get;
use chassis::server::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;

struct Gate {
    entered: AtomicU32,
    open: Notify,
}

fn gated() -> (Router, Arc<Gate>) {
    let gate = Arc::new(Gate { entered: AtomicU32::new(0), open: Notify::new() });
    let inside = gate.clone();
    let wait = move || async move {
        inside.entered.fetch_add(1, SeqCst);
        inside.open.notified().await;
        "late"
    };
    (Router::new().route("/", on_get(|| async { "hello" })).route("/wait", on_get(wait)), gate)
}

#[tokio::test]
async fn a_drain_closes_the_idle_at_once_and_answers_the_busy() {
    let (router, gate) = gated();
    let server = start(router, Limits::default()).await;
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.send(&get("/")).await;
    idle.answer().await;
    let mut busy = server.connect().await;
    busy.send(&get("/wait")).await;
    let mut sending = server.connect().await;
    sending.send("GET / HTTP/1.1\r\nho").await;
    until(|| gate.entered.load(SeqCst) == 1 && server.figure("http_connections_open", "") == 4.0).await;
    server.shutdown.trigger();
    assert_eq!(silent.rest().await, "");
    assert_eq!(idle.rest().await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "it still accepts");
    assert!(!server.task.is_finished());
    sending.send("st: test\r\n\r\n").await;
    gate.open.notify_one();
    for (mut peer, body) in [(busy, "late"), (sending, "hello")] {
        let answer = peer.rest().await;
        assert!(answer.ends_with(body) && answer.contains("connection: close\r\n"), "{answer}");
    }
    patiently(server.task).await.unwrap();
    patiently(server.shutdown.hard()).await;
}

#[tokio::test]
async fn a_request_that_came_before_the_drain_is_answered_although_it_was_not_read_yet() {
    let (router, _gate) = gated();
    let server = start(router, Limits::default()).await;
    let mut peer = server.connect().await;
    peer.send(&get("/")).await;
    peer.answer().await;
    // Server and test share one thread, so that the server runs only when this test waits: the request is still unread
    // in the kernel.
    peer.0.try_write(get("/").as_bytes()).unwrap();
    server.shutdown.trigger();
    let answer = peer.rest().await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn the_hard_stop_ends_what_is_stuck() {
    let (router, gate) = gated();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = chassis::shutdown::Shutdown::with_timings(Duration::ZERO, Duration::from_millis(100));
    let server = chassis::server::Server::new(listener, router, Limits::default());
    let task = tokio::spawn(server.serve(shutdown.clone()));
    let mut peer = crate::support::Peer(TcpStream::connect(address).await.unwrap());
    peer.send(&post("/wait", "")).await;
    peer.answer().await;
    peer.send(&get("/wait")).await;
    until(|| gate.entered.load(SeqCst) == 1).await;
    shutdown.trigger();
    assert_eq!(peer.rest().await, "");
    patiently(task).await.unwrap();
}
