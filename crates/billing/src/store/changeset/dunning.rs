//! The effects of declines and networks on invoices: the flag and the date that a settlement sets, and which candidates
//! of a claim the network holds back. Pure; knows no SQL. The dates come from `protocol::dunning`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::{Changeset, InvoiceChange};
use crate::invoice::{Attempt, CustomerId, DeclineClass, Dunning, InvoiceId, InvoiceState, Network};
use crate::protocol::dunning::{Gate, InstrumentHistory, OpenAttempt, Retry, after_decline};
use crate::protocol::key::Key;
use crate::run_order::RunLimits;
use crate::store::transaction::Candidate;

/// The facts from an invoice's attempts with the present customer and instrument, and its stored flag and date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LadderFacts {
    pub is_pending: bool,
    pub network: Network,
    /// The number of soft declines of attempts made after the instrument changed.
    pub soft_declines: u32,
    /// The class and the time of the last decline; no class if it was recorded before there were classes. Voided and
    /// rejected attempts do not count.
    pub last: Option<(Option<DeclineClass>, i64)>,
    /// The due time of an invoice of the schedule.
    pub due_at: Option<i64>,
    pub dunning: Option<Dunning>,
    pub next_attempt_at: Option<i64>,
}

/// The new flag and date of a PENDING invoice that is not claimed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Postponed {
    pub id: InvoiceId,
    pub dunning: Option<Dunning>,
    pub next_attempt_at: Option<i64>,
}

impl LadderFacts {
    fn retry(&self) -> Option<(Retry, i64)> {
        self.last.map(|(class, at)| {
            let class = class.unwrap_or(DeclineClass::Unknown);
            (after_decline(class, self.soft_declines, self.network), at)
        })
    }

    /// The flag and the date that follow from the facts.
    fn plan(&self) -> (Option<Dunning>, Option<i64>) {
        match self.retry() {
            // The first attempt is still to be made: on its day, or in the next pass of the schedule.
            None if self.dunning.is_none() && self.next_attempt_at.is_some() => (None, self.next_attempt_at),
            None => (None, self.due_at),
            Some((retry @ Retry::After(wait), declined_at)) => (retry.flag(), Some(later(declined_at, wait))),
            Some((retry @ (Retry::AtOnce | Retry::Never(_)), _)) => (retry.flag(), None),
        }
    }
}

/// Invoices whose flag and date must be derived again from their attempts: each that becomes PENDING for any reason,
/// and each to which a repair adds attempts.
pub fn to_plan<K>(changes: &Changeset<K>) -> BTreeSet<InvoiceId> {
    let is_pending = |change: &&InvoiceChange| change.status.state == InvoiceState::Pending;
    let pending = changes.invoices.iter().filter(is_pending).map(|change| change.id);
    pending.chain(changes.adopted.iter().map(|attempt| attempt.invoice)).collect()
}

/// Decides flag and date of each invoice; returns those that change.
pub fn plan(ladders: &BTreeMap<InvoiceId, LadderFacts>) -> Vec<Postponed> {
    let postponed = |(&id, ladder): (&InvoiceId, &LadderFacts)| {
        let (dunning, next_attempt_at) = ladder.plan();
        let changes = (dunning, next_attempt_at) != (ladder.dunning, ladder.next_attempt_at);
        (ladder.is_pending && changes).then_some(Postponed { id, dunning, next_attempt_at })
    };
    ladders.iter().filter_map(postponed).collect()
}

fn later(at: i64, wait: Duration) -> i64 {
    at.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}

/// Open attempts that must not be sent, because a repair has found earlier declines: a limit of the customer's network,
/// or a decline of the same invoice, forbids them. Sending one would exceed what is allowed for the instrument.
pub(in crate::store) fn to_withdraw(
    attempts: &[Attempt],
    instruments: &HashMap<CustomerId, InstrumentHistory>,
    ladders: &BTreeMap<InvoiceId, LadderFacts>,
    now_ms: i64,
) -> HashSet<Key> {
    let is_refused = |attempt: &&Attempt| {
        let instrument = instruments.get(&attempt.customer_id);
        // Only these two flags forbid an attempt in every run: a legacy call also attempts invoices that wait or are
        // exhausted.
        let own = ladders.get(&attempt.invoice_id).and_then(|ladder| ladder.retry());
        instrument.is_some_and(|instrument| instrument.refuses(now_ms))
            || matches!(own, Some((Retry::Never(Dunning::Hard | Dunning::Fix), _)))
    };
    attempts.iter().filter(is_refused).map(|attempt| attempt.key.clone()).collect()
}

/// The candidates of a claim that were held back.
#[derive(Debug, Default)]
pub(in crate::store) struct HeldBack {
    /// The candidates whose networks allow no attempt now, with their new flags and dates.
    pub(in crate::store) postponed: Vec<Postponed>,
    /// The first invoice that may be claimed once an attempt under way is settled.
    pub(in crate::store) waiting_from: Option<InvoiceId>,
}

/// Keeps at most `limit` of the candidates: those that fit into the run's limits and that their networks allow now.
/// Each candidate that is kept counts for the ones after it.
pub(in crate::store) fn retain_allowed(
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
            // No flag is set, because the flag would outlast the open attempt.
            Gate::Occupied(open) => {
                if open == OpenAttempt::UnderWay {
                    held_back.waiting_from.get_or_insert(candidate.id);
                }
                return false;
            }
            // A stricter result of the invoice's own attempts stays.
            Gate::Closed { .. } if candidate.dunning == Some(Dunning::Exhausted) => return false,
            Gate::Closed { until } => {
                let own = candidate.next_attempt_at.filter(|_| candidate.dunning == Some(Dunning::Waiting));
                (Dunning::Waiting, own.max(Some(until)))
            }
            Gate::Blocked => (Dunning::Hard, None),
        };
        held_back.postponed.push(Postponed { id: candidate.id, dunning: Some(dunning), next_attempt_at });
        false
    });
    held_back
}
