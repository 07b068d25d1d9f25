//! Each limit and each deadline of the server, one at a time.

use crate::support::{Peer, Running, get, millis, patiently, post, start, until, until_taken};
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::routing::{get as on_get, post as on_post};
use bytes::Bytes;
use chassis::server::{Connection, Limits};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ENDED: &str = "http_connections_ended_total";

fn echo() -> Router {
    Router::new().route("/", on_get(|| async { "hello" }).post(|body: Bytes| async move { body }))
}

async fn with(limits: Limits) -> Running {
    start(echo(), limits).await
}

#[tokio::test]
async fn a_connection_that_sends_nothing_ends_at_its_deadline() {
    let server = with(Limits { first_byte: millis(100), ..Limits::default() }).await;
    let began = Instant::now();
    assert_eq!(server.connect().await.rest().await, "");
    assert!(began.elapsed() >= millis(100));
    server.until_figure(ENDED, "first_byte_late", 1.0).await;
}

#[tokio::test]
async fn a_head_sent_byte_by_byte_ends_at_its_deadline() {
    let server = with(Limits { header: millis(200), ..Limits::default() }).await;
    let began = Instant::now();
    let (mut read, mut write) = server.connect().await.0.into_split();
    let sender = tokio::spawn(async move {
        for byte in "GET / HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat(b'y')) {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(millis(10)).await;
        }
    });
    assert_eq!(patiently(read.read(&mut [0; 1])).await.unwrap_or(0), 0);
    assert!(began.elapsed() >= millis(200));
    server.until_figure(ENDED, "header_late", 1.0).await;
    sender.abort();
}

