//! One way to run a service: bind both ports, serve, drain, end; and to ask a running one how it is.
//! Must not know what the routers answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::config::Common;

/// Connections that the kernel may hold until we accept them.
const BACKLOG: u32 = 4096;

/// How long the whole health check may take.
const HEALTHCHECK: Duration = Duration::from_secs(2);

/// Both ports of a service, bound.
#[derive(Debug)]
pub struct Listeners {
    /// Business port.
    pub business: TcpListener,
    /// Admin port.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both ports; port 0 takes a free one.
    ///
    /// # Errors
    /// When an address is taken or not ours; names it.
    pub async fn bind(common: &Common) -> anyhow::Result<Self> {
        Ok(Self { business: bind(common.listen)?, admin: bind(common.admin_listen)? })
    }

    /// The addresses really bound: business and admin.
    ///
    /// # Errors
    /// When the kernel does not know the sockets any more.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.business.local_addr()?, self.admin.local_addr()?))
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}"))
}

/// Raises the soft limit of open files to the hard one; answers the limit that holds now.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { limit.current };
    current.unwrap_or(u64::MAX)
}

/// Asks a running service's admin port whether it is ready: exit code 0, or 1 when it is not, does not answer within
/// 2 s or is not there.
#[must_use]
pub fn healthcheck(admin: SocketAddr) -> ExitCode {
    // On a thread of its own, so that it may be called inside a runtime too.
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(HEALTHCHECK, ask(reachable(admin))).await? })
    });
    match asked.join() {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// "All addresses" is where one listens, not where one calls.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

async fn ask(address: SocketAddr) -> std::io::Result<bool> {
    const OK: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; OK.len()];
    stream.read_exact(&mut status).await?;
    Ok(status == OK)
}
