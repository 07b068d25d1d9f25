//! Calls of the client whose request has not left, not even one byte, and what happens to kept connections.

use crate::sent::request;
use crate::support::{millis, patiently, start, until};
use axum::Router;
use axum::routing::post as on_post;
use bytes::Bytes;
use chassis::client::{Cause, Client, ClientConfig, Connect, Failure, SendBefore, Stream, Tcp};
use chassis::server::Limits;
use futures_util::future::BoxFuture;
use http::Request;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::Instant;

fn not_sent(result: Result<http::Response<Bytes>, Failure>) -> Cause {
    match result {
        Err(Failure::NotSent(cause)) => cause,
        other => panic!("not unsent: {other:?}"),
    }
}

fn nowhere() -> SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

#[tokio::test]
async fn a_refused_connection_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let cause = not_sent(Client::new(ClientConfig::default()).send(request(address, "/", "x")).await);
    assert!(
        matches!(&cause, Cause::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused),
        "{cause:?}"
    );
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_not_sent() {
    let request = Request::post("http://unknown.invalid/").body(Bytes::new()).unwrap();
    let cause = not_sent(Client::new(ClientConfig::default()).send(request).await);
    assert!(matches!(cause, Cause::Connect(_) | Cause::ConnectLate(_)), "{cause:?}");
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    // `localhost` may resolve to ::1 first, where no process listens.
    let server = start(Router::new().route("/", on_post(|| async {})), Limits::default()).await;
    let uri = format!("http://localhost:{}/", server.address.port());
    let request = Request::post(uri).body(Bytes::new()).unwrap();
    Client::new(ClientConfig::default()).send(request).await.unwrap();
}

#[tokio::test]
async fn a_request_that_this_client_cannot_send_is_not_sent() {
    for uri in ["https://localhost/", "/", "http://name:secret@localhost/"] {
        let request = Request::post(uri).body(Bytes::new()).unwrap();
        let cause = not_sent(Client::new(ClientConfig::default()).send(request).await);
        assert!(matches!(cause, Cause::Request(_)), "{uri}: {cause:?}");
    }
}

/// Connects over TCP, but only after this process has stood still.
struct StandsStill(Duration);

impl Connect for StandsStill {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let connected = Tcp.connect(host, port, deadline).await;
            tokio::time::sleep(self.0).await;
            connected
        })
    }
}

#[tokio::test]
async fn no_byte_leaves_once_the_time_to_send_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::with_connect(ClientConfig::default(), StandsStill(millis(100)));
    for send_before in [Instant::now(), Instant::now() + millis(50)] {
        let mut request = request(address, "/", "x");
        request.extensions_mut().insert(SendBefore(send_before));
        let cause = not_sent(client.send(request).await);
        assert!(matches!(cause, Cause::SendLate), "{cause:?}");
    }
    let (mut peer, _) = patiently(listener.accept()).await.unwrap();
    assert_eq!(patiently(peer.read(&mut [0; 64])).await.unwrap(), 0, "bytes were sent");
}

#[tokio::test]
async fn no_byte_leaves_once_the_time_of_the_whole_call_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config =
        ClientConfig { deadline: millis(20), connect_timeout: millis(10_000), ..ClientConfig::default() };
    let client = Client::with_connect(config, StoodStill);
    let cause = not_sent(client.send(request(address, "/", "x")).await);
    assert!(matches!(cause, Cause::SendLate), "{cause:?}");
    let (mut peer, _) = patiently(listener.accept()).await.unwrap();
    assert_eq!(patiently(peer.read(&mut [0; 64])).await.unwrap(), 0, "bytes were sent");
}

/// Blocks the whole process once connected, so that no timer fires before the request could be written.
struct StoodStill;

impl Connect for StoodStill {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let connected = Tcp.connect(host, port, deadline).await;
            let over = Instant::now() + millis(100);
            while Instant::now() < over {
                std::thread::yield_now();
            }
            connected
        })
    }
}

/// Networks that behave as their names say.
#[derive(Clone, Copy)]
enum Wire {
    NeverConnects,
    TakesNothing,
    FailsAtOnce,
    FailsAfterBytes(usize),
    AwaitsOne,
    AnswersOne,
}