#[tokio::test]
async fn an_idle_connection_ends_at_its_deadline_counted_from_its_last_answer() {
    // Long compared with the pauses between calls: both pass on one thread, and a busy machine may delay it.
    let idle = millis(1000);
    let server = with(Limits { idle, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    let mut last = Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(millis(50)).await;
        last = Instant::now();
        peer.send(&get("/")).await;
        peer.answer().await;
    }
    assert_eq!(peer.rest().await, "");
    assert!(last.elapsed() >= idle);
    server.until_figure(ENDED, "idle", 1.0).await;
}

#[tokio::test]
async fn a_slow_body_is_answered_408_and_the_connection_ends() {
    let server = with(Limits { body: millis(100), ..Limits::default() }).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf").await;
    let answer = peer.answer().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(peer.rest().await, "");
    server.until_figure(ENDED, "body_late", 1.0).await;
}

#[tokio::test]
async fn a_slow_body_ends_in_time_for_a_handler_that_reads_it_in_a_task_of_its_own() {
    let read = |body: Body| async { tokio::spawn(body.collect()).await.unwrap().is_ok().to_string() };
    let limits = Limits { body: millis(100), ..Limits::default() };
    let server = start(Router::new().route("/", on_post(read)), limits).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert!(peer.answer().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_answered_413_while_it_is_still_being_sent() {
    let server = with(Limits { body_bytes_max: 1000, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    // More than the kernel's buffers hold: had the server closed with bytes unread, the answer would be lost.
    peer.send(&post("/", &"x".repeat(8 * 1024 * 1024))).await;
    peer.shut().await;
    let answer = peer.rest().await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
    server.until_figure(ENDED, "body_too_large", 1.0).await;
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_any_of_it_comes() {
    let server = with(Limits { body_bytes_max: 1000, ..Limits::default() }).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1001\r\n\r\n").await;
    assert!(peer.answer().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_body_that_grows_too_large_in_chunks_is_answered_413() {
    let server = with(Limits { body_bytes_max: 1000, ..Limits::default() }).await;
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let head = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let fits = server.ask(&format!("{head}{chunk}{chunk}0\r\n\r\n")).await;
    assert!(fits.starts_with("HTTP/1.1 200 "), "{fits}");
    let over = server.ask(&format!("{head}{chunk}{chunk}1\r\ny\r\n0\r\n\r\n")).await;
    assert!(over.starts_with("HTTP/1.1 413 "), "{over}");
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let server = with(Limits { body_bytes_max: 1000, ..Limits::default() }).await;
    assert!(server.ask(&post("/", &"x".repeat(1000))).await.starts_with("HTTP/1.1 200 "));
    assert!(server.ask(&post("/", &"x".repeat(1001))).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn after_a_body_that_no_handler_read_the_connection_goes_on_or_its_answer_says_that_it_does_not() {
    let router = Router::new().route("/", on_post(|| async { "unread" }));
    for in_flight_max in [1, 0] {
        let limits = Limits { body_bytes_max: 10, in_flight_max, ..Limits::default() };
        let server = start(router.clone(), limits).await;
        let mut peer = server.connect().await;
        for _ in 0..2 {
            peer.send(&post("/", &"x".repeat(100))).await;
            let answer = peer.answer().await;
            assert!(!answer.contains("connection: close"), "{answer}");
        }
        peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n").await;
        let answer = peer.answer().await;
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        peer.send(&"x".repeat(100)).await;
        peer.shut().await;
        assert_eq!(peer.rest().await, "");
    }
}

#[tokio::test]
async fn the_time_of_a_slow_handler_does_not_count_against_a_long_body() {
    let slow = |request: Request| async move {
        request.extensions().get::<Connection>().unwrap().expect_long_body(100);
        tokio::time::sleep(millis(200)).await;
        let mut body = request.into_body();
        let first = body.frame().await.unwrap().is_ok();
        tokio::time::sleep(millis(200)).await;
        format!("{first} {}", body.collect().await.is_ok())
    };
    let limits = Limits { body: millis(100), ..Limits::default() };
    let server = start(Router::new().route("/", on_post(slow)), limits).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n01234").await;
    tokio::time::sleep(millis(100)).await;
    peer.send("56789").await;
    assert!(peer.answer().await.ends_with("\r\n\r\ntrue true"));
}

#[tokio::test]
async fn a_long_body_is_taken_by_a_handler_that_expects_it_as_long_as_it_goes_on() {
    let count = |request: Request| async move {
        let own = request.extensions().get::<Connection>().unwrap().clone();
        own.expect_long_body(100);
        let mut body = request.into_body();
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        bytes.to_string()
    };
    // Ten pieces together take longer than this limit, and each one takes far less.
    let limits = Limits { body_bytes_max: 10, body: millis(1000), ..Limits::default() };
    let server = start(Router::new().route("/", on_post(count)), limits).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(millis(120)).await;
        peer.send("0123456789").await;
    }
    assert!(peer.answer().await.ends_with("\r\n\r\n100"));
    peer.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nthe end").await;
    assert!(peer.rest().await.starts_with("HTTP/1.1 408 "));
    assert!(server.ask(&post("/", &"x".repeat(101))).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_lines_is_answered_431() {
    let server = with(Limits { header_bytes_max: 4096, headers_max: 10, ..Limits::default() }).await;
    let head = |lines: String| format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
    let large = server.ask(&head(format!("x: {}\r\n", "y".repeat(5000)))).await;
    assert!(large.starts_with("HTTP/1.1 431 "), "{large}");
    let many = server.ask(&head("x: y\r\n".repeat(10))).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
    let fits = server.ask(&head(format!("{}z: {}\r\n", "x: y\r\n".repeat(8), "y".repeat(3900)))).await;
    assert!(fits.starts_with("HTTP/1.1 200 "), "{fits}");
    server.until_figure(ENDED, "broken", 2.0).await;
}

/// A body without end, with a flag that it was dropped.
fn endless(dropped: Arc<AtomicBool>) -> Body {
    struct OnDrop(Arc<AtomicBool>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let on_drop = OnDrop(dropped);
    let pieces = std::iter::repeat_with(move || {
        let _kept = &on_drop;
        Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1024]))
    });
    Body::from_stream(futures_util::stream::iter(pieces))
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_given_up() {
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = dropped.clone();
    let router = Router::new().route("/", on_get(move || async move { endless(flag) }));
    let server = start(router, Limits { write_stall: millis(150), ..Limits::default() }).await;
    let mut peer = server.connect().await;
    peer.send(&get("/")).await;
    server.until_figure(ENDED, "write_stall", 1.0).await;
    until(|| dropped.load(SeqCst)).await;
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_is_served() {
    let router = Router::new().route("/", on_get(|| async { "x".repeat(12 * 1024 * 1024) }));
    let server = start(router, Limits { write_stall: Duration::from_secs(5), ..Limits::default() }).await;
    let mut peer = server.connect().await;
    peer.send(&get("/")).await;
    peer.shut().await;
    tokio::time::sleep(millis(100)).await;
    assert!(peer.rest().await.len() > 12 * 1024 * 1024);
}

/// Reads `bytes` of an answer every 20 ms until it ends.
async fn sip(peer: &mut Peer, bytes: usize) -> usize {
    let (mut taken, mut piece) = (0, vec![0; bytes]);
    loop {
        let mut filled = 0;
        while filled < bytes {
            match peer.0.read(&mut piece[filled..]).await {
                Ok(0) | Err(_) => return taken + filled,
                Ok(more) => filled += more,
            }
        }
        taken += filled;
        tokio::time::sleep(millis(20)).await;
    }
}

#[tokio::test]
async fn a_client_that_hardly_takes_its_answer_is_given_up() {
    let router = Router::new().route("/", on_get(|| async { endless(Arc::default()) }));
    let limits = Limits { write_stall: millis(300), write_bytes_min: 1 << 40, ..Limits::default() };
    let server = start(router, limits).await;
    let mut peer = server.connect().await;
    peer.send(&get("/")).await;
    patiently(sip(&mut peer, 1 << 20)).await;
    server.until_figure(ENDED, "write_stall", 1.0).await;
}

#[tokio::test]
async fn a_client_that_is_behind_and_keeps_to_the_least_rate_is_served() {
    const BYTES: usize = 64 << 20;
    let router = Router::new().route("/", on_get(|| async { "x".repeat(BYTES) }));
    let limits = Limits { write_stall: millis(1000), write_bytes_min: 64 * 1024, ..Limits::default() };
    let server = start(router, limits).await;
    let mut peer = server.connect().await;
    peer.send(&get("/")).await;
    peer.shut().await;
    assert!(patiently(sip(&mut peer, 1 << 20)).await > BYTES);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_leaves() {
    let server = with(Limits { connections_max: 2, ..Limits::default() }).await;
    let (mut one, two) = (server.connect().await, server.connect().await);
    one.send(&get("/")).await;
    one.answer().await;
    let mut waiting = server.connect().await;
    waiting.send(&get("/")).await;
    let early = tokio::time::timeout(millis(100), waiting.0.peek(&mut [0; 1])).await;
    assert!(early.is_err(), "it was served beyond the limit");
    drop(two);
    assert!(waiting.answer().await.ends_with("hello"));
    one.send(&get("/")).await;
    assert!(one.answer().await.ends_with("hello"), "the others noticed nothing");
}

#[tokio::test]
async fn at_the_limit_busy_clients_take_turns() {
    let server = with(Limits { connections_max: 2, ..Limits::default() }).await;
    let silent = server.connect().await;
    let mut clients = tokio::task::JoinSet::new();
    let address = server.address;
    let (began, waiting) = (Instant::now(), Arc::new(AtomicUsize::new(8)));
    for _ in 0..8 {
        let waiting = waiting.clone();
        clients.spawn(async move {
            let (mut peer, mut answers) = (None, 0);
            // Each client continues until all have had their share: none leaves early and frees a place.
            while waiting.load(SeqCst) > 0 {
                let mut own = match peer.take() {
                    Some(own) => own,
                    None => Peer(TcpStream::connect(address).await.unwrap()),
                };
                own.send(&get("/")).await;
                if own.answer().await.contains("connection: close") {
                    assert_eq!(own.rest().await, "");
                } else {
                    peer = Some(own);
                }
                answers += 1;
                if answers == 25 {
                    waiting.fetch_sub(1, SeqCst);
                }
            }
        });
    }
    while let Some(client) = patiently(clients.join_next()).await {
        client.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "they waited for idle connections to go");
    until(|| server.figure("http_connections_open", "") == 1.0).await;
    drop(silent);
}

#[tokio::test]
async fn at_the_limit_the_connection_idle_for_longest_makes_room() {
    let limits = Limits { connections_max: 2, idle_min: millis(50), ..Limits::default() };
    let server = with(limits).await;
    let (mut older, mut newer) = (server.connect().await, server.connect().await);
    for peer in [&mut older, &mut newer] {
        peer.send(&get("/")).await;
        peer.answer().await;
        tokio::time::sleep(millis(10)).await;
    }
    let mut fresh = server.connect().await;
    fresh.send(&get("/")).await;
    assert!(fresh.answer().await.ends_with("hello"));
    assert_eq!(older.rest().await, "");
    newer.send(&get("/")).await;
    assert!(newer.answer().await.ends_with("hello"));
    assert_eq!(server.figure("http_connections_open", ""), 2.0);
}

#[tokio::test]
async fn at_the_limit_half_a_head_makes_room_before_a_silent_connection() {
    let limits = Limits { connections_max: 2, idle_min: millis(50), ..Limits::default() };
    let server = with(limits).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.send("GET / HTTP/1.1\r\n").await;
    until_taken(server.address, &slow).await;
    // Both connections are old enough by now.
    tokio::time::sleep(millis(100)).await;
    let mut fresh = server.connect().await;
    fresh.send(&get("/")).await;
    assert!(fresh.answer().await.ends_with("hello"));
    assert_eq!(slow.rest().await, "");
    assert_eq!(server.figure(ENDED, "evicted"), 1.0);
    silent.send(&get("/")).await;
    assert!(silent.answer().await.ends_with("hello"));
}

/// A connection from another address of this machine.
async fn connect_from(server: &Running, own: &str) -> Peer {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{own}:0").parse().unwrap()).unwrap();
    Peer(socket.connect(server.address).await.unwrap())
}

#[tokio::test]
async fn at_the_limit_a_peer_with_more_than_its_share_loses_its_oldest_half_heads_and_no_other_does() {
    let limits = Limits {
        connections_max: 8,
        connections_per_peer: 2,
        idle_min: Duration::from_secs(3600),
        ..Limits::default()
    };
    let server = with(limits).await;
    let mut others = connect_from(&server, "127.0.0.2").await;
    others.send("GET / HTTP/1.1\r\n").await;
    until_taken(server.address, &others).await;
    let mut greedy = Vec::new();
    for _ in 0..7 {
        let mut peer = connect_from(&server, "127.0.0.3").await;
        peer.send("GET / HTTP/1.1\r\n").await;
        until_taken(server.address, &peer).await;
        greedy.push(peer);
    }
    let mut fresh = connect_from(&server, "127.0.0.4").await;
    fresh.send(&get("/")).await;
    assert!(fresh.answer().await.ends_with("hello"));
    assert_eq!(greedy[0].rest().await, "", "the oldest of the greedy peer");
    others.send("host: test\r\n\r\n").await;
    assert!(others.answer().await.ends_with("hello"));
}

#[tokio::test]
async fn in_a_flood_of_half_heads_calls_are_answered_and_those_under_way_go_on() {
    const FLOOD: usize = 400;
    let slow = |_: Extension<Connection>| async {
        tokio::time::sleep(millis(1500)).await;
        "slow"
    };
    let limits = Limits { connections_max: 32, connections_per_peer: 8, ..Limits::default() };
    let server = start(echo().route("/slow", on_get(slow)), limits).await;
    let mut busy = server.connect().await;
    busy.send(&get("/slow")).await;
    until_taken(server.address, &busy).await;
    let mut flood = Vec::with_capacity(FLOOD);
    for nth in 0..FLOOD {
        let mut peer = connect_from(&server, &format!("127.0.0.{}", 2 + nth % 3)).await;
        // The connection may have been evicted already.
        let _gone = tokio::io::AsyncWriteExt::write_all(&mut peer.0, b"GET / HTTP/1.1\r\nx-").await;
        flood.push(peer);
        if nth % 40 == 0 {
            let mut fresh = server.connect().await;
            fresh.send(&get("/")).await;
            assert!(fresh.answer().await.ends_with("hello"), "{nth}");
        }
    }
    assert!(busy.answer().await.ends_with("slow"));
    drop(flood);
}

#[tokio::test]
async fn calls_that_are_being_answered_never_make_room() {
    let slow = |_: Extension<Connection>| async {
        tokio::time::sleep(millis(300)).await;
        "slow"
    };
    let limits = Limits { connections_max: 1, idle_min: Duration::ZERO, ..Limits::default() };
    let server = start(echo().route("/slow", on_get(slow)), limits).await;
    let mut busy = server.connect().await;
    busy.send(&get("/slow")).await;
    let mut waiting = server.connect().await;
    waiting.send(&get("/")).await;
    assert!(busy.answer().await.ends_with("slow"));
    assert!(waiting.answer().await.ends_with("hello"));
}
