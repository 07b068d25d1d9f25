//! Bodies that come slowly, or break off: the head has the length of the whole body. Knows no route and no fault
//! script.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use chassis::shutdown::Shutdown;
use http_body::{Frame, SizeHint};

/// Number of pieces of a slow body.
const COUNT: usize = 8;

/// Maximum size of an answer; the answers of a route are short.
const BODY_BYTES_MAX: usize = 1024 * 1024;

type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Pieces {
    left: Bytes,
    piece: usize,
    /// Makes the pause before each piece.
    pause: Box<dyn Fn() -> Pause + Send>,
    waiting: Option<Pause>,
    /// Number of bytes that are left when the connection is closed.
    close_at: usize,
}

/// The response with its body in pieces over this time, or at once when the service drains.
pub(super) async fn send_slowly(response: Response, over: Duration, shutdown: &Shutdown) -> Response {
    let (head, body) = response.into_parts();
    let left = whole(body).await;
    let piece = left.len().div_ceil(COUNT).max(1);
    let pieces = u32::try_from(left.len().div_ceil(piece)).expect("a few pieces");
    let (each, shutdown) = (over / pieces.max(1), shutdown.clone());
    let pause = move || {
        let shutdown = shutdown.clone();
        let pause = async move {
            tokio::select! {
                biased;
                () = tokio::time::sleep(each) => {}
                () = shutdown.draining() => {}
            }
        };
        Box::pin(pause) as Pause
    };
    let body = Pieces { left, piece, pause: Box::new(pause), waiting: None, close_at: 0 };
    Response::from_parts(head, Body::new(body))
}

/// The response with half of its body, after which the connection is closed.
pub(super) async fn truncate_body(response: Response) -> Response {
    let (head, body) = response.into_parts();
    let left = whole(body).await;
    let piece = left.len() / 2;
    let close_at = left.len() - piece;
    let pause = || Box::pin(std::future::ready(())) as Pause;
    let body = Pieces { left, piece, pause: Box::new(pause), waiting: None, close_at };
    Response::from_parts(head, Body::new(body))
}

async fn whole(body: Body) -> Bytes {
    axum::body::to_bytes(body, BODY_BYTES_MAX).await.unwrap_or_default()
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if self.waiting.is_none() {
            let pause = (self.pause)();
            self.waiting = Some(pause);
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(context));
            self.waiting = None;
        }
        if self.left.len() <= self.close_at {
            return Poll::Ready(Some(Err(io::Error::other("the body is cut off on purpose"))));
        }
        let piece = self.piece.min(self.left.len());
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
