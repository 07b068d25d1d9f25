//! Decides what is written for outcomes, ledger rows, decisions or claims, given the facts that a store has loaded.
//! Pure: every rule about rows, counters and audit rows is here. Backends load facts and apply a changeset; the model
//! calls the same functions. Knows no SQL and no clock.

pub mod control;
mod draft;
pub mod dunning;
pub mod generation;
pub mod import;
mod rules;
pub mod subscription_import;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use self::draft::Draft;
use crate::invoice::{Attempt, AttemptState, CustomerId, Decline, Invoice, InvoiceId, InvoiceState, RunId};
use crate::money::Money;
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::Settlement;
use crate::store::{LedgerFact, REPAIR_NUMBERS_MAX, Repaired, Resolved, Settled};

pub use rules::{InvoiceStatus, needs_others};

/// `lease_until` of an attempt that needs manual resolution, so that no search for due attempts finds it:
/// 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write.
pub const LEASE_NEVER: i64 = 253_402_300_799_999;

/// An attempt as read from the store.
#[derive(Clone, Debug)]
pub struct AttemptFact<K = Key> {
    pub key: K,
    pub invoice: InvoiceId,
    pub number: u32,
    /// The run that made the attempt.
    pub run: RunId,
    pub state: AttemptState,
}

/// Rows read under a lock: the requested attempts with their invoices and, where [`needs_others`] says so, every other
/// open or CHARGED attempt of these invoices.
#[derive(Clone, Debug)]
pub struct LoadedFacts<K = Key> {
    /// States of the invoices.
    pub invoices: BTreeMap<InvoiceId, InvoiceState>,
    /// The attempts, each once.
    pub attempts: Vec<AttemptFact<K>>,
}

/// When an attempt that stays open may be claimed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimAgain {
    /// Claimable again after this time.
    In(Duration),
    /// Never: an operator decides.
    Never,
}

/// A change of an attempt; valid only while it is in the state that was read.
#[derive(Clone, Debug)]
pub struct AttemptChange<K = Key> {
    /// The attempt as read.
    pub read: AttemptFact<K>,
    /// Its next state.
    pub state: AttemptState,
    /// Sends to subtract because they did not count.
    pub sends_taken_back: i32,
    /// The attempt's next lease; `None` if unchanged.
    pub claim_again: Option<ClaimAgain>,
    /// The reason of a refusal that is recorded now.
    pub decline: Option<Decline>,
}

impl<K> AttemptChange<K> {
    /// Whether the attempt becomes CHARGED now.
    #[must_use]
    pub fn charges(&self) -> bool {
        self.closes() && self.state == AttemptState::Charged
    }

    /// Whether the attempt becomes final now.
    #[must_use]
    pub fn closes(&self) -> bool {
        !self.state.is_open() && self.state != self.read.state
    }
}

/// A change of an invoice; valid only while it is in the state that was read.
#[derive(Clone, Copy, Debug)]
pub struct InvoiceChange {
    pub id: InvoiceId,
    /// The state that was read.
    pub read: InvoiceState,
    /// The invoice's next status.
    pub status: InvoiceStatus,
}

impl InvoiceChange {
    pub(super) fn new(id: InvoiceId, read: InvoiceState, status: InvoiceStatus) -> Self {
        Self { id, read, status }
    }
}

/// An attempt that only the provider's ledger knew; written as final, before any [`AttemptChange`] of the same attempt.
#[derive(Clone, Debug)]
pub struct AdoptedAttempt<K = Key> {
    pub key: K,
    pub invoice: InvoiceId,
    pub number: u32,
    /// The customer in the ledger's row, or else the invoice's.
    pub customer_id: CustomerId,
    /// The amount in the ledger's row, or else the invoice's.
    pub money: Money,
    pub state: AttemptState,
    /// Why the attempt was refused, if it was.
    pub decline: Option<Decline>,
}

/// Numbers to add to the counters of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterDeltas {
    /// Claims of attempts.
    pub attempted: i64,
    /// Attempts settled as CHARGED, each once.
    pub paid: i64,
    /// Attempts settled as REFUSED or VOIDED.
    pub refused: i64,
    pub rejected: i64,
    /// The change of the number of attempts in doubt.
    pub in_doubt: i64,
    /// Claims that were given back unsent.
    pub not_sent: i64,
}

/// The change of the number of invoices in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCountDeltas([i64; InvoiceState::ALL.len()]);

impl StateCountDeltas {
    /// Adds invoices that change their state, or that are created (`from` is `None`).
    pub fn add(&mut self, from: Option<InvoiceState>, to: InvoiceState) {
        for (delta, &state) in self.0.iter_mut().zip(InvoiceState::ALL) {
            *delta += i64::from(state == to) - i64::from(Some(state) == from);
        }
    }

