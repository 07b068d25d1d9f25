//! A request's body under its limit and deadline, and an answer's body that counts as in flight until it is
//! written. Knows no format.

use super::state::{BodyFailure, State};
use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

/// The body that the handler reads.
pub(super) struct RequestBody {
    incoming: Incoming,
    state: Arc<State>,
    bytes: u64,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, state: Arc<State>) -> Self {
        Self { incoming, state, bytes: 0 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.state.reader.register(cx.waker());
        let least = self.bytes.saturating_add(self.incoming.size_hint().lower());
        if least > self.state.body_bytes_max() {
            self.state.fail_body(BodyFailure::TooLarge);
        }
        if let Some(failure) = self.state.see_body_failure() {
            return Poll::Ready(Some(Err(failure.into())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            self.state.await_body();
            return Poll::Pending;
        };
        self.state.feed_body();
        let Some(frame) = frame else {
            self.state.end_body(true);
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                self.state.fail_body(BodyFailure::Broken);
                self.state.see_body_failure();
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if self.bytes > self.state.body_bytes_max() {
            self.state.fail_body(BodyFailure::TooLarge);
            self.state.see_body_failure();
            return Poll::Ready(Some(Err(BodyFailure::TooLarge.into())));
        }
        if self.incoming.is_end_stream() {
            self.state.end_body(true);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    /// Records that a body that came with its head is complete, even if the handler did not read it.
    fn drop(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut self.incoming).poll_frame(cx) {}
        self.state.end_body(self.incoming.is_end_stream());
    }
}

/// One place among the calls in flight, given back when dropped.
pub(super) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    pub(super) fn take(calls: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        if calls.fetch_add(1, Relaxed) >= max {
            calls.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self(calls.clone()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The body that the client is sent.
pub(super) struct AnswerBody {
    pub(super) inner: axum::body::Body,
    pub(super) _place: Option<InFlight>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
