//! Proof: thousands of requests whose heads never end, on any of the four ports, stop neither probes nor charging.
//! `make idle` runs it on a release build, which also compares rates: charging keeps at least half of its rate. Knows
//! the services from outside only.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use testkit::process::raise_own_nofile;
use testkit::proof::{Verified, progress};
use testkit::wait::{pause, wait_until};
use testkit::{Proof, Services, http, runs, size, timed};

/// Half a head, from a client that has stopped sending.
const HALF: &[u8] = b"POST /rest/v1/invoices/pay HTTP/1.1\r\nHost: half\r\nX-Slow: ";
/// How often closed connections are replaced, and how many at once: more would be a load of its own.
const EVERY: Duration = Duration::from_millis(500);
const REPLACED_MAX: usize = 500;
/// Pause between two rounds of probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Timeout of a kubelet's probe in the environments that we ship.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// Maximum duration of a step, on any machine.
const WITHIN: Duration = Duration::from_secs(120);
/// Rates are compared in a release build only, where a charge costs little CPU compared with its waits. Other load on
/// the machine may disturb a run: only one run of this many has to reach the rate.
const RUNS_MAX: usize = if cfg!(debug_assertions) { 1 } else { 3 };
/// Minimum rate in percent of the rate without half heads. `HALF_HEAD_SHARE` may lower it for a machine that others use
/// too.
const SHARE_MIN: usize = if cfg!(debug_assertions) { 1 } else { 50 };

#[test]
fn half_heads_on_any_port_stop_neither_probes_nor_charging() {
    let _limit = raise_own_nofile();
    let proof = Proof::of("half heads");
    let share_min = size("HALF_HEAD_SHARE", SHARE_MIN) as u128;
    let (heads, invoices) = (size("HALF_HEADS", 600), size("HALF_HEAD_INVOICES", 500));
    let tinjis = env!("CARGO_BIN_EXE_tinjis");
    let services = Services::of(tinjis).payments_flags(["--success-rate=1", "--seed=4"]).start();
    let alone = [pay(&services, "a", invoices), pay(&services, "b", invoices)];
    let alone = alone[0].min(alone[1]);
    let ports = [
        ("billing", services.billing.address()),
        ("payments", services.payments.address()),
        ("billing's admin port", admin(&services.billing.admin_url())),
        ("payments' admin port", admin(&services.payments.admin_url())),
    ];
    for (number, (name, address)) in ports.into_iter().enumerate() {
        let mut share = 0;
        for round in 0..RUNS_MAX {
            share = under_attack(&services, name, address, heads, || {
                let took = pay(&services, &format!("{number}-{round}-"), invoices);
                alone.as_micros() * 100 / took.as_micros()
            });
            if share >= share_min {
                break;
            }
        }
        assert!(share >= share_min, "{name}: charging went on at {share} % of its rate");
    }
    let verified = Verified::of(tinjis, &services, &[]);
    verified.assert_all_paid("half heads");
    proof.end(&format!("{heads} on each of 4 ports"), verified.number("double"), verified.number("lost"));
}

/// Holds half heads at a port during `charge`, while probes must be answered; returns the share of the rate.
fn under_attack(
    services: &Services,
    name: &str,
    address: SocketAddr,
    heads: usize,
    charge: impl FnOnce() -> u128,
) -> u128 {
    let crowd = Crowd::default();
    let (probes, share) = std::thread::scope(|scope| {
        let _over = Over(&crowd);
        scope.spawn(|| crowd.hold(address, heads));
        wait_until("the heads are half sent", WITHIN, || crowd.opened.load(Ordering::SeqCst) >= heads);
        let probes = scope.spawn(|| crowd.probe(services));
        let share = charge();
        crowd.is_over.store(true, Ordering::SeqCst);
        (probes.join().expect("each probe is answered"), share)
    });
    progress(&format!(
        "{name}: {} half heads, charging at {share} % of the rate alone, {probes} probes, slowest of {} ms",
        crowd.opened.load(Ordering::SeqCst),
        crowd.slowest_ms.load(Ordering::SeqCst)
    ));
    assert!(probes > 0, "{name}: it was asked meanwhile");
    share
}

/// The duration of one run over new invoices; each is paid in the end.
fn pay(services: &Services, prefix: &str, invoices: usize) -> Duration {
    services.import(&format!("half-{prefix}"), invoices);
    let (run, took) = timed(|| runs::wait(&services.start_run(), WITHIN));
    assert_eq!(run["paid"], invoices, "{run}");
    took
}

fn admin(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("the admin port has an address")
}

/// The clients with half heads, and measurements of probes.
#[derive(Default)]
struct Crowd {
    is_over: AtomicBool,
    opened: AtomicUsize,
    slowest_ms: AtomicUsize,
}

/// Ends the clients, even when the proof fails.
struct Over<'a>(&'a Crowd);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

impl Crowd {
    /// Holds this many half heads open, and replaces those that the service has closed.
    fn hold(&self, address: SocketAddr, count: usize) {
        let mut held: Vec<TcpStream> = Vec::with_capacity(count);
        while !self.is_over.load(Ordering::SeqCst) {
            held.retain_mut(is_open);
            let all = self.opened.load(Ordering::SeqCst) >= count;
            let missing = count - held.len();
            for _ in 0..if all { missing.min(REPLACED_MAX) } else { missing } {
                let Ok(mut stream) = TcpStream::connect_timeout(&address, PROBE_MAX) else { break };
                let sent = stream.write_all(HALF).and_then(|()| stream.set_nonblocking(true));
                if sent.is_ok() {
                    held.push(stream);
                }
                self.opened.fetch_add(1, Ordering::SeqCst);
            }
            pause(EVERY);
        }
    }

    /// Probes both admin ports as a kubelet does, on new connections; returns the number of probes.
    fn probe(&self, services: &Services) -> usize {
        let mut asked = 0;
        while !self.is_over.load(Ordering::SeqCst) || asked == 0 {
            for process in [&services.billing, &services.payments] {
                for path in ["/livez", "/readyz"] {
                    let url = format!("{}{path}", process.admin_url());
                    let (answer, took) = timed(|| http::get(&url));
                    assert_eq!(answer.status, 200, "{url}: {}", answer.text());
                    assert!(took < PROBE_MAX, "{url} took {took:?}");
                    let took = usize::try_from(took.as_millis()).expect("a short time");
                    self.slowest_ms.fetch_max(took, Ordering::SeqCst);
                    asked += 1;
                }
            }
            pause(PROBE_EVERY);
        }
        asked
    }
}

/// Whether the service has kept the connection open.
fn is_open(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}
