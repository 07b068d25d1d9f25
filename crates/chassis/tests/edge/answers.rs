//! How the server answers when no limit or deadline is exceeded.

use crate::support::{Peer, get, patiently, post, start, until};
use axum::Router;
use axum::extract::Extension;
use axum::routing::{get as on_get, post as on_post};
use chassis::server::{Connection, Limits, Shed};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

async fn broken() {
    panic!("a broken invariant");
}

fn echo() -> Router {
    Router::new()
        .route("/", on_get(|| async { "hello" }).post(|body: String| async move { body }))
        .route("/panic", on_get(broken))
}

#[tokio::test]
async fn a_kept_connection_is_answered_again() {
    let server = start(echo(), Limits::default()).await;
    let mut peer = server.connect().await;
    for _ in 0..3 {
        peer.send(&get("/")).await;
        let answer = peer.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(echo(), Limits::default()).await;
    let mut peer = server.connect().await;
    let requests: String = (0..40).map(|n| post("/", &format!("<{n}>"))).collect();
    peer.send(&requests).await;
    peer.shut().await;
    let answers = peer.rest().await;
    let bodies: Vec<_> = answers.split(['<', '>']).skip(1).step_by(2).collect();
    assert_eq!(bodies, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed_unless_it_asks_to_be_kept() {
    let server = start(echo(), Limits::default()).await;
    let mut peer = server.connect().await;
    peer.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = peer.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("hello"), "{answer}");
    let mut peer = server.connect().await;
    for _ in 0..2 {
        peer.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
        assert!(peer.answer().await.contains("connection: keep-alive"));
    }
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_its_body_gets_it() {
    let server = start(echo(), Limits::default()).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
    assert_eq!(peer.answer().await, "HTTP/1.1 100 Continue\r\n\r\n");
    peer.send("ok").await;
    assert!(peer.answer().await.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn a_panic_costs_one_call_and_not_the_connection() {
    let server = start(echo(), Limits::default()).await;
    let mut peer = server.connect().await;
    peer.send(&get("/panic")).await;
    let answer = peer.answer().await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    assert!(!answer.contains("invariant"), "{answer}");
    peer.send(&get("/")).await;
    assert!(peer.answer().await.ends_with("hello"));
}

/// A route that signals when it was entered, and answers when it is notified.
fn gate() -> (Router, Arc<AtomicU32>, Arc<Notify>) {
    let (entered, open) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let (count, gate) = (entered.clone(), open.clone());
    let wait = move || async move {
        count.fetch_add(1, SeqCst);
        gate.notified().await;
        count.fetch_add(100, SeqCst);
        "through"
    };
    (echo().route("/wait", on_post(wait)), entered, open)
}

#[tokio::test]
async fn a_client_that_only_stops_sending_still_gets_its_answer() {
    let (router, entered, open) = gate();
    let server = start(router, Limits::default()).await;
    let mut peer = server.connect().await;
    peer.send(&post("/wait", "x")).await;
    peer.shut().await;
    until(|| entered.load(SeqCst) == 1).await;
    open.notify_one();
    assert!(peer.rest().await.ends_with("through"));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cancel_its_call() {
    let (router, entered, open) = gate();
    let server = start(router, Limits::default()).await;
    let mut peer = server.connect().await;
    peer.send(&post("/wait", "x")).await;
    until(|| entered.load(SeqCst) == 1).await;
    drop(peer);
    open.notify_one();
    until(|| entered.load(SeqCst) == 101).await;
}

#[tokio::test]
async fn a_call_beyond_those_in_flight_is_shed_and_says_that_it_was_not_executed() {
    let (router, entered, open) = gate();
    let server = start(router, Limits { in_flight_max: 1, ..Limits::default() }).await;
    let mut busy = server.connect().await;
    busy.send(&post("/wait", "")).await;
    until(|| entered.load(SeqCst) == 1).await;
    let mut shed = server.connect().await;
    shed.send(&post("/", "x")).await;
    let answer = shed.answer().await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    for header in ["retry-after: 1", "not-executed: true", "content-type: application/problem+json"] {
        assert!(answer.contains(&format!("\r\n{header}\r\n")), "{answer}");
    }
    open.notify_one();
    assert!(busy.answer().await.ends_with("through"));
    shed.send(&post("/", "y")).await;
    assert!(shed.answer().await.ends_with("\r\n\r\ny"), "the place was given back");
    assert_eq!(server.figure("http_requests_shed_total", ""), 1.0);
}

#[tokio::test]
async fn a_service_chooses_what_a_shed_call_is_answered() {
    let shed = Shed::new(|uri, why| match uri.path() {
        "/pay" => {
            axum::response::IntoResponse::into_response((http::StatusCode::SERVICE_UNAVAILABLE, "false"))
        }
        _ => Shed::problem(why),
    });
    let server = start(echo(), Limits { in_flight_max: 0, shed, ..Limits::default() }).await;
    let answer = server.ask(&post("/pay", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nfalse"), "{answer}");
    assert!(answer.contains("not-executed: true\r\n"), "{answer}");
    assert!(server.ask(&post("/", "")).await.contains("application/problem+json"));
}

#[tokio::test]
async fn a_handler_can_close_reset_or_cut_its_own_connection() {
    let router = Router::new()
        .route("/close", on_get(|Extension(own): Extension<Connection>| async move { own.close() }))
        .route("/reset", on_get(|Extension(own): Extension<Connection>| async move { own.reset() }))
        .route(
            "/cut",
            on_get(|Extension(own): Extension<Connection>| async move { own.close_after_bytes(20) }),
        )
        .route(
            "/none",
            on_get(|Extension(own): Extension<Connection>| async move { own.close_after_bytes(0) }),
        )
        .route(
            "/peer",
            on_get(|Extension(own): Extension<Connection>| async move { own.peer().to_string() }),
        );
    let server = start(router, Limits::default()).await;
    assert_eq!(server.ask(&get("/close")).await, "");
    assert_eq!(server.ask(&get("/none")).await, "");
    assert_eq!(server.ask(&get("/cut")).await, "HTTP/1.1 200 OK\r\ncon");
    let mut peer = server.connect().await;
    peer.send(&get("/reset")).await;
    let end = patiently(peer.0.read(&mut [0; 1])).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut peer = server.connect().await;
    peer.send(&get("/peer")).await;
    assert!(peer.answer().await.ends_with(&peer.0.local_addr().unwrap().to_string()));
    server.until_figure("http_connections_ended_total", "handler", 4.0).await;
}

#[tokio::test]
async fn a_handler_can_close_its_connection_from_another_task_and_never_answer() {
    let hold = |Extension(own): Extension<Connection>| async move {
        tokio::spawn(async move { own.close() });
        std::future::pending::<()>().await;
    };
    let server = start(Router::new().route("/", on_get(hold)), Limits::default()).await;
    let mut peer: Peer = server.connect().await;
    peer.send(&get("/")).await;
    assert_eq!(peer.rest().await, "");
}

/// A request that waited until its caller had gone must not be executed; a request whose caller only shuts its side
/// must be.
#[tokio::test]
async fn a_caller_that_has_gone_while_its_request_waited_is_known_to_be_gone() {
    let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (enter, go) = (entered.clone(), go_on.clone());
    let executed = Arc::new(AtomicU32::new(0));
    let count = executed.clone();
    let waits = move |Extension(connection): Extension<Connection>| async move {
        enter.notify_one();
        go.notified().await;
        if !connection.is_abandoned() {
            count.fetch_add(1, SeqCst);
        }
        "done"
    };
    let server = start(Router::new().route("/", on_get(waits)), Limits::default()).await;
    for (is_there, wait_ms) in [(false, 1100), (true, 1100), (false, 0)] {
        let before = executed.load(SeqCst);
        let mut peer = server.connect().await;
        peer.send(&get("/")).await;
        entered.notified().await;
        if !is_there {
            peer.shut().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
        go_on.notify_one();
        peer.answer().await;
        let expected = u32::from(is_there || wait_ms == 0);
        assert_eq!(executed.load(SeqCst) - before, expected, "there {is_there}, waited {wait_ms} ms");
    }
}
