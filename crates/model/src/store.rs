//! Billing's store in the model. Modelled, as `store/mod.rs` of billing promises: each step is one durable transaction,
//! and a claim, a recovery or an import may change only certain rows. Called, not modelled: the changes by a settlement
//! or an operator's decision (`store::changeset`, which every database applies too).

use std::time::Duration;

use billing::invoice::{AttemptState, InvoiceId, InvoiceState, RunId};
use billing::protocol::transition::{Outcome, Settlement};
use billing::store::changeset::{self, AttemptFact, Changeset, ClaimAgain, InvoiceStatus, LoadedFacts};
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

/// An index in the size for packing.
pub(crate) fn index(at: usize) -> u8 {
    u8::try_from(at).expect("indexes are below 48")
}

/// The index of the attempt with this key.
pub(crate) fn find(invoice: &Invoice, key: u8) -> Option<usize> {
    invoice.known().find(|(_, attempt)| attempt.key == key).map(|(at, _)| at)
}

/// Records an outcome of the attempt at this index by the production changeset.
pub(crate) fn settle(invoice: &mut Invoice, at: usize, outcome: Outcome) -> Settled {
    let settlement = Settlement {
        key: at,
        invoice: INVOICE,
        number: number(at),
        outcome,
        again_in: Duration::ZERO,
        decline: None,
    };
    let (changes, settled) = changeset::settle(facts(invoice), None, &[settlement]);
    apply(invoice, &changes);
    settled.into_iter().next().expect("one settlement has one answer")
}

/// Records an operator's decision by the production changeset. If the provider had refused the key, production would
/// make the attempt REFUSED and not VOIDED: the model does not distinguish them.
pub(crate) fn resolve(invoice: &mut Invoice, at: usize, charged: bool) -> Resolved {
    match changeset::resolve(facts(invoice), &at, charged, None) {
        Ok((changes, _)) => {
            apply(invoice, &changes);
            Resolved::Applied
        }
        Err(unchanged) => unchanged,
    }
}

/// The facts as every database loads them; an attempt is identified by its index.
fn facts(invoice: &Invoice) -> LoadedFacts<usize> {
    let fact = |(key, attempt): (usize, &Attempt)| AttemptFact {
        key,
        invoice: INVOICE,
        number: number(key),
        run: RunId(1),
        state: attempt.state,
    };
    LoadedFacts {
        invoices: [(INVOICE, invoice.state)].into_iter().collect(),
        attempts: invoice.known().map(fact).collect(),
    }
}

/// The number of an attempt; numbers begin with 1.
fn number(at: usize) -> u32 {
    u32::from(index(at)) + 1
}

/// The id of every invoice: facts and changes concern one invoice at a time.
const INVOICE: InvoiceId = InvoiceId(1);

fn apply(invoice: &mut Invoice, changes: &Changeset<usize>) {
    for change in &changes.attempts {
        let attempt = invoice.attempts[change.read.key].as_mut().expect("a change is of an attempt");
        attempt.state = change.state;
        if change.sends_taken_back > 0 && attempt.sends < SENDS_MAX {
            attempt.sends = attempt.sends.saturating_sub(1);
        }
        match change.claim_again {
            None => {}
            Some(ClaimAgain::In(_)) => attempt.lease = Lease::Due,
            Some(ClaimAgain::Never) => attempt.lease = Lease::Never,
        }
    }
    for change in &changes.invoices {
        set_status(invoice, change.status);
    }
}

fn set_status(invoice: &mut Invoice, status: InvoiceStatus) {
    invoice.state = status.state;
    invoice.paid_by = status.paid_by;
    invoice.reason = status.attention;
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

/// Changes the invoice's amount.
pub(crate) fn edit(invoice: &mut Invoice) {
    invoice.amount = 1;
    set_status(invoice, InvoiceStatus { state: InvoiceState::Pending, paid_by: None, attention: None });
}
