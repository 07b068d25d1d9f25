//! Facts of some invoices and their attempts in memory: words are taken in one after the other, each decided by `plan`,
//! and what has changed by then is written at once. For stores that pay for each statement. Knows no SQL.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::invoice::{AttemptState, InvoiceId, InvoiceState, RunId};
use crate::protocol::key::Key;
use crate::protocol::transition::{Outcome, Settlement};
use crate::store::plan::{self, AttemptContext, Counted, InvoicePlan, Others};
use crate::store::{Resolved, Settled};

/// An attempt as it was read: those that words are about, and every other one of the same invoices that is open or
/// CHARGED.
#[derive(Clone, Debug)]
pub struct AttemptFact {
    pub key: Key,
    /// Whose it is.
    pub invoice: InvoiceId,
    /// Which run made it.
    pub run: RunId,
    pub state: AttemptState,
}

/// When an attempt that stays open may be claimed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// After so long.
    In(Duration),
    /// It waits for a person.
    Never,
}

/// What is to be written of an attempt, if it still stands as it was read.
#[derive(Clone, Debug)]
pub struct AttemptLine {
    /// As it was read.
    pub read: AttemptFact,
    /// Where it is to stand.
    pub state: AttemptState,
    /// Sends that are taken back.
    pub unsend: i32,
    /// Set when it stays open and its lease changes.
    pub again: Option<Again>,
}

impl AttemptLine {
    /// Whether it became final.
    #[must_use]
    pub fn closes(&self) -> bool {
        !self.state.is_open() && self.state != self.read.state
    }

    fn changes(&self) -> bool {
        self.state != self.read.state || self.unsend > 0 || self.again.is_some()
    }
}

/// What is to be written of an invoice, if it still stands as it was read.
#[derive(Clone, Debug)]
pub struct InvoiceLine {
    /// Where it stood.
    pub read: InvoiceState,
    /// Where it is to stand; `None` leaves it.
    pub plan: Option<InvoicePlan>,
    attempts: Vec<usize>,
}

impl InvoiceLine {
    fn state(&self) -> InvoiceState {
        self.plan.map_or(self.read, |plan| plan.state)
    }
}

/// What a word changed, for its audit row: attempt and invoice before and after.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    pub attempt: (AttemptState, AttemptState),
    pub invoice: (InvoiceState, InvoiceState),
}

/// The facts, and what has become of them.
#[derive(Debug, Default)]
pub struct Sheet {
    places: HashMap<Key, usize>,
    attempts: Vec<AttemptLine>,
    invoices: BTreeMap<InvoiceId, InvoiceLine>,
    /// For the run that settles.
    pub counted: Counted,
}

impl Sheet {
    /// Facts that were read while the invoices were locked. Attempts of other invoices are none of this sheet's.
    #[must_use]
    pub fn new(
        invoices: impl IntoIterator<Item = (InvoiceId, InvoiceState)>,
        attempts: impl IntoIterator<Item = AttemptFact>,
    ) -> Self {
        let line = |(id, read)| (id, InvoiceLine { read, plan: None, attempts: Vec::new() });
        let mut sheet = Self { invoices: invoices.into_iter().map(line).collect(), ..Self::default() };
        for read in attempts {
            let place = sheet.attempts.len();
            let Some(invoice) = sheet.invoices.get_mut(&read.invoice) else { continue };
            invoice.attempts.push(place);
            sheet.places.insert(read.key.clone(), place);
            sheet.attempts.push(AttemptLine { state: read.state, read, unsend: 0, again: None });
        }
        sheet
    }

    /// Takes in an outcome.
    pub fn settle(&mut self, settlement: &Settlement) -> Settled {
        self.repair(settlement, true)
    }

    /// Takes in a ledger row on a known attempt, as [`plan::repair`].
    pub fn repair(&mut self, settlement: &Settlement, has_same_terms: bool) -> Settled {
        let Some((place, standing)) = self.find(&settlement.key) else { return Settled::Unknown };
        let plan = plan::repair(standing, settlement.outcome, has_same_terms);
        let line = &mut self.attempts[place];
        line.state = plan.attempt.unwrap_or(standing.attempt);
        line.unsend += i32::from(plan.unsend);
        if line.state.is_open() {
            let again = if plan.parks(standing) { Again::Never } else { Again::In(settlement.again_in) };
            line.again = Some(again);
        }
        self.set_invoice(place, plan.invoice);
        self.counted.add(&plan, settlement.outcome);
        plan.settled
    }

