//! Proof: a thousand idle or very slow connections do not delay other connections, and are not closed too early. With a
//! limit of 1,024 open files a few silent ones are closed for others. `make idle` runs it on a release build. Knows the
//! services from outside only.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testkit::http::{self, Connection};
use testkit::process::raise_own_nofile;
use testkit::{Services, size};
use tokio::time::Instant;

/// Number of answers that other clients get from each service meanwhile, half over a kept connection, half over fresh
/// ones.
const ANSWERS: usize = 1000;
/// Maximum 99th percentile of their latency.
const P99_MAX: Duration = Duration::from_millis(100);
/// The calls of the others take at least this many rounds, so that slow connections could be closed wrongly.
const ROUNDS: usize = 20;
/// With this many file descriptors no connection is closed for another; a shell may allow fewer.
const FILES_ENOUGH: u64 = 2048;
/// Maximum number of silent connections closed when a process has hardly more file descriptors than connections.
const EVICTED_MAX: usize = 8;

/// A call of the other clients.
struct Call {
    method: &'static str,
    path: &'static str,
    body: &'static str,
}

const BILLING: Call = Call { method: "GET", path: "/rest/v1/invoices/1", body: "" };
const PAYMENTS: Call =
    Call { method: "POST", path: "/", body: r#"{"customer_id":1,"currency":"USD","value":1.25}"# };

#[test]
fn a_thousand_idle_and_slow_connections_do_not_slow_other_connections() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).billing_flags(["--demo=antaeus"]).start();
    let evicted_max = if raise_own_nofile() < FILES_ENOUGH { EVICTED_MAX } else { 0 };
    println!("{}", hold_and_ask("billing", services.billing.address(), &BILLING, evicted_max));
    println!("{}", hold_and_ask("payments", services.payments.address(), &PAYMENTS, evicted_max));
}

#[test]
fn a_thousand_idle_and_slow_connections_do_not_slow_other_connections_with_1024_files() {
    let services =
        Services::of(env!("CARGO_BIN_EXE_tinjis")).billing_flags(["--demo=antaeus"]).nofile(1024).start();
    println!(
        "ulimit -n 1024; open before the first connection: billing {}, payments {}",
        services.billing.open_files(),
        services.payments.open_files()
    );
    println!("{}", hold_and_ask("billing", services.billing.address(), &BILLING, EVICTED_MAX));
    println!("{}", hold_and_ask("payments", services.payments.address(), &PAYMENTS, EVICTED_MAX));
}

/// Measures one service; returns the result as a line.
fn hold_and_ask(name: &str, address: SocketAddr, call: &Call, evicted_max: usize) -> String {
    let _limit = raise_own_nofile();
    let count = size("IDLE_CONNECTIONS", 1000);
    let request = format!(
        "{} {} HTTP/1.1\r\nHost: slow\r\nContent-Length: {}\r\n\r\n{}",
        call.method,
        call.path,
        call.body.len(),
        call.body
    );
    let mut idle: Vec<TcpStream> = (0..count / 2).map(|_| connect(address)).collect();
    let mut slow: Vec<TcpStream> = (count / 2..count).map(|_| connect(address)).collect();
    let mut latencies = Vec::with_capacity(ANSWERS);
    // One more connection at a time: first a kept one, then fresh ones. With 1,024 files hardly more would fit.
    let mut kept = Some(Connection::open(&address.to_string()).expect("one more connection is accepted"));
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            kept = None;
        }
        for stream in &mut slow {
            stream.write_all(&request.as_bytes()[round..=round]).expect("a slow connection is open");
        }
        for _ in 0..ANSWERS / ROUNDS {
            latencies.push(measured(address, kept.as_mut(), call));
        }
    }
    let p99 = percentile(&mut latencies, 99);
    assert!(p99 < P99_MAX, "{name}: p99 {p99:?}");
    let held = idle.len() + slow.len();
    idle.retain_mut(still_open);
    let gone = held - idle.len() - slow.len();
    assert!(gone <= evicted_max, "{name}: {gone} idle connections were closed");
    finish_all(name, slow, &request.as_bytes()[ROUNDS..]);
    finish_all(name, idle, request.as_bytes());
    format!(
        "{name}: {held} connections held, {gone} silent ones closed for others, {} responses meanwhile, p50 {:?}, p99 {p99:?}, slowest {:?}",
        latencies.len(),
        percentile(&mut latencies, 50),
        percentile(&mut latencies, 100)
    )
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection is accepted");
    stream.set_nodelay(true).expect("small pieces leave at once");
    stream
}

fn measured(address: SocketAddr, kept: Option<&mut Connection>, call: &Call) -> Duration {
    let start = Instant::now();
    let body = call.body.as_bytes();
    let url = format!("http://{address}{}", call.path);
    let answer = match kept {
        Some(kept) => kept.call(call.method, call.path, &[], body),
        None => http::try_call(call.method, &url, &[("Connection", "close")], body),
    };
    let answer = answer.expect("others are answered");
    assert_eq!(answer.status, 200, "others are served: {}", answer.text());
    start.elapsed()
}

/// Whether the connection is open and no byte has arrived.
fn still_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("it can be asked without waiting");
    let nothing = matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("it can wait again");
    nothing
}

/// Proves that each connection is open: it sends the rest of its request and gets an answer.
fn finish_all(name: &str, streams: Vec<TcpStream>, rest: &[u8]) {
    for mut stream in streams {
        stream.write_all(rest).expect("a held connection takes the rest");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("a held connection is answered");
        assert_eq!(&status, b"HTTP/1.1 200", "{name}: a held connection is served in the end");
    }
}

fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    latencies.sort_unstable();
    latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)]
}
