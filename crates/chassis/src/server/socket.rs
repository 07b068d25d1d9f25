//! Sources of connections: the system's TCP, or a given listener such as a simulated network.
//! Knows no TLS and no HTTP.

use futures_util::future::BoxFuture;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A connected stream of bytes that is not the system's.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// Accepts connections from a source other than the system.
pub trait Listen: Send + Sync {
    /// Waits for the next connection, with its peer's address.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Duplex>, SocketAddr)>>;
}

/// A source of accepted connections.
pub(super) enum Listener {
    Tcp(TcpListener),
    Given(Box<dyn Listen>),
}

impl Listener {
    pub(super) async fn accept(&mut self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(tcp) => tcp.accept().await.map(|(tcp, peer)| (Socket::Tcp(tcp), peer)),
            Self::Given(given) => given.accept().await.map(|(given, peer)| (Socket::Given(given), peer)),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(tcp) => tcp.fmt(f),
            Self::Given(_) => f.write_str("Given"),
        }
    }
}

/// The bytes of one connection as they come from the network.
pub(super) enum Socket {
    Tcp(TcpStream),
    Given(Box<dyn Duplex>),
}

impl Socket {
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.set_nodelay(true),
            Self::Given(_) => Ok(()),
        }
    }

    /// Makes the close of this socket a reset, where that exists.
    pub(super) fn set_reset(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.set_zero_linger(),
            Self::Given(_) => Ok(()),
        }
    }

    /// Ready when there may be something to read. A given socket is read to find out.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Given(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Given(given) => Pin::new(given).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Given(given) => Pin::new(given).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Given(given) => Pin::new(given).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Given(given) => Pin::new(given).poll_shutdown(cx),
        }
    }
}
