//! Other clients get answers while a thousand connections are deliberately slow: in the handshake, in the head, in the
//! body, in reading the answer. Knows `slowhttptest` and the form of a ClientHello.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::Process;
use testkit::process::raise_own_nofile;
use testkit::requirements::has;
use testkit::secure::Dialer;
use testkit::wait::pause;
use testkit::{size, timed};

use crate::Site;

/// Maximum 99th percentile of the others' latency. Without optimisation a handshake alone takes half of it.
const P99_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 });
/// Number of slow connections.
const SLOW: usize = 1000;
/// Number of slow connections that send their ClientHello a byte at a time.
const DRIPPING: usize = 100;
/// Minimum number of connections of an attack; the machine limits how many it can make.
const ATTACKS_MIN: i64 = 20;
/// Number of calls on one connection before another one is opened.
const CALLS: usize = 5;

/// The duration of each attack.
fn length() -> Duration {
    Duration::from_secs(u64::try_from(size("HOSTILE_SECONDS", 1)).expect("a short time"))
}

struct Others<'a> {
    dialer: Dialer,
    server: &'a Process,
    path: &'static str,
}

impl Others<'_> {
    /// Makes calls on new and kept connections until the attack is over, and prints the latencies; returns the number
    /// of connections.
    fn are_answered_during(&self, name: &str, attack: impl FnOnce() + Send) -> i64 {
        let (mut times, mut connections) = (Vec::new(), 0);
        std::thread::scope(|scope| {
            let attacker = scope.spawn(attack);
            while !attacker.is_finished() || times.len() < 200 {
                self.call(name, &mut times);
                connections += 1;
            }
        });
        times.sort();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        let (p50, p99, last) = (at(50), at(99), at(100));
        println!("  {name:44} {:>6} answers, p50 {p50:.1?}, p99 {p99:.1?}, slowest {last:.1?}", times.len());
        assert!(p99 < P99_MAX, "{name}: others waited {p99:?}");
        connections
    }

    /// Makes calls on one connection, whose handshake counts as part of the first answer.
    fn call(&self, name: &str, times: &mut Vec<Duration>) {
        let mut connection = None;
        for _ in 0..CALLS {
            let (answer, time) = timed(|| {
                if connection.is_none() {
                    connection = Some(self.dialer.open(self.server.address(), "localhost")?);
                }
                let open = connection.as_mut().expect("it was opened");
                open.call("GET", self.path, &[], b"")
            });
            let answer =
                answer.unwrap_or_else(|error| panic!("{name}: another one was not answered: {error}"));
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            times.push(time);
        }
    }
}

#[test]
fn slow_handshakes_leave_others_alone() {
    let _limit = raise_own_nofile();
    let site = Site::new();
    let server = site.service("payments");
    let others =
        Others { dialer: Dialer::new(&site.authority.pem(), None), server: &server, path: "/health" };
    let hello = others.dialer.client_hello();
    let address = server.address();
    others.are_answered_during("no other connections", || hold(address, &[], 0));
    others.are_answered_during("1,000 connections that say nothing", || hold(address, &[], SLOW));
    others
        .are_answered_during("1,000 half-open handshakes", || hold(address, &hello[..hello.len() / 2], SLOW));
    others.are_answered_during("100 ClientHellos, a byte at a time", || drip(address, &hello));
}

/// Opens connections, sends these bytes on each, and holds them.
fn hold(address: SocketAddr, bytes: &[u8], count: usize) {
    let held: Vec<TcpStream> = (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection is accepted");
            stream.write_all(bytes).expect("it takes the beginning");
            stream
        })
        .collect();
    pause(length());
    drop(held);
}

/// Sends one byte on each connection in turn; closed connections are ignored.
fn drip(address: SocketAddr, hello: &[u8]) {
    const EVERY: Duration = Duration::from_millis(5);
    let bytes = usize::try_from(length().as_millis() / EVERY.as_millis()).expect("a short time");
    let mut streams: Vec<TcpStream> =
        (0..DRIPPING).map(|_| TcpStream::connect(address).expect("a connection is accepted")).collect();
    for byte in hello.iter().cycle().take(bytes) {
        for stream in &mut streams {
            let _closed = stream.write_all(&[*byte]);
        }
        pause(EVERY);
    }
}

#[test]
fn slow_requests_over_tls_leave_others_alone() {
    if !has("slowhttptest", "what slowhttptest does") {
        return;
    }
    let site = Site::new();
    for (name, path) in [("payments", "/health"), ("billing", "/rest/health")] {
        let server = site.service(name);
        let others = Others { dialer: Dialer::new(&site.authority.pem(), None), server: &server, path };
        for (what, mode) in [("slow heads", "-H"), ("slow bodies", "-B"), ("slow readers", "-X")] {
            let made = || server.metric(&["tls_handshakes_total{"]);
            let before = made();
            let attack = || slowhttptest(&server, mode, path);
            let own = others.are_answered_during(&format!("{name}: slowhttptest, {SLOW} {what}"), attack);
            // Without this check an attack that did not take place would count as success.
            let attacks = made() - before - own;
            println!("  {:44} {attacks:>6} connections of slowhttptest", "");
            assert!(attacks >= ATTACKS_MIN, "slowhttptest {mode} made {attacks} connections");
        }
    }
}

fn slowhttptest(server: &Process, mode: &str, path: &str) {
    let seconds = length().as_secs().to_string();
    let slow = SLOW.to_string();
    let mut attacker = Command::new("slowhttptest")
        .args([mode, "-c", &slow, "-r", &slow, "-l", &seconds, "-i", "1", "-p", "3", "-v", "0", "-u"])
        .arg(format!("https://{}{path}", server.address()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("slowhttptest can be started");
    // Its exit status is its opinion of the server, which is not tested here.
    let _verdict = attacker.wait().expect("a child can be waited for");
}
