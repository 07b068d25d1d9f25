//! One way to run a service: bind both ports, serve, drain, end; and to check a running service's health. Must not know
//! the routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::clock::Clock;
use crate::config::Common;
use crate::server::{Limits, Routes, Server, ServerMetrics};
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;
use crate::tls::{ServerFiles, ServerTls, TlsMetrics};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: u32 = 4096;

/// Maximum number of concurrent calls of the admin port: a few probes, scrapes and people.
const ADMIN_MAX: usize = 32;
/// Maximum number of its connections. They are more than the calls, so that a probe finds a place beside unfinished
/// requests, and has time to send its own before it is the oldest.
const ADMIN_CONNECTIONS_MAX: usize = 256;
/// Maximum number of its connections of one peer address, once all are in use.
const ADMIN_CONNECTIONS_PER_PEER: usize = 16;

/// Maximum size of a request's body on the admin port: a log level.
const ADMIN_BODY_BYTES_MAX: u64 = 4096;

/// Grace period of the admin port after everything else has ended.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// How long a start may take before the business port answers that nothing is executed yet: a store in a file opens
/// much faster, so that its first callers only wait.
const OPENING: Duration = Duration::from_millis(250);

/// Time limit of the whole health check.
const HEALTHCHECK: Duration = Duration::from_secs(2);

/// Both ports of a service, bound.
#[derive(Debug)]
pub struct Listeners {
    /// Business port.
    pub business: TcpListener,
    /// Admin port.
    pub admin: TcpListener,
    /// The TLS of the business port; `None` for plain HTTP. The admin port is always plain: the kubelet and Prometheus
    /// have no certificate.
    pub tls: Option<ServerTls>,
}

impl Listeners {
    /// Binds both ports; port 0 takes a free one.
    ///
    /// # Errors
    /// When an address is in use or not local; the error names it.
    pub async fn bind(common: &Common) -> anyhow::Result<Self> {
        Ok(Self { business: bind(common.listen)?, admin: bind(common.admin_listen)?, tls: None })
    }

    /// Uses TLS on the business port with these files, if any.
    ///
    /// # Errors
    /// When a file is invalid.
    pub fn secure(self, files: Option<&ServerFiles>, metrics: &TlsMetrics) -> anyhow::Result<Self> {
        let open = |files: &ServerFiles| ServerTls::open(files.clone(), Clock::system(), metrics);
        Ok(Self { tls: files.map(open).transpose()?, ..self })
    }

    /// The addresses really bound: business and admin.
    ///
    /// # Errors
    /// When the kernel does not know the sockets any more.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.business.local_addr()?, self.admin.local_addr()?))
    }
}

/// Listens on an address; port 0 takes a free one. Needs a tokio runtime around it.
///
/// # Errors
/// When the address is in use or not local; the error names it.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}"))
}

/// Serves both ports until the shutdown has completed; the admin port answers until the very end. Registers the
/// business port's connection metrics in `telemetry`; wrap the router in [`crate::telemetry::observe`] before.
///
/// # Errors
/// When tracked tasks had to be abandoned at the hard stop.
pub async fn serve(
    listeners: Listeners,
    business: Router,
    admin: Router,
    limits: Limits,
    shutdown: Shutdown,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    serve_when(listeners, async { Ok(business) }, Router::new(), admin, limits, shutdown, telemetry).await
}

