//! The simulated network under the real client and the real server. Knows no service.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use chassis::client::{Connect, Stream};
use chassis::server::{Duplex, Listen};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};

/// Connects through the simulated network.
pub(crate) struct Network;

impl Connect for Network {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        _deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let tcp = TcpStream::connect((host, port)).await?;
            Ok(Box::new(Simulated(tcp)) as Box<dyn Stream>)
        })
    }
}

/// A connection that is never reported as stale: as on a real network, the next call may find that it is.
struct Simulated(TcpStream);

impl Stream for Simulated {
    fn is_stale(&self) -> bool {
        false
    }
}

impl AsyncRead for Simulated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Simulated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Accepts connections from the simulated network.
pub(crate) struct PortState(TcpListener);

impl PortState {
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        TcpListener::bind(("0.0.0.0", port)).await.map(Self)
    }
}

impl Listen for PortState {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Duplex>, SocketAddr)>> {
        Box::pin(async {
            let (tcp, peer) = self.0.accept().await?;
            Ok((Box::new(tcp) as Box<dyn Duplex>, peer))
        })
    }
}
