//! A TCP and HTTP proxy between billing and its provider that causes faults by a plan: refuses, stalls, resets, drops,
//! delays, repeats, loses and swaps. Every fault that took effect is counted. Knows HTTP and the key's header; links no
//! service.

mod carry;
mod executed;
mod fault;
mod http_io;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

pub use carry::Pace;
pub use executed::Execution;
pub use fault::{Fault, Plan};

use crate::http::Answer;
use crate::wait::{SeededRng, pause, wait_until};

/// How often the listener's state is checked.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Number of connections that fill the queue of a listener that accepts none.
const FILLERS: usize = 4;

/// How new connections are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerState {
    /// The proxy accepts them.
    Open,
    /// The proxy refuses them.
    Refusing,
    /// The proxy does not respond.
    Stalling,
    /// The proxy has ended.
    Shut,
}

/// A running proxy; dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A caller's connection.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    busy: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    pace: Pace,
    seed: u64,
    upstream: Mutex<Vec<SocketAddr>>,
    plan: Mutex<Plan>,
    door: Mutex<ListenerState>,
    lines: Mutex<Vec<Arc<Line>>>,
    counts: Mutex<BTreeMap<Fault, u64>>,
    /// Number of deliveries so far for each key.
    deliveries: Mutex<HashMap<String, u64>>,
    /// The last key of each reference.
    latest: Mutex<HashMap<String, String>>,
    /// The last unchanged answer, with its key.
    last: Mutex<Option<(String, Answer)>>,
    turns: AtomicU64,
    /// Number of delayed requests that the provider does not have yet.
    on_the_way: AtomicU64,
    /// Charges that the provider has executed, according to its answers.
    executed: Mutex<Vec<Execution>>,
    /// Times at which the provider answered that a charge was executed, now or earlier.
    charged_at: Mutex<Vec<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1; it causes no fault until it gets a plan.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    #[track_caller]
    pub fn start(seed: u64, pace: Pace) -> Self {
        let address = crate::process::free_address();
        let listener = listen(address).expect("a free port can be listened on");
        let shared = Arc::new(Shared {
            pace,
            seed,
            upstream: Mutex::default(),
            plan: Mutex::default(),
            door: Mutex::new(ListenerState::Open),
            lines: Mutex::default(),
            counts: Mutex::default(),
            deliveries: Mutex::default(),
            latest: Mutex::default(),
            last: Mutex::default(),
            turns: AtomicU64::new(0),
            on_the_way: AtomicU64::new(0),
            executed: Mutex::default(),
            charged_at: Mutex::default(),
        });
        let guard = Arc::clone(&shared);
        std::thread::spawn(move || run_listener(&guard, address, listener));
        Self { address, shared }
    }

    /// Sets the providers that get the requests, in rotation.
    pub fn lead_to(&self, providers: Vec<SocketAddr>) {
        *lock(&self.shared.upstream) = providers;
    }

    /// The proxy's URL with the name of this machine, so that clients must resolve a name.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// Follows this plan from now on.
    pub fn follow(&self, plan: Plan) {
        *lock(&self.shared.plan) = plan;
    }

    /// Sets how new connections are treated; closes idle ones, so that calls need new ones.
    pub fn set_listener(&self, door: ListenerState) {
        *lock(&self.shared.door) = door;
        self.hang_up_idle();
    }

    /// Closes the connections without a request in progress.
    pub fn hang_up_idle(&self) {
        for line in lock(&self.shared.lines).iter().filter(|line| !line.busy.load(Ordering::SeqCst)) {
            let _gone = line.stream.shutdown(Shutdown::Both);
        }
    }

    /// Number of times that each fault took effect so far.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        lock(&self.shared.counts).clone()
    }

    /// Charges that the provider has executed so far, in the order of its answers. The list is independent of the
    /// stores on both sides.
    #[must_use]
    pub fn executed(&self) -> Vec<Execution> {
        lock(&self.shared.executed).clone()
    }

    /// Number of executed charges.
    #[must_use]
    pub fn executions(&self) -> usize {
        lock(&self.shared.executed).len()
    }

    /// The time of the first answer after this moment which says that a charge was executed, now or earlier.
    #[must_use]
    pub fn first_charge_after(&self, moment: Instant) -> Option<Instant> {
        let charged = lock(&self.shared.charged_at);
        charged.get(charged.partition_point(|at| *at <= moment)).copied()
    }

    /// Waits until no delayed request is in flight.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn settle(&self, within: Duration) {
        wait_until("delayed requests to arrive", within, || {
            self.shared.on_the_way.load(Ordering::SeqCst) == 0
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set_listener(ListenerState::Shut);
    }
}