impl Connect for Wire {
    fn connect<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
        _deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if matches!(self, Self::NeverConnects) {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(*self) as Box<dyn Stream>)
        })
    }
}

impl Stream for Wire {
    fn is_stale(&self) -> bool {
        false
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !matches!(*self, Self::AnswersOne) {
            return Poll::Pending;
        }
        *self = Self::FailsAtOnce;
        buf.put_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match *self {
            Self::FailsAtOnce => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Self::FailsAfterBytes(bytes) => {
                *self = Self::FailsAtOnce;
                Poll::Ready(Ok(bytes.min(buf.len())))
            }
            Self::AwaitsOne => {
                *self = Self::AnswersOne;
                Poll::Ready(Ok(buf.len()))
            }
            _ => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn quick() -> ClientConfig {
    ClientConfig { connect_timeout: millis(60), deadline: millis(120), ..ClientConfig::default() }
}

#[tokio::test]
async fn a_black_hole_is_not_sent_once_the_connect_deadline_is_over() {
    let began = Instant::now();
    let cause =
        not_sent(Client::with_connect(quick(), Wire::NeverConnects).send(request(nowhere(), "/", "x")).await);
    assert!(matches!(cause, Cause::ConnectLate(_)), "{cause:?}");
    assert!(began.elapsed() >= millis(60));
}

#[tokio::test]
async fn a_connection_that_takes_no_byte_is_not_sent_at_the_deadline() {
    let cause =
        not_sent(Client::with_connect(quick(), Wire::TakesNothing).send(request(nowhere(), "/", "x")).await);
    assert!(matches!(cause, Cause::Late(_)), "{cause:?}");
}

#[tokio::test]
async fn a_write_that_fails_before_the_first_byte_is_not_sent_and_after_it_is_unknown() {
    let client = Client::with_connect(quick(), Wire::FailsAtOnce);
    let cause = not_sent(client.send(request(nowhere(), "/", "x")).await);
    assert!(matches!(cause, Cause::Connection(_)), "{cause:?}");
    let client = Client::with_connect(quick(), Wire::FailsAfterBytes(1));
    let result = client.send(request(nowhere(), "/", "x")).await;
    assert!(matches!(result, Err(Failure::Unknown(Cause::Connection(_)))), "{result:?}");
}

#[tokio::test]
async fn bytes_of_an_earlier_request_on_the_connection_do_not_count() {
    let client = Client::with_connect(quick(), Wire::AwaitsOne);
    client.send(request(nowhere(), "/", "x")).await.unwrap();
    let cause = not_sent(client.send(request(nowhere(), "/", "x")).await);
    assert!(matches!(cause, Cause::Connection(_)), "{cause:?}");
}

#[tokio::test]
async fn a_call_that_finds_all_connections_busy_is_not_sent() {
    let server =
        start(Router::new().route("/", on_post(std::future::pending::<()>)), Limits::default()).await;
    let client = Client::new(ClientConfig { pool_max: 1, deadline: millis(1000), ..ClientConfig::default() });
    let mut held = pin!(client.send(request(server.address, "/", "x")));
    tokio::select! {
        biased;
        answer = &mut held => panic!("answered: {answer:?}"),
        () = until(|| server.figure("http_connections_open", "") == 1.0) => {}
    }
    let cause = not_sent(client.send(request(server.address, "/", "x")).await);
    assert!(matches!(cause, Cause::Busy(_)), "{cause:?}");
}

/// Gets no file descriptor for its first connections, as under a low `ulimit -n`; then plain TCP.
struct NoFiles {
    left: AtomicUsize,
}

impl Connect for NoFiles {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Box::pin(async { Err(rustix::io::Errno::MFILE.into()) });
        }
        Tcp.connect(host, port, deadline)
    }
}

#[tokio::test]
async fn a_call_that_finds_no_file_for_its_connection_waits_for_one_within_its_deadline() {
    let server = start(Router::new().route("/", on_post(|| async { "ok" })), Limits::default()).await;
    let config = || ClientConfig { deadline: millis(2000), ..ClientConfig::default() };
    let soon = Client::with_connect(config(), NoFiles { left: AtomicUsize::new(3) });
    assert_eq!(soon.send(request(server.address, "/", "x")).await.unwrap().body(), "ok");
    let never = NoFiles { left: AtomicUsize::new(usize::MAX) };
    let never = Client::with_connect(ClientConfig { deadline: millis(100), ..config() }, never);
    let cause = not_sent(never.send(request(server.address, "/", "x")).await);
    assert!(matches!(cause, Cause::Connect(_)), "{cause:?}");
}

/// Answers one request on each connection, then closes it: gracefully, or by a reset.
async fn closes_after_one(reset: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut buf = [0; 1024];
            assert!(tcp.read(&mut buf).await.unwrap() > 0);
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            if reset {
                tcp.set_zero_linger().unwrap();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced_before_a_byte_is_written() {
    for reset in [false, true] {
        let address = closes_after_one(reset).await;
        let client = Client::new(ClientConfig::default());
        for _ in 0..5 {
            let answer = client.send(request(address, "/", "x")).await;
            // A reset may overtake the answer that was just written; the server causes that.
            if !reset {
                answer.unwrap();
            }
            // Time for the close to arrive; a real pause between two calls is longer.
            tokio::time::sleep(millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_close_that_the_runtime_has_not_heard_of_yet_is_noticed_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (close, is_to_close) = std::sync::mpsc::channel::<()>();
    let (closed, is_closed) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut tcp, _) = listener.accept().unwrap();
            assert!(io::Read::read(&mut tcp, &mut [0; 1024]).unwrap() > 0);
            io::Write::write_all(&mut tcp, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            is_to_close.recv().unwrap();
            drop(tcp);
            closed.send(()).unwrap();
        }
    });
    let client = Client::new(ClientConfig::default());
    client.send(request(address, "/", "x")).await.unwrap();
    // From here on the only thread of the runtime is blocked: it does not notice the close.
    close.send(()).unwrap();
    is_closed.recv().unwrap();
    assert!(is_closed.recv_timeout(millis(30)).is_err());
    client.send(request(address, "/", "x")).await.unwrap();
    close.send(()).unwrap();
}

#[tokio::test]
async fn what_a_server_says_unasked_is_not_taken_for_the_next_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        for body in ["one", "two"] {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut buf = [0; 1024];
            assert!(tcp.read(&mut buf).await.unwrap() > 0);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{body}");
            tcp.write_all(answer.as_bytes()).await.unwrap();
            tokio::time::sleep(millis(5)).await;
            tcp.write_all(answer.replace(body, "bad").as_bytes()).await.unwrap();
            kept.push(tcp);
        }
    });
    let client = Client::new(ClientConfig::default());
    for body in ["one", "two"] {
        assert_eq!(client.send(request(address, "/", "x")).await.unwrap().into_body(), body);
        tokio::time::sleep(millis(40)).await;
    }
}

#[tokio::test]
async fn unused_connections_are_closed() {
    let server = start(Router::new().route("/", on_post(|| async {})), Limits::default()).await;
    let client = Client::new(ClientConfig { idle: millis(500), ..ClientConfig::default() });
    let two = tokio::join!(
        client.send(request(server.address, "/", "x")),
        client.send(request(server.address, "/", "x"))
    );
    assert!(two.0.is_ok() && two.1.is_ok());
    assert_eq!(server.figure("http_connections_open", ""), 2.0);
    until(|| server.figure("http_connections_open", "") == 0.0).await;
}

#[tokio::test]
async fn connections_to_one_host_make_room_for_those_to_another() {
    let router = || Router::new().route("/", on_post(|| async {}));
    let (one, other) = (start(router(), Limits::default()).await, start(router(), Limits::default()).await);
    let client = Client::new(ClientConfig { pool_max: 1, ..ClientConfig::default() });
    client.send(request(one.address, "/", "x")).await.unwrap();
    client.send(request(other.address, "/", "x")).await.unwrap();
    until(|| one.figure("http_connections_open", "") == 0.0).await;
    patiently(client.send(request(other.address, "/", "x"))).await.unwrap();
    assert_eq!(other.figure("http_connections_open", ""), 1.0);
}
