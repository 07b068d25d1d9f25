//! What declines and networks do to invoices: the flag and the date that a settlement leaves, and which candidates of a
//! claim the network holds back. Pure; knows no SQL. When it is, `protocol::dunning` decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::{Changeset, InvoiceChange};
use crate::invoice::{Attempt, CustomerId, DeclineClass, Dunning, InvoiceId, InvoiceState, Network};
use crate::protocol::dunning::{Gate, InstrumentHistory, OpenAttempt, Retry, after_decline};
use crate::protocol::key::Key;
use crate::run_order::RunLimits;
use crate::store::transaction::Candidate;

/// Of a PENDING invoice: what its attempts with the present customer and instrument say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderFacts {
    pub network: Network,
    /// Declines of attempts that were made after the instrument changed.
    pub soft_declines: u32,
    /// Class of the last decline, and when it was recorded. Voided and rejected attempts say nothing.
    pub last: Option<(DeclineClass, i64)>,
}

/// A PENDING invoice that is not claimed now: its flag, and from when it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postponed {
    pub id: InvoiceId,
    pub dunning: Dunning,
    pub next_attempt_at: Option<i64>,
}

/// Invoices whose flag and date follow anew from their attempts: each that becomes PENDING, however it does, and each that
/// a repair gives attempts.
pub fn to_plan<K>(changes: &Changeset<K>) -> BTreeSet<InvoiceId> {
    let is_pending = |change: &&InvoiceChange| change.status.state == InvoiceState::Pending;
    let mut invoices: BTreeSet<InvoiceId> =
        changes.invoices.iter().filter(is_pending).map(|change| change.id).collect();
    // Where each decline is `unknown`, as with providers without classes, nothing has to be read for it.
    for attempt in &changes.attempts {
        if attempt.decline.as_ref().is_some_and(|decline| decline.class == DeclineClass::Unknown) {
            invoices.remove(&attempt.read.invoice);
        }
    }
    invoices.extend(changes.adopted.iter().map(|attempt| attempt.invoice));
    invoices
}

/// Decides the next attempt of each invoice.
pub fn plan(ladders: &BTreeMap<InvoiceId, LadderFacts>) -> Vec<Postponed> {
    let postponed = |(&id, ladder): (&InvoiceId, &LadderFacts)| {
        let (class, declined_at) = ladder.last?;
        let (dunning, next_attempt_at) = match after_decline(class, ladder.soft_declines, ladder.network) {
            Retry::AtOnce => return None,
            Retry::After(wait) => (Dunning::Waiting, Some(later(declined_at, wait))),
            Retry::Never(why) => (why, None),
        };
        Some(Postponed { id, dunning, next_attempt_at })
    };
    ladders.iter().filter_map(postponed).collect()
}

fn later(at: i64, wait: Duration) -> i64 {
    at.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}

/// Which open attempts their networks allow no more: what was declined meanwhile became known by a repair, or the network by
/// an operator. To send one would charge the instrument once more than is allowed.
pub(in crate::store) fn to_withdraw(
    attempts: &[Attempt],
    instruments: &HashMap<CustomerId, InstrumentHistory>,
    now_ms: i64,
) -> HashSet<Key> {
    let is_refused = |attempt: &&Attempt| {
        instruments.get(&attempt.customer_id).is_some_and(|instrument| instrument.refuses(now_ms))
    };
    attempts.iter().filter(is_refused).map(|attempt| attempt.key.clone()).collect()
}

/// Why candidates of a claim were not claimed.
#[derive(Debug, Default)]
pub(in crate::store) struct HeldBack {
    /// Their networks allow no attempt now.
    pub(in crate::store) postponed: Vec<Postponed>,
    /// The first that may be claimed once an attempt that is under way is settled.
    pub(in crate::store) waiting_from: Option<InvoiceId>,
}

/// Leaves of the candidates at most `limit`: those that fit into the run's limits and that their networks allow now. One
/// that is left counts for those after it.
pub(in crate::store) fn hold_back(
    candidates: &mut Vec<Candidate>,
    mut instruments: HashMap<CustomerId, InstrumentHistory>,
    limits: &mut RunLimits,
    limit: usize,
    now_ms: i64,
) -> HeldBack {
    let (mut held_back, mut left) = (HeldBack::default(), limit);
    candidates.retain(|candidate| {
        if left == 0 {
            return false;
        }
        let instrument = instruments.get_mut(&candidate.customer_id);
        let gate = instrument.as_ref().map_or(Gate::Open, |instrument| instrument.gate(now_ms));
        let (dunning, next_attempt_at) = match gate {
            Gate::Open => {
                let fits = limits.take(candidate.money);
                if let Some(instrument) = instrument.filter(|_| fits) {
                    instrument.occupy(OpenAttempt::UnderWay);
                }
                left -= usize::from(fits);
                return fits;
            }
            // No flag: it would outlast the open attempt.
            Gate::Occupied(open) => {
                if open == OpenAttempt::UnderWay {
                    held_back.waiting_from.get_or_insert(candidate.id);
                }
                return false;
            }
            // What its own attempts say stands, where it is stricter.
            Gate::Closed { .. } if candidate.dunning == Some(Dunning::Exhausted) => return false,
            Gate::Closed { until } => {
                let own = candidate.next_attempt_at.filter(|_| candidate.dunning == Some(Dunning::Waiting));
                (Dunning::Waiting, own.max(Some(until)))
            }
            Gate::Blocked => (Dunning::Hard, None),
        };
        held_back.postponed.push(Postponed { id: candidate.id, dunning, next_attempt_at });
        false
    });
    held_back
}
