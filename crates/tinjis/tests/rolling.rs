//! Rolling restart: three billings and three payments on one PostgreSQL are restarted one after the other, under load.
//! Each leaves the load balancer, is stopped, and returns when it is ready. No request fails, nothing is lost. Knows
//! the services from outside only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use testkit::proof::{Verified, progress};
use testkit::replicas::Plan;
use testkit::wait::wait_until;
use testkit::{Database, Proof, Replicas, http, size};

/// Maximum duration of a step, on any machine.
const WITHIN: Duration = Duration::from_secs(120);
/// Number of clients that call billing without a pause.
const CALLERS: usize = 4;
/// Number of answers between two restarts under load.
const SERVED_BETWEEN: usize = 100;

/// Addresses that callers may use, and addresses with a request in flight.
#[derive(Default)]
struct List {
    listed: Vec<String>,
    asked: Vec<String>,
}

/// The list of addresses, and the results of the calls.
struct Balancer {
    list: Mutex<List>,
    stops: AtomicBool,
    served: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Balancer {
    /// Removes an address and waits for its requests in flight, as a cluster waits before it stops a pod.
    fn take_off(&self, url: &str) {
        lock(&self.list).listed.retain(|listed| listed != url);
        wait_until("those who asked it before have their answers", WITHIN, || {
            !lock(&self.list).asked.iter().any(|asked| asked == url)
        });
    }

    fn put_back(&self, url: &str) {
        lock(&self.list).listed.push(url.to_owned());
    }

    /// The next address to call.
    fn pick(&self, turn: usize) -> String {
        let mut list = lock(&self.list);
        let base = list.listed[turn % list.listed.len()].clone();
        list.asked.push(base.clone());
        base
    }

    fn has_answered(&self, base: &str) {
        let asked = &mut lock(&self.list).asked;
        let at = asked.iter().position(|asked| asked == base).expect("it was asked");
        asked.swap_remove(at);
    }

    /// Calls the addresses in rotation until the end; keeps each failure.
    fn call(&self, caller: usize) {
        let mut turn = caller;
        while !self.stops.load(Ordering::SeqCst) {
            turn += 1;
            let base = self.pick(turn);
            let (method, path) = match turn % 3 {
                0 => ("POST", "/v1/runs"),
                1 => ("GET", "/rest/health"),
                _ => ("GET", "/v1/invoices?limit=10"),
            };
            match http::try_call(method, &format!("{base}{path}"), &[], b"") {
                Ok(answer) if answer.status < 400 => {
                    self.served.fetch_add(1, Ordering::SeqCst);
                }
                Ok(answer) => lock(&self.failures).push(format!("{method} {path}: {}", answer.status)),
                Err(error) => lock(&self.failures).push(format!("{method} {path}: {error}")),
            }
            self.has_answered(&base);
        }
    }

    /// Waits until the listed replicas have answered some requests.
    fn serve_some(&self) {
        let before = self.served.load(Ordering::SeqCst);
        wait_until("load is served", WITHIN, || {
            self.served.load(Ordering::SeqCst) >= before + SERVED_BETWEEN || !lock(&self.failures).is_empty()
        });
    }
}

/// Ends the callers, even when the proof fails.
struct Over<'a>(&'a Balancer);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.stops.store(true, Ordering::SeqCst);
    }
}

#[test]
fn every_replica_restarted_under_load_costs_no_request_and_no_charge() {
    let Some(database) = Database::fresh("a rolling restart") else { return };
    let proof = Proof::of("rolling restart, PostgreSQL");
    let (invoices, rounds) = (size("ROLLING_INVOICES", 600), size("ROLLING_ROUNDS", 1));
    let tinjis = env!("CARGO_BIN_EXE_tinjis");
    let plan = Plan::three_of_each().payments_flags(["--success-rate=0.9", "--seed=4"]);
    let mut replicas = Replicas::start(tinjis, &database, &plan);
    let balancer = Balancer {
        list: Mutex::new(List {
            listed: replicas.billings.iter().map(|billing| billing.url()).collect(),
            ..List::default()
        }),
        stops: AtomicBool::new(false),
        served: AtomicUsize::new(0),
        failures: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let balancer = &balancer;
            scope.spawn(move || balancer.call(caller));
        }
        let _over = Over(&balancer);
        for round in 1..=rounds {
            replicas.import(&format!("U{round}-"), invoices);
            for billing in &mut replicas.billings {
                let url = billing.url();
                balancer.take_off(&url);
                assert!(billing.stop().success(), "it ends softly: {}", billing.log());
                billing.start_again();
                balancer.put_back(&url);
                balancer.serve_some();
            }
            for payments in &mut replicas.payments {
                assert!(payments.stop().success(), "it ends softly: {}", payments.log());
                payments.start_again();
                balancer.serve_some();
            }
            progress(&format!("rolling restart: {round} of {rounds}"));
        }
    });
    let failures = lock(&balancer.failures).clone();
    assert_eq!(failures, Vec::<String>::new(), "no request fails");
    replicas.pay_until_true(WITHIN);
    let urls = (replicas.billings[0].url(), replicas.payments[0].url());
    let verified = Verified::between(tinjis, (&urls.0, &urls.1), &[]);
    verified.assert_all_paid("after the restarts");
    let served = balancer.served.load(Ordering::SeqCst);
    let how_many = format!(
        "{} restarts, {served} requests, 0 failed, {} invoices",
        rounds * 6,
        verified.number("invoices")
    );
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}