/// Serves as [`serve`] does, with routes that come later, for example once the database is reachable. Until then
/// `meanwhile` answers on the business port: health, and to all other requests that they were not executed. If they
/// waited in the kernel's queue instead, they would be executed for callers that have gone. A shutdown need not wait
/// for the routes.
///
/// # Errors
/// As [`serve`], and when making the routes fails.
pub async fn serve_when(
    listeners: Listeners,
    business: impl Future<Output = anyhow::Result<Router>>,
    meanwhile: Router,
    admin: Router,
    limits: Limits,
    shutdown: Shutdown,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    let open_files_max = raise_open_files();
    let (listen, admin_listen) = listeners.addresses()?;
    let tls = listeners.tls.is_some();
    let admin_shutdown = Shutdown::with_timings(Duration::ZERO, ADMIN_GRACE);
    let admin = Server::new(listeners.admin, admin, admin_limits()).serve(admin_shutdown.clone());
    let admin = tokio::spawn(admin);

    let mut business = pin!(business);
    let made = tokio::select! {
        made = &mut business => Some(made),
        () = shutdown.draining() => None,
        () = tokio::time::sleep(OPENING) => None,
    };
    let routes = Routes::until(meanwhile);
    let served = match made {
        Some(Err(error)) => Err(error),
        // The shutdown came first: tracked tasks are still awaited.
        None if shutdown.is_draining() => Ok(shutdown.finished().await),
        made => {
            tracing::info!(listen = %listen, admin.listen = %admin_listen, tls, open_files_max, "listening");
            let metrics = ServerMetrics::new();
            metrics.register(telemetry.registry()).context("a service serves its business port once")?;
            let server = Server::with_routes(listeners.business, routes.clone(), limits);
            let serving = server.metrics(metrics).tls(listeners.tls).serve(shutdown.clone());
            let opened = async {
                match made {
                    Some(Ok(router)) => routes.open(router),
                    _ => routes.open(business.await?),
                }
                Ok(())
            };
            match serve_and_open(serving, opened).await {
                Ok(()) => Ok(shutdown.finished().await),
                Err(error) => Err(error),
            }
        }
    };

    // While the admin port still answers: this sends the traces of the last calls.
    telemetry.tracer.finish().await;
    admin_shutdown.trigger();
    admin.await.context("the admin port ended before its time")?;
    let left_behind = served?;
    ensure!(left_behind == 0, "{left_behind} tasks did not end in time and were left behind");
    tracing::info!("ended");
    Ok(())
}

/// Serves to the end, unless making the routes fails.
async fn serve_and_open(
    serving: impl Future<Output = ()>,
    opened: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        opened = opened => opened?,
        () = &mut serving => return Ok(()),
    }
    serving.await;
    Ok(())
}

fn admin_limits() -> Limits {
    let limits = Limits::default();
    Limits {
        connections_max: ADMIN_CONNECTIONS_MAX,
        connections_per_peer: ADMIN_CONNECTIONS_PER_PEER,
        in_flight_max: ADMIN_MAX,
        body_bytes_max: ADMIN_BODY_BYTES_MAX,
        ..limits
    }
}

/// Raises the soft limit of open files to the hard one; returns the resulting limit.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { limit.current };
    current.unwrap_or(u64::MAX)
}

