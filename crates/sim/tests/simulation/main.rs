//! Proof: both unchanged services on a simulated network and simulated disks, one process a seed. In the fault phase
//! processes die, commits are lost, links are cut or slow, stores fail and the provider misbehaves: no customer is
//! charged twice. Then faults stop, and everything finishes. Small here; `make sim` is the full size.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use billing::protocol::transition::Idempotency;
use sim::Trace;

use crate::fault_phase::Outcome;
use crate::plan::{KINDS, Plan};

mod fault_phase;
mod network;
mod plan;
mod verdict;
mod world;

/// Default number of seeds; `SIM_SEEDS` overrides it.
const SEEDS: u64 = 10;
/// Number of concurrent processes.
const AT_ONCE: usize = 2;
/// The text before the outcome in a child's output.
const MARK: &str = "OUTCOME ";

/// A variable of the proof.
#[expect(clippy::disallowed_methods, reason = "the size of a proof is no setting of a service")]
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    set(name).map(|text| text.parse().expect("a whole number"))
}

/// Runs a seed in a process of its own, which is this test binary again.
fn child(seed: u64) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "one_seed", "--nocapture"])
        .env("SIM_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

fn outcome(seed: u64, child: Child) -> Outcome {
    let output = child.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| Some(line.split_once(MARK)?.1));
    let line = line.unwrap_or_else(|| panic!("seed {seed} came to no end:\n{text}"));
    serde_json::from_str(line).expect("an outcome")
}

/// Asserts the conditions that must hold for every seed.
fn judge(outcome: &Outcome) {
    let Outcome { seed, verdict, .. } = outcome;
    let again = format!("seed {seed}; again: make sim SIM_FIRST={seed} SIM_SEEDS=1");
    assert_eq!((verdict.double, verdict.lost), (0, 0), "{verdict:?}; {again}");
    let (plan, _) = Plan::of(*seed);
    assert!(
        verdict.is_done(plan.idempotency),
        "not done {} ms after the faults: {verdict:?}; {again}",
        outcome.calm_ms
    );
    let charged = verdict.charges >= outcome.invoices as i64;
    assert!(charged || plan.idempotency == Idempotency::None, "{verdict:?}; {again}");
}

#[test]
fn no_customer_is_charged_twice_under_faults_and_all_is_settled_after_them() {
    let (first, seeds) = (number("SIM_FIRST").unwrap_or(1), number("SIM_SEEDS").unwrap_or(SEEDS));
    let proof = testkit::Proof::of("simulation");
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    let (mut charges, mut invoices, mut events, mut slowest) = (0, 0, 0, 0);
    let mut waiting: Vec<u64> = (first..first + seeds).rev().collect();
    while !waiting.is_empty() {
        let now = waiting.split_off(waiting.len().saturating_sub(AT_ONCE));
        let children: Vec<_> = now.into_iter().map(|seed| (seed, child(seed))).collect();
        for (seed, child) in children {
            let outcome = outcome(seed, child);
            judge(&outcome);
            charges += outcome.verdict.charges;
            invoices += outcome.invoices;
            events += outcome.events;
            slowest = slowest.max(outcome.calm_ms);
            for (kind, count) in outcome.faults {
                *faults.entry(kind).or_default() += count;
            }
        }
    }
    println!(
        "simulation: {seeds} seeds from {first}, {invoices} invoices, {charges} charges, {events} events"
    );
    println!("double 0   lost 0   in doubt 0   all done {slowest} ms after the faults at the latest");
    for kind in KINDS {
        let count = faults.get(kind).copied().unwrap_or(0);
        println!("  {kind:<30} {count:>8}");
        // A few seeds may miss some kinds of faults.
        assert!(count > 0 || seeds < SEEDS, "{kind} never happened: nothing is shown about it");
    }
    let struck: u64 = faults.values().sum();
    proof.end(&format!("{seeds} seeds, {invoices} invoices, {events} events, {struck} faults"), 0, 0);
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [2, 5, 9] {
        let (once, again) = (outcome(seed, child(seed)), outcome(seed, child(seed)));
        assert!(once.events > 1000, "{once:?}");
        assert_eq!(once, again);
    }
    assert_ne!(outcome(2, child(2)).trace, outcome(3, child(3)).trace);
}

/// The only test that runs a seed in this process: other tests start it with `SIM_SEED`.
#[test]
fn one_seed() {
    let kept_in = set("SIM_TRACE");
    let trace = if kept_in.is_some() { Trace::keeping() } else { Trace::default() };
    let outcome = fault_phase::run(number("SIM_SEED").unwrap_or(1), &trace);
    if let (Some(path), Some(text)) = (kept_in, trace.text()) {
        std::fs::write(path, text).unwrap();
    }
    judge(&outcome);
    println!("{MARK}{}", serde_json::to_string(&outcome).unwrap());
}