impl Shared {
    fn upstream(&self) -> io::Result<SocketAddr> {
        let providers = lock(&self.upstream);
        let turn = usize::try_from(self.turn()).unwrap_or_default();
        let at = turn.checked_rem(providers.len()).ok_or(io::ErrorKind::NotConnected)?;
        Ok(providers[at])
    }

    fn plan(&self) -> Plan {
        lock(&self.plan).clone()
    }

    fn is_shut(&self) -> bool {
        *lock(&self.door) == ListenerState::Shut
    }

    fn count(&self, fault: Fault) {
        *lock(&self.counts).entry(fault).or_default() += 1;
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of this delivery of the key, and its fault, which the seed determines.
    fn draw(&self, plan: &Plan, key: &str) -> (u64, Option<Fault>) {
        let nth = {
            let mut deliveries = lock(&self.deliveries);
            let nth = deliveries.entry(key.to_owned()).or_default();
            *nth += 1;
            *nth
        };
        let name = key
            .bytes()
            .fold(self.seed ^ nth, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        let mut rng = SeededRng::seeded(name);
        let strikes = rng.below(100) < plan.percent && !plan.faults.is_empty();
        let drawn = rng.below(plan.faults.len() as u64);
        (nth, strikes.then(|| plan.faults[usize::try_from(drawn).unwrap_or_default()]))
    }

    fn note_latest(&self, reference: String, key: &str) {
        lock(&self.latest).insert(reference, key.to_owned());
    }

    /// Whether the caller has sent this charge again, or a later attempt for the same reference.
    fn is_overtaken(&self, key: &str, nth: u64, reference: Option<&str>) -> bool {
        let again = lock(&self.deliveries).get(key).is_some_and(|seen| *seen > nth);
        again
            || reference
                .is_some_and(|reference| lock(&self.latest).get(reference).is_some_and(|last| last != key))
    }

    fn remember(&self, key: &str, reply: Answer) {
        *lock(&self.last) = Some((key.to_owned(), reply));
    }

    fn answer_to_another(&self, key: &str) -> Option<Answer> {
        lock(&self.last).as_ref().filter(|(other, _)| other != key).map(|(_, reply)| reply.clone())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections by the listener's state, until the proxy ends.
fn run_listener(shared: &Arc<Shared>, address: SocketAddr, listener: TcpListener) {
    let mut listener = Some(listener);
    let mut stalling: Option<Vec<Socket>> = None;
    loop {
        let door = *lock(&shared.door);
        match door {
            ListenerState::Shut => return,
            ListenerState::Refusing => (listener, stalling) = (None, None),
            ListenerState::Stalling => {
                listener = None;
                if stalling.is_none() {
                    stalling = listen_without_accepting(address).ok();
                }
            }
            ListenerState::Open => {
                stalling = None;
                if listener.is_none() {
                    listener = listen(address).ok();
                }
            }
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((stream, _))) => accept(shared, stream),
            _ => pause(LOOK_AGAIN),
        }
    }
}

fn accept(shared: &Arc<Shared>, stream: TcpStream) {
    let ready = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| stream.set_read_timeout(Some(shared.pace.delay * 2)));
    let (Ok(()), Ok(clone)) = (ready, stream.try_clone()) else { return };
    let line = Arc::new(Line { stream: clone, busy: AtomicBool::new(false) });
    lock(&shared.lines).push(Arc::clone(&line));
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        carry::serve(&shared, &stream, &line);
        lock(&shared.lines).retain(|other| !Arc::ptr_eq(other, &line));
    });
}

/// A listener whose queue is full and which accepts no connection: its address does not respond to clients.
fn listen_without_accepting(address: SocketAddr) -> io::Result<Vec<Socket>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(0)?;
    let mut held = vec![socket];
    for _ in 0..FILLERS {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        filler.set_nonblocking(true)?;
        // This connection is in flight, or waits like the others.
        let _under_way = filler.connect(&address.into());
        held.push(filler);
    }
    Ok(held)
}
