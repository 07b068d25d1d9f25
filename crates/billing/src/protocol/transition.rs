//! The charge protocol as pure functions: what a response does to an attempt, and what a late response does to a final
//! attempt. The driver, every store, and the exhaustive model call these; no I/O, no clock, no randomness.

use std::time::Duration;

use crate::invoice::{Attempt, AttemptState, AttentionReason, Decline, InvoiceId, InvoiceState};
use crate::protocol::key::Key;

/// Whether the provider executes a key at most once and echoes it; setting `PAYMENT_PROVIDER_IDEMPOTENCY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// Not supported: each attempt is sent at most once, and an attempt in doubt needs manual resolution.
    None,
    /// Supported: an attempt in doubt is resent under the same key until the response is definite.
    Keys,
}

/// Class of the response to one send; the table in crates/billing/src/provider/answer.rs decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnswerClass {
    /// The provider charged this key.
    Charged,
    /// The provider refused this key.
    Refused,
    /// The provider calls the request invalid.
    Invalid,
    /// The provider holds a tombstone for this key.
    Voided,
    /// The provider knows this key with other data.
    KeyReused,
    /// The endpoint is wrong, not the invoice. With `not_executed` the status itself means that nothing was executed
    /// (401, 403, 404, 405, 412); without it the response may be a proxy's page.
    EndpointWrong {
        /// Whether the request is known not to have been executed.
        not_executed: bool,
    },
    /// The provider executed the request without echoing the key, although it is configured to support keys: a resend
    /// might charge again.
    Unkeyed,
    /// The request may or may not have been executed.
    InDoubt,
    /// No byte of the request was written, or the provider marked it as not executed.
    NotSent,
}

impl AnswerClass {
    /// Every class, for tables and the model.
    pub const ALL: &'static [Self] = &[
        Self::Charged,
        Self::Refused,
        Self::Invalid,
        Self::Voided,
        Self::KeyReused,
        Self::EndpointWrong { not_executed: true },
        Self::EndpointWrong { not_executed: false },
        Self::Unkeyed,
        Self::InDoubt,
        Self::NotSent,
    ];
}

/// The outcome to record for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Final: charged.
    Charged,
    /// Final: refused.
    Refused,
    /// Final: invalid; an operator must fix the invoice.
    Rejected,
    /// Final: voided.
    Voided,
    /// Open: may have been executed. Claimable again after a pause, unless operator action is required.
    InDoubt(Option<AttentionReason>),
    /// Open as before; this send is subtracted from `sends`, because it was not executed.
    NotSent,
}

impl Outcome {
    /// The attempt's next state; `None` if unchanged.
    #[must_use]
    pub fn attempt(self) -> Option<AttemptState> {
        match self {
            Self::Charged => Some(AttemptState::Charged),
            Self::Refused => Some(AttemptState::Refused),
            Self::Rejected => Some(AttemptState::Rejected),
            Self::Voided => Some(AttemptState::Voided),
            Self::InDoubt(_) => Some(AttemptState::InDoubt),
            Self::NotSent => None,
        }
    }

    /// The invoice's next state.
    #[must_use]
    pub fn invoice(self) -> InvoiceState {
        match self {
            Self::Charged => InvoiceState::Paid,
            Self::Refused | Self::Voided => InvoiceState::Pending,
            Self::Rejected | Self::InDoubt(Some(_)) => InvoiceState::Attention,
            Self::InDoubt(None) | Self::NotSent => InvoiceState::Charging,
        }
    }

    /// Why operator action is required; `None` when it is not.
    #[must_use]
    pub fn attention(self) -> Option<AttentionReason> {
        match self {
            Self::Rejected => Some(AttentionReason::Rejected),
            Self::InDoubt(reason) => reason,
            _ => None,
        }
    }
}

/// One outcome to be recorded under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement<K = Key> {
    /// The key of the attempt.
    pub key: K,
    /// The invoice in whose attempts the key is looked up.
    pub invoice: InvoiceId,
    pub number: u32,
    /// The outcome to record.
    pub outcome: Outcome,
    /// The time until it may be claimed again, if it stays open.
    pub again_in: Duration,
    /// Why the provider refused the attempt; `None` for other outcomes.
    pub decline: Option<Decline>,
}

