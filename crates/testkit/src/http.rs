//! A small HTTP/1.1 client, written independently of the one under test so that they share no mistake. Blocking; no
//! redirects, no retries, no pool. Knows no route.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Timeout of an answer: longer than the longest pay call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code, for example 200.
    pub status: u16,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The whole body, without chunk framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When the body is no JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}) in the {} answer: {}", self.status, self.text()),
        }
    }
}

/// Splits `http://host:port/path` into the host and port, and the path with its query.
///
/// # Panics
/// When the URL is of another form.
#[must_use]
#[track_caller]
pub fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("a test URL starts with http://");
    match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, "/"),
    }
}

/// Makes one call on a connection of its own.
pub fn try_call(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    let (host, path) = split(url);
    Connection::open(host)?.call(method, path, headers, body)
}

/// Makes one call on a connection of its own.
///
/// # Panics
/// When no complete answer comes.
#[must_use]
#[track_caller]
pub fn call(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    match try_call(method, url, headers, body) {
        Ok(answer) => answer,
        Err(error) => panic!("{method} {url}: {error}"),
    }
}

/// GET on a connection of its own.
///
/// # Panics
/// When no complete answer comes.
#[must_use]
#[track_caller]
pub fn get(url: &str) -> Answer {
    call("GET", url, &[], b"")
}

/// POST with any body as application/json on a connection of its own.
///
/// # Panics
/// When no complete answer comes.
#[must_use]
#[track_caller]
pub fn post(url: &str, body: impl AsRef<[u8]>) -> Answer {
    call("POST", url, &[("Content-Type", "application/json")], body.as_ref())
}

/// Sends these bytes, closes the sending side, and reads until the other side closes: for hostile input.
pub fn raw(address: impl ToSocketAddrs, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A kept connection.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: BufReader<S>,
    host: String,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self::over(stream, host))
    }

    /// This side's address.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }
}

impl<S: Read + Write> Connection<S> {
    /// A connection over an established stream.
    pub fn over(stream: S, host: &str) -> Self {
        Self { stream: BufReader::with_capacity(64 * 1024, stream), host: host.to_owned() }
    }

    /// Writes these bytes, for a request in pieces.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    /// Makes one call; the connection may be used again. Sends a Content-Length, except with GET and HEAD.
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            write!(request, "Host: {}\r\n", self.host)?;
        }
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n")?;
        }
        if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
            write!(request, "Content-Length: {}\r\n", body.len())?;
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        self.write(&request)?;
        self.answer(method == "HEAD")
    }

    /// Reads one answer; interim 1xx answers are skipped.
    pub fn answer(&mut self, to_head: bool) -> io::Result<Answer> {
        loop {
            let mut answer = self.head()?;
            if answer.status >= 200 {
                if !to_head && !matches!(answer.status, 204 | 304) {
                    answer.body = self.body(&answer)?;
                }
                return Ok(answer);
            }
        }
    }

    fn head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("a header without a colon"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let status = status.ok_or_else(|| broken("no status line"))?;
        Ok(Answer { status, headers, body: Vec::new() })
    }

    fn body(&mut self, head: &Answer) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line()?;
                let length = u64::from_str_radix(line.trim(), 16).map_err(|_| broken("a chunk size"))?;
                if length == 0 {
                    while !self.line()?.is_empty() {}
                    return Ok(body);
                }
                self.take(length, &mut body)?;
                if !self.line()?.is_empty() {
                    return Err(broken("a chunk longer than its length"));
                }
            }
        }
        match head.header("content-length") {
            Some(length) => {
                self.take(length.parse().map_err(|_| broken("a length"))?, &mut body)?;
            }
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn take(&mut self, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let taken = (&mut self.stream).take(length).read_to_end(into)?;
        if u64::try_from(taken).ok() == Some(length) { Ok(()) } else { Err(closed()) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let ended = line.strip_suffix('\n').ok_or_else(closed)?;
        Ok(ended.strip_suffix('\r').unwrap_or(ended).to_owned())
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has {what} that is none"))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed in the middle of an answer")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered_with(bytes: &'static [u8]) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while request.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            stream.write_all(bytes).unwrap();
        });
        let answer = try_call("GET", &format!("http://{host}/"), &[], b"");
        server.join().unwrap();
        answer
    }

    #[test]
    fn a_body_is_read_by_length_by_chunks_and_to_the_end() {
        let sized = answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay").unwrap();
        assert_eq!((sized.status, sized.text().as_str()), (200, "ok"));
        let chunked = b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        let chunked = answered_with(chunked).unwrap();
        assert_eq!((chunked.status, chunked.text().as_str()), (404, "abc"));
        let open = answered_with(b"HTTP/1.1 503 x\r\nX-A: b\r\n\r\nall of it").unwrap();
        assert_eq!((open.header("x-a"), open.text().as_str()), (Some("b"), "all of it"));
    }

    #[test]
    fn half_an_answer_is_an_error() {
        for half in [&b"HTTP/1.1 200"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", b""] {
            assert!(answered_with(half).is_err(), "{half:?}");
        }
    }
}
