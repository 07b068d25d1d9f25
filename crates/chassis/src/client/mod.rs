//! The HTTP client: one call on one connection, exact about whether a byte was sent. Must not know which service is called
//! or what a response means. Never retries, follows redirects or reads proxy settings.
//!
//! One case looks like a retry but is none: an idle connection that is found dead before any byte of a request was
//! written is replaced. Once a byte of a request was written, the request is never written again.

mod connect;
mod exchange;
mod failure;
mod pool;
mod span;
mod url;
mod write_counter;

pub use connect::{Connect, Stream, Tcp};
pub use failure::{Cause, Failure};
pub use span::Traced;
pub use url::http_url;

use crate::clock::Random;
use crate::telemetry::{TRACEPARENT, TraceContext, Tracer};
use bytes::Bytes;
use exchange::{CallLimits, ExchangeError, Http1Connection};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;
use pool::Pool;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Default time limit for resolving a name and connecting.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Default time limit of a whole call.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Idle time after which a connection is closed.
pub const IDLE: Duration = Duration::from_secs(30);
/// Default maximum number of open connections.
pub const POOL_MAX: usize = 256;
/// Pause of a call that found no free file descriptor, unless a connection is returned before.
const FILES_AGAIN_IN: Duration = Duration::from_millis(20);
/// Default maximum size of a response's body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// The limits and deadlines of a client.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Time limit for resolving a name and connecting, for all addresses together.
    pub connect_timeout: Duration,
    /// Time limit of a whole call: waiting for a connection, connecting, sending, reading the whole response.
    pub deadline: Duration,
    /// Idle time after which a connection is closed; shorter than any server's.
    pub idle: Duration,
    /// Maximum number of open connections, busy and idle.
    pub pool_max: usize,
    /// Whether a connection serves further calls. If not, each call has a connection of its own, which ends with the
    /// call: a late second response cannot be taken for the response to another request.
    pub reuse: bool,
    /// Longest body of a response; a larger one is [`Cause::TooLarge`].
    pub body_bytes_max: usize,
    /// Source of the span ids of outgoing calls.
    pub random: Random,
    /// Records the spans of outgoing calls.
    pub tracer: Tracer,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            deadline: DEADLINE,
            idle: IDLE,
            pool_max: POOL_MAX,
            reuse: true,
            body_bytes_max: BODY_BYTES_MAX,
            random: Random::system(),
            tracer: Tracer::default(),
        }
    }
}

/// An extension of a request: its first byte is not sent after this moment, however long this process stood still
/// before.
#[derive(Clone, Copy, Debug)]
pub struct SendBefore(pub Instant);

/// Calls over HTTP/1.1. Clones share the connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: ClientConfig,
    connect: Box<dyn Connect>,
    pool: Arc<Pool>,
    places: Semaphore,
}

impl Client {
    /// The tracer that records the spans of its calls.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.0.config.tracer
    }

    /// A client over plain TCP.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self::with_connect(config, Tcp)
    }

    /// A client over connections made by `connect`.
    #[must_use]
    pub fn with_connect(config: ClientConfig, connect: impl Connect) -> Self {
        let pool = Arc::new(Pool::new(config.idle));
        let places = Semaphore::new(config.pool_max);
        Self(Arc::new(Inner { config, connect: Box::new(connect), pool, places }))
    }

    /// Sends one request, whose URI is absolute, and reads the whole answer, whatever its status. If the future is
    /// dropped before its end, the request may have been sent.
    ///
    /// # Errors
    /// [`Failure::NotSent`] when no byte of the request reached the kernel, else [`Failure::Unknown`].
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let mut span = span::begin(&self.0.config, &mut request);
        let result = self.exchange(request).await;
        span::conclude(&mut span, &result);
        result
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let config = &self.0.config;
        let deadline = Instant::now() + config.deadline;
        let send_before = request.extensions().get().map_or(deadline, |SendBefore(moment)| *moment);
        let allowed = CallLimits {
            deadline,
            first_byte_by: deadline.min(send_before),
            total: config.deadline,
            body_bytes_max: config.body_bytes_max,
        };
        let authority = parse_authority(request.uri(), self.0.connect.is_tls())
            .map_err(|what| Failure::NotSent(Cause::Request(what)))?;
        let request = self.0.finish_headers(request, &authority).map(Full::new);
        let _place = self.0.place(allowed).await.map_err(Failure::NotSent)?;
        let (connection, answer) = self.0.exchange(request, &authority, allowed).await?;
        self.0.return_to_pool(authority, connection);
        Ok(answer)
    }
}

