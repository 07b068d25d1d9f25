//! One seed from its beginning to its verdict: the fault phase, in which no customer may be charged twice, and the calm
//! after it, in which everything must finish. Knows the plan and the hosts; decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::clock::Random;
use serde::{Deserialize, Serialize};
use sim::Trace;
use tracing::field::{Field, Visit};
use tracing::{Event as LogEvent, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use turmoil::{Builder, Sim};

use crate::plan::{Plan, STORM, What};
use crate::verdict::Verdict;
use crate::world::{World, billing_name, payments_name};

const TICK: Duration = Duration::from_millis(2);
const LATENCY_MAX: Duration = Duration::from_millis(60);
/// Maximum duration of the calm: long enough for a lease, a hold, a breaker's pause and some pay calls.
pub(crate) const CALM: Duration = Duration::from_secs(60);
/// How often the test checks whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The result of a seed; passed between processes as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) installation: String,
    pub(crate) trace: String,
    pub(crate) events: u64,
    pub(crate) calm_ms: u64,
    pub(crate) verdict: Verdict,
    pub(crate) invoices: usize,
    pub(crate) faults: BTreeMap<String, u64>,
}

/// Counts the faults that the provider has injected.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<BTreeMap<String, u64>>>);

impl Faults {
    fn count(&self, word: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(word.to_owned()).or_default() += 1;
    }
}

impl<S: Subscriber> Layer<S> for Faults {
    fn on_event(&self, event: &LogEvent<'_>, _context: Context<'_, S>) {
        event.record(&mut FaultField(self));
    }
}

struct FaultField<'a>(&'a Faults);

impl Visit for FaultField<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "fault" {
            self.0.count(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

/// Runs one seed.
pub(crate) fn run(seed: u64, trace: &Trace) -> Outcome {
    let faults = Faults::default();
    let log = tracing_subscriber::registry()
        .with(trace.clone().with_filter(LevelFilter::TRACE))
        .with(faults.clone());
    let _logged = tracing::subscriber::set_default(log);
    let (plan, random) = Plan::of(seed);
    let installation =
        format!("{}×{} {}", plan.billings, plan.payments, crate::world::word(plan.idempotency));
    let world = World::new(plan, &random);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(world.fill()).expect("the invoices are written");
    let mut sim = hosts(&world, &random);
    fault_phase(&mut sim, &world, &faults, trace);
    let calm = calm(&mut sim, &world);
    let verdict = Verdict::of(&world);
    trace.note(&format!("{verdict:?}"));
    let (hash, events) = trace.digest();
    Outcome {
        seed,
        installation,
        trace: hash,
        events,
        calm_ms: u64::try_from(calm.as_millis()).unwrap_or(u64::MAX),
        verdict,
        invoices: world.plan.invoices,
        faults: faults.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    }
}

fn hosts<'a>(world: &World, random: &Random) -> Sim<'a> {
    let mut sim = Builder::new()
        .rng_seed(random.u64())
        .tick_duration(TICK)
        .max_message_latency(LATENCY_MAX)
        .simulation_duration(STORM + CALM * 2)
        .tcp_capacity(1024)
        .build();
    for n in 0..world.plan.payments {
        let world = world.clone();
        sim.host(payments_name(n), move || world.clone().keep_payments(n));
    }
    for n in 0..world.plan.billings {
        let world = world.clone();
        sim.host(billing_name(n), move || world.clone().keep_billing(n));
    }
    let caller = world.clone();
    sim.host("caller", move || caller.clone().run_caller());
    sim
}

/// Begins and ends events at their times. Safety must hold all the time.
fn fault_phase(sim: &mut Sim<'_>, world: &World, faults: &Faults, trace: &Trace) {
    let mut due: Vec<(Duration, bool, What)> = Vec::new();
    for event in &world.plan.weather {
        due.push((event.begins, true, event.what));
        due.push(((event.begins + event.lasts).min(STORM), false, event.what));
    }
    due.sort_by_key(|(at, begins, _)| (*at, !*begins));
    for (at, begins, what) in due {
        step_until(sim, at);
        trace.note(&format!("{at:?} {what:?} begins {begins}"));
        if begins {
            faults.count(what.as_str());
            begin(sim, world, what);
        } else {
            end(sim, world, what);
        }
        assert!(Verdict::of(world).is_safe(), "seed {}: charged twice at {at:?}", world.plan.seed);
    }
    step_until(sim, STORM);
}

fn begin(sim: &mut Sim<'_>, world: &World, what: What) {
    match what {
        What::KillBilling { n, loses_commit } => {
            sim.crash(billing_name(n));
            if loses_commit {
                world.billing.lose_last_commit().expect("the disk forgets");
            }
        }
        What::KillPayments { n } => sim.crash(payments_name(n)),
        What::Cut { billing, payments } => sim.partition(billing_name(billing), payments_name(payments)),
        What::CutAnswers { billing, payments } => {
            sim.partition_oneway(payments_name(payments), billing_name(billing));
        }
        What::Delay { billing, payments } => sim.hold(billing_name(billing), payments_name(payments)),
        What::StoreFails => world.billing.fail_writes(What::STORE_FAILING),
    }
}

fn end(sim: &mut Sim<'_>, world: &World, what: What) {
    match what {
        What::KillBilling { n, .. } => sim.bounce(billing_name(n)),
        What::KillPayments { n } => sim.bounce(payments_name(n)),
        What::Cut { billing, payments } | What::CutAnswers { billing, payments } => {
            sim.repair(billing_name(billing), payments_name(payments));
        }
        What::Delay { billing, payments } => sim.release(billing_name(billing), payments_name(payments)),
        What::StoreFails => world.billing.fail_writes(0),
    }
}

/// Runs the simulation without faults until all is done, or the calm is over; returns the time taken.
fn calm(sim: &mut Sim<'_>, world: &World) -> Duration {
    let mut calm = Duration::ZERO;
    while calm < CALM && !Verdict::of(world).is_done(world.plan.idempotency) {
        calm += LOOK_EVERY;
        step_until(sim, STORM + calm);
    }
    calm
}

fn step_until(sim: &mut Sim<'_>, until: Duration) {
    while sim.elapsed() < until {
        sim.step().expect("no host ends by itself");
    }
}
