//! The bytes of one connection, below HTTP: detects the first byte of a head, a stalled write and the limit of an
//! answer, and closes so that the last answer arrives. Sets phases; reads no clock and decides no deadline.

use super::framing::{Framing, Malformed};
use super::socket::Socket;
use super::state::{Phase, State};
use futures_util::FutureExt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The byte stream of one connection.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Makes the close of this stream a reset.
    fn set_reset(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_reset(),
            Self::Tls(tls) => tls.get_ref().0.set_zero_linger(),
        }
    }

    /// Notes whether the other side has shut its side, and wakes this task when it does. A given socket cannot show
    /// that without being read.
    fn poll_shut_by_peer(&self, cx: &mut Context<'_>, state: &State) {
        let tcp = match self {
            Self::Plain(Socket::Tcp(tcp)) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::Plain(Socket::Given(_)) => return,
        };
        if tcp.poll_read_ready(cx).is_ready()
            && let Some(Ok(ready)) = tcp.ready(Interest::READABLE).now_or_never()
            && ready.is_read_closed()
        {
            state.note_shut_by_peer();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            // Requests have an explicit length, so that an end without a TLS close alert cannot truncate one unnoticed.
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

/// Bytes that one read discards while the connection closes.
const DISCARD_BYTES: usize = 4096;

pub(super) struct ConnectionIo {
    stream: Stream,
    state: Arc<State>,
    framing: Framing,
    /// Why reading has ended, and the unsent rest of the answer to that.
    malformed: Option<(Malformed, &'static [u8])>,
    /// Whether HTTP has asked for more bytes: before that it may have refused an earlier request itself.
    is_refused: bool,
    shut: bool,
}

impl ConnectionIo {
    pub(super) fn new(stream: Stream, state: Arc<State>) -> Self {
        Self { stream, state, framing: Framing::new(), malformed: None, is_refused: false, shut: false }
    }

    /// Whether a head was refused, so that the reason is sent when the connection closes.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Passes on the bytes before a malformed request, and none of that request.
    fn follow(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let Err((sound, malformed)) = self.framing.read(&buf.filled()[before..]) else { return Ok(()) };
        self.malformed = Some((malformed, malformed.answer()));
        buf.set_filled(before + sound);
        if sound == 0 { Err(self.refuse()) } else { Ok(()) }
    }

    fn refuse(&mut self) -> io::Error {
        self.is_refused = true;
        io::ErrorKind::InvalidData.into()
    }

    /// Writes the answer to a malformed request.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((malformed, rest)) =
            self.malformed.filter(|(_, rest)| self.is_refused && !rest.is_empty())
        {
            let written = ready!(self.stream.poll_write(cx, rest))?;
            self.malformed = Some((malformed, &rest[written..]));
        }
        Poll::Ready(Ok(()))
    }

    /// Records a read. HTTP reads only when it wants a head or a body. After the answer to a call, the bytes are the
    /// next head.
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
        if self.state.signals() & super::state::RESET != 0
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
        if self.malformed.is_some() {
            return Poll::Ready(Err(self.refuse()));
        }
        let before = buf.filled().len();
        let mut result = self.stream.poll_read(cx, buf);
        if matches!(result, Poll::Ready(Ok(()))) {
            result = Poll::Ready(self.follow(buf, before));
        }
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
        // HTTP flushes at each poll, and reads nothing while a call is under way.
        if self.state.phase() == Phase::Call {
            self.stream.poll_shut_by_peer(cx, &self.state);
        }
        let Stream::Tls(tls) = &mut self.stream else { return Poll::Ready(Ok(())) };
        // TLS buffers what is written: a client that reads nothing is noticed here.
        let result = Pin::new(tls).poll_flush(cx);
        self.state.set_write_blocked(result.is_pending());
        result
    }

    /// Shuts our side. If the client may still be sending, waits until it ends: a close with unread bytes would be a
    /// reset, and the client could lose the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(self.poll_refuse(cx))?;
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
