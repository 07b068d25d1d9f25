//! The named points at which the process dies in the middle of a call: this program runs one of its own tests again, as
//! the process that dies, and checks what arrived.

use crate::sent::request;
use crate::support::patiently;
use chassis::client::{Client, ClientConfig};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TARGET: &str = "EDGE_CRASH_TARGET";
const SIGKILL: i32 = 9;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The part of the request that arrived before the process died at the point.
async fn arrived_when_dying_at(point: &str, test: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(TARGET, listener.local_addr().unwrap().to_string())
        .env("TINJIS_CRASH", format!("{point}:1"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut tcp, _) = patiently(listener.accept()).await.unwrap();
    let mut arrived = Vec::new();
    let mut buf = [0; 1024];
    while let Ok(bytes @ 1..) = patiently(tcp.read(&mut buf)).await {
        arrived.extend_from_slice(&buf[..bytes]);
        if arrived.ends_with(b"\r\n\r\nbody") {
            // The process may be dead already; if not, it dies when it reads the answer.
            let _ = tcp.write_all(ANSWER).await;
        }
    }
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "it did not die at {point}: {status}");
    String::from_utf8(arrived).unwrap()
}

/// Makes the call, in the process that is to die. In any other process: `false`.
async fn is_the_one_to_die() -> bool {
    let Some(target) = std::env::var_os(TARGET) else { return false };
    let target: SocketAddr = target.to_str().unwrap().parse().unwrap();
    let answer = Client::new(ClientConfig::default()).send(request(target, "/", "body")).await;
    panic!("it lives on: {answer:?}");
}

#[tokio::test]
async fn a_process_can_die_connected_with_nothing_sent() {
    if !is_the_one_to_die().await {
        let test = "crash::a_process_can_die_connected_with_nothing_sent";
        assert_eq!(arrived_when_dying_at("client-connected", test).await, "");
    }
}

#[tokio::test]
async fn a_process_can_die_with_half_a_request_sent() {
    if !is_the_one_to_die().await {
        let test = "crash::a_process_can_die_with_half_a_request_sent";
        let arrived = arrived_when_dying_at("client-half-request", test).await;
        assert!(arrived.starts_with("POST / HTTP/1.1\r\n") && !arrived.contains("\r\n\r\n"), "{arrived}");
    }
}

#[tokio::test]
async fn a_process_can_die_with_its_whole_request_sent() {
    if !is_the_one_to_die().await {
        let test = "crash::a_process_can_die_with_its_whole_request_sent";
        assert!(arrived_when_dying_at("client-request-sent", test).await.ends_with("\r\n\r\nbody"));
    }
}

#[tokio::test]
async fn a_process_can_die_with_half_an_answer_read() {
    if !is_the_one_to_die().await {
        let test = "crash::a_process_can_die_with_half_an_answer_read";
        assert!(arrived_when_dying_at("client-half-answer", test).await.ends_with("\r\n\r\nbody"));
    }
}
