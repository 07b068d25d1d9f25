//! What declines and networks do to invoices: the flag and the date that a settlement leaves, and which candidates of a
//! claim the network holds back. Pure; knows no SQL. When it is, `protocol::dunning` decides.

use std::collections::HashMap;

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

/// The invoices whose ladder matters: PENDING again after a decline whose class is known.
pub fn declined_invoices<K>(changes: &Changeset<K>) -> impl Iterator<Item = (InvoiceId, DeclineClass)> {
    let declines = changes.attempts.iter().filter_map(|attempt| {
        let class = attempt.decline.as_ref()?.class;
        (class != DeclineClass::Unknown).then_some((attempt.read.invoice, class))
    });
    declines.filter(|(id, _)| {
        let place = changes.invoices.binary_search_by_key(id, |change| change.id);
        place.is_ok_and(|place| changes.invoices[place].status.state == InvoiceState::Pending)
    })
}

/// Decides the next attempt of each declined invoice.
pub fn plan_retries<K>(changes: &mut Changeset<K>, ladders: &HashMap<InvoiceId, LadderFacts>) {
    let declined: Vec<_> = declined_invoices(changes).collect();
    for (id, class) in declined {
        let new = LadderFacts { network: Network::None, soft_declines: 0 };
        let facts = ladders.get(&id).copied().unwrap_or(new);
        let retry = after_decline(class, facts.soft_declines + 1, facts.network);
        if let Ok(place) = changes.invoices.binary_search_by_key(&id, |change| change.id) {
            changes.invoices[place].retry = Some(retry);
        }
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
