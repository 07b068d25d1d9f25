//! Calls of the client whose bytes have left: answers, and every way of getting none.

use crate::support::{millis, patiently, start, until};
use axum::Router;
use axum::extract::Extension;
use axum::routing::post as on_post;
use bytes::Bytes;
use chassis::client::{Cause, Client, ClientConfig, Failure};
use chassis::server::{Connection, Limits};
use chassis::telemetry::TraceContext;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

pub(crate) fn request(address: SocketAddr, path: &str, body: &'static str) -> Request<Bytes> {
    let uri = format!("http://{address}{path}");
    Request::post(uri).body(Bytes::from_static(body.as_bytes())).unwrap()
}

fn client() -> Client {
    Client::new(ClientConfig::default())
}

fn unknown(result: Result<http::Response<Bytes>, Failure>) -> Cause {
    match result {
        Err(Failure::Unknown(cause)) => cause,
        other => panic!("not unknown: {other:?}"),
    }
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let router = Router::new().route(
        "/",
        on_post(
            |own: Extension<Connection>, body: String| async move { format!("{body} {}", own.peer().port()) },
        ),
    );
    let server = start(router, Limits::default()).await;
    let client = client();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = client.send(request(server.address, "/", "from")).await.unwrap();
        answers.push(answer.into_body());
    }
    assert!(answers[0].starts_with(b"from "));
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    assert_eq!(server.figure("http_connections_open", ""), 1.0);
}

#[tokio::test]
async fn many_calls_at_once_each_have_their_own_connection_and_their_own_answer() {
    let router = Router::new().route("/{n}", on_post(|uri: Uri| async move { uri.path().to_owned() }));
    let server = start(router, Limits::default()).await;
    let client = Client::new(ClientConfig { pool_max: 8, ..ClientConfig::default() });
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (client, address) = (client.clone(), server.address);
        calls.spawn(async move {
            let answer = client.send(request(address, &format!("/{n}"), "x")).await.unwrap();
            assert_eq!(answer.into_body(), format!("/{n}").into_bytes());
        });
    }
    while let Some(call) = patiently(calls.join_next()).await {
        call.unwrap();
    }
    assert!(server.figure("http_connections_open", "") <= 8.0);
}