impl Settlement {
    #[must_use]
    pub fn of(attempt: &Attempt, outcome: Outcome, again_in: Duration, decline: Option<Decline>) -> Self {
        let (key, invoice, number) = (attempt.key.clone(), attempt.invoice_id, attempt.number);
        Self { key, invoice, number, outcome, again_in, decline }
    }
}

/// A sent attempt, as it was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The state at the claim.
    pub state: AttemptState,
    /// Requests that may have left, this one included.
    pub sends: u32,
}

impl Sent {
    /// Whether an earlier copy of this request may be alive; "not sent" says nothing about that copy.
    #[must_use]
    pub fn is_resend(self) -> bool {
        self.sends > 1 || self.state == AttemptState::InDoubt
    }
}

/// Whether a claimed attempt may be sent; if not, the error is the outcome to record.
pub fn may_send(idempotency: Idempotency, sent: Sent) -> Result<(), Outcome> {
    match idempotency {
        Idempotency::Keys => Ok(()),
        Idempotency::None if sent.is_resend() => Err(in_doubt(idempotency)),
        Idempotency::None => Ok(()),
    }
}

/// The outcome of a sent attempt by the class of its response.
#[must_use]
pub fn on_answer(idempotency: Idempotency, sent: Sent, class: AnswerClass) -> Outcome {
    let doubt = in_doubt(idempotency);
    match class {
        AnswerClass::Charged => Outcome::Charged,
        AnswerClass::Refused => Outcome::Refused,
        AnswerClass::Voided => Outcome::Voided,
        AnswerClass::KeyReused => Outcome::InDoubt(Some(AttentionReason::KeyReused)),
        AnswerClass::Unkeyed => in_doubt(Idempotency::None),
        AnswerClass::NotSent | AnswerClass::EndpointWrong { .. } if sent.is_resend() => doubt,
        // The attempt stays open, since an earlier copy may have been executed, and is not resent, because that would
        // never end.
        AnswerClass::Invalid if sent.is_resend() => Outcome::InDoubt(Some(AttentionReason::Rejected)),
        AnswerClass::Invalid => Outcome::Rejected,
        AnswerClass::NotSent | AnswerClass::EndpointWrong { not_executed: true } => Outcome::NotSent,
        AnswerClass::EndpointWrong { not_executed: false } | AnswerClass::InDoubt => doubt,
    }
}

/// The outcome of an attempt that the provider does not accept while it executes others. Such an answer does not prove
/// that nothing was executed: the attempt stays open, so that there is no next one before an operator has decided.
pub const NOT_ACCEPTED: Outcome = Outcome::InDoubt(Some(AttentionReason::NotAccepted));

fn in_doubt(idempotency: Idempotency) -> Outcome {
    match idempotency {
        Idempotency::Keys => Outcome::InDoubt(None),
        Idempotency::None => Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys)),
    }
}

/// A contradiction between a settlement and what is recorded already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// Charged, though the attempt was recorded as not charged, or though another attempt of the invoice is CHARGED.
    /// The attempt becomes CHARGED, unless another one is. The invoice goes to ATTENTION if it was PAID or CANCELLED or
    /// has another open or charged attempt; otherwise it becomes PAID.
    ChargedLate,
    /// Not charged, though the attempt is CHARGED: it stays so, and the invoice goes to ATTENTION. In a repair also
    /// a charge whose customer or amount differs from the open attempt's; the attempt stays open.
    Contradiction,
}

