//! Requests that two readers could understand differently: as to their host and their end.

use crate::support::{get, start};
use axum::Router;
use axum::routing::{get as on_get, post as on_post};
use chassis::server::Limits;

fn echo() -> Router {
    Router::new()
        .route("/", on_post(|body: String| async move { body }))
        .route("/next", on_get(|| async { "" }))
}

#[tokio::test]
async fn a_request_without_one_sound_host_is_answered_400_and_the_connection_ends() {
    let server = start(echo(), Limits::default()).await;
    let with = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}content-length: 2\r\n\r\nok");
    for lines in ["", "host: a\r\nhost: a\r\n", "host: a b\r\n", "host: user@a\r\n", "host: a:99999\r\n"] {
        let answers = server.ask(&(with(lines) + &get("/next"))).await;
        assert!(answers.starts_with("HTTP/1.1 400 "), "{lines:?}: {answers}");
        assert!(
            answers.contains("connection: close\r\n") && answers.contains("Host"),
            "{lines:?}: {answers}"
        );
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "what follows is not looked at: {answers}");
    }
    assert_eq!(server.figure("http_connections_ended_total", "bad_host"), 5.0);
    for lines in ["host: a\r\n", "HOST: a:8000\r\n", "host: [::1]:8000\r\n", "host:\r\n"] {
        let answers = server.ask(&(with(lines) + &get("/next"))).await;
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{lines:?}: {answers}");
    }
    let old = server.ask("POST / HTTP/1.0\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(old.starts_with("HTTP/1.0 200 ") && old.ends_with("ok"), "{old}");
}

/// RFC 9112 §6.1 lets a server use the chunks alone, but it must close the connection.
#[tokio::test]
async fn a_body_with_two_lengths_is_read_by_its_chunks_and_nothing_after_it_is_a_request() {
    let server = start(echo(), Limits::default()).await;
    let (length, chunked) = ("content-length: 3\r\n", "transfer-encoding: chunked\r\n");
    for lines in [length.to_owned() + chunked, chunked.to_owned() + length] {
        let smuggling =
            format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n2\r\nok\r\n0\r\n\r\n{}", get("/next"));
        let answers = server.ask(&smuggling).await;
        assert!(answers.starts_with("HTTP/1.1 200 ") && answers.ends_with("\r\n\r\nok"), "{answers}");
        assert!(answers.contains("connection: close\r\n"), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
    }
    let control = format!("POST / HTTP/1.1\r\nhost: a\r\n{chunked}\r\n2\r\nok\r\n0\r\n\r\n{}", get("/next"));
    assert_eq!(server.ask(&control).await.matches("HTTP/1.1 200 ").count(), 2);
}

#[tokio::test]
async fn lengths_that_differ_are_answered_400_and_unknown_codings_501() {
    let server = start(echo(), Limits::default()).await;
    let sent = |lines: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n2\r\nok\r\n0\r\n\r\n");
    for (lines, status) in [
        ("content-length: 2\r\ncontent-length: 3\r\n", 400),
        ("content-length: +2\r\n", 400),
        ("content-length: 2, 2\r\n", 400),
        ("transfer-encoding : chunked\r\n", 400),
        ("transfer-encoding: chunked, chunked\r\n", 400),
        ("transfer-encoding: gzip\r\n", 501),
        ("transfer-encoding: xchunked\r\n", 501),
        ("transfer-encoding: gzip, chunked\r\n", 501),
        ("transfer-encoding: chunked, identity\r\n", 501),
    ] {
        let answer = server.ask(&sent(lines)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{lines:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{lines:?}: {answer}");
    }
}

#[tokio::test]
async fn a_bare_line_feed_in_a_head_is_answered_400_after_the_requests_before_it() {
    let server = start(echo(), Limits::default()).await;
    for head in ["GET /next HTTP/1.1\nhost: a\r\n\r\n", "GET /next HTTP/1.1\r\nhost: a\n\r\n"] {
        let answer = server.ask(head).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        let behind = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok{head}");
        let answers = server.ask(&behind).await;
        assert!(answers.starts_with("HTTP/1.1 200 "), "{head:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 400 ").count(), 1, "{head:?}: {answers}");
    }
    let in_a_body = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\na\nb";
    assert!(server.ask(in_a_body).await.ends_with("\r\n\r\na\nb"));
}

#[tokio::test]
async fn a_body_that_ends_early_or_whose_chunks_are_broken_is_answered_400() {
    let server = start(echo(), Limits::default()).await;
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    for rest in [
        "content-length: 47\r\n\r\nshort".to_owned(),
        format!("{chunked}-1\r\nok\r\n0\r\n\r\n"),
        format!("{chunked}10000000000000002f\r\nok\r\n0\r\n\r\n"),
        format!("{chunked}2\r\nok"),
    ] {
        let answer = server.ask(&format!("POST / HTTP/1.1\r\nhost: a\r\n{rest}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{rest:?}: {answer}");
    }
    assert_eq!(server.figure("http_connections_ended_total", "body_broken"), 4.0);
}
