//! The rules for the effect of an outcome, a ledger row or an operator's decision on one attempt and its invoice. Pure;
//! knows no batch, no counter, no SQL.

use crate::invoice::{AttemptState, AttentionReason, InvoiceState, PaidBy};
use crate::protocol::transition::{Conflict, Outcome, on_final};
use crate::store::{Resolved, Settled};

/// An attempt, its invoice and other attempts at the time of an outcome or a decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptContext {
    pub(super) attempt: AttemptState,
    pub(super) invoice: InvoiceState,
    /// Other attempts of the invoice; empty if [`needs_others`] returns false.
    pub(super) others: Others,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Others {
    pub(super) open: bool,
    pub(super) charged: bool,
}

/// Whether other attempts can matter. An open attempt of a CHARGING invoice is the only one that is open or charged.
#[must_use]
pub fn needs_others(attempt: AttemptState, invoice: InvoiceState) -> bool {
    !(attempt.is_open() && invoice == InvoiceState::Charging)
}

/// The state of an invoice with its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvoiceStatus {
    pub state: InvoiceState,
    /// Set only when PAID.
    pub paid_by: Option<PaidBy>,
    /// Set only when ATTENTION.
    pub attention: Option<AttentionReason>,
}

impl InvoiceStatus {
    pub(super) const fn paid(by: PaidBy) -> Self {
        Self { state: InvoiceState::Paid, paid_by: Some(by), attention: None }
    }

    const fn attention(reason: AttentionReason) -> Self {
        Self { state: InvoiceState::Attention, paid_by: None, attention: Some(reason) }
    }

    pub(super) const fn plain(state: InvoiceState) -> Self {
        Self { state, paid_by: None, attention: None }
    }
}

/// The changes by an outcome, and the result for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SettlementEffect {
    /// The attempt's next state; `None` if unchanged.
    pub(super) attempt: Option<AttemptState>,
    /// Whether the last send is subtracted because it did not count.
    pub(super) takes_back_send: bool,
    /// The invoice's next status; `None` if unchanged.
    pub(super) invoice: Option<InvoiceStatus>,
    /// The caller's result.
    pub(super) settled: Settled,
}

impl SettlementEffect {
    fn nothing(settled: Settled) -> Self {
        Self { attempt: None, takes_back_send: false, invoice: None, settled }
    }
}

/// Decides the effect of an outcome.
#[must_use]
pub(super) fn settle(context: AttemptContext, outcome: Outcome) -> SettlementEffect {
    if context.attempt.is_open() { settle_open(context, outcome) } else { settle_final(context, outcome) }
}

/// Decides the effect of a ledger row on a known attempt in a repair. It is that of [`settle`], except that a charge of
/// other data never makes the invoice PAID. `has_same_terms` tells whether the row has the customer and the amount of
/// the attempt and of the invoice. Without this check a charge of 10.00 could make an invoice of 99.00 PAID.
#[must_use]
pub(super) fn repair(context: AttemptContext, outcome: Outcome, has_same_terms: bool) -> SettlementEffect {
    let effect = settle(context, outcome);
    let is_paid = effect.invoice.is_some_and(|invoice| invoice.state == InvoiceState::Paid);
    if has_same_terms || outcome != Outcome::Charged || !is_paid {
        return effect;
    }
    let attention = InvoiceStatus::attention(AttentionReason::KeyReused);
    if context.attempt.is_open() {
        // The charge differs from the attempt that was sent: the attempt stays open for an operator.
        return SettlementEffect {
            invoice: (context.invoice != InvoiceState::Attention).then_some(attention),
            ..SettlementEffect::nothing(Settled::Conflict(Conflict::Contradiction))
        };
    }
    SettlementEffect { invoice: Some(attention), ..effect }
}

