//! Drives one connection from its first byte to its end: polls HTTP, enforces the deadline of the current phase, obeys
//! the drain and the handler. Knows no bytes and no routes.

use super::body::AnswerBody;
use super::call::{self, ServerContext};
use super::connection_io::{ConnectionIo, Stream};
use super::limits::Limits;
use super::socket::Socket;
use super::state::{BodyFailure, CLOSE, DRAIN, EVICT, HARD, Phase, RESET, State};
use crate::alarm::Alarm;
use crate::tls::{Refusal, ServerTls};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Time for which a client may continue to send after our last response.
const CLOSING: Duration = Duration::from_secs(2);
/// Buffer size of one connection in each direction; a body passes through in such pieces.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// HTTP or the client ended it.
    Over,
    /// HTTP could not continue: a bad head, or the client disconnected within a request.
    Broken,
    /// The deadline of the current phase passed.
    Expired(Phase),
    /// The client does not read its answer, or reads it too slowly.
    WriteStall,
    /// The TLS handshake failed; the TLS metrics have the reason.
    Refused,
    /// A handler ended the connection.
    Severed,
    /// The connection took long over its request, and another one needed the place.
    Evicted,
    /// The server is shutting down.
    Drained,
}

impl End {
    /// The end's label in the metrics; `None` for an ordinary end.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Over | Self::Refused => None,
            Self::Broken => Some("broken"),
            Self::Expired(Phase::FirstByte) => Some("first_byte_late"),
            Self::Expired(Phase::Handshake) => Some("handshake_late"),
            Self::Expired(Phase::Head) => Some("header_late"),
            Self::Expired(Phase::Idle) => Some("idle"),
            Self::Expired(_) => Some("closing_late"),
            Self::WriteStall => Some("write_stall"),
            Self::Severed => Some("handler"),
            Self::Evicted => Some("evicted"),
            Self::Drained => Some("drained"),
        }
    }
}

/// The timer of a connection: set to the deadline of its phase, and set again only when the phase changes.
struct PhaseTimer {
    epoch: Instant,
    turn: Option<u32>,
    alarm: Alarm,
    stall: Stall,
}

/// Time for which a slow reader has blocked our writes.
#[derive(Default)]
struct Stall {
    blocked_since: Option<Instant>,
    waited: Duration,
    /// Bytes written when the blocked time was last reset to zero.
    written: u64,
}

impl Stall {
    /// Updates the timer and returns the remaining time while a write is blocked.
    fn left(&mut self, state: &State, limits: &Limits, now: Instant) -> Option<Duration> {
        if let Some(since) = self.blocked_since.take() {
            self.waited += now - since;
        }
        let (is_blocked, written) = (state.is_write_blocked(), state.bytes_written());
        let is_over = !is_blocked && state.phase() != Phase::Answer;
        if is_over || written - self.written >= limits.write_bytes_min {
            (self.waited, self.written) = (Duration::ZERO, written);
        }
        if !is_blocked {
            return None;
        }
        self.blocked_since = Some(now);
        Some(limits.write_stall.saturating_sub(self.waited))
    }
}

impl PhaseTimer {
    fn poll(&mut self, cx: &mut Context<'_>, state: &State, limits: &Limits) -> Poll<()> {
        let turn = state.turn();
        if self.turn != Some(turn) {
            self.turn = Some(turn);
            let now = Instant::now();
            let since = u64::try_from((now - self.epoch).as_millis()).unwrap_or(u64::MAX);
            state.since_ms.store(since, Relaxed);
            let allowed = self.stall.left(state, limits, now).or_else(|| time_allowed(state.phase(), limits));
            self.alarm.set(allowed.map(|allowed| now + allowed));
        }
        self.alarm.poll(cx)
    }
}

fn time_allowed(phase: Phase, limits: &Limits) -> Option<Duration> {
    match phase {
        Phase::FirstByte => Some(limits.first_byte),
        Phase::Handshake => Some(limits.handshake),
        Phase::Idle => Some(limits.idle),
        Phase::Head => Some(limits.header),
        Phase::Body | Phase::LongBody => Some(limits.body),
        Phase::Call | Phase::Answer => None,
        Phase::Closing => Some(CLOSING),
    }
}

/// Serves one connection to its end.
pub(super) async fn connection(
    socket: Socket,
    shared: Arc<ServerContext>,
    state: Arc<State>,
    epoch: Instant,
) -> End {
    let mut watch = PhaseTimer { epoch, turn: None, alarm: Alarm::default(), stall: Stall::default() };
    // A connection holds no buffer before its first byte.
    let first = std::future::poll_fn(|cx| poll_first_byte(cx, &socket, &shared, &state, &mut watch));
    if let Some(end) = first.await {
        return end;
    }
    let stream = match (&shared.tls, socket) {
        (None, socket) => Stream::Plain(socket),
        (Some(tls), Socket::Tcp(tcp)) => match handshake(tls, tcp, &shared, &state, &mut watch).await {
            Ok(stream) => stream,
            Err(end) => return end,
        },
        // No simulation configures TLS.
        (Some(_), Socket::Given(_)) => return End::Refused,
    };
    let mut http = http1(&shared).serve_connection(
        TokioIo::new(ConnectionIo::new(stream, state.clone())),
        service_fn(|request: Request<Incoming>| call::answer(shared.clone(), state.clone(), request)),
    );
    let mut draining = false;
    let polled = |cx: &mut Context<'_>| poll_http(cx, &mut http, &shared, &state, &mut watch, &mut draining);
    let end = std::future::poll_fn(polled).await;
    let mut wire = http.into_parts().io.into_inner();
    if wire.is_refused() && matches!(end, End::Over | End::Broken) {
        state.enter(Phase::Closing);
        std::future::poll_fn(|cx| poll_refusal(cx, &mut wire, &shared, &state, &mut watch)).await;
        return End::Broken;
    }
    end
}

