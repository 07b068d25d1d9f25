//! The rules of holds and cancellations. Pure; knows no SQL.

use std::hash::Hash;

use super::{Changeset, InvoiceChange, InvoiceStatus, LoadedFacts, resend};
use crate::invoice::{AttemptState, InvoiceId, InvoiceState, Network};
use crate::store::control::{Controlled, CustomerAction, InvoiceAction};

/// The changes to one invoice.
#[derive(Debug)]
pub struct InvoiceControl {
    /// The change of its state, if any.
    pub changes: Changeset,
    /// The new value of its hold; `None` if unchanged.
    pub held: Option<bool>,
}

/// The facts of a customer in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomerFacts {
    pub held: bool,
    pub network: Network,
    /// Whether an attempt of an invoice of the customer is open.
    pub has_open_attempt: bool,
}

/// Decides an action on an invoice; `held` is whether it is held now. The facts contain the invoice and its open and
/// CHARGED attempts.
///
/// # Errors
/// Why nothing changes.
pub fn invoice<K: Clone + Eq + Hash>(
    facts: &LoadedFacts<K>,
    id: InvoiceId,
    held: bool,
    action: InvoiceAction,
) -> Result<InvoiceControl, Controlled> {
    let Some(&state) = facts.invoices.get(&id) else { return Err(Controlled::Unknown) };
    let has = |wanted: fn(AttemptState) -> bool| {
        facts.attempts.iter().any(|attempt| attempt.invoice == id && wanted(attempt.state))
    };
    let nothing = || resend(None, 0);
    let is_final = matches!(state, InvoiceState::Paid | InvoiceState::Cancelled);
    match action {
        InvoiceAction::Release if !held => Err(Controlled::Unchanged),
        InvoiceAction::Release => Ok(InvoiceControl { changes: nothing(), held: Some(false) }),
        InvoiceAction::Hold if held => Err(Controlled::Unchanged),
        InvoiceAction::Cancel if state == InvoiceState::Cancelled => Err(Controlled::Unchanged),
        _ if is_final => Err(Controlled::Final(state)),
        _ if state == InvoiceState::Charging || has(AttemptState::is_open) => Err(Controlled::AttemptOpen),
        InvoiceAction::Hold => Ok(InvoiceControl { changes: nothing(), held: Some(true) }),
        InvoiceAction::Cancel if has(|state| state == AttemptState::Charged) => Err(Controlled::Charged),
        InvoiceAction::Cancel => {
            let mut changes = nothing();
            let status = InvoiceStatus::plain(InvoiceState::Cancelled);
            changes.invoices.push(InvoiceChange::new(id, state, status));
            changes.state_counts.add(Some(state), InvoiceState::Cancelled);
            Ok(InvoiceControl { changes, held: None })
        }
    }
}

/// The changes to one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomerControl {
    Held(bool),
    /// The instrument has changed, so the effects of declines on the customer's invoices are removed.
    InstrumentChanged,
    Network(Network),
}