/// The conflict of an outcome with an attempt in a final state; `None` if there is none. REFUSED, REJECTED and VOIDED
/// agree: each means that this key was not charged, and an operator may void a key before its refusal arrives.
#[must_use]
pub fn on_final(stored: AttemptState, outcome: Outcome) -> Option<Conflict> {
    let charged = stored == AttemptState::Charged;
    match outcome.attempt() {
        None | Some(AttemptState::Intent | AttemptState::InDoubt) => None,
        Some(AttemptState::Charged) => (!charged).then_some(Conflict::ChargedLate),
        Some(AttemptState::Refused | AttemptState::Rejected | AttemptState::Voided) => {
            charged.then_some(Conflict::Contradiction)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Sent = Sent { state: AttemptState::Intent, sends: 1 };
    const AGAIN: Sent = Sent { state: AttemptState::Intent, sends: 2 };
    const DOUBTED: Sent = Sent { state: AttemptState::InDoubt, sends: 2 };

    #[test]
    fn doubt_only_ends_by_charged_refused_or_voided() {
        for &class in AnswerClass::ALL {
            for sent in [AGAIN, DOUBTED] {
                let outcome = on_answer(Idempotency::Keys, sent, class);
                let ends = matches!(outcome, Outcome::Charged | Outcome::Refused | Outcome::Voided);
                let may_end =
                    matches!(class, AnswerClass::Charged | AnswerClass::Refused | AnswerClass::Voided);
                assert_eq!(ends, may_end, "{class:?} on {sent:?} gives {outcome:?}");
            }
        }
    }

    #[test]
    fn without_keys_nothing_is_sent_twice() {
        assert_eq!(may_send(Idempotency::None, FIRST), Ok(()));
        for sent in [AGAIN, DOUBTED] {
            let parked = Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys));
            assert_eq!(may_send(Idempotency::None, sent), Err(parked));
            assert_eq!(may_send(Idempotency::Keys, sent), Ok(()));
        }
        let doubt = on_answer(Idempotency::None, FIRST, AnswerClass::InDoubt);
        assert_eq!(doubt.invoice(), InvoiceState::Attention);
    }

    #[test]
    fn a_provider_that_shows_no_key_is_not_asked_again() {
        for sent in [FIRST, AGAIN] {
            let parked = Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys));
            assert_eq!(on_answer(Idempotency::Keys, sent, AnswerClass::Unkeyed), parked);
        }
    }

    #[test]
    fn what_is_invalid_when_sent_again_stays_open_and_needs_an_operator() {
        for sent in [AGAIN, DOUBTED] {
            let outcome = on_answer(Idempotency::Keys, sent, AnswerClass::Invalid);
            assert_eq!(outcome.attempt(), Some(AttemptState::InDoubt));
            assert_eq!(outcome.invoice(), InvoiceState::Attention);
        }
    }

    #[test]
    fn a_first_send_that_never_left_is_taken_back() {
        assert_eq!(on_answer(Idempotency::None, FIRST, AnswerClass::NotSent), Outcome::NotSent);
        let wrong = AnswerClass::EndpointWrong { not_executed: true };
        assert_eq!(on_answer(Idempotency::Keys, FIRST, wrong), Outcome::NotSent);
        assert_eq!(on_answer(Idempotency::Keys, FIRST, AnswerClass::Invalid), Outcome::Rejected);
    }

    #[test]
    fn a_charge_is_accepted_from_any_state_and_nothing_else_overwrites_a_final_one() {
        use AttemptState::{Charged, Refused, Rejected, Voided};
        for stored in [Refused, Rejected, Voided] {
            assert_eq!(on_final(stored, Outcome::Charged), Some(Conflict::ChargedLate));
        }
        assert_eq!(on_final(Charged, Outcome::Charged), None);
        assert_eq!(on_final(Charged, Outcome::Refused), Some(Conflict::Contradiction));
        assert_eq!(on_final(Charged, Outcome::InDoubt(None)), None);
        assert_eq!(on_final(Charged, Outcome::NotSent), None);
    }

    #[test]
    fn two_ways_of_not_being_charged_do_not_contradict_each_other() {
        use AttemptState::{Refused, Rejected, Voided};
        for stored in [Refused, Rejected, Voided] {
            for outcome in [Outcome::Refused, Outcome::Rejected, Outcome::Voided] {
                assert_eq!(on_final(stored, outcome), None, "{outcome:?} on {stored}");
            }
        }
    }
}
