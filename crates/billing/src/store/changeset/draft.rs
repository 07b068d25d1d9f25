//! A changeset under construction: outcomes and decisions are applied one after the other by the rules, so that later
//! ones of a batch see the effects of earlier ones. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use super::rules::{self, AttemptContext, InvoiceStatus, Others, SettlementEffect};
use super::{
    AdoptedAttempt, AttemptChange, AttemptFact, Changeset, ClaimAgain, CounterDeltas, InvoiceChange,
    LoadedFacts, ResolutionAudit, StateCountDeltas, needs_others,
};
use crate::invoice::{AttemptState, Decline, InvoiceId, InvoiceState, RunId};
use crate::protocol::transition::{Conflict, Outcome, Settlement};
use crate::store::{Resolved, Settled};

struct InvoiceDraft {
    read: InvoiceState,
    next: Option<InvoiceStatus>,
    attempts: Vec<usize>,
}

impl InvoiceDraft {
    fn state(&self) -> InvoiceState {
        self.next.map_or(self.read, |status| status.state)
    }
}

pub(super) struct Draft<K> {
    places: HashMap<K, usize>,
    attempts: Vec<AttemptChange<K>>,
    invoices: BTreeMap<InvoiceId, InvoiceDraft>,
    adopted: Vec<AdoptedAttempt<K>>,
    counters: CounterDeltas,
}

impl<K: Clone + Eq + Hash> Draft<K> {
    pub(super) fn new(facts: LoadedFacts<K>) -> Self {
        let draft = |(id, read)| (id, InvoiceDraft { read, next: None, attempts: Vec::new() });
        let mut this = Self {
            places: HashMap::with_capacity(facts.attempts.len()),
            attempts: Vec::with_capacity(facts.attempts.len()),
            invoices: facts.invoices.into_iter().map(draft).collect(),
            adopted: Vec::new(),
            counters: CounterDeltas::default(),
        };
        for read in facts.attempts {
            this.add(read);
        }
        this
    }

    fn add(&mut self, read: AttemptFact<K>) {
        let Some(invoice) = self.invoices.get_mut(&read.invoice) else { return };
        invoice.attempts.push(self.attempts.len());
        self.places.insert(read.key.clone(), self.attempts.len());
        let state = read.state;
        self.attempts.push(AttemptChange {
            read,
            state,
            sends_taken_back: 0,
            claim_again: None,
            decline: None,
        });
    }

    pub(super) fn settle(&mut self, settlement: &Settlement<K>) -> Settled {
        let Settlement { key, outcome, again_in, decline, .. } = settlement;
        self.repair(key, *outcome, *again_in, decline.as_ref(), true)
    }

    /// Applies a ledger row to a known attempt, by [`rules::repair`].
    pub(super) fn repair(
        &mut self,
        key: &K,
        outcome: Outcome,
        again_in: Duration,
        decline: Option<&Decline>,
        has_same_terms: bool,
    ) -> Settled {
        let Some((place, context)) = self.find(key) else { return Settled::Unknown };
        let effect = rules::repair(context, outcome, has_same_terms);
        self.counters.count(&effect, outcome);
        self.set_invoice(place, effect.invoice);
        let invoice = effect.invoice.map_or(context.invoice, |status| status.state);
        let attempt = &mut self.attempts[place];
        attempt.state = effect.attempt.unwrap_or(context.attempt);
        attempt.sends_taken_back += i32::from(effect.takes_back_send);
        if effect.attempt == Some(AttemptState::Refused) {
            attempt.decline = Some(decline.cloned().unwrap_or_default());
        }
        if attempt.state.is_open() {
            attempt.claim_again = Some(match invoice {
                InvoiceState::Attention => ClaimAgain::Never,
                _ => ClaimAgain::In(again_in),
            });
        }
        effect.settled
    }

    pub(super) fn resolve(
        &mut self,
        key: &K,
        charged: bool,
        refusal: Option<&Decline>,
    ) -> Result<ResolutionAudit, Resolved> {
        let Some((place, context)) = self.find(key) else { return Err(Resolved::Unknown) };
        let (state, invoice) = rules::resolve(context, charged, refusal.is_some())?;
        let attempt = &mut self.attempts[place];
        if state == Some(AttemptState::Refused) {
            attempt.decline = refusal.cloned();
        }
        let state = state.unwrap_or(context.attempt);
        attempt.state = state;
        self.set_invoice(place, Some(invoice));
        Ok(ResolutionAudit { attempt: (context.attempt, state), invoice: (context.invoice, invoice.state) })
    }