    /// Takes in a person's word; what it changed, or why it changes nothing.
    pub fn resolve(&mut self, key: &Key, charged: bool) -> Result<Audit, Resolved> {
        let Some((place, standing)) = self.find(key) else { return Err(Resolved::Unknown) };
        let (state, invoice) = plan::resolve(standing, charged)?;
        let after = state.unwrap_or(standing.attempt);
        self.attempts[place].state = after;
        self.set_invoice(place, Some(invoice));
        Ok(Audit { attempt: (standing.attempt, after), invoice: (standing.invoice, invoice.state) })
    }

    /// Takes in an attempt that only the provider's ledger knew, as [`plan::adopt`]; the invoice must be one of the
    /// sheet's. Answers its state, and whether a person is called. `None`: it is no ledger's word.
    pub fn adopt(
        &mut self,
        attempt: (Key, InvoiceId, RunId),
        as_invoiced: bool,
        outcome: Outcome,
    ) -> Option<(AttemptState, bool)> {
        let (key, id, run) = attempt;
        let invoice = self.invoices.get(&id)?.state();
        let (state, next) = plan::adopt(invoice, self.others(id, None), as_invoiced, outcome)?;
        let place = self.attempts.len();
        let read = AttemptFact { key: key.clone(), invoice: id, run, state };
        self.places.insert(key, place);
        self.attempts.push(AttemptLine { state, read, unsend: 0, again: None });
        self.invoices.get_mut(&id)?.attempts.push(place);
        let next = next.filter(|next| next.state != invoice);
        self.set_invoice(place, next);
        Some((state, next.is_some_and(|next| next.attention.is_some())))
    }

    /// Attempts to be written, by key.
    pub fn attempts(&self) -> impl Iterator<Item = &AttemptLine> {
        self.attempts.iter().filter(|line| line.changes())
    }

    /// Invoices to be written, by id.
    pub fn invoices(&self) -> impl Iterator<Item = (InvoiceId, InvoiceState, InvoicePlan)> {
        self.invoices.iter().filter_map(|(id, line)| Some((*id, line.read, line.plan?)))
    }

    /// How many more attempts of each run are in doubt now; runs by id.
    #[must_use]
    pub fn doubts(&self) -> BTreeMap<RunId, i64> {
        let mut doubts = BTreeMap::new();
        for line in &self.attempts {
            let more = plan::doubt(line.state) - plan::doubt(line.read.state);
            if more != 0 {
                *doubts.entry(line.read.run).or_default() += more;
            }
        }
        doubts
    }

    fn find(&self, key: &Key) -> Option<(usize, AttemptContext)> {
        let place = *self.places.get(key)?;
        let line = &self.attempts[place];
        let (attempt, invoice) = (line.state, self.invoices.get(&line.read.invoice)?.state());
        let needed = AttemptContext::needs_others(attempt, invoice);
        let others = if needed { self.others(line.read.invoice, Some(place)) } else { Others::default() };
        Some((place, AttemptContext { attempt, invoice, others }))
    }

    fn others(&self, invoice: InvoiceId, except: Option<usize>) -> Others {
        let places = self.invoices.get(&invoice).map_or(&[][..], |line| &line.attempts);
        let states =
            places.iter().filter(|&&place| Some(place) != except).map(|&place| self.attempts[place].state);
        states.fold(Others::default(), |others, state| Others {
            open: others.open || state.is_open(),
            charged: others.charged || state == AttemptState::Charged,
        })
    }

    fn set_invoice(&mut self, place: usize, plan: Option<InvoicePlan>) {
        let invoice = self.attempts[place].read.invoice;
        if let (Some(plan), Some(line)) = (plan, self.invoices.get_mut(&invoice)) {
            line.plan = Some(plan);
        }
    }
}
