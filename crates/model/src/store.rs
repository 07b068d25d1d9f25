//! Billing's store as the model runs it. Modelled, as `store/mod.rs` of billing promises it: each step is one durable
//! transaction, and which rows a claim, a recovery or an import may touch. Called, not modelled: what a settlement or a
//! operator's decision does (`store::plan`, which every database calls too).

use billing::invoice::{AttemptState, InvoiceState};
use billing::protocol::transition::Outcome;
use billing::store::plan::{self, AttemptContext, InvoicePlan, Others};
use billing::store::{Resolved, Settled};

use crate::world::{ATTEMPTS_MAX, Attempt, Invoice, Job, Lease, SENDS_MAX, Store};

/// Journals the next attempt of a PENDING invoice under the key that `draw` gives.
pub(crate) fn claim(
    store: &mut Store,
    invoice: usize,
    draw: impl FnOnce(usize) -> Option<u8>,
) -> Option<Job> {
    let row = &mut store.invoices[invoice];
    let at = row.known().count();
    if row.state != InvoiceState::Pending || at == ATTEMPTS_MAX {
        return None;
    }
    let attempt = Attempt {
        state: AttemptState::Intent,
        sends: 1,
        lease: Lease::Held,
        key: draw(at)?,
        amount: row.amount,
    };
    row.attempts[at] = Some(attempt);
    row.state = InvoiceState::Charging;
    Some(job(invoice, at, &attempt))
}

/// Leases an open attempt again, if it is due and no operator has to decide first.
pub(crate) fn claim_again(store: &mut Store, invoice: usize, at: usize) -> Option<Job> {
    let row = &mut store.invoices[invoice];
    let charging = row.state == InvoiceState::Charging;
    let attempt = row.attempts[at].as_mut()?;
    if !charging || !attempt.state.is_open() || attempt.lease != Lease::Due {
        return None;
    }
    attempt.lease = Lease::Held;
    attempt.sends = SENDS_MAX.min(attempt.sends + 1);
    Some(job(invoice, at, &row.attempts[at]?))
}

fn job(invoice: usize, at: usize, attempt: &Attempt) -> Job {
    Job {
        invoice: index(invoice),
        attempt: index(at),
        in_doubt: attempt.state == AttemptState::InDoubt,
        sends: attempt.sends,
        key: attempt.key,
        amount: attempt.amount,
    }
}

/// A small index as it is packed.
pub(crate) fn index(at: usize) -> u8 {
    u8::try_from(at).expect("indexes are below 48")
}

/// The place of the attempt with this key.
pub(crate) fn find(invoice: &Invoice, key: u8) -> Option<usize> {
    invoice.known().find(|(_, attempt)| attempt.key == key).map(|(at, _)| at)
}

/// Records an outcome of the attempt at this place, as the production plan has it.
pub(crate) fn settle(invoice: &mut Invoice, at: usize, outcome: Outcome) -> Settled {
    let Some(standing) = standing(invoice, at) else { return Settled::Unknown };
    let plan = plan::settle(standing, outcome);
    let attempt = invoice.attempts[at].as_mut().expect("a standing is of an attempt");
    let state = plan.attempt.unwrap_or(attempt.state);
    if state.is_open() && attempt.state.is_open() {
        attempt.lease = if plan.parks(standing) { Lease::Never } else { Lease::Due };
        if plan.unsend && attempt.sends < SENDS_MAX {
            attempt.sends = attempt.sends.saturating_sub(1);
        }
    }
    attempt.state = state;
    if let Some(next) = plan.invoice {
        stand(invoice, next);
    }
    plan.settled
}

/// Records an operator's decision by the production plan.
pub(crate) fn resolve(invoice: &mut Invoice, at: usize, charged: bool) -> Resolved {
    let Some(standing) = standing(invoice, at) else { return Resolved::Unknown };
    match plan::resolve(standing, charged) {
        Ok((state, next)) => {
            let attempt = invoice.attempts[at].as_mut().expect("a standing is of an attempt");
            attempt.state = state.unwrap_or(attempt.state);
            stand(invoice, next);
            Resolved::Applied
        }
        Err(answer) => answer,
    }
}

fn standing(invoice: &Invoice, at: usize) -> Option<AttemptContext> {
    let attempt = invoice.attempts[at]?.state;
    let others = if AttemptContext::needs_others(attempt, invoice.state) {
        let others = |is: fn(AttemptState) -> bool| {
            invoice.known().any(|(place, other)| place != at && is(other.state))
        };
        Others { open: others(AttemptState::is_open), charged: others(|s| s == AttemptState::Charged) }
    } else {
        Others::default()
    };
    Some(AttemptContext { attempt, invoice: invoice.state, others })
}

fn stand(invoice: &mut Invoice, next: InvoicePlan) {
    invoice.state = next.state;
    invoice.paid_by = next.paid_by;
    invoice.reason = next.attention;
}

/// Ends the leases of all open attempts that need no manual resolution.
pub(crate) fn recover(store: &mut Store) {
    for attempt in store.invoices.iter_mut().flat_map(|invoice| &mut invoice.attempts).flatten() {
        if attempt.state.is_open() && attempt.lease == Lease::Held {
            attempt.lease = Lease::Due;
        }
    }
}

/// Whether an import with `update` may change this invoice.
pub(crate) fn may_edit(invoice: &Invoice) -> bool {
    let locked = |attempt: &Attempt| attempt.state.is_open() || attempt.state == AttemptState::Charged;
    invoice.amount == 0 && invoice.state != InvoiceState::Paid && !invoice.any(locked)
}

/// Changes it.
pub(crate) fn edit(invoice: &mut Invoice) {
    invoice.amount = 1;
    stand(invoice, InvoicePlan { state: InvoiceState::Pending, paid_by: None, attention: None });
}
