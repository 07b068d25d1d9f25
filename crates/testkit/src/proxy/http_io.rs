//! HTTP/1.1 for the proxy: peeks at a request's head before reading it, and writes answers. Knows no fault.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::http::Answer;
use crate::wait::pause;

/// Maximum length of a request's head; real ones have some hundred bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Maximum length of a request's body; real ones have about a hundred bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How often an unfinished head is checked.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Maximum number of checks until a head counts as never ending.
const LOOKS_MAX: usize = 30_000;

/// The head of a request that is still in the socket's buffer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
}

/// A complete request that was read.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

impl Head {
    /// Waits for a head without consuming it; `None` when no more heads come.
    pub(super) fn peek(stream: &TcpStream) -> Option<Self> {
        let mut buffer = vec![0; HEAD_BYTES_MAX];
        for _ in 0..LOOKS_MAX {
            let seen = stream.peek(&mut buffer).ok().filter(|seen| *seen > 0)?;
            if let Some(end) = buffer[..seen].windows(4).position(|four| four == b"\r\n\r\n") {
                return Some(Self { bytes: buffer[..end + 4].to_vec() });
            }
            pause(LOOK_AGAIN);
        }
        None
    }

    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn path(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }

    fn without(&self, name: &str) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.bytes);
        let is_it =
            |line: &&str| line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        text.split_inclusive("\r\n").filter(|line| !is_it(line)).collect::<String>().into_bytes()
    }
}

impl Request {
    /// Reads the head that was peeked, and its body.
    pub(super) fn take(mut stream: &TcpStream, head: Head) -> io::Result<Self> {
        stream.read_exact(&mut vec![0; head.length()])?;
        let length = head.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if length > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        Ok(Self { head, body })
    }

    /// The invoice's reference, if the body has one.
    pub(super) fn reference(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        body["id"].as_str().map(ToOwned::to_owned)
    }

    /// The request as it is sent to the provider.
    pub(super) fn bytes(&self, strips_key: bool) -> Vec<u8> {
        let mut bytes =
            if strips_key { self.head.without("idempotency-key") } else { self.head.bytes.clone() };
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer of the proxy's own.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answer { status, headers, body: body.into() }
}

/// Writes an answer, with the actual length of its body.
pub(super) fn write(mut stream: &TcpStream, answer: &Answer) -> io::Result<()> {
    let mut bytes = format!("HTTP/1.1 {} Proxied\r\n", answer.status).into_bytes();
    for (name, value) in &answer.headers {
        if !matches!(name.as_str(), "content-length" | "transfer-encoding" | "connection") {
            write!(bytes, "{name}: {value}\r\n")?;
        }
    }
    write!(bytes, "content-length: {}\r\n\r\n", answer.body.len())?;
    bytes.extend_from_slice(&answer.body);
    stream.write_all(&bytes)
}

/// Reads until the other side closes, or the socket's own timeout expires.
pub(super) fn await_end(mut stream: &TcpStream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
}

/// Ends the connection by a reset, which a linger time of zero causes.
pub(super) fn reset(stream: &TcpStream) {
    let linger = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    debug_assert!(linger.is_ok(), "a connected socket can be reset");
}
