//! The limits of the accept loop with TLS on: a client that reads no answer, half-closed connections, a drain.

use crate::site::Site;
use chassis::server::Limits;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn ended(site: &Site, reason: &str) -> i64 {
    site.figure(&format!("http_connections_ended_total{{reason=\"{reason}\"}}"))
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_given_up() {
    let site = Site::open_with(Limits { write_stall: Duration::from_millis(50), ..Limits::default() }).await;
    let mut deaf = site.bytes().await;
    // Together these answers fit into no buffer; each one fits into that of TLS.
    let requests = get("/large/32").repeat(800);
    let writes = async { while deaf.write_all(requests.as_bytes()).await.is_ok() {} };
    tokio::select! {
        () = writes => {}
        () = site.until(|site| ended(site, "write_stall") == 1) => {}
    }
    site.until(|site| ended(site, "write_stall") == 1).await;
}

#[tokio::test]
async fn a_large_answer_comes_whole() {
    let site = Site::open().await;
    let mut stream = site.bytes().await;
    stream.write_all(get("/large/4096").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    assert!(read.is_ok(), "it ends with a farewell: {read:?}");
    assert!(answer.len() > 4096 * 1024 && answer.ends_with(b"xxxx"));
}

#[tokio::test]
async fn a_client_that_goes_without_a_farewell_is_no_broken_connection() {
    let site = Site::open().await;
    let mut stream = site.bytes().await;
    stream.write_all(get("/who").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(stream);
    site.until(|site| site.figure("http_connections_open") == 0).await;
    assert!(ended(&site, "broken") <= 0);
}
