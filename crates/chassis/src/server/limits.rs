//! Every limit and deadline of the accept loop, each with its default, and how many connections this process
//! can afford. Knows no route.

use crate::problem::Problem;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of open connections of one server, unless the process has fewer file descriptors.
const CONNECTIONS_MAX: usize = 4096;
/// Maximum number of calls whose answer is not yet written.
const IN_FLIGHT_MAX: usize = 1024;
/// Time limit from the accept to the first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit from the first byte of a TLS handshake to its end.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of handshakes under way.
const HANDSHAKES_MAX: usize = 1024;
/// Age at which a connection over TLS must be replaced.
const TLS_AGE_MAX: Duration = Duration::from_secs(600);
/// Time limit from the first byte of a head to its end: a head is one packet, or a few.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of connections of one peer address, once there is no place for another connection.
const CONNECTIONS_PER_PEER: usize = 64;
/// Time limit from the end of a head to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit between an answer and the next request. It is longer than any known client keeps a connection, so that
/// always the client closes and no request meets a closing server.
const IDLE_TIMEOUT: Duration = Duration::from_secs(360);
/// Minimum idle time before a connection is closed in favour of a new one at the limit. The new connection waits for
/// this time, and the closed one has had it to send a request.
const IDLE_MIN: Duration = Duration::from_secs(2);
/// Time for which a client may block writes before it has read [`WRITE_BYTES_MIN`] more.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// About 17 KiB/s with [`WRITE_STALL_TIMEOUT`]. An answer counts as in flight until it is written, and all clients
/// share these places.
const WRITE_BYTES_MIN: u64 = 1024 * 1024;
/// Maximum size of request line and header lines together.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Maximum number of header lines.
const HEADERS_MAX: usize = 100;
/// Maximum size of a request's body, unless its handler has asked for a long one.
const BODY_BYTES_MAX: u64 = 1024 * 1024;
/// File descriptors reserved for other uses: admin calls, calls to other services, files.
const DESCRIPTORS_KEPT_BACK: usize = 4;

/// The limits and deadlines of one server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum number of open connections; a further one waits in the kernel's queue. Lowered at the start to the
    /// number that the process can open.
    pub connections_max: usize,
    /// At the limit of connections, a peer address with more connections than this loses its oldest ones first. Below
    /// that limit the number has no effect: behind a proxy all callers may have one address.
    pub connections_per_peer: usize,
    /// Maximum number of calls whose answer is not yet written; `shed` answers further calls.
    pub in_flight_max: usize,
    /// Time limit from the accept to the first byte.
    pub first_byte: Duration,
    /// Time limit from the first byte of a TLS handshake to its end.
    pub handshake: Duration,
    /// TLS handshakes under way; a further one replaces the oldest, since a proper handshake takes milliseconds.
    pub handshakes_max: usize,
    /// Maximum age of a TLS connection, after which it ends with its next response, so that changed client rules take
    /// effect.
    pub tls_age: Duration,
    /// Time limit from the first byte of a head to its end.
    pub header: Duration,
    /// Time limit from the end of a head to the end of its body; see [`super::Connection::expect_long_body`].
    pub body: Duration,
    /// Time limit between an answer and the first byte of the next request.
    pub idle: Duration,
    /// Minimum time before a connection is closed in favour of a new one at the limit of connections: the one idle for
    /// longest, or the one that has been sending its request for longest.
    pub idle_min: Duration,
    /// Total time for which a client may block writes before it has read `write_bytes_min` more of its response; the
    /// time in which a handler produces more is not counted.
    pub write_stall: Duration,
    /// See `write_stall`: the two together are the minimum rate of a slow client.
    pub write_bytes_min: u64,
    /// Request line and header lines together; a larger head gets 431.
    pub header_bytes_max: usize,
    /// Number of header lines; a request with more gets 431.
    pub headers_max: usize,
    /// Size of a request's body; a larger one gets 413.
    pub body_bytes_max: u64,
    /// Response to a call beyond `in_flight_max`.
    pub shed: Shed,
    /// Response to a call whose handler panicked.
    pub panicked: Panicked,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            connections_per_peer: CONNECTIONS_PER_PEER,
            in_flight_max: IN_FLIGHT_MAX,
            first_byte: FIRST_BYTE_TIMEOUT,
            handshake: HANDSHAKE_TIMEOUT,
            handshakes_max: HANDSHAKES_MAX,
            tls_age: TLS_AGE_MAX,
            header: HEADER_TIMEOUT,
            body: BODY_TIMEOUT,
            idle: IDLE_TIMEOUT,
            idle_min: IDLE_MIN,
            write_stall: WRITE_STALL_TIMEOUT,
            write_bytes_min: WRITE_BYTES_MIN,
            header_bytes_max: HEADER_BYTES_MAX,
            headers_max: HEADERS_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            shed: Shed::default(),
            panicked: Panicked::default(),
        }
    }
}

