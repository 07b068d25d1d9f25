//! The conditions that must hold: in every state, and in states where nothing more happens once faults have stopped.
//! Knows no step.

use billing::invoice::{AttemptState, AttentionReason, InvoiceState, PaidBy};
use billing::protocol::transition::Idempotency;

use crate::environment::waits_outside;
use crate::machine::Machine;
use crate::protocol::{Keeps, Wrong};
use crate::world::{Decision, Invoice, Row, World};

/// Errors in this state that no later step can remove.
pub(crate) fn safety(machine: &Machine, world: &World) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if world.provider.charges.iter().any(|charges| *charges > 1) {
        wrong.push(Wrong::ChargedTwice);
    }
    if world.conflict {
        wrong.push(Wrong::Conflict);
    }
    for (at, invoice) in world.store.invoices.iter().enumerate().take(machine.bounds.invoices) {
        if !is_consistent(invoice) {
            wrong.push(Wrong::BadState);
        }
        let row = |key: u8| world.provider.rows[at][usize::from(key)];
        let charged = |row: &Row| row.decision == Decision::Charged;
        let not_charged = [AttemptState::Refused, AttemptState::Rejected, AttemptState::Voided];
        if invoice.any(|one| not_charged.contains(&one.state) && row(one.key).as_ref().is_some_and(charged)) {
            wrong.push(Wrong::RecordedAsNotCharged);
        }
        if invoice.paid_by.is_some() && world.provider.charges[at] == 0 {
            wrong.push(Wrong::Unbacked);
        }
        // A replaced ledger no longer shows the row of a charge.
        let is_whole = world.provider.ledger == 0 && !world.provider.set_back;
        let shows = is_whole && machine.protocol.keeps != Keeps::Nothing;
        if invoice.paid_by == Some(PaidBy::Charge) && shows {
            let attempt = invoice.known().find(|(_, attempt)| attempt.state == AttemptState::Charged);
            let backing = attempt.and_then(|(_, one)| Some((one, row(one.key).filter(charged)?)));
            match backing {
                None => wrong.push(Wrong::Unbacked),
                Some((attempt, row)) if attempt.amount != row.amount => wrong.push(Wrong::OtherAmount),
                Some(_) => {}
            }
        }
    }
    wrong
}

/// Whether an invoice obeys the store's two unique indexes and the meaning of the states.
fn is_consistent(invoice: &Invoice) -> bool {
    let open = invoice.known().filter(|(_, attempt)| attempt.state.is_open()).count();
    let charged = invoice.known().filter(|(_, attempt)| attempt.state == AttemptState::Charged).count();
    let fits = match invoice.state {
        InvoiceState::Pending => open + charged == 0,
        InvoiceState::Charging => open == 1 && charged == 0,
        InvoiceState::Paid => open == 0 && charged == 1,
        InvoiceState::Attention => true,
        InvoiceState::Cancelled => open + charged == 0,
    };
    fits && open <= 1 && charged <= 1
}

/// The error in a state without further regular steps, if there is one.
pub(crate) fn at_rest(machine: &Machine, world: &World) -> Option<Wrong> {
    let invoices = world.store.invoices.iter().enumerate().take(machine.bounds.invoices);
    for (at, invoice) in invoices {
        if waits_outside(&machine.protocol, world, at, invoice) {
            continue;
        }
        let charged = world.provider.charges[at] > 0;
        let wrong = match invoice.state {
            InvoiceState::Paid => None,
            InvoiceState::Pending | InvoiceState::Cancelled if charged => Some(Wrong::Lost),
            InvoiceState::Pending | InvoiceState::Cancelled => None,
            InvoiceState::Charging => Some(Wrong::Stuck),
            InvoiceState::Attention => {
                (!is_needed(machine, world, at, invoice)).then_some(Wrong::AskedNeedlessly)
            }
        };
        if wrong.is_some() {
            return wrong;
        }
    }
    None
}

/// Whether there is a valid reason for manual resolution.
fn is_needed(machine: &Machine, world: &World, at: usize, invoice: &Invoice) -> bool {
    match invoice.reason {
        None => false,
        // With keys, an answer without its key looks like one from a provider without keys.
        Some(AttentionReason::InDoubtWithoutKeys) => {
            invoice.any(|attempt| attempt.state.is_open())
                && (machine.protocol.idempotency == Idempotency::None || world.faults > 0)
        }
        Some(AttentionReason::Rejected) => {
            world.provider.invalid[at] && invoice.any(|attempt| attempt.amount == 0)
        }
        Some(AttentionReason::KeyReused) => invoice.any(|attempt| {
            let row = world.provider.rows[at][usize::from(attempt.key)];
            attempt.state.is_open() && row.is_some_and(|row| row.amount != attempt.amount)
        }),
        // A replica of the model has no other items that could show that the fault is in this one.
        Some(AttentionReason::NotAccepted) => false,
        Some(AttentionReason::Contradiction | AttentionReason::ChargedLate) => true,
    }
}

/// Whether an invoice of this world waits for an outside event, so that the world need not come to rest.
pub(crate) fn is_excused(machine: &Machine, world: &World) -> bool {
    let mut invoices = world.store.invoices.iter().enumerate().take(machine.bounds.invoices);
    invoices.any(|(at, invoice)| waits_outside(&machine.protocol, world, at, invoice))
}
