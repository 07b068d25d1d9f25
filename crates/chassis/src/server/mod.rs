//! The accept loop: HTTP/1.1 with a limit or a deadline on everything a client could hold on to, and a drain in
//! which no received request goes unanswered. Knows no route and no service.
//!
//! A connection beyond the limit waits in the kernel's queue. While one waits, connections that have been sending a
//! request for longest are closed, first those of peers above their share. Then each answer is the last on its
//! connection, and the connection idle for longest is closed: no connection keeps a place without use.

mod body;
mod call;
mod connection_io;
mod cross_site;
mod drive;
mod framing;
mod host;
mod limits;
mod metrics;
mod registry;
mod socket;
mod state;

pub use cross_site::{CrossSite, CrossSiteGuard, is_safe};
pub use limits::{Limits, NotExecuted, Panicked, Shed};
pub use metrics::ServerMetrics;
pub use socket::{Duplex, Listen};

use crate::shutdown::Shutdown;
use crate::tls::ServerTls;
use axum::Router;
use http::HeaderName;
use registry::{ConnectionRegistry, HalfOpen};
use socket::{Listener, Socket};
use state::{CLOSE, DRAIN, HARD, RESET, State};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Marks an answer whose request was not executed.
pub const NOT_EXECUTED: HeaderName = HeaderName::from_static("not-executed");

/// The pause after an accept that failed for lack of a resource; it doubles up to the maximum.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long a new connection at the limit waits for a busy connection to end before an idle one is closed.
const TURN_PAUSE: Duration = Duration::from_millis(20);

/// A handler's handle of the connection that its request came on: a request extension.
#[derive(Clone, Debug)]
pub struct Connection {
    state: Arc<State>,
    asked_at: Instant,
    is_tls: bool,
}

/// How long a request may have waited before a caller that has shut its side counts as gone. Some clients shut their
/// side right after the request and wait for the answer: such a request is executed if it begins within this time.
const GONE_AFTER: Duration = Duration::from_secs(1);

impl Connection {
    /// Whether the caller is gone, as far as can be seen: checked before something begins that a caller would not
    /// expect after giving up.
    pub fn is_abandoned(&self) -> bool {
        self.state.is_shut_by_peer() && self.asked_at.elapsed() >= GONE_AFTER
    }

    /// The other side's address.
    pub fn peer(&self) -> SocketAddr {
        self.state.peer
    }

    /// Whether the request came over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Drops the connection without an answer, or without the rest of one.
    pub fn close(&self) {
        self.state.ask(CLOSE);
    }

    /// Drops the connection as [`Self::close`] does, but by RST: the other side sees an error, not an end.
    pub fn reset(&self) {
        self.state.ask(RESET);
    }

    /// Sends only the first `bytes` bytes of this call's answer, its head included, then closes.
    pub fn close_after_bytes(&self, bytes: u64) {
        self.state.limit_answer(bytes);
    }

    /// Accepts a body of up to `bytes_max` bytes for this call. Its deadline restarts each time the handler waits for
    /// more of it. Call it before the body is read.
    pub fn expect_long_body(&self, bytes_max: u64) {
        self.state.expect_long_body(bytes_max);
    }
}

/// The routes of a server, or until they exist a replacement. Clones share them.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Arc<OnceLock<Router>>,
    meanwhile: Router,
}

impl Routes {
    /// Routes that `meanwhile` answers until [`Self::open`].
    #[must_use]
    pub fn until(meanwhile: Router) -> Self {
        Self { routes: Arc::default(), meanwhile }
    }

    /// Answers with these routes from now on; a second call changes nothing.
    pub fn open(&self, routes: Router) {
        let _first = self.routes.set(routes);
    }

    fn now(&self) -> Router {
        self.routes.get().unwrap_or(&self.meanwhile).clone()
    }
}

impl From<Router> for Routes {
    fn from(routes: Router) -> Self {
        Self { routes: Arc::new(OnceLock::from(routes)), meanwhile: Router::new() }
    }
}

/// Serves a router on a listener.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    routes: Routes,
    limits: Limits,
    metrics: ServerMetrics,
    tls: Option<ServerTls>,
}

impl Server {
    /// A server that accepts nothing before [`Self::serve`]. Lowers the limit of connections to what the process can
    /// still open now: call it once everything that a service keeps open is open, and before any server accepts.
    pub fn new(listener: TcpListener, router: Router, limits: Limits) -> Self {
        Self::with_routes(listener, router.into(), limits)
    }

    /// A server as by [`Self::new`], with routes that may come later.
    pub fn with_routes(listener: TcpListener, routes: Routes, mut limits: Limits) -> Self {
        limits.connections_max = limits::limit_to_descriptors(limits.connections_max);
        Self::over(Listener::Tcp(listener), routes, limits)
    }

