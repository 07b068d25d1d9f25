//! A scripted provider on a socket: answers every request with the same bytes and records the requests. It does not
//! replace our payment service: it gives answers that ours never gives.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A provider that is running; its thread ends with the test's process.
pub(crate) struct Foreign {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Foreign {
    /// Answers every request with these bytes and closes the connection; without bytes it only closes.
    pub(crate) fn sending(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |_| bytes.clone())
    }

    /// Answers every request with this status and JSON body.
    pub(crate) fn answering(status: u16, body: &str) -> Self {
        Self::sending(answer(status, body))
    }

    /// Answers each request, passed as text, with the bytes from the function.
    pub(crate) fn start(reply: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, reply) = (Arc::clone(&seen), Arc::new(reply));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (kept, reply) = (Arc::clone(&kept), Arc::clone(&reply));
                std::thread::spawn(move || serve(socket, &kept, reply.as_ref()));
            }
        });
        Self { url, seen }
    }

    /// `http://host:port`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Every request so far, head and body as text.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().expect("no test thread panicked here").clone()
    }
}

/// A complete answer that closes its connection.
pub(crate) fn answer(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The JSON body of a request.
pub(crate) fn body_of(request: &str) -> serde_json::Value {
    let (_, body) = request.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).expect("a JSON body")
}

/// The value of a header of a request.
pub(crate) fn header_of<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let head = request.split_once("\r\n\r\n").map_or(request, |(head, _)| head);
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

fn serve(mut socket: TcpStream, kept: &Mutex<Vec<String>>, reply: &(impl Fn(&str) -> Vec<u8> + ?Sized)) {
    let Some(request) = read_request(&mut socket) else { return };
    kept.lock().expect("no test thread panicked here").push(request.clone());
    // A peer that has closed the connection is no error of the test.
    let _ = socket.write_all(&reply(&request));
}

fn read_request(socket: &mut TcpStream) -> Option<String> {
    socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize =
                header_of(head, "content-length").map_or(0, |value| value.parse().unwrap_or(0));
            if body.len() >= length {
                return Some(text);
            }
        }
        match socket.read(&mut buffer).ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}