/// Lets a client read why its head was refused, within the time limit of any close.
fn poll_refusal(
    cx: &mut Context<'_>,
    wire: &mut ConnectionIo,
    shared: &ServerContext,
    state: &State,
    watch: &mut PhaseTimer,
) -> Poll<()> {
    state.driver.register(cx.waker());
    if Pin::new(wire).poll_shutdown(cx).is_ready() || state.signals() & (HARD | EVICT) != 0 {
        return Poll::Ready(());
    }
    watch.poll(cx, state, &shared.limits)
}

/// Performs the TLS handshake within its time limit. Records the peer's name in the connection's state.
async fn handshake(
    tls: &ServerTls,
    tcp: TcpStream,
    shared: &ServerContext,
    state: &Arc<State>,
    watch: &mut PhaseTimer,
) -> Result<Stream, End> {
    state.enter(Phase::Handshake);
    let _half_open = shared.half_open.enter(state.clone());
    let mut accepted = pin!(tls.accept(tcp));
    let accepted = std::future::poll_fn(|cx| {
        state.driver.register(cx.waker());
        if let Poll::Ready(accepted) = accepted.as_mut().poll(cx) {
            return Poll::Ready(accepted.ok_or(End::Refused));
        }
        match state.signals() {
            asked if asked & (CLOSE | EVICT) != 0 => {
                tls.refuse(Refusal::HandshakeTimeout, &"too many are under way, and this is the oldest");
                return Poll::Ready(Err(End::Expired(Phase::Handshake)));
            }
            asked if asked & (DRAIN | HARD) != 0 => return Poll::Ready(Err(End::Drained)),
            _ => {}
        }
        watch.poll(cx, state, &shared.limits).map(|()| {
            tls.refuse(Refusal::HandshakeTimeout, &"not finished in time");
            Err(End::Expired(Phase::Handshake))
        })
    });
    let (stream, name) = accepted.await?;
    if let Some(name) = name {
        state.peer_name.set(name).expect("a connection shakes hands once");
    }
    state.aged_at.set(Instant::now() + shared.limits.tls_age).expect("a connection shakes hands once");
    state.enter(Phase::FirstByte);
    Ok(Stream::Tls(Box::new(stream)))
}

fn http1(shared: &ServerContext) -> http1::Builder {
    let limits = &shared.limits;
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .header_read_timeout(None)
        .auto_date_header(shared.is_dated)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MAX))
        .writev(false);
    builder
}

fn poll_first_byte(
    cx: &mut Context<'_>,
    socket: &Socket,
    shared: &ServerContext,
    state: &State,
    watch: &mut PhaseTimer,
) -> Poll<Option<End>> {
    state.driver.register(cx.waker());
    if socket.poll_read_ready(cx).is_ready() {
        return Poll::Ready(None);
    }
    if state.signals() & (DRAIN | HARD) != 0 {
        return Poll::Ready(Some(End::Drained));
    }
    watch.poll(cx, state, &shared.limits).map(|()| Some(End::Expired(Phase::FirstByte)))
}

/// HTTP as this driver needs it, for any type of service.
trait Http: Future<Output = hyper::Result<()>> + Unpin {
    fn finish_and_close(self: Pin<&mut Self>);
}

impl<S> Http for http1::Connection<TokioIo<ConnectionIo>, S>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<AnswerBody>, Error = Infallible>,
{
    fn finish_and_close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

fn poll_http(
    cx: &mut Context<'_>,
    http: &mut impl Http,
    shared: &ServerContext,
    state: &State,
    watch: &mut PhaseTimer,
    draining: &mut bool,
) -> Poll<End> {
    state.driver.register(cx.waker());
    loop {
        if let Poll::Ready(result) = Pin::new(&mut *http).poll(cx) {
            return Poll::Ready(to_end(result, state, *draining));
        }
        let signals = state.signals();
        if signals & (CLOSE | RESET) != 0 {
            return Poll::Ready(End::Severed);
        }
        if signals & EVICT != 0 {
            return Poll::Ready(End::Evicted);
        }
        if signals & HARD != 0 {
            return Poll::Ready(End::Drained);
        }
        if signals & DRAIN != 0 && !*draining {
            *draining = true;
            Pin::new(&mut *http).finish_and_close();
            continue;
        }
        if watch.poll(cx, state, &shared.limits).is_pending() {
            return Poll::Pending;
        }
        match state.phase() {
            _ if state.is_write_blocked() => return Poll::Ready(End::WriteStall),
            Phase::Body | Phase::LongBody => state.fail_body(BodyFailure::Late),
            phase => return Poll::Ready(End::Expired(phase)),
        }
    }
}

fn to_end(result: hyper::Result<()>, state: &State, draining: bool) -> End {
    match result {
        _ if state.signals() & EVICT != 0 => End::Evicted,
        _ if state.is_severed() => End::Severed,
        Ok(()) if draining => End::Drained,
        Ok(()) => End::Over,
        Err(error) => {
            tracing::debug!(peer = %state.peer, %error, "a connection failed");
            End::Broken
        }
    }
}
