//! The plan of a seed: the number of replicas, the provider's faults, and the events of the fault phase. Pure: a plan
//! is drawn completely before anything runs.

use std::time::Duration;

use billing::protocol::transition::Idempotency;
use chassis::clock::Random;

/// Duration of the fault phase; then faults stop.
pub(crate) const STORM: Duration = Duration::from_secs(30);
/// Average time between two events in the fault phase.
const EVENT_EVERY: Duration = Duration::from_millis(900);
/// Maximum duration of one event.
const EVENT_MAX: Duration = Duration::from_secs(5);
/// How many of 100 writes fail while a store fails.
const STORE_FAILING: u64 = 40;

/// The provider's own faults, each with its share of first deliveries.
const SCRIPT: &str = r#"
[[rule]]
fault = "latency"
latency_ms = 700
share = 0.05
[[rule]]
fault = "hold"
latency_ms = 4000
share = 0.06
times = 2
[[rule]]
fault = "error-before"
share = 0.05
[[rule]]
fault = "error-after"
share = 0.06
[[rule]]
fault = "reply-lost"
share = 0.07
times = 2
[[rule]]
fault = "reset"
share = 0.05
[[rule]]
fault = "malformed"
share = 0.06
[[rule]]
fault = "duplicate"
share = 0.06
"#;

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) billings: usize,
    pub(crate) payments: usize,
    pub(crate) invoices: usize,
    pub(crate) idempotency: Idempotency,
    pub(crate) script: String,
    pub(crate) weather: Vec<Event>,
}

/// A fault with its beginning and duration.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) begins: Duration,
    pub(crate) lasts: Duration,
    pub(crate) what: What,
}

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A billing process is killed, and started again when the event ends; its last commit may be lost.
    KillBilling { n: usize, loses_commit: bool },
    /// A payment process is killed, and started again when the event ends.
    KillPayments { n: usize },
    /// The link between the two is cut; data that is sent meanwhile is lost.
    Cut { billing: usize, payments: usize },
    /// Requests of the billing arrive, and no answer comes back.
    CutAnswers { billing: usize, payments: usize },
    /// Data between the two arrives when the event ends.
    Delay { billing: usize, payments: usize },
    /// Writes of billing's store fail, some after they were committed.
    StoreFails,
}

impl What {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::KillBilling { loses_commit: false, .. } => "kill-billing",
            Self::KillBilling { loses_commit: true, .. } => "kill-billing-losing-a-commit",
            Self::KillPayments { .. } => "kill-payments",
            Self::Cut { .. } => "cut",
            Self::CutAnswers { .. } => "cut-answers",
            Self::Delay { .. } => "delay",
            Self::StoreFails => "store-fails",
        }
    }
}

/// Every kind of event and every fault of the script: each must occur over all seeds.
pub(crate) const KINDS: [&str; 15] = [
    "kill-billing",
    "kill-billing-losing-a-commit",
    "kill-payments",
    "cut",
    "cut-answers",
    "delay",
    "store-fails",
    "latency",
    "hold",
    "error-before",
    "error-after",
    "reply-lost",
    "reset",
    "malformed",
    "duplicate",
];

/// The kind of installation; the last digit of a seed decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Installation {
    /// One billing, one payments; the disk may lose the last commit.
    Alone,
    /// Three billings and two payments on shared databases.
    Replicas,
    /// One billing with a provider that is treated as one without keys: it sends each invoice at most once.
    WithoutKeys,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> (Self, Random) {
        let random = Random::seeded(seed);
        let installation = match seed % 10 {
            0..4 => Installation::Alone,
            4..8 => Installation::Replicas,
            _ => Installation::WithoutKeys,
        };
        let (billings, payments) = match installation {
            Installation::Replicas => (3, 2),
            Installation::Alone | Installation::WithoutKeys => (1, 1),
        };
        let mut plan = Self {
            seed,
            billings,
            payments,
            invoices: 20 + usize::try_from(random.below(100)).unwrap_or(0),
            idempotency: match installation {
                Installation::WithoutKeys => Idempotency::None,
                Installation::Alone | Installation::Replicas => Idempotency::Keys,
            },
            script: SCRIPT.to_owned(),
            weather: Vec::new(),
        };
        plan.weather = weather(&plan, installation, &random);
        (plan, random)
    }
}

fn weather(plan: &Plan, installation: Installation, random: &Random) -> Vec<Event> {
    let mut events = Vec::new();
    let mut begins = random.jitter(EVENT_EVERY * 2);
    while begins < STORM {
        let lasts = random.jitter(EVENT_MAX);
        let pick = |of: usize| usize::try_from(random.below(of as u64)).unwrap_or(0);
        let (billing, payments) = (pick(plan.billings), pick(plan.payments));
        let is_even = random.below(2) == 0;
        let what = match random.below(10) {
            // Without keys only the journal prevents a second charge, so it must not lose a commit.
            0..3 => {
                What::KillBilling { n: billing, loses_commit: installation == Installation::Alone && is_even }
            }
            3 | 4 => What::KillPayments { n: payments },
            5 => What::Cut { billing, payments },
            6 => What::CutAnswers { billing, payments },
            7 | 8 => What::Delay { billing, payments },
            _ => What::StoreFails,
        };
        events.push(Event { begins, lasts, what });
        begins += random.jitter(EVENT_EVERY * 2);
    }
    events
}

impl What {
    /// How many of 100 writes of billing's store fail.
    pub(crate) const STORE_FAILING: u64 = STORE_FAILING;
}
