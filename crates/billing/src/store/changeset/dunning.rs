//! What declines and networks do to invoices: the flag and the date that a settlement leaves, and which candidates of a
//! claim the network holds back. Pure; knows no SQL. When it is, `protocol::dunning` decides.

use std::collections::{BTreeMap, HashMap};

use super::Changeset;
use crate::invoice::{CustomerId, DeclineClass, Dunning, InvoiceId, InvoiceState, Network};
use crate::protocol::dunning::{Gate, InstrumentHistory, OpenAttempt, after_decline};
use crate::run_order::RunLimits;
use crate::store::transaction::Candidate;

/// What a store knows of an invoice's ladder before the declines of this changeset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderFacts {
    pub network: Network,
    /// Soft declines of attempts that were made after the instrument changed.
    pub soft_declines: u32,
}

/// A PENDING invoice that is not claimed now: its flag, and from when it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postponed {
    pub id: InvoiceId,
    pub dunning: Dunning,
    pub next_attempt_at: Option<i64>,
}

/// What a changeset adds to the ladder of an invoice. A repair may add several declines at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDeclines {
    /// The class of the last one.
    pub last: DeclineClass,
    /// How many are soft.
    pub soft: u32,
}

/// Of the invoices whose ladder matters: PENDING again after a decline whose class is known.
pub fn declines_by_invoice<K>(changes: &Changeset<K>) -> BTreeMap<InvoiceId, NewDeclines> {
    let settled = changes.attempts.iter().map(|attempt| (attempt.read.invoice, attempt.decline.as_ref()));
    // Only the ledger knew these: they were made after all that the store knew.
    let adopted = changes.adopted.iter().map(|attempt| (attempt.invoice, attempt.decline.as_ref()));
    let mut declines = BTreeMap::new();
    for (id, class) in settled.chain(adopted).filter_map(|(id, decline)| Some((id, decline?.class))) {
        let place = changes.invoices.binary_search_by_key(&id, |change| change.id);
        let is_pending =
            place.is_ok_and(|place| changes.invoices[place].status.state == InvoiceState::Pending);
        if class != DeclineClass::Unknown && is_pending {
            let new: &mut NewDeclines = declines.entry(id).or_insert(NewDeclines { last: class, soft: 0 });
            new.last = class;
            new.soft += u32::from(class == DeclineClass::Soft);
        }
    }
    declines
}

/// Decides the next attempt of each declined invoice.
pub fn plan_retries<K>(
    changes: &mut Changeset<K>,
    declines: &BTreeMap<InvoiceId, NewDeclines>,
    ladders: &HashMap<InvoiceId, LadderFacts>,
) {
    for change in &mut changes.invoices {
        let Some(new) = declines.get(&change.id) else { continue };
        let first = LadderFacts { network: Network::None, soft_declines: 0 };
        let ladder = ladders.get(&change.id).copied().unwrap_or(first);
        change.retry = Some(after_decline(new.last, ladder.soft_declines + new.soft, ladder.network));
    }
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
            Gate::Closed { until } => (Dunning::Waiting, Some(until)),
            Gate::Blocked => (Dunning::Hard, None),
        };
        held_back.postponed.push(Postponed { id: candidate.id, dunning, next_attempt_at });
        false
    });
    held_back
}