fn settle_open(context: AttemptContext, outcome: Outcome) -> SettlementEffect {
    if outcome == Outcome::Charged && context.others.charged {
        return second_charge(Some(AttemptState::InDoubt));
    }
    let invoice = match outcome {
        Outcome::Charged => Some(InvoiceStatus::paid(PaidBy::Charge)),
        // The attempt stays open: an invoice in ATTENTION stays there, for its first reason.
        Outcome::NotSent => None,
        Outcome::InDoubt(_) if context.invoice == InvoiceState::Attention => None,
        Outcome::InDoubt(None) => None,
        Outcome::InDoubt(Some(reason)) => Some(InvoiceStatus::attention(reason)),
        // This attempt was not charged, but an earlier one was charged late: the invoice is paid, once.
        Outcome::Refused | Outcome::Rejected | Outcome::Voided if context.others.charged => {
            Some(InvoiceStatus::paid(PaidBy::Charge))
        }
        Outcome::Refused | Outcome::Voided => Some(InvoiceStatus::plain(InvoiceState::Pending)),
        Outcome::Rejected => Some(InvoiceStatus::attention(AttentionReason::Rejected)),
    };
    SettlementEffect {
        attempt: outcome.attempt(),
        takes_back_send: outcome == Outcome::NotSent,
        invoice,
        settled: Settled::Applied,
    }
}

fn settle_final(context: AttemptContext, outcome: Outcome) -> SettlementEffect {
    match on_final(context.attempt, outcome) {
        None => SettlementEffect::nothing(Settled::Same),
        Some(Conflict::ChargedLate) if context.others.charged => second_charge(None),
        Some(Conflict::ChargedLate) => {
            // The invoice was PAID by import or by an operator's decision, or CANCELLED, and is charged now: one charge
            // must be refunded.
            let owes_nothing = matches!(context.invoice, InvoiceState::Paid | InvoiceState::Cancelled);
            let invoice = if context.others.open || owes_nothing {
                InvoiceStatus::attention(AttentionReason::ChargedLate)
            } else {
                InvoiceStatus::paid(PaidBy::Charge)
            };
            SettlementEffect {
                attempt: Some(AttemptState::Charged),
                takes_back_send: false,
                invoice: Some(invoice),
                settled: Settled::Conflict(Conflict::ChargedLate),
            }
        }
        Some(Conflict::Contradiction) => SettlementEffect {
            invoice: (context.invoice != InvoiceState::Attention)
                .then_some(InvoiceStatus::attention(AttentionReason::Contradiction)),
            ..SettlementEffect::nothing(Settled::Conflict(Conflict::Contradiction))
        },
    }
}

/// The effect when a second attempt of an invoice is charged. The unique index allows one CHARGED attempt, so this one
/// is not recorded as charged: if open, it becomes or stays IN_DOUBT. An operator must decide.
fn second_charge(attempt: Option<AttemptState>) -> SettlementEffect {
    SettlementEffect {
        attempt,
        takes_back_send: false,
        invoice: Some(InvoiceStatus::attention(AttentionReason::ChargedLate)),
        settled: Settled::Conflict(Conflict::ChargedLate),
    }
}

/// Decides how an attempt that only the ledger knew is recorded, once and as final: its state, and the invoice's next
/// status. `others` are all attempts of the invoice in the store; `as_invoiced` tells whether the ledger's row has the
/// invoice's customer and amount. `None` for an outcome that no ledger records.
#[must_use]
pub(super) fn adopt(
    invoice: InvoiceState,
    others: Others,
    as_invoiced: bool,
    outcome: Outcome,
) -> Option<(AttemptState, Option<InvoiceStatus>)> {
    match outcome {
        Outcome::Refused => Some((AttemptState::Refused, None)),
        Outcome::Voided => Some((AttemptState::Voided, None)),
        Outcome::Charged => {
            // Treated as a late charge of an attempt that was closed as not charged.
            let context = AttemptContext { attempt: AttemptState::Refused, invoice, others };
            let late = settle_final(context, outcome);
            let is_other = |status: &InvoiceStatus| status.state == InvoiceState::Paid && !as_invoiced;
            let next = match late.invoice {
                Some(status) if is_other(&status) => {
                    Some(InvoiceStatus::attention(AttentionReason::KeyReused))
                }
                next => next,
            };
            Some((late.attempt.unwrap_or(AttemptState::Refused), next))
        }
        Outcome::Rejected | Outcome::InDoubt(_) | Outcome::NotSent => None,
    }
}

