//! A model of the store contract: a few maps in memory with which any store must agree. Written from the contract's
//! text; shares no code with a store, nor with `store::changeset`.

use std::collections::{BTreeMap, BTreeSet};

use billing::invoice::{AttemptState, AttentionReason, InvoiceState, PaidBy, RunCounters};
use billing::money::{Currency, Money};
use billing::protocol::key::Key;
use billing::protocol::transition::{Conflict, Outcome};
use billing::store::control::Controlled;
use billing::store::{Counts, ImportMode, ImportRow, Imported, Resolved, Settled};

use crate::fixture::DEPLOYMENT;
use crate::steps::StoreReply;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelInvoice {
    pub(crate) reference: String,
    pub(crate) customer: i64,
    pub(crate) money: Money,
    pub(crate) state: InvoiceState,
    pub(crate) paid_by: Option<PaidBy>,
    pub(crate) attention: Option<AttentionReason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelAttempt {
    pub(crate) invoice: usize,
    pub(crate) number: u32,
    pub(crate) customer: i64,
    pub(crate) money: Money,
    pub(crate) state: AttemptState,
    pub(crate) sends: u32,
    pub(crate) run: usize,
    pub(crate) lease_until: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ModelRun {
    pub(crate) finished: bool,
    pub(crate) lease_until: i64,
    pub(crate) joins: i64,
    pub(crate) counters: RunCounters,
}

/// Invoice and run numbers are positions in the lists, from 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) customers: BTreeMap<i64, Currency>,
    /// Customers whose network is known. The model's network has no limits, and its declines have no class.
    pub(crate) networks: BTreeSet<i64>,
    pub(crate) invoices: Vec<ModelInvoice>,
    pub(crate) attempts: BTreeMap<Key, ModelAttempt>,
    pub(crate) runs: Vec<ModelRun>,
    pub(crate) now: i64,
    pub(crate) resolutions: usize,
    /// Whether other processes use the store too.
    pub(crate) shared: bool,
    /// The reply to the last step.
    pub(crate) reply: StoreReply,
}

impl Model {
    pub(crate) fn counts(&self) -> Counts {
        let count = |state| self.invoices.iter().filter(|invoice| invoice.state == state).count() as i64;
        Counts {
            pending: count(InvoiceState::Pending),
            charging: count(InvoiceState::Charging),
            paid: count(InvoiceState::Paid),
            attention: count(InvoiceState::Attention),
            cancelled: count(InvoiceState::Cancelled),
        }
    }

    /// The unfinished run's number.
    pub(crate) fn running(&self) -> Option<usize> {
        self.runs.iter().position(|run| !run.finished).map(|place| place + 1)
    }

    fn has(&self, invoice: usize, except: Option<&Key>, states: &[AttemptState]) -> bool {
        let of_invoice = self.attempts.iter().filter(|(_, attempt)| attempt.invoice == invoice);
        of_invoice.into_iter().any(|(key, attempt)| Some(key) != except && states.contains(&attempt.state))
    }

    pub(crate) fn import(&mut self, rows: &[ImportRow], mode: ImportMode) -> Vec<Imported> {
        let mut scratch = self.clone();
        let answers = rows.iter().map(|row| scratch.import_one(row, mode.update)).collect();
        if !mode.dry_run {
            *self = scratch;
        }
        answers
    }

    fn import_one(&mut self, row: &ImportRow, update: bool) -> Imported {
        let customer = row.customer_id.0;
        if let Some(&currency) = self.customers.get(&customer)
            && currency != row.money.currency
        {
            return Imported::CurrencyMismatch(currency);
        }
        let new = ModelInvoice {
            reference: row.reference.as_str().to_owned(),
            customer,
            money: row.money,
            state: if row.paid { InvoiceState::Paid } else { InvoiceState::Pending },
            paid_by: row.paid.then_some(PaidBy::Import),
            attention: None,
        };
        let place = self.invoices.iter().position(|invoice| invoice.reference == new.reference);
        let Some(place) = place else {
            self.customers.insert(customer, row.money.currency);
            self.invoices.push(new);
            return Imported::Created;
        };
        let old = &self.invoices[place];
        let status_differs = match old.paid_by {
            None => row.paid,
            Some(PaidBy::Import) => !row.paid,
            Some(PaidBy::Charge | PaidBy::Resolve) => false,
        };
        if !status_differs && old.customer == customer && old.money == row.money {
            return Imported::Unchanged;
        }
        let open_or_charged = [AttemptState::Intent, AttemptState::InDoubt, AttemptState::Charged];
        if old.state == InvoiceState::Paid || self.has(place + 1, None, &open_or_charged) {
            return Imported::Locked;
        }
        if !update {
            return Imported::Differs;
        }
        self.customers.insert(customer, row.money.currency);
        self.invoices[place] = new;
        Imported::Updated
    }

    pub(crate) fn open_run(&mut self, lease_ms: i64) -> (usize, bool) {
        if let Some(run) = self.running() {
            self.runs[run - 1].joins += 1;
            return (run, true);
        }
        let total = self.invoices.iter().filter(|invoice| invoice.state != InvoiceState::Paid).count() as i64;
        let counters = RunCounters { total, ..RunCounters::default() };
        self.runs.push(ModelRun { finished: false, lease_until: self.now + lease_ms, joins: 0, counters });
        (self.runs.len(), false)
    }

    pub(crate) fn set_network(&mut self, customer: i64, is_known: bool) -> Controlled {
        if !self.customers.contains_key(&customer) {
            return Controlled::Unknown;
        }
        let changes = match is_known {
            true => self.networks.insert(customer),
            false => self.networks.remove(&customer),
        };
        if changes { Controlled::Applied } else { Controlled::Unchanged }
    }

    /// Whether the network of the customer is known and the outcome of an attempt is not.
    fn is_occupied(&self, customer: i64) -> bool {
        let is_open = |attempt: &ModelAttempt| attempt.customer == customer && attempt.state.is_open();
        self.networks.contains(&customer) && self.attempts.values().any(is_open)
    }

    /// Whether each run is unfinished, and its joins.
    pub(crate) fn known_runs(&self) -> Vec<(bool, i64)> {
        self.runs.iter().map(|run| (!run.finished, run.joins)).collect()
    }

    pub(crate) fn adopt_run(&mut self, lease_ms: i64) -> Option<usize> {
        let now = self.now;
        let run = self.running().filter(|run| self.runs[run - 1].lease_until <= now)?;
        self.runs[run - 1].lease_until = now + lease_ms;
        Some(run)
    }

    pub(crate) fn renew_runs(&mut self, lease_ms: i64) {
        let until = self.now + lease_ms;
        self.runs.iter_mut().filter(|run| !run.finished).for_each(|run| run.lease_until = until);
    }

    /// Positions of the invoices that a fresh claim takes, and their keys.
    pub(crate) fn claim_pending(&mut self, run: usize, after: i64, limit: usize, lease_ms: i64) -> Vec<Key> {
        let mut keys = Vec::new();
        if self.runs[run - 1].finished {
            return keys;
        }
        for number in 1..=self.invoices.len() {
            let invoice = &self.invoices[number - 1];
            let attempts: Vec<_> =
                self.attempts.values().filter(|attempt| attempt.invoice == number).collect();
            let tried = attempts.iter().any(|attempt| attempt.run == run);
            if keys.len() == limit
                || invoice.state != InvoiceState::Pending
                || number as i64 <= after
                || tried
                || self.is_occupied(invoice.customer)
            {
                continue;
            }
            let attempt = ModelAttempt {
                invoice: number,
                number: u32::try_from(attempts.len() + 1).unwrap(),
                customer: invoice.customer,
                money: invoice.money,
                state: AttemptState::Intent,
                sends: 1,
                run,
                lease_until: self.now + lease_ms,
            };
            let reference = billing::invoice::Reference::new(invoice.reference.clone()).unwrap();
            let key = Key::new(DEPLOYMENT, &reference, attempt.number);
            self.invoices[number - 1].state = InvoiceState::Charging;
            self.runs[run - 1].counters.attempted += 1;
            self.attempts.insert(key.clone(), attempt);
            keys.push(key);
        }
        keys
    }

    /// Whether the attempt is the first open one of its customer; always true if the customer's network is unknown.
    fn has_its_turn(&self, attempt: &ModelAttempt) -> bool {
        let is_before = |other: &ModelAttempt| {
            other.customer == attempt.customer && other.state.is_open() && other.invoice < attempt.invoice
        };
        !self.networks.contains(&attempt.customer) || !self.attempts.values().any(is_before)
    }

    pub(crate) fn resendable(&self) -> Vec<(i64, Key)> {
        let mut due: Vec<_> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.state.is_open())
            .filter(|(_, attempt)| self.invoices[attempt.invoice - 1].state == InvoiceState::Charging)
            .filter(|(_, attempt)| self.has_its_turn(attempt))
            .map(|(key, attempt)| (attempt.lease_until, key.clone()))
            .collect();
        due.sort();
        due
    }

    /// The oldest leases that have ended: at least `limit`, and all that are as old as the last of them.
    pub(crate) fn claim_open(&mut self, run: Option<usize>, limit: usize, lease_ms: i64) -> Vec<Key> {
        let mut due = self.resendable();
        due.retain(|(lease_until, _)| *lease_until <= self.now);
        let last = due.get(limit - 1).or(due.last()).map(|(lease_until, _)| *lease_until);
        due.retain(|(lease_until, _)| Some(*lease_until) <= last);
        let keys: Vec<Key> = due.into_iter().map(|(_, key)| key).collect();
        keys.iter().for_each(|key| self.lease_again(run, key, lease_ms));
        keys
    }

    fn lease_again(&mut self, run: Option<usize>, key: &Key, lease_ms: i64) {
        let now = self.now;
        let attempt = self.attempts.get_mut(key).unwrap();
        attempt.sends += 1;
        attempt.lease_until = now + lease_ms;
        if let Some(run) = run {
            self.runs[run - 1].counters.attempted += 1;
        }
    }

    pub(crate) fn recover(&mut self) -> u64 {
        let now = self.now;
        let mut open = 0;
        for attempt in self.attempts.values_mut().filter(|attempt| attempt.state.is_open()) {
            open += 1;
            attempt.lease_until = attempt.lease_until.min(now);
        }
        if let Some(run) = self.running() {
            let lease = &mut self.runs[run - 1].lease_until;
            *lease = (*lease).min(now);
        }
        open
    }

    pub(crate) fn settle(
        &mut self,
        run: Option<usize>,
        key: &Key,
        outcome: Outcome,
        again_in_ms: i64,
    ) -> Settled {
        let Some(attempt) = self.attempts.get(key).cloned() else { return Settled::Unknown };
        let other_charged = self.has(attempt.invoice, Some(key), &[AttemptState::Charged]);
        let other_open = self.has(attempt.invoice, Some(key), &[AttemptState::Intent, AttemptState::InDoubt]);
        let wanted = outcome.attempt();
        if !attempt.state.is_open() {
            return match wanted {
                Some(AttemptState::Charged) if attempt.state != AttemptState::Charged => {
                    self.charged_late(run, key, &attempt, other_open, other_charged)
                }
                Some(AttemptState::Refused | AttemptState::Rejected | AttemptState::Voided)
                    if attempt.state == AttemptState::Charged =>
                {
                    let invoice = &mut self.invoices[attempt.invoice - 1];
                    if invoice.state != InvoiceState::Attention {
                        needs_operator(invoice, AttentionReason::Contradiction);
                    }
                    Settled::Conflict(Conflict::Contradiction)
                }
                _ => Settled::Same,
            };
        }
        let now = self.now;
        let stored = self.attempts.get_mut(key).unwrap();
        stored.lease_until = now + again_in_ms;
        match outcome {
            Outcome::NotSent => {
                stored.sends = stored.sends.saturating_sub(1);
                self.count(run, |counters| counters.not_sent += 1);
            }
            Outcome::InDoubt(reason) => {
                self.set_attempt(key, AttemptState::InDoubt);
                let invoice = &mut self.invoices[attempt.invoice - 1];
                if let (Some(reason), InvoiceState::Charging) = (reason, invoice.state) {
                    needs_operator(invoice, reason);
                }
            }
            Outcome::Charged if other_charged => {
                self.set_attempt(key, AttemptState::InDoubt);
                needs_operator(&mut self.invoices[attempt.invoice - 1], AttentionReason::ChargedLate);
                return Settled::Conflict(Conflict::ChargedLate);
            }
            Outcome::Charged => {
                self.set_attempt(key, AttemptState::Charged);
                pay(&mut self.invoices[attempt.invoice - 1], PaidBy::Charge);
                self.count(run, |counters| counters.paid += 1);
            }
            Outcome::Refused | Outcome::Voided | Outcome::Rejected => {
                self.set_attempt(key, wanted.unwrap());
                let invoice = &mut self.invoices[attempt.invoice - 1];
                if other_charged {
                    pay(invoice, PaidBy::Charge);
                } else if outcome == Outcome::Rejected {
                    needs_operator(invoice, AttentionReason::Rejected);
                } else {
                    free(invoice);
                }
                self.count(run, |counters| match outcome {
                    Outcome::Rejected => counters.rejected += 1,
                    _ => counters.refused += 1,
                });
            }
        }
        Settled::Applied
    }

    fn charged_late(
        &mut self,
        run: Option<usize>,
        key: &Key,
        attempt: &ModelAttempt,
        other_open: bool,
        other_charged: bool,
    ) -> Settled {
        let was_paid = self.invoices[attempt.invoice - 1].state == InvoiceState::Paid;
        if !other_charged {
            self.set_attempt(key, AttemptState::Charged);
            self.count(run, |counters| counters.paid += 1);
        }
        let invoice = &mut self.invoices[attempt.invoice - 1];
        if other_open || other_charged || was_paid {
            needs_operator(invoice, AttentionReason::ChargedLate);
        } else {
            pay(invoice, PaidBy::Charge);
        }
        Settled::Conflict(Conflict::ChargedLate)
    }

    pub(crate) fn resolve(&mut self, key: &Key, charged: bool) -> Resolved {
        let Some(attempt) = self.attempts.get(key).cloned() else { return Resolved::Unknown };
        let other_charged = self.has(attempt.invoice, Some(key), &[AttemptState::Charged]);
        if !attempt.state.is_open() {
            let any_open = self.has(attempt.invoice, None, &[AttemptState::Intent, AttemptState::InDoubt]);
            let invoice = &mut self.invoices[attempt.invoice - 1];
            let waits = invoice.state == InvoiceState::Attention && !any_open;
            match (attempt.state, charged) {
                (AttemptState::Charged, true) if waits => pay(invoice, PaidBy::Resolve),
                (AttemptState::Rejected, false) if waits && !other_charged => free(invoice),
                (state, _) => return Resolved::Final(state),
            }
            self.resolutions += 1;
            return Resolved::Applied;
        }
        if charged && other_charged {
            return Resolved::OtherCharged;
        }
        self.set_attempt(key, if charged { AttemptState::Charged } else { AttemptState::Voided });
        let invoice = &mut self.invoices[attempt.invoice - 1];
        match (charged, other_charged) {
            (true, _) => pay(invoice, PaidBy::Resolve),
            (false, true) => pay(invoice, PaidBy::Charge),
            (false, false) => free(invoice),
        }
        self.resolutions += 1;
        Resolved::Applied
    }

    fn count(&mut self, run: Option<usize>, count: impl FnOnce(&mut RunCounters)) {
        if let Some(run) = run {
            count(&mut self.runs[run - 1].counters);
        }
    }

    fn set_attempt(&mut self, key: &Key, state: AttemptState) {
        let attempt = self.attempts.get_mut(key).unwrap();
        let doubt = |state| i64::from(state == AttemptState::InDoubt);
        self.runs[attempt.run - 1].counters.in_doubt += doubt(state) - doubt(attempt.state);
        attempt.state = state;
    }
}

fn pay(invoice: &mut ModelInvoice, by: PaidBy) {
    (invoice.state, invoice.paid_by, invoice.attention) = (InvoiceState::Paid, Some(by), None);
}

fn free(invoice: &mut ModelInvoice) {
    (invoice.state, invoice.paid_by, invoice.attention) = (InvoiceState::Pending, None, None);
}

fn needs_operator(invoice: &mut ModelInvoice, reason: AttentionReason) {
    (invoice.state, invoice.paid_by, invoice.attention) = (InvoiceState::Attention, None, Some(reason));
}