    /// Adopts an attempt; returns whether an operator must decide now. `None`, and nothing is adopted, for an outcome
    /// that no ledger records.
    pub(super) fn adopt(
        &mut self,
        mut attempt: AdoptedAttempt<K>,
        as_invoiced: bool,
        outcome: Outcome,
        decline: Option<&Decline>,
    ) -> Option<bool> {
        let invoice = self.invoices.get(&attempt.invoice)?.state();
        let others = self.others(attempt.invoice, None);
        let (state, next) = rules::adopt(invoice, others, as_invoiced, outcome)?;
        attempt.state = state;
        attempt.decline = (state == AttemptState::Refused).then(|| decline.cloned().unwrap_or_default());
        // The run of an adopted attempt is chosen when the changeset is written; a final attempt is counted in no run.
        let (key, number) = (attempt.key.clone(), attempt.number);
        self.add(AttemptFact { key, invoice: attempt.invoice, number, run: RunId(0), state });
        self.adopted.push(attempt);
        let next = next.filter(|next| next.state != invoice);
        self.set_invoice(self.attempts.len() - 1, next);
        Some(next.is_some_and(|next| next.attention.is_some()))
    }

    /// The finished changeset. Outcomes are counted in the run that settles, and attempts in doubt in the run that made
    /// them.
    pub(super) fn into_changeset(self, run: Option<RunId>) -> Changeset<K> {
        let mut counters: BTreeMap<RunId, CounterDeltas> =
            run.map(|run| (run, self.counters)).into_iter().collect();
        for attempt in &self.attempts {
            let more = in_doubt(attempt.state) - in_doubt(attempt.read.state);
            if more != 0 {
                counters.entry(attempt.read.run).or_default().in_doubt += more;
            }
        }
        let mut state_counts = StateCountDeltas::default();
        let mut invoices = Vec::with_capacity(self.invoices.len());
        for (id, InvoiceDraft { read, next, .. }) in self.invoices {
            let Some(status) = next else { continue };
            state_counts.add(Some(read), status.state);
            invoices.push(InvoiceChange::new(id, read, status));
        }
        let mut attempts = self.attempts;
        attempts.retain(|attempt| {
            attempt.state != attempt.read.state
                || attempt.sends_taken_back > 0
                || attempt.claim_again.is_some()
        });
        Changeset { adopted: self.adopted, attempts, invoices, counters, state_counts, joins_run: false }
    }

    fn find(&self, key: &K) -> Option<(usize, AttemptContext)> {
        let place = *self.places.get(key)?;
        let change = &self.attempts[place];
        let (attempt, invoice) = (change.state, self.invoices.get(&change.read.invoice)?.state());
        let others = match needs_others(attempt, invoice) {
            true => self.others(change.read.invoice, Some(place)),
            false => Others::default(),
        };
        Some((place, AttemptContext { attempt, invoice, others }))
    }

    fn others(&self, invoice: InvoiceId, except: Option<usize>) -> Others {
        let places = self.invoices.get(&invoice).map_or(&[][..], |draft| &draft.attempts);
        let others = places.iter().filter(|&&place| Some(place) != except);
        others.map(|&place| self.attempts[place].state).fold(Others::default(), |others, state| Others {
            open: others.open || state.is_open(),
            charged: others.charged || state == AttemptState::Charged,
        })
    }

    fn set_invoice(&mut self, place: usize, next: Option<InvoiceStatus>) {
        let invoice = self.attempts[place].read.invoice;
        if let (Some(next), Some(draft)) = (next, self.invoices.get_mut(&invoice)) {
            draft.next = Some(next);
        }
    }
}

impl CounterDeltas {
    fn count(&mut self, effect: &SettlementEffect, outcome: Outcome) {
        if !matches!(effect.settled, Settled::Applied | Settled::Conflict(Conflict::ChargedLate)) {
            return;
        }
        match effect.attempt {
            Some(AttemptState::Charged) => self.paid += 1,
            Some(AttemptState::Refused | AttemptState::Voided) => self.refused += 1,
            Some(AttemptState::Rejected) => self.rejected += 1,
            None if outcome == Outcome::NotSent => self.not_sent += 1,
            _ => {}
        }
    }
}

fn in_doubt(attempt: AttemptState) -> i64 {
    i64::from(attempt == AttemptState::InDoubt)
}