    /// Adds invoices that are created.
    pub fn add_created(&mut self, state: InvoiceState, count: i64) {
        for (delta, &of) in self.0.iter_mut().zip(InvoiceState::ALL) {
            *delta += if of == state { count } else { 0 };
        }
    }

    /// States whose number changes.
    pub fn iter(&self) -> impl Iterator<Item = (InvoiceState, i64)> {
        InvoiceState::ALL.iter().copied().zip(self.0).filter(|(_, delta)| *delta != 0)
    }
}

/// The audit data of one decision: attempt and invoice before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolutionAudit {
    pub attempt: (AttemptState, AttemptState),
    pub invoice: (InvoiceState, InvoiceState),
}

/// Everything that one transaction writes.
#[derive(Clone, Debug)]
pub struct Changeset<K = Key> {
    /// Attempts to insert: in the latest run, or in a finished run that is made for them.
    pub adopted: Vec<AdoptedAttempt<K>>,
    /// Attempts to change. If one is no longer in the state that was read, the transaction fails.
    pub attempts: Vec<AttemptChange<K>>,
    /// Invoices to change, in ascending order of their ids. If one is no longer in the state that was read, the
    /// transaction fails.
    pub invoices: Vec<InvoiceChange>,
    /// Deltas to add to each run's counters.
    pub counters: BTreeMap<RunId, CounterDeltas>,
    /// Deltas that SQLite's store adds; in PostgreSQL triggers count.
    pub state_counts: StateCountDeltas,
    /// Whether the unfinished run is joined, so that its driver checks for new work before it ends.
    pub joins_run: bool,
}

/// Records outcomes, in order; `run` is the run that settles.
pub fn settle<K: Clone + Eq + Hash>(
    facts: LoadedFacts<K>,
    run: Option<RunId>,
    settlements: &[Settlement<K>],
) -> (Changeset<K>, Vec<Settled>) {
    let mut draft = Draft::new(facts);
    let settled = settlements.iter().map(|settlement| draft.settle(settlement)).collect();
    (draft.into_changeset(run), settled)
}

/// Records an operator's decision on the attempt with this key, or returns why nothing changes. `refusal` is the
/// provider's reason if it had refused the attempt.
pub fn resolve<K: Clone + Eq + Hash>(
    facts: LoadedFacts<K>,
    key: &K,
    charged: bool,
    refusal: Option<&Decline>,
) -> Result<(Changeset<K>, ResolutionAudit), Resolved> {
    let mut draft = Draft::new(facts);
    let audit = draft.resolve(key, charged, refusal)?;
    Ok((draft.into_changeset(None), audit))
}

/// Times that bound the last send of an attempt, in milliseconds since the Unix epoch by the store's clock.
#[derive(Clone, Copy, Debug)]
pub struct SendTimes {
    /// When the attempt was created.
    pub created_at: i64,
    /// End of the attempt's lease: the attempt is not sent later. An attempt that needs manual resolution has no such
    /// end.
    pub lease_until: i64,
    /// The last change of its invoice: an attempt that needs manual resolution was sent before that.
    pub parked_at: i64,
    pub now: i64,
}

/// How long a request of the open attempt with this key may still be executed, if no request is executed once it is
/// `quiet_for` old. Zero means that "not charged" is allowed in this respect.
pub fn alive_for<K: Eq>(
    facts: &LoadedFacts<K>,
    key: &K,
    times: Option<SendTimes>,
    quiet_for: Duration,
) -> Duration {
    let attempt = facts.attempts.iter().find(|attempt| attempt.key == *key);
    let (Some(attempt), Some(times)) = (attempt.filter(|attempt| attempt.state.is_open()), times) else {
        return Duration::ZERO;
    };
    // One that needs no manual resolution can be claimed and sent at any moment.
    if facts.invoices.get(&attempt.invoice) != Some(&InvoiceState::Attention) {
        return quiet_for;
    }
    let lease_until = if times.lease_until >= LEASE_NEVER { i64::MIN } else { times.lease_until };
    let sent_before = times.created_at.max(times.parked_at).max(lease_until);
    let quiet_ms = i64::try_from(quiet_for.as_millis()).unwrap_or(i64::MAX);
    let left_ms = sent_before.saturating_add(quiet_ms).saturating_sub(times.now);
    Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))
}

/// An invoice named in rows of the ledger, and the last number of its attempts.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The invoice.
    pub invoice: Invoice,
    /// 0 without an attempt.
    pub last_number: u32,
}

/// The customer and the amount of an attempt, then those of its invoice.
pub type CustomersAndAmounts = [(CustomerId, Money); 2];