/// Makes sure that no copy of this process' memory, which holds keys and tokens, is left on a disk when it aborts, and
/// that no other process of the same user reads it. Called first in each program.
pub fn keep_memory_private() {
    // Where the system cannot do this, nothing is lost.
    let _unknown = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Asks a running service's admin port whether it is ready.
///
/// # Errors
/// When the service is not ready, does not answer within 2 s or is not running.
pub async fn healthcheck(admin: SocketAddr) -> anyhow::Result<()> {
    let admin = to_callable_address(admin);
    let asked = tokio::time::timeout(HEALTHCHECK, query_readiness(admin)).await;
    let asked = asked.with_context(|| format!("{admin} does not answer within {HEALTHCHECK:?}"))?;
    ensure!(asked.with_context(|| format!("{admin} cannot be asked"))?, "{admin} is not ready");
    Ok(())
}

/// Replaces "all addresses" by loopback: a service can listen there, but not be called there.
fn to_callable_address(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

async fn query_readiness(address: SocketAddr) -> std::io::Result<bool> {
    const OK: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; OK.len()];
    stream.read_exact(&mut status).await?;
    Ok(status == OK)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::admin::{LogLevelAccess, Readiness, admin_router};
    use crate::telemetry::LogHandle;

    /// A running service with one route that responds on command.
    struct TestService {
        business: SocketAddr,
        admin: SocketAddr,
        shutdown: Shutdown,
        entered: Arc<Notify>,
        go_on: Arc<Notify>,
        served: JoinHandle<anyhow::Result<()>>,
    }

    fn start_test_service(shutdown: Shutdown) -> TestService {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners { business: bind(any).unwrap(), admin: bind(any).unwrap(), tls: None };
        let (business, admin) = listeners.addresses().unwrap();
        let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (enter, go) = (Arc::clone(&entered), Arc::clone(&go_on));
        let slow = move || async move {
            enter.notify_one();
            go.notified().await;
            "sold"
        };
        let telemetry = Telemetry::new("shop", "1", "a");
        let router = Router::new().route("/slow", get(slow));
        let access = LogLevelAccess::new(admin, None);
        let admin_routes =
            admin_router(&telemetry, Readiness::new(&shutdown), LogHandle::detached("off"), access);
        let told = shutdown.clone();
        let served = tokio::spawn(async move {
            serve(listeners, router, admin_routes, Limits::default(), told, &telemetry).await
        });
        TestService { business, admin, shutdown, entered, go_on, served }
    }

    async fn fetch(address: SocketAddr, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_drain_finishes_the_call_in_flight_while_the_admin_port_says_not_ready() {
        let shop = start_test_service(Shutdown::new());
        assert!(fetch(shop.admin, "/readyz").await.unwrap().starts_with("HTTP/1.1 200"));
        let business = shop.business;
        let call = tokio::spawn(async move { fetch(business, "/slow").await });
        shop.entered.notified().await;

        shop.shutdown.trigger();
        assert!(fetch(shop.admin, "/readyz").await.unwrap().ends_with("draining\n"));
        assert!(fetch(shop.admin, "/livez").await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(fetch(shop.admin, "/metrics").await.unwrap().contains("http_connections_open 1"));
        shop.go_on.notify_one();
        assert!(call.await.unwrap().unwrap().ends_with("sold"));

        shop.served.await.unwrap().unwrap();
        assert!(fetch(shop.business, "/slow").await.is_err());
        assert!(fetch(shop.admin, "/livez").await.is_err());
    }

    #[tokio::test]
    async fn a_tracked_task_ends_before_the_service_does() {
        let shop = start_test_service(Shutdown::new());
        let shutdown = shop.shutdown.clone();
        let run = shop.shutdown.spawn("run", async move { shutdown.stop_accepting().await });
        shop.shutdown.trigger();
        shop.served.await.unwrap().unwrap();
        assert!(run.is_finished());
    }

    #[tokio::test]
    async fn a_task_left_behind_is_an_error() {
        let shop = start_test_service(Shutdown::with_timings(Duration::ZERO, Duration::from_millis(20)));
        shop.shutdown.spawn("stuck", std::future::pending::<()>());
        shop.shutdown.trigger();
        let error = shop.served.await.unwrap().unwrap_err().to_string();
        assert!(error.starts_with("1 tasks"), "{error}");
    }

    /// Each client holds a connection by one byte of a head that never ends.
    #[tokio::test]
    async fn probes_are_answered_beside_more_half_requests_than_the_admin_port_has_places() {
        let shop = start_test_service(Shutdown::new());
        let mut half_sent = Vec::new();
        for _ in 0..ADMIN_CONNECTIONS_MAX + 50 {
            let mut stream = TcpStream::connect(shop.admin).await.unwrap();
            stream.write_all(b"G").await.unwrap();
            half_sent.push(stream);
        }
        for _ in 0..3 {
            let probe = tokio::time::timeout(Duration::from_secs(5), fetch(shop.admin, "/livez"));
            let answer = probe.await.expect("a probe is answered in time").unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        drop(half_sent);
    }

    /// Answers one request with `status`, the way an admin port does.
    async fn admin(status: &'static str) -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream
                .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                .await
                .unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_ready_service_is_healthy_and_one_that_is_not_ready_is_not() {
        healthcheck(admin("200 OK").await).await.unwrap();
        let address = admin("503 Service Unavailable").await;
        let error = healthcheck(address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{address} is not ready"));
    }

    #[tokio::test]
    async fn a_service_that_listens_on_all_addresses_is_asked_on_this_machine() {
        let mut address = admin("200 OK").await;
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
        healthcheck(address).await.unwrap();
        assert_eq!(to_callable_address("[::]:8001".parse().unwrap()), "[::1]:8001".parse().unwrap());
        assert_eq!(to_callable_address("10.0.0.1:8001".parse().unwrap()), "10.0.0.1:8001".parse().unwrap());
    }

    #[tokio::test]
    async fn an_address_without_a_listener_is_not_healthy() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        healthcheck(address).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_service_that_never_answers_is_not_healthy() {
        let silent = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        healthcheck(silent.local_addr().unwrap()).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let holder = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = holder.local_addr().unwrap();
        let error = bind(taken).unwrap_err();
        assert!(format!("{error:#}").contains(&taken.to_string()), "{error:#}");
    }

    #[test]
    fn the_soft_limit_of_open_files_becomes_the_hard_one() {
        let limit = raise_open_files();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(now.current.unwrap_or(u64::MAX), limit);
    }
}