/// Why a call was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExecuted {
    /// Too many are in flight.
    Overloaded,
    /// The service's store cannot be used, or not yet.
    NotUsable,
    /// The caller closed the connection while the call waited.
    CallerGone,
}

impl NotExecuted {
    /// The description for the caller.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Overloaded => "Too many requests in flight: not executed",
            Self::NotUsable => {
                "The store cannot be used now: not executed; /readyz on the admin port says why"
            }
            Self::CallerGone => "The caller closed its side while the request waited: not executed",
        }
    }
}

/// Makes the response to a call that was not executed.
#[derive(Clone)]
pub struct Shed(Arc<ShedAnswer>);

type ShedAnswer = dyn Fn(&Uri, NotExecuted) -> Response + Send + Sync;

impl Shed {
    /// A response that depends on the requested URI. `Retry-After` and `Not-Executed` are added to each.
    pub fn new(answer: impl Fn(&Uri, NotExecuted) -> Response + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }

    /// The default answer: 503 as `application/problem+json`.
    pub fn problem(why: NotExecuted) -> Response {
        let detail = why.detail().to_owned();
        Problem { detail, ..Problem::new(StatusCode::SERVICE_UNAVAILABLE) }.into_response()
    }

    /// The response to one call that was not executed.
    #[must_use]
    pub fn answer(&self, uri: &Uri, why: NotExecuted) -> Response {
        let mut response = (self.0)(uri, why);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        response.headers_mut().insert(super::NOT_EXECUTED, HeaderValue::from_static("true"));
        response
    }
}

impl Default for Shed {
    fn default() -> Self {
        Self::new(|_, why| Self::problem(why))
    }
}

impl fmt::Debug for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shed")
    }
}

/// Formats the response to a call whose handler panicked: it may have been executed in part.
#[derive(Clone)]
pub struct Panicked(Arc<dyn Fn(&Uri) -> Response + Send + Sync>);

impl Panicked {
    /// A response that depends on the request.
    pub fn new(answer: impl Fn(&Uri) -> Response + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }

    /// The default answer: 500 as `application/problem+json`.
    pub fn problem() -> Response {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR).into_response()
    }

    pub(super) fn answer(&self, uri: &Uri) -> Response {
        (self.0)(uri)
    }
}

impl Default for Panicked {
    fn default() -> Self {
        Self::new(|_| Self::problem())
    }
}

impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Panicked")
    }
}

/// `wanted`, or the number of connections that this process can still open, if that is smaller; at least one.
pub(super) fn limit_to_descriptors(wanted: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let free = limit.saturating_sub(open_descriptors()).saturating_sub(DESCRIPTORS_KEPT_BACK);
    wanted.min(free).max(1)
}

/// Number of open file descriptors, without the one that reads the directory.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Java's HTTP libraries keep an idle connection for up to this time.
    const OLD_CLIENTS_KEEP: Duration = Duration::from_secs(300);

    /// PAY-21
    #[test]
    fn an_idle_connection_is_kept_for_longer_than_old_clients_keep_theirs() {
        assert!(Limits::default().idle > OLD_CLIENTS_KEEP);
    }
}