/// Decides an action on a customer.
///
/// # Errors
/// Why nothing changes.
pub fn customer(facts: Option<CustomerFacts>, action: CustomerAction) -> Result<CustomerControl, Controlled> {
    let Some(CustomerFacts { held, network, has_open_attempt }) = facts else {
        return Err(Controlled::Unknown);
    };
    match action {
        CustomerAction::InstrumentChanged => Ok(CustomerControl::InstrumentChanged),
        CustomerAction::SetNetwork(next) if next == network => Err(Controlled::Unchanged),
        CustomerAction::SetNetwork(next) => Ok(CustomerControl::Network(next)),
        CustomerAction::Hold if held => Err(Controlled::Unchanged),
        CustomerAction::Release if !held => Err(Controlled::Unchanged),
        CustomerAction::Hold if has_open_attempt => Err(Controlled::AttemptOpen),
        CustomerAction::Hold => Ok(CustomerControl::Held(true)),
        CustomerAction::Release => Ok(CustomerControl::Held(false)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::invoice::RunId;
    use crate::store::changeset::AttemptFact;

    const ID: InvoiceId = InvoiceId(1);

    /// The invoice's next state and hold, if they change.
    fn decide(
        state: InvoiceState,
        attempts: &[AttemptState],
        held: bool,
        action: InvoiceAction,
    ) -> Result<(Option<InvoiceState>, Option<bool>), Controlled> {
        let fact = |(at, &state): (usize, &AttemptState)| AttemptFact {
            key: at,
            invoice: ID,
            number: 1,
            run: RunId(1),
            state,
        };
        let attempts = attempts.iter().enumerate().map(fact).collect();
        let facts = LoadedFacts { invoices: BTreeMap::from([(ID, state)]), attempts };
        let control = invoice(&facts, ID, held, action)?;
        let counts: Vec<_> = control.changes.state_counts.iter().collect();
        let next = control.changes.invoices.first().map(|change| change.status.state);
        assert_eq!(counts.is_empty(), next.is_none(), "what moves is counted");
        Ok((next, control.held))
    }

    #[test]
    fn only_what_has_no_open_and_no_charged_attempt_is_cancelled_and_only_once() {
        use AttemptState::{Charged, InDoubt, Intent, Refused, Rejected};
        use InvoiceState::{Attention, Cancelled, Charging, Paid, Pending};
        let cancel = |state, attempts: &[AttemptState]| decide(state, attempts, false, InvoiceAction::Cancel);
        let done = Ok((Some(Cancelled), None));
        for (state, attempts, expected) in [
            (Pending, &[][..], done),
            (Pending, &[Refused], done),
            (Attention, &[Rejected], done),
            (Charging, &[Intent], Err(Controlled::AttemptOpen)),
            (Attention, &[InDoubt], Err(Controlled::AttemptOpen)),
            (Attention, &[Charged], Err(Controlled::Charged)),
            (Paid, &[Charged], Err(Controlled::Final(Paid))),
            (Paid, &[], Err(Controlled::Final(Paid))),
            (Cancelled, &[], Err(Controlled::Unchanged)),
        ] {
            assert_eq!(cancel(state, attempts), expected, "{state} {attempts:?}");
        }
        assert_eq!(decide(Pending, &[], true, InvoiceAction::Cancel), done, "held or not");
    }

    #[test]
    fn a_hold_is_refused_while_an_attempt_is_open_and_a_release_never_is() {
        use AttemptState::{InDoubt, Rejected};
        use InvoiceState::{Attention, Cancelled, Charging, Paid, Pending};
        for (state, attempts, held, action, expected) in [
            (Pending, &[][..], false, InvoiceAction::Hold, Ok((None, Some(true)))),
            (Attention, &[Rejected], false, InvoiceAction::Hold, Ok((None, Some(true)))),
            (Pending, &[], true, InvoiceAction::Hold, Err(Controlled::Unchanged)),
            (Charging, &[InDoubt], false, InvoiceAction::Hold, Err(Controlled::AttemptOpen)),
            (Paid, &[], false, InvoiceAction::Hold, Err(Controlled::Final(Paid))),
            (Cancelled, &[], false, InvoiceAction::Hold, Err(Controlled::Final(Cancelled))),
            (Pending, &[], true, InvoiceAction::Release, Ok((None, Some(false)))),
            (Cancelled, &[], true, InvoiceAction::Release, Ok((None, Some(false)))),
            (Pending, &[], false, InvoiceAction::Release, Err(Controlled::Unchanged)),
        ] {
            assert_eq!(decide(state, attempts, held, action), expected, "{state} {held} {action:?}");
        }
    }

    #[test]
    fn a_customer_is_held_unless_an_attempt_is_open() {
        let facts =
            |held, has_open_attempt| Some(CustomerFacts { held, network: Network::Visa, has_open_attempt });
        assert_eq!(customer(facts(false, false), CustomerAction::Hold), Ok(CustomerControl::Held(true)));
        assert_eq!(customer(facts(false, true), CustomerAction::Hold), Err(Controlled::AttemptOpen));
        assert_eq!(customer(facts(true, true), CustomerAction::Release), Ok(CustomerControl::Held(false)));
        assert_eq!(
            customer(facts(false, true), CustomerAction::InstrumentChanged),
            Ok(CustomerControl::InstrumentChanged)
        );
        let network = |network| customer(facts(false, true), CustomerAction::SetNetwork(network));
        assert_eq!(network(Network::Visa), Err(Controlled::Unchanged));
        assert_eq!(network(Network::None), Ok(CustomerControl::Network(Network::None)));
        assert_eq!(network(Network::Mastercard), Ok(CustomerControl::Network(Network::Mastercard)));
        assert_eq!(customer(facts(true, false), CustomerAction::Hold), Err(Controlled::Unchanged));
        assert_eq!(customer(facts(false, false), CustomerAction::Release), Err(Controlled::Unchanged));
        assert_eq!(customer(None, CustomerAction::Release), Err(Controlled::Unknown));
    }
}