    /// A server as by [`Self::new`], on connections from a given listener.
    pub fn with_listener(listen: Box<dyn Listen>, router: Router, limits: Limits) -> Self {
        Self::over(Listener::Given(listen), router.into(), limits)
    }

    fn over(listener: Listener, routes: Routes, limits: Limits) -> Self {
        Self { listener, routes, limits, metrics: ServerMetrics::new(), tls: None }
    }

    /// Counts into these metrics instead of its own.
    #[must_use]
    pub fn metrics(mut self, metrics: ServerMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Accepts only TLS on every connection, if TLS is given.
    #[must_use]
    pub fn tls(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }

    /// Accepts until the shutdown begins, then closes idle connections, lets busy ones finish their response, and
    /// returns when all are gone, at the latest after the hard stop.
    pub async fn serve(self, shutdown: Shutdown) {
        // Delays the hard stop until the last answer is written.
        let _serving = shutdown.tracker().token();
        let connections_max = self.limits.connections_max;
        let epoch = Instant::now();
        let shared = Arc::new(call::ServerContext {
            routes: self.routes,
            tls: self.tls,
            half_open: HalfOpen::new(self.limits.handshakes_max),
            limits: self.limits,
            // A given network has a time of its own.
            is_dated: matches!(self.listener, Listener::Tcp(_)),
            metrics: self.metrics,
            in_flight: Arc::default(),
            is_crowded: AtomicBool::new(false),
        });
        let mut accepting = Accepting {
            listener: self.listener,
            slots: Arc::new(Semaphore::new(connections_max)),
            registry: ConnectionRegistry::default(),
            shared,
            tasks: TaskTracker::new(),
            epoch,
        };
        tokio::select! {
            biased;
            () = shutdown.stop_accepting() => {}
            () = accepting.run() => {}
        }
        accepting.drain(shutdown).await;
    }
}

struct Accepting {
    listener: Listener,
    slots: Arc<Semaphore>,
    registry: ConnectionRegistry,
    shared: Arc<call::ServerContext>,
    tasks: TaskTracker,
    epoch: Instant,
}

impl Accepting {
    async fn run(&mut self) {
        let mut pause = ACCEPT_PAUSE;
        loop {
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    pause = ACCEPT_PAUSE;
                    let slot = self.slot().await;
                    self.spawn(socket, peer, slot);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.shared.metrics.accept_failed();
                    tracing::warn!(%error, "accepting a connection failed");
                    self.make_room();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }

    /// Waits for a free slot, and frees one if need be: first by closing connections with unfinished requests, then
    /// those whose answer is written, then idle ones. Meanwhile other new connections wait in the kernel's queue.
    async fn slot(&self) -> OwnedSemaphorePermit {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return slot;
        }
        let slot = loop {
            if !self.evict() {
                self.shared.is_crowded.store(true, Relaxed);
            }
            let slot = self.slots.clone().acquire_owned();
            match tokio::time::timeout(TURN_PAUSE, slot).await {
                Ok(slot) => break slot.expect("the semaphore is never closed"),
                Err(_) => self.make_room(),
            }
        };
        self.shared.is_crowded.store(false, Relaxed);
        slot
    }

    fn spawn(&self, socket: Socket, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        if let Err(error) = socket.set_nodelay() {
            tracing::debug!(%peer, %error, "a connection closed before it was accepted");
            return;
        }
        let state = Arc::new(State::new(peer));
        let entry = self.registry.enter(state.clone());
        let (shared, epoch) = (self.shared.clone(), self.epoch);
        shared.metrics.opened();
        self.tasks.spawn(async move {
            let end = drive::connection(socket, shared.clone(), state, epoch).await;
            shared.metrics.closed(end);
            drop((entry, slot));
        });
    }

    async fn drain(self, shutdown: Shutdown) {
        drop(self.listener);
        self.registry.ask_all(DRAIN);
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => {}
            () = shutdown.hard() => {
                self.registry.ask_all(HARD);
                self.tasks.wait().await;
            }
        }
    }

    fn make_room(&self) {
        if let Some(aged_before_ms) = self.aged_before_ms() {
            self.registry.make_room(aged_before_ms);
        }
    }

    /// Closes connections that take long over their requests, and returns whether there were any.
    fn evict(&self) -> bool {
        self.registry.evict(self.shared.limits.connections_per_peer, self.aged_before_ms())
    }

    /// The time by which a phase must have begun to be old enough; `None` while none can be.
    fn aged_before_ms(&self) -> Option<u64> {
        let before = self.epoch.elapsed().checked_sub(self.shared.limits.idle_min)?;
        Some(u64::try_from(before.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Whether only the current connection is lost, so that the next accept can be tried at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
