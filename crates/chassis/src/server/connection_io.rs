//! The bytes of one connection, below HTTP: sees the first byte of a head, a write that stalls and the limit of
//! an answer, and closes so that the last answer arrives. Sets phases; takes no time and decides no deadline.

use super::socket::Socket;
use super::state::{Phase, State};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The byte stream of one connection.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Makes closing it a reset.
    fn set_reset(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_reset(),
            Self::Tls(tls) => tls.get_ref().0.set_zero_linger(),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            // Requests say how long they are, so that an end without a farewell cuts off nothing unnoticed.
            Self::Tls(tls) => match Pin::new(tls).poll_read(cx, buf) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A read on the way out throws away this much at once.
const DISCARD_BYTES: usize = 4096;

pub(super) struct ConnectionIo {
    stream: Stream,
    state: Arc<State>,
    shut: bool,
}

impl ConnectionIo {
    pub(super) fn new(stream: Stream, state: Arc<State>) -> Self {
        Self { stream, state, shut: false }
    }

    /// HTTP reads only when it wants a head or a body. With the call answered, it is the next head.
    fn note_read(&self, bytes: usize) {
        match (self.state.phase(), bytes) {
            (Phase::Answer | Phase::Idle | Phase::FirstByte, 1..) => self.state.enter(Phase::Head),
            (Phase::Answer, 0) => self.state.enter(Phase::Idle),
            _ => {}
        }
    }
}

impl Drop for ConnectionIo {
    fn drop(&mut self) {
        if self.state.asked() & super::state::RESET != 0
            && let Err(error) = self.stream.set_reset()
        {
            tracing::debug!(%error, "resetting a connection failed, it is closed instead");
        }
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = self.stream.poll_read(cx, buf);
        self.note_read(buf.filled().len() - before);
        result
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.state.is_severed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let allowed = buf.len().min(self.state.answer_bytes_left());
        let result = self.stream.poll_write(cx, &buf[..allowed]);
        self.state.set_write_blocked(result.is_pending());
        if let Poll::Ready(Ok(bytes)) = result {
            self.state.count_written(bytes);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stream::Tls(tls) = &mut self.stream else { return Poll::Ready(Ok(())) };
        // TLS takes what is written into a buffer of its own: a client that reads nothing is seen here.
        let result = Pin::new(tls).poll_flush(cx);
        self.state.set_write_blocked(result.is_pending());
        result
    }

    /// Shuts our side. If the client may still be sending, waits for its end: a close with unread bytes would be
    /// a reset and could destroy the answer on its way.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(self.stream.poll_shutdown(cx))?;
            self.shut = true;
        }
        let phase = self.state.phase();
        let mut unread = phase == Phase::Closing || phase == Phase::Head || !self.state.is_body_whole();
        let mut discarded = [0; DISCARD_BYTES];
        loop {
            let mut buf = ReadBuf::new(&mut discarded);
            match self.stream.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => unread = true,
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending if unread => {
                    if phase != Phase::Closing {
                        self.state.enter(Phase::Closing);
                    }
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }
}