/// Decides the effect of an operator's decision on an attempt: the attempt's next state (`None` if unchanged) and the
/// invoice's status, or why nothing changes. `is_refused` tells whether the provider had refused the attempt.
pub(super) fn resolve(
    context: AttemptContext,
    charged: bool,
    is_refused: bool,
) -> Result<(Option<AttemptState>, InvoiceStatus), Resolved> {
    if !context.attempt.is_open() {
        return resolve_final(context, charged)
            .map(|invoice| (None, invoice))
            .ok_or(Resolved::Final(context.attempt));
    }
    let not_charged = if is_refused { AttemptState::Refused } else { AttemptState::Voided };
    match (charged, context.others.charged) {
        (true, true) => Err(Resolved::OtherCharged),
        (true, false) => Ok((Some(AttemptState::Charged), InvoiceStatus::paid(PaidBy::Resolve))),
        (false, true) => Ok((Some(not_charged), InvoiceStatus::paid(PaidBy::Charge))),
        (false, false) => Ok((Some(not_charged), InvoiceStatus::plain(InvoiceState::Pending))),
    }
}

/// The effect of a decision on a final attempt: the attempt stays, but its invoice may leave ATTENTION. After a
/// rejection the invoice may be tried again; a charge is acknowledged. An open attempt must be resolved first.
fn resolve_final(context: AttemptContext, charged: bool) -> Option<InvoiceStatus> {
    if context.invoice != InvoiceState::Attention || context.others.open {
        return None;
    }
    match (context.attempt, charged) {
        // After a repair the last attempt may differ from the rejected one.
        (AttemptState::Rejected | AttemptState::Refused | AttemptState::Voided, false)
            if !context.others.charged =>
        {
            Some(InvoiceStatus::plain(InvoiceState::Pending))
        }
        (AttemptState::Charged, true) => Some(InvoiceStatus::paid(PaidBy::Resolve)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOMES: [Outcome; 8] = [
        Outcome::Charged,
        Outcome::Refused,
        Outcome::Rejected,
        Outcome::Voided,
        Outcome::InDoubt(None),
        Outcome::InDoubt(Some(AttentionReason::KeyReused)),
        Outcome::InDoubt(Some(AttentionReason::InDoubtWithoutKeys)),
        Outcome::NotSent,
    ];

    fn contexts() -> Vec<AttemptContext> {
        let mut all = Vec::new();
        for &attempt in AttemptState::ALL {
            for &invoice in InvoiceState::ALL {
                for (open, charged) in [(false, false), (false, true), (true, false), (true, true)] {
                    all.push(AttemptContext { attempt, invoice, others: Others { open, charged } });
                }
            }
        }
        all
    }

    #[test]
    fn no_second_charge_of_an_invoice_is_ever_recorded() {
        for context in contexts().into_iter().filter(|context| context.others.charged) {
            for outcome in OUTCOMES {
                assert_ne!(settle(context, outcome).attempt, Some(AttemptState::Charged), "{context:?}");
            }
            assert!(!matches!(resolve(context, true, false), Ok((Some(AttemptState::Charged), _))));
        }
    }

    #[test]
    fn a_repair_pays_an_invoice_only_by_a_charge_of_its_own_terms() {
        for context in contexts() {
            for outcome in OUTCOMES {
                let (same, other) = (repair(context, outcome, true), repair(context, outcome, false));
                assert_eq!(same, settle(context, outcome), "{context:?} {outcome:?}");
                let next = |effect: &SettlementEffect| effect.invoice.map(|invoice| invoice.state);
                if outcome == Outcome::Charged && next(&same) == Some(InvoiceState::Paid) {
                    assert!(matches!(other.settled, Settled::Conflict(_)), "{context:?}");
                    let stays_open = other.attempt.unwrap_or(context.attempt).is_open();
                    assert_eq!(stays_open, context.attempt.is_open(), "{context:?}");
                    let ends = next(&other).unwrap_or(context.invoice);
                    assert_eq!(ends, InvoiceState::Attention, "an operator decides: {context:?}");
                } else {
                    assert_eq!(other, same, "{context:?} {outcome:?}");
                }
            }
        }
    }

    #[test]
    fn an_invoice_goes_back_to_pending_only_when_nothing_of_it_is_open_or_charged() {
        for context in contexts() {
            for outcome in OUTCOMES {
                let effect = settle(context, outcome);
                if effect.invoice.is_some_and(|invoice| invoice.state == InvoiceState::Pending) {
                    let attempt = effect.attempt.unwrap_or(context.attempt);
                    assert!(
                        !attempt.is_open() && attempt != AttemptState::Charged && !context.others.charged
                    );
                }
            }
        }
    }

    #[test]
    fn each_invoice_in_attention_has_a_decision_that_ends_it() {
        use AttemptState::{Charged, Refused, Rejected, Voided};
        let not_charged = [Rejected, Refused, Voided].map(|attempt| (attempt, false, InvoiceState::Pending));
        for (attempt, word, ends) in not_charged.into_iter().chain([(Charged, true, InvoiceState::Paid)]) {
            let alone =
                AttemptContext { attempt, invoice: InvoiceState::Attention, others: Others::default() };
            assert_eq!(
                resolve(alone, word, false).map(|(next, invoice)| (next, invoice.state)),
                Ok((None, ends))
            );
            assert_eq!(resolve(alone, !word, false), Err(Resolved::Final(attempt)));
            let beside_an_open_one =
                AttemptContext { others: Others { open: true, charged: false }, ..alone };
            assert_eq!(resolve(beside_an_open_one, word, false), Err(Resolved::Final(attempt)));
            for invoice in [InvoiceState::Pending, InvoiceState::Charging, InvoiceState::Paid] {
                assert_eq!(
                    resolve(AttemptContext { invoice, ..alone }, word, false),
                    Err(Resolved::Final(attempt))
                );
            }
        }
    }

    #[test]
    fn a_final_attempt_changes_only_into_charged() {
        for context in contexts().into_iter().filter(|context| !context.attempt.is_open()) {
            for outcome in OUTCOMES {
                let effect = settle(context, outcome);
                assert!(matches!(effect.attempt, None | Some(AttemptState::Charged)));
                assert!(effect.attempt.is_none() || outcome == Outcome::Charged);
                assert!(!effect.takes_back_send);
            }
        }
    }

    #[test]
    fn an_invoice_in_attention_stays_there_while_its_attempt_stays_open() {
        for context in contexts() {
            for outcome in [Outcome::InDoubt(None), Outcome::NotSent] {
                assert_eq!(settle(context, outcome).invoice, None, "{context:?} {outcome:?}");
            }
        }
    }

    #[test]
    fn usual_outcomes_follow_the_protocol() {
        let usual = AttemptContext {
            attempt: AttemptState::Intent,
            invoice: InvoiceState::Charging,
            others: Others::default(),
        };
        for outcome in OUTCOMES {
            let effect = settle(usual, outcome);
            assert_eq!(effect.attempt, outcome.attempt());
            assert_eq!(effect.invoice.map_or(usual.invoice, |invoice| invoice.state), outcome.invoice());
            assert_eq!(effect.invoice.and_then(|invoice| invoice.attention), outcome.attention());
            assert_eq!(effect.settled, Settled::Applied);
        }
    }

    #[test]
    fn a_late_charge_of_an_invoice_paid_elsewhere_needs_an_operator() {
        let context = AttemptContext {
            attempt: AttemptState::Refused,
            invoice: InvoiceState::Paid,
            others: Others::default(),
        };
        let effect = settle(context, Outcome::Charged);
        assert_eq!(effect.attempt, Some(AttemptState::Charged));
        assert_eq!(effect.invoice.and_then(|invoice| invoice.attention), Some(AttentionReason::ChargedLate));
    }
}
