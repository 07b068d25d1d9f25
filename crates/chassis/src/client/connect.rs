//! Connectors: TCP here, TLS in a module of its own, a simulated network in tests. Knows no HTTP.

use futures_util::future::BoxFuture;
use socket2::SockRef;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

/// A connected stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether the peer has closed or sent unrequested bytes. Asks the operating system now, so that a
    /// dead idle connection gets no request.
    fn is_stale(&self) -> bool;
}

/// Makes connections.
pub trait Connect: Send + Sync + 'static {
    /// Connects to a host, given as a name or an address without brackets. It should give up at the deadline; the
    /// client gives up then in any case.
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>>;

    /// Whether this connector makes TLS connections. If so, only `https` URLs are called, otherwise only `http` URLs.
    fn is_tls(&self) -> bool {
        false
    }

    /// Increases when the TLS material has changed. Connections of an earlier generation are not reused.
    fn generation(&self) -> u64 {
        0
    }
}

/// Plain TCP: tries every address of the name in order, each with its share of the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        deadline: Instant,
    ) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(Self::dial(host, port, deadline).await?) as Box<dyn Stream>) })
    }
}

impl Tcp {
    /// A connection to the first address of the host that accepts.
    pub(crate) async fn dial(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
        let tcp = match host.parse::<IpAddr>() {
            Ok(address) => TcpStream::connect((address, port)).await?,
            Err(_) => {
                let addresses = lookup(host, port).await?;
                first_connected(&addresses, deadline).await?
            }
        };
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(debug_assertions)]
    if crate::test_overrides::is_nameless(host) {
        crate::crash_point!("client-no-name");
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address: a trial wants it so"));
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

async fn first_connected(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let parts = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match tokio::time::timeout(left / parts, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

impl Stream for TcpStream {
    fn is_stale(&self) -> bool {
        has_ended(&SockRef::from(self))
    }
}

impl Stream for UnixStream {
    fn is_stale(&self) -> bool {
        has_ended(&SockRef::from(self))
    }
}

fn has_ended(socket: &SockRef<'_>) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    match socket.peek(&mut byte) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}
