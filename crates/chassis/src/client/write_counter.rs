//! The stream below HTTP that counts the request bytes handed to the kernel, so that "not sent" is a fact and not a
//! guess, and hands over no byte of a request that is too late. Knows no HTTP beyond "first a request, then a
//! response".

use super::connect::Stream;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Progress of the current request on a connection.
#[derive(Debug, Default)]
pub(super) struct RequestProgress {
    written: AtomicU64,
    /// The time after which the first byte is too late.
    first_byte_by: Mutex<Option<Instant>>,
    /// The kernel was offered a byte in time and took none: the delay is the other side's.
    is_offered: AtomicBool,
    /// The next read asks the operating system whether the peer is gone.
    check: AtomicBool,
    #[cfg(debug_assertions)]
    points: points::Passed,
}

impl RequestProgress {
    /// Begins a new request, whose first byte must not leave after this moment.
    pub(super) fn begin(&self, first_byte_by: Instant) {
        self.written.store(0, Relaxed);
        self.is_offered.store(false, Relaxed);
        *self.first_byte_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(first_byte_by);
        #[cfg(debug_assertions)]
        self.points.begin();
    }

    /// Whether the first byte would leave too late: this process stood still since the request began.
    fn is_too_late(&self) -> bool {
        let by = *self.first_byte_by.lock().unwrap_or_else(PoisonError::into_inner);
        by.is_some_and(|by| Instant::now() >= by)
    }

    /// Whether the kernel took any byte of the request.
    pub(super) fn is_anything_written(&self) -> bool {
        self.written.load(Relaxed) > 0
    }

    pub(super) fn check_at_next_read(&self) {
        self.check.store(true, Relaxed);
    }
}

pub(super) struct WriteCounter {
    stream: Box<dyn Stream>,
    progress: Arc<RequestProgress>,
}

impl WriteCounter {
    pub(super) fn new(stream: Box<dyn Stream>, progress: Arc<RequestProgress>) -> Self {
        Self { stream, progress }
    }

    fn write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.progress.is_anything_written() && self.progress.is_too_late() {
            // A byte that was offered in time stays pending until the call ends, whose alarm wakes the task.
            return match self.progress.is_offered.load(Relaxed) {
                true => Poll::Pending,
                false => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            };
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        if result.is_pending() {
            self.progress.is_offered.store(true, Relaxed);
        }
        if let Poll::Ready(Ok(bytes)) = result {
            self.progress.written.fetch_add(bytes as u64, Relaxed);
        }
        result
    }
}

impl AsyncRead for WriteCounter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.progress.check.swap(false, Relaxed) && self.stream.is_stale() {
            return Poll::Ready(Ok(()));
        }
        #[cfg(debug_assertions)]
        if let Some(result) = self.read_half_answer(cx, buf) {
            return result;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteCounter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        #[cfg(debug_assertions)]
        if let Some(result) = self.write_half_request(cx, buf) {
            return result;
        }
        self.write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        #[cfg(debug_assertions)]
        if result.is_ready() {
            self.note_request_sent();
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Crash points at byte granularity, for tests.
#[cfg(debug_assertions)]
mod points {
    use super::{AtomicBool, Context, Pin, Poll, ReadBuf, Relaxed, WriteCounter, io};
    use crate::crash;
    use tokio::io::AsyncRead as _;

    /// The length at which "half an answer" is cut, within the status line.
    const HALF_ANSWER_BYTES: usize = 12;

    /// The points that the current request has passed.
    #[derive(Debug, Default)]
    pub(super) struct Passed {
        sent: AtomicBool,
        answered: AtomicBool,
    }

    impl Passed {
        pub(super) fn begin(&self) {
            self.sent.store(false, Relaxed);
            self.answered.store(false, Relaxed);
        }
    }

    impl WriteCounter {
        /// Hands only half of the request's first piece to the kernel, when the process is to die at that point.
        pub(super) fn write_half_request(
            &mut self,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Option<Poll<io::Result<usize>>> {
            if self.progress.is_anything_written()
                || buf.len() < 2
                || !crash::is_planned("client-half-request")
            {
                return None;
            }
            let result = self.write(cx, &buf[..buf.len() / 2]);
            if matches!(result, Poll::Ready(Ok(_))) {
                crate::crash_point!("client-half-request");
            }
            Some(result)
        }

        pub(super) fn note_request_sent(&self) {
            if self.progress.is_anything_written() && !self.progress.points.sent.swap(true, Relaxed) {
                crate::crash_point!("client-request-sent");
            }
        }

        /// Takes only the beginning of the answer from the kernel, when the process is to die at that point.
        pub(super) fn read_half_answer(
            &mut self,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Option<Poll<io::Result<()>>> {
            let awaited = self.progress.is_anything_written() && !self.progress.points.answered.load(Relaxed);
            if !awaited || !crash::is_planned("client-half-answer") {
                return None;
            }
            let mut half = [0; HALF_ANSWER_BYTES];
            let mut half = ReadBuf::new(&mut half[..HALF_ANSWER_BYTES.min(buf.remaining())]);
            let result = Pin::new(&mut self.stream).poll_read(cx, &mut half);
            if !half.filled().is_empty() {
                self.progress.points.answered.store(true, Relaxed);
                buf.put_slice(half.filled());
                crate::crash_point!("client-half-answer");
            }
            Some(result)
        }
    }
}
