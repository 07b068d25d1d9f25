//! Answers that can be cut in the middle: a test may kill the process when half of one is written (P5). A release has
//! only the plain body. Knows no route.

use axum::body::{Body, Bytes};

#[cfg(not(debug_assertions))]
pub(super) fn body(bytes: Bytes) -> Body {
    bytes.into()
}

/// A body of these bytes, in two halves when a test waits for the point between them.
#[cfg(debug_assertions)]
pub(super) fn body(bytes: Bytes) -> Body {
    if chassis::crash::is_planned("P5") { Body::new(halves::BodyInHalves::new(bytes)) } else { bytes.into() }
}

#[cfg(debug_assertions)]
mod halves {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use axum::body::{Bytes, HttpBody};
    use chassis::crash_point;
    use http_body::{Frame, SizeHint};

    /// A body that yields the first half, then a pause in which it is written, then the second half.
    pub(super) struct BodyInHalves {
        left: Bytes,
        half: usize,
        paused: bool,
    }

    impl BodyInHalves {
        pub(super) fn new(bytes: Bytes) -> Self {
            let half = bytes.len() / 2;
            Self { left: bytes, half, paused: false }
        }
    }

    impl HttpBody for BodyInHalves {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left.is_empty() {
                return Poll::Ready(None);
            }
            if self.half > 0 {
                let half = std::mem::take(&mut self.half);
                return Poll::Ready(Some(Ok(Frame::data(self.left.split_to(half)))));
            }
            if !self.paused {
                self.paused = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            crash_point!("P5");
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.left)))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.left.len() as u64)
        }
    }
}
