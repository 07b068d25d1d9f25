//! One HTTP/1.1 connection that serves one request at a time. The caller's task polls the connection itself: a call
//! spawns no task and wakes none. Knows no pool and no retry.

use super::connect::Stream;
use super::failure::{Cause, Failure};
use super::write_counter::{RequestProgress, WriteCounter};
use crate::alarm::Alarm;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// Read buffer for a response's head or a chunk of its body.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A connection that was idle for longer is checked with the operating system before use. After a shorter time the
/// runtime's own readiness is fresh enough.
const TRUSTED_FOR: Duration = Duration::from_millis(10);

/// Limits of one call.
#[derive(Clone, Copy)]
pub(super) struct CallLimits {
    pub(super) deadline: Instant,
    /// The first byte leaves before this moment, or none does.
    pub(super) first_byte_by: Instant,
    pub(super) total: Duration,
    pub(super) body_bytes_max: usize,
}

/// Why an exchange ended without a response.
pub(super) enum ExchangeError {
    /// The connection was dead before any byte was written. The request is returned for another connection.
    Untouched(Box<Request<Full<Bytes>>>),
    Failed(Failure),
}

pub(super) struct Http1Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: http1::Connection<TokioIo<WriteCounter>, Full<Bytes>>,
    progress: Arc<RequestProgress>,
    alarm: Alarm,
    over: bool,
    /// The generation of the TLS material that the connection was made with.
    pub(super) generation: u64,
    pub(super) idle_since: Instant,
}

impl Http1Connection {
    pub(super) async fn new(stream: Box<dyn Stream>, generation: u64) -> hyper::Result<Self> {
        let progress = Arc::new(RequestProgress::default());
        let io = TokioIo::new(WriteCounter::new(stream, progress.clone()));
        let mut builder = http1::Builder::new();
        builder.writev(false).max_buf_size(BUFFER_BYTES_MAX);
        let (sender, connection) = builder.handshake(io).await?;
        let (alarm, idle_since) = (Alarm::default(), Instant::now());
        Ok(Self { sender, connection, progress, alarm, over: false, generation, idle_since })
    }

    /// Whether a request may be put on this connection, as far as can be known now.
    pub(super) fn is_usable(&mut self) -> bool {
        if self.idle_since.elapsed() > TRUSTED_FOR {
            self.progress.check_at_next_read();
        }
        // Polled without a waker: the task that sends next registers its own.
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.over && self.sender.is_ready()
    }

    /// Sends one request and reads the whole response.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        allowed: CallLimits,
    ) -> Result<Response<Bytes>, ExchangeError> {
        if Instant::now() >= allowed.first_byte_by {
            return Err(ExchangeError::Failed(Failure::NotSent(Cause::SendLate)));
        }
        self.progress.begin(allowed.first_byte_by);
        self.alarm.set(Some(allowed.deadline));
        let mut answer = pin!(self.sender.try_send_request(request));
        let answer = poll_fn(|cx| {
            self.drive(cx);
            // Only `drive` can make the answer ready, so that the answer needs no waker of its own.
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return Poll::Ready(Some(answer));
            }
            self.alarm.poll(cx).map(|()| None)
        });
        let answer = match answer.await {
            None => return Err(self.failed(Cause::Late(allowed.total))),
            Some(Err(error)) => return Err(self.not_answered(error)),
            Some(Ok(answer)) => answer,
        };
        let (head, body) = answer.into_parts();
        let body = self.read(body, allowed).await.map_err(|cause| self.failed(cause))?;
        Ok(Response::from_parts(head, body))
    }

    async fn read(&mut self, mut body: Incoming, allowed: CallLimits) -> Result<Bytes, Cause> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let mut whole = Whole::new(allowed.body_bytes_max);
        whole.expect(body.size_hint().lower())?;
        loop {
            let frame = poll_fn(|cx| {
                self.drive(cx);
                if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx) {
                    return Poll::Ready(Some(frame));
                }
                self.alarm.poll(cx).map(|()| None)
            });
            match frame.await {
                None => return Err(Cause::Late(allowed.total)),
                Some(None) => return Ok(whole.finish()),
                Some(Some(Err(error))) => return Err(Cause::Connection(error)),
                Some(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        whole.push(piece)?;
                    }
                }
            }
            if body.is_end_stream() {
                return Ok(whole.finish());
            }
        }
    }

    /// Polls the HTTP connection and records its end, after which it must not be polled again.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.over {
            self.over = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    fn not_answered(&self, error: TrySendError<Request<Full<Bytes>>>) -> ExchangeError {
        let mut error = error;
        match error.take_message() {
            Some(request) if !self.progress.is_anything_written() => {
                ExchangeError::Untouched(Box::new(request))
            }
            _ => self.failed(Cause::Connection(error.into_error())),
        }
    }

    fn failed(&self, cause: Cause) -> ExchangeError {
        ExchangeError::Failed(match self.progress.is_anything_written() {
            true => Failure::Unknown(cause),
            false => Failure::NotSent(cause),
        })
    }
}

/// A body that is collected up to its limit; a body in one piece is not copied.
struct Whole {
    bytes_max: usize,
    first: Bytes,
    more: BytesMut,
}

impl Whole {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, first: Bytes::new(), more: BytesMut::new() }
    }

    fn expect(&self, bytes: u64) -> Result<(), Cause> {
        if bytes > self.bytes_max as u64 { Err(Cause::TooLarge(self.bytes_max)) } else { Ok(()) }
    }

    fn push(&mut self, piece: Bytes) -> Result<(), Cause> {
        self.expect((self.first.len() + self.more.len() + piece.len()) as u64)?;
        if self.first.is_empty() && self.more.is_empty() {
            self.first = piece;
            return Ok(());
        }
        self.more.extend_from_slice(&std::mem::take(&mut self.first));
        self.more.extend_from_slice(&piece);
        Ok(())
    }

    fn finish(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}
