//! The matrix: every fault alone, then seeded mixes of all faults, then a provider without keys.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::postgres::Database;
use testkit::proof::{Verified, progress};
use testkit::proxy::{Fault, Plan};
use testkit::wait::{pause, wait_until};
use testkit::{Builder, Proof, SeededRng, http, runs, size};

use crate::outage::{Outage, cycle, set};
use crate::site::{Site, TINJIS, WITHIN, plain};

/// Percentage of faulty calls.
const PERCENT: u64 = 20;
/// Pause between two runs until the first outage takes effect.
const NEXT_RUN: Duration = Duration::from_millis(20);
/// Number of mixes, each with a seed of its own.
const MIXES: usize = 2;
/// With fewer invoices some kinds of faults may never occur, so only a short form runs.
const INVOICES_MIN: usize = 1000;
/// Maximum number of rounds without keys until each kind of fault has occurred.
const ROUNDS_MAX: usize = 5;
/// Maximum number of runs without keys until no invoice is PENDING: a breaker that opens ends a run early.
const RUNS_MAX: usize = 100;
/// A leg with one fault has a tenth of the invoices of a mix.
const ALONE: usize = 10;
/// Faults that only keys reveal: without keys billing cannot know that the network repeated a request or swapped two
/// answers. A kept connection cannot be reset there, because none is kept.
const NEEDS_KEYS: [Fault; 3] = [Fault::Repeated, Fault::OtherAnswer, Fault::KeepAliveRace];

#[test]
fn each_fault_alone_and_all_of_them_mixed_charge_every_invoice_once() {
    prove(Proof::of("fault matrix, SQLite"), plain());
}

#[test]
fn the_same_with_three_replicas_of_each_on_postgres() {
    let Some(database) = Database::fresh("the fault matrix") else { return };
    prove(Proof::of("fault matrix, PostgreSQL"), plain().database(database.url()).replicas(3));
}

fn prove(proof: Proof, services: Builder) {
    let invoices = size("FAULT_INVOICES", 300);
    let seed = SeededRng::random().seed();
    let site = Site::start(services, seed);
    let is_small = invoices < INVOICES_MIN;
    if !is_small {
        each_alone(&site, invoices / ALONE);
    }
    let mixes = if is_small { 1 } else { MIXES };
    for mix in 1..=mixes {
        leg(&site, &format!("mix-{mix}"), Plan::mix(&Fault::ALL, PERCENT), &Outage::ALL, invoices);
    }
    let verified = site.assert_all_paid("after all", &[]);
    let counts = site.counts();
    if !is_small {
        assert_none_is_missing(
            &counts,
            Fault::ALL.map(Fault::as_str).into_iter().chain(Outage::ALL.map(Outage::as_str)),
        );
    }
    let struck: u64 = counts.values().sum();
    let how_many = format!(
        "{} kinds alone, {mixes} mixes; {} invoices, {struck} faults, SEED={seed}",
        counts.len(),
        verified.number("invoices")
    );
    progress(&format!("{counts:?}"));
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}

fn each_alone(site: &Site, invoices: usize) {
    for fault in Fault::ALL {
        leg(site, fault.as_str(), Plan::only(fault, PERCENT), &[], invoices);
    }
    for outage in Outage::ALL {
        leg(site, outage.as_str(), Plan::default(), &[outage], invoices);
    }
}

/// Imports, charges during the faults, ends them, and verifies.
fn leg(site: &Site, name: &str, plan: Plan, outages: &[Outage], invoices: usize) {
    let struck_before = site.counts();
    site.services.import(&format!("{name}-"), invoices);
    site.proxy.follow(plan);
    let (paid, has_struck) = (AtomicBool::new(false), || site.counts() != struck_before);
    if let Some(first) = outages.first() {
        set(site, *first, true, 0);
    }
    std::thread::scope(|scope| {
        let _outages = scope.spawn(|| cycle(site, outages, || !paid.load(Ordering::SeqCst), has_struck));
        let _over = Over(&paid);
        if outages.is_empty() {
            site.services.pay_until_true(WITHIN);
        } else {
            // The first outage must take effect before the run is paid.
            wait_until("the first outage strikes", WITHIN, || {
                let _busy =
                    http::try_call("POST", &format!("{}/v1/runs", site.services.billing_url()), &[], b"");
                pause(NEXT_RUN);
                has_struck()
            });
            site.services.pay_until_true(WITHIN);
        }
    });
    site.recover();
    let verified = site.assert_all_paid(name, &[]);
    progress(&format!("{name}: {} invoices so far are paid", verified.number("paid")));
}

/// Ends the outages, even when a leg fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[track_caller]
fn assert_none_is_missing<'a>(counts: &BTreeMap<&str, u64>, words: impl Iterator<Item = &'a str>) {
    let missing: Vec<&str> = words.filter(|word| counts.get(word).copied().unwrap_or(0) == 0).collect();
    assert!(missing.is_empty(), "never took effect: {missing:?} in {counts:?}");
}

#[test]
fn without_keys_no_fault_charges_twice_and_what_is_doubtful_needs_an_operator() {
    prove_without_keys(Proof::of("faults without keys, SQLite"), plain());
}

#[test]
fn the_same_without_keys_with_three_replicas_of_each_on_postgres() {
    let Some(database) = Database::fresh("faults without keys") else { return };
    let services = plain().database(database.url()).replicas(3);
    prove_without_keys(Proof::of("faults without keys, PostgreSQL"), services);
}

fn prove_without_keys(proof: Proof, services: Builder) {
    let invoices = size("FAULT_INVOICES", 300);
    let seed = SeededRng::random().seed();
    let site = Site::start(services.billing_env("PAYMENT_PROVIDER_IDEMPOTENCY", "none"), seed);
    let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !NEEDS_KEYS.contains(fault)).collect();
    site.proxy.follow(Plan { strips_keys: true, ..Plan::mix(&faults, PERCENT) });
    let left = |state| {
        let url = format!("{}/v1/invoices?state={state}&limit=1", site.services.billing_url());
        http::get(&url).json()["items"].as_array().map_or(0, Vec::len)
    };
    for round in 1..=ROUNDS_MAX {
        site.services.import(&format!("none-{round}-"), invoices);
        let charged = (0..RUNS_MAX).any(|_| {
            let _ended = runs::wait(&site.services.start_run(), WITHIN);
            left("PENDING") + left("CHARGING") == 0
        });
        assert!(charged, "more is left than doubt: {}", site.services.condition());
        site.proxy.settle(WITHIN);
        // Each fault occurs about a dozen times in a thousand calls; rarely one does not occur.
        let counts = site.proxy.counts();
        if invoices < INVOICES_MIN || faults.iter().all(|fault| counts.contains_key(fault)) {
            break;
        }
    }
    let verified = Verified::of(TINJIS, &site.services, &[]);
    let counts = site.counts();
    if invoices >= INVOICES_MIN {
        assert_none_is_missing(&counts, faults.iter().map(|fault| fault.as_str()));
    }
    assert_eq!(
        (verified.number("double"), verified.number("lost"), left("CHARGING"), left("PENDING")),
        (0, 0, 0, 0),
        "double, lost, under way, pending: {}",
        verified.json
    );
    assert_ne!(verified.code, Some(2), "{}", verified.said);
    let waiting = verified.number("invoices") - verified.number("paid");
    assert!(waiting > 0 && verified.number("charges") > verified.number("paid"), "{}", verified.json);
    let struck: u64 = counts.values().sum();
    let all = verified.number("invoices");
    let how_many = format!("{all} invoices, {struck} faults, {waiting} need an operator, SEED={seed}");
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}