impl Inner {
    /// Waits for a place among the open connections.
    async fn place(&self, allowed: CallLimits) -> Result<SemaphorePermit<'_>, Cause> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let place = tokio::time::timeout_at(allowed.deadline, self.places.acquire()).await;
        Ok(place.map_err(|_| Cause::Busy(allowed.total))?.expect("the semaphore is never closed"))
    }

    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        authority: &Authority,
        allowed: CallLimits,
    ) -> Result<(Http1Connection, Response<Bytes>), Failure> {
        let mut fresh = loop {
            while let Some(mut kept) = self.pool.take(authority) {
                if kept.generation != self.connect.generation() || !kept.is_usable() {
                    continue;
                }
                match kept.exchange(request, allowed).await {
                    Ok(answer) => return Ok((kept, answer)),
                    Err(ExchangeError::Failed(failure)) => return Err(failure),
                    Err(ExchangeError::Untouched(untouched)) => request = *untouched,
                }
            }
            match self.connect(authority, allowed).await {
                Ok(fresh) => break fresh,
                // It is not the other side's fault that this process may open no more files. Other calls end soon, and
                // no byte of this request has left.
                Err(cause) if cause.is_want_of_files() && Instant::now() < allowed.deadline => {
                    self.pool.wait_for_kept(FILES_AGAIN_IN).await;
                }
                Err(cause) => return Err(Failure::NotSent(cause)),
            }
        };
        match fresh.exchange(request, allowed).await {
            Ok(answer) => Ok((fresh, answer)),
            Err(ExchangeError::Failed(failure)) => Err(failure),
            Err(ExchangeError::Untouched(_)) if Instant::now() >= allowed.first_byte_by => {
                Err(Failure::NotSent(Cause::SendLate))
            }
            Err(ExchangeError::Untouched(_)) => {
                let gone = std::io::ErrorKind::ConnectionAborted.into();
                Err(Failure::NotSent(Cause::Connect(gone)))
            }
        }
    }

    async fn connect(&self, authority: &Authority, allowed: CallLimits) -> Result<Http1Connection, Cause> {
        self.pool.keep_at_most(self.places.available_permits());
        let deadline = allowed.deadline.min(Instant::now() + self.config.connect_timeout);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let default_port = if self.connect.is_tls() { HTTPS_PORT } else { HTTP_PORT };
        let port = parse_port(authority).map_err(Cause::Request)?.unwrap_or(default_port);
        // Read before connecting: if the material changes in between, the connection seems older than it is, which is
        // harmless.
        let generation = self.connect.generation();
        let stream = tokio::time::timeout_at(deadline, self.connect.connect(host, port, deadline))
            .await
            .map_err(|_| Cause::ConnectLate(self.config.connect_timeout))
            .and_then(|connected| connected.map_err(Cause::Connect))
            .inspect_err(mark_crash_point)?;
        let connection = Http1Connection::new(stream, generation).await.map_err(Cause::Connection)?;
        crate::crash_point!("client-connected");
        Ok(connection)
    }

    /// Keeps a connection whose exchange is complete on both sides.
    fn return_to_pool(&self, authority: Authority, mut connection: Http1Connection) {
        let reuse = self.config.reuse;
        if reuse && connection.generation == self.connect.generation() && connection.is_usable() {
            self.pool.put(authority, connection);
        }
    }

    /// Completes the headers of a request for sending.
    fn finish_headers(&self, mut request: Request<Bytes>, authority: &Authority) -> Request<Bytes> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let has_no_length = request.body().is_empty() && request.method() == Method::POST;
        let headers = request.headers_mut();
        if has_no_length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if !self.config.reuse {
            // The server then closes first, and this side's ports are not held for a minute each.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if !headers.contains_key(header::HOST) {
            let host = HeaderValue::try_from(authority.as_str()).expect("an authority is visible ASCII");
            headers.insert(header::HOST, host);
        }
        if !headers.contains_key(TRACEPARENT) {
            let context = TraceContext::outgoing(&self.config.random);
            headers.insert(TRACEPARENT, context.header_value());
        }
        request
    }
}

/// Points by which proofs count failed connections.
fn mark_crash_point(cause: &Cause) {
    match cause {
        Cause::ConnectLate(_) => crate::crash_point!("client-connect-late"),
        Cause::Connect(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            crate::crash_point!("client-connect-late");
        }
        Cause::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            crate::crash_point!("client-refused");
        }
        _ => {}
    }
}

/// The port of a URL, `None` if the scheme decides. An invalid port must not count as a missing port: another service
/// would be called.
///
/// # Errors
/// When the port is no number from 1 to 65535.
pub fn parse_port(authority: &Authority) -> Result<Option<u16>, &'static str> {
    let place = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, place)| place);
    match place.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            // A number of Rust may have a sign.
            Ok(port) if port != 0 && !text.starts_with('+') => Ok(Some(port)),
            _ => Err("its port is none from 1 to 65535"),
        },
    }
}

fn parse_authority(uri: &Uri, is_tls: bool) -> Result<Authority, &'static str> {
    let authority = uri.authority().ok_or("its URI is not absolute")?;
    match is_tls {
        true if uri.scheme() != Some(&Scheme::HTTPS) => return Err("its scheme is not https"),
        false if uri.scheme() != Some(&Scheme::HTTP) => return Err("its scheme is not http"),
        _ => {}
    }
    if authority.as_str().contains('@') {
        return Err("its URI holds credentials");
    }
    parse_port(authority)?;
    Ok(authority.clone())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.0.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_or_left_to_the_scheme_and_never_guessed() {
        let of = |text: &str| parse_port(&text.parse().unwrap());
        for (text, named) in [
            ("payments", None),
            ("payments:", None),
            ("payments:9000", Some(9000)),
            ("payments:09000", Some(9000)),
            ("user:1@payments:65535", Some(65535)),
            ("[::1]", None),
            ("[::1]:1", Some(1)),
        ] {
            assert_eq!(of(text), Ok(named), "{text}");
        }
        for text in [
            "payments:0",
            "payments:65536",
            "payments:99999",
            "[::1]:70000",
            "payments:9000000000",
            "payments:+80",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