/// Facts for ledger rows, besides the loaded ones.
#[derive(Clone, Debug, Default)]
pub struct RepairFacts {
    /// Invoices by the text of their references.
    pub owners: HashMap<String, Owner>,
    /// Customers and amounts of known attempts.
    pub amounts: HashMap<Key, CustomersAndAmounts>,
}

/// Records rows of the provider's ledger, in order. A known key is settled. An unknown key is adopted if it is a key of
/// this deployment.
pub fn repair(
    facts: LoadedFacts,
    RepairFacts { mut owners, mut amounts }: RepairFacts,
    deployment: DeploymentId,
    rows: &[LedgerFact],
) -> (Changeset, Vec<Repaired>) {
    let mut draft = Draft::new(facts);
    let mut repaired = Vec::with_capacity(rows.len());
    for row in rows {
        let has_terms = |(customer, money): &(CustomerId, Money)| row.has_terms(*customer, *money);
        let has_same_terms = amounts.get(&row.key).is_none_or(|both| both.iter().all(has_terms));
        repaired.push(
            match draft.repair(&row.key, row.outcome, Duration::ZERO, row.decline.as_ref(), has_same_terms) {
                Settled::Applied => Repaired::Settled,
                Settled::Same => Repaired::Known,
                Settled::Conflict(_) => Repaired::Conflict,
                Settled::Unknown => {
                    let owner =
                        row.reference.as_ref().and_then(|reference| owners.get_mut(reference.as_str()));
                    let adopted = owner.and_then(|owner| adopt(&mut draft, deployment, row, owner));
                    adopted.map_or(Repaired::Unknown, |(repaired, adopted)| {
                        amounts.insert(row.key.clone(), adopted);
                        repaired
                    })
                }
            },
        );
    }
    let joins_run = repaired.iter().any(|became| became.changed());
    (Changeset { joins_run, ..draft.into_changeset(None) }, repaired)
}

/// Adopts an unknown key. Its number is found by deriving the keys of the next numbers until one is equal.
fn adopt(
    draft: &mut Draft<Key>,
    deployment: DeploymentId,
    row: &LedgerFact,
    owner: &mut Owner,
) -> Option<(Repaired, CustomersAndAmounts)> {
    let invoice = &owner.invoice;
    let mut numbers = 1..=owner.last_number.saturating_add(REPAIR_NUMBERS_MAX);
    let number = numbers.find(|&number| Key::new(deployment, &invoice.reference, number) == row.key)?;
    let attempt = AdoptedAttempt {
        key: row.key.clone(),
        invoice: invoice.id,
        number,
        customer_id: row.customer_id.unwrap_or(invoice.customer_id),
        money: row.money.unwrap_or(invoice.money),
        state: AttemptState::Intent,
        decline: None,
    };
    let amounts = [(attempt.customer_id, attempt.money), (invoice.customer_id, invoice.money)];
    let as_invoiced = row.has_terms(invoice.customer_id, invoice.money);
    let needs_operator = draft.adopt(attempt, as_invoiced, row.outcome, row.decline.as_ref())?;
    owner.last_number = owner.last_number.max(number);
    Some((if needs_operator { Repaired::Conflict } else { Repaired::Adopted }, amounts))
}

/// The number of an invoice's next attempt in this run; `None` if the run has attempted the invoice already.
#[must_use]
pub fn next_number(last: Option<(u32, RunId)>, run: RunId) -> Option<u32> {
    match last {
        Some((_, last_run)) if last_run == run => None,
        Some((number, _)) => Some(number + 1),
        None => Some(1),
    }
}

/// What follows from attempts that were inserted for PENDING invoices: the invoices become CHARGING, and the run counts
/// the attempts.
#[must_use]
pub fn claim(run: RunId, inserted: &[Attempt]) -> Changeset {
    let mut changes = resend(Some(run), inserted.len());
    for attempt in inserted {
        let status = InvoiceStatus::plain(InvoiceState::Charging);
        changes.invoices.push(InvoiceChange::new(attempt.invoice_id, InvoiceState::Pending, status));
        changes.state_counts.add(Some(InvoiceState::Pending), InvoiceState::Charging);
    }
    changes
}

/// Counts open attempts that were claimed again.
#[must_use]
pub fn resend(run: Option<RunId>, claimed: usize) -> Changeset {
    let attempted = i64::try_from(claimed).unwrap_or(i64::MAX);
    let counters =
        run.filter(|_| claimed > 0).map(|run| (run, CounterDeltas { attempted, ..Default::default() }));
    Changeset {
        adopted: Vec::new(),
        attempts: Vec::new(),
        invoices: Vec::new(),
        counters: counters.into_iter().collect(),
        state_counts: StateCountDeltas::default(),
        joins_run: false,
    }
}