#[tokio::test]
async fn a_request_goes_out_with_host_length_and_trace() {
    let show = |uri: Uri, headers: HeaderMap| async move {
        let of = |name: &str| headers[name].to_str().unwrap().to_owned();
        let [host, length, trace] = ["host", "content-length", "traceparent"].map(of);
        format!("{uri}\n{host}\n{length}\n{trace}")
    };
    let server = start(Router::new().route("/a/b", on_post(show)), Limits::default()).await;
    let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let client = client();
    let sent = context.scope(client.send(request(server.address, "/a/b?c=d", "")));
    let text = String::from_utf8(sent.await.unwrap().into_body().to_vec()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["/a/b?c=d", &server.address.to_string(), "0"]);
    assert!(lines[3].starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{text}");
    assert!(!lines[3].contains("00f067aa0ba902b7"), "{text}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let redirect = move || async move {
        counted.fetch_add(1, SeqCst);
        (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/")])
    };
    let server = start(Router::new().route("/", on_post(redirect)), Limits::default()).await;
    let answer = client().send(request(server.address, "/", "x")).await.unwrap();
    assert_eq!(answer.status(), 307);
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_unknown_at_its_deadline() {
    let router = Router::new().route("/", on_post(std::future::pending::<()>));
    let server = start(router, Limits::default()).await;
    let client = Client::new(ClientConfig { deadline: millis(150), ..ClientConfig::default() });
    let began = Instant::now();
    let cause = unknown(client.send(request(server.address, "/", "x")).await);
    assert!(matches!(cause, Cause::Late(_)), "{cause:?}");
    assert!(began.elapsed() >= millis(150));
}

#[tokio::test]
async fn a_deadline_counts_anew_on_a_kept_connection() {
    let slow = || async { tokio::time::sleep(millis(100)).await };
    let server = start(Router::new().route("/", on_post(slow)), Limits::default()).await;
    let client = Client::new(ClientConfig { deadline: millis(1000), ..ClientConfig::default() });
    for _ in 0..15 {
        client.send(request(server.address, "/", "x")).await.unwrap();
    }
}

/// A server that reads one request and writes these bytes; then it closes.
async fn one_answer(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut buf = [0; 1024];
        let bytes = tcp.read(&mut buf).await.unwrap();
        assert!(buf[..bytes].ends_with(b"\r\n\r\nx"));
        tcp.write_all(answer.as_bytes()).await.unwrap();
    });
    address
}

#[tokio::test]
async fn half_an_answer_is_unknown_wherever_it_is_cut() {
    for answer in [
        "",
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "not HTTP at all\r\n\r\n",
    ] {
        let address = one_answer(answer).await;
        let cause = unknown(client().send(request(address, "/", "x")).await);
        assert!(matches!(cause, Cause::Connection(_)), "{answer:?}: {cause:?}");
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    let address = one_answer("HTTP/1.1 200 OK\r\n\r\nto the end").await;
    assert_eq!(client().send(request(address, "/", "x")).await.unwrap().into_body(), "to the end");
}

#[tokio::test]
async fn a_reset_after_the_request_is_unknown_and_nothing_is_sent_again() {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let reset = move |own: Extension<Connection>| async move {
        if counted.fetch_add(1, SeqCst) > 0 {
            own.reset();
        }
    };
    let server = start(Router::new().route("/", on_post(reset)), Limits::default()).await;
    let client = client();
    client.send(request(server.address, "/", "x")).await.unwrap();
    // The next call uses a kept connection, on which a library without this rule would send again.
    let cause = unknown(client.send(request(server.address, "/", "x")).await);
    assert!(matches!(cause, Cause::Connection(_)), "{cause:?}");
    assert_eq!(count.load(SeqCst), 2);
}

#[tokio::test]
async fn an_answer_larger_than_allowed_is_unknown_and_says_so() {
    let router = Router::new()
        .route("/{bytes}", on_post(|uri: Uri| async move { "x".repeat(uri.path()[1..].parse().unwrap()) }))
        .route(
            "/chunked",
            on_post(|| async {
                let pieces = (0..3).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 500])));
                axum::body::Body::from_stream(futures_util::stream::iter(pieces))
            }),
        );
    let server = start(router, Limits::default()).await;
    let with = |body_bytes_max| Client::new(ClientConfig { body_bytes_max, ..ClientConfig::default() });
    assert_eq!(with(1000).send(request(server.address, "/1000", "x")).await.unwrap().body().len(), 1000);
    assert_eq!(with(1500).send(request(server.address, "/chunked", "x")).await.unwrap().body().len(), 1500);
    for path in ["/1001", "/chunked"] {
        let cause = unknown(with(1000).send(request(server.address, path, "x")).await);
        assert!(matches!(cause, Cause::TooLarge(1000)), "{path}: {cause:?}");
    }
    until(|| server.figure("http_connections_open", "") == 0.0).await;
}

#[tokio::test]
async fn an_answer_that_closes_is_the_last_on_its_connection_and_it_is_closed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut tcp, _) = listener.accept().await.unwrap();
            assert!(tcp.read(&mut [0; 1024]).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            tcp.write_all(answer).await.unwrap();
            assert_eq!(patiently(tcp.read(&mut [0; 1])).await.unwrap(), 0);
        }
    });
    let client = client();
    for _ in 0..2 {
        client.send(request(address, "/", "x")).await.unwrap();
    }
    patiently(server).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_given_up_takes_its_connection_along() {
    let router = Router::new().route("/", on_post(std::future::pending::<()>));
    let limits = Limits { write_stall: millis(100), ..Limits::default() };
    let server = start(router, limits).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client();
    let call = client.send(request(listener.local_addr().unwrap(), "/", "x"));
    let given_up = tokio::time::timeout(millis(500), call).await;
    assert!(given_up.is_err());
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut text = String::new();
    patiently(tcp.read_to_string(&mut text)).await.unwrap();
    assert!(text.ends_with("\r\n\r\nx"), "{text}");
    drop(server);
}
