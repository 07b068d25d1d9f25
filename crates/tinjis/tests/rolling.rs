//! Rolling restart: three billings and three payments on one PostgreSQL are stopped and started again one after the
//! other, under load: each leaves the list of those who are asked, is told to stop, and comes back when it is ready. No
//! request fails, nothing is lost. Knows the services from outside only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harness::proof::{Verified, progress};
use harness::replicas::Plan;
use harness::wait::{pause, wait_until};
use harness::{Database, Proof, Replicas, http, size};

/// However long a machine takes, a step is done within this.
const WITHIN: Duration = Duration::from_secs(120);
/// As a cluster waits between taking a pod off the list and telling it to stop, so that all have heard of it.
const LIST_DELAY: Duration = Duration::from_millis(200);
/// Those who ask billing without a pause.
const CALLERS: usize = 4;
/// Between two rounds under load.
const SERVED_BETWEEN: usize = 100;

/// Whom callers may ask, and what came of it.
struct Balancer {
    listed: Mutex<Vec<String>>,
    stops: AtomicBool,
    served: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Balancer {
    fn take_off(&self, url: &str) {
        lock(&self.listed).retain(|listed| listed != url);
        pause(LIST_DELAY);
    }

    fn put_back(&self, url: &str) {
        lock(&self.listed).push(url.to_owned());
    }

    /// Asks one after the other until told to stop; each failure is kept.
    fn call(&self, caller: usize) {
        let mut turn = caller;
        while !self.stops.load(Ordering::SeqCst) {
            turn += 1;
            let base = {
                let listed = lock(&self.listed);
                listed[turn % listed.len()].clone()
            };
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
        }
    }

    /// Waits until load was served by those who are there now.
    fn serve_some(&self) {
        let before = self.served.load(Ordering::SeqCst);
        wait_until("load is served", WITHIN, || {
            self.served.load(Ordering::SeqCst) >= before + SERVED_BETWEEN || !lock(&self.failures).is_empty()
        });
    }
}

/// Ends the callers, also when the proof fails.
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
        listed: Mutex::new(replicas.billings.iter().map(|billing| billing.url()).collect()),
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
