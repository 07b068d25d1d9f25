//! What a settlement or a person's word does to the facts that a store holds: attempt, invoice, run counters.
//! Pure, and shared by every database, so that none of them decides anything itself. Knows no SQL.

use crate::invoice::{AttemptState, AttentionReason, InvoiceState, PaidBy};
use crate::protocol::transition::{Conflict, Outcome, on_final};
use crate::store::{Resolved, Settled};

/// `lease_until` of an attempt that waits for a person, so that looking for due ones never passes it:
/// 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write.
pub const LEASE_NEVER: i64 = 253_402_300_799_999;

/// The facts at hand when word of an attempt arrives.
#[derive(Clone, Copy, Debug)]
pub struct AttemptContext {
    /// The attempt's state.
    pub attempt: AttemptState,
    /// Its invoice's state.
    pub invoice: InvoiceState,
    /// What is known of other attempts of the invoice; none matters while the invoice is CHARGING.
    pub others: Others,
}

/// Other attempts of the same invoice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Others {
    /// One is open.
    pub open: bool,
    /// One is CHARGED.
    pub charged: bool,
}

impl AttemptContext {
    /// Whether [`Others`] can matter: an attempt that is open while its invoice is CHARGING is the only one that is
    /// open or charged.
    #[must_use]
    pub fn needs_others(attempt: AttemptState, invoice: InvoiceState) -> bool {
        !(attempt.is_open() && invoice == InvoiceState::Charging)
    }
}

/// Where an invoice is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvoicePlan {
    pub state: InvoiceState,
    /// Set exactly when PAID.
    pub paid_by: Option<PaidBy>,
    /// Set exactly when ATTENTION.
    pub attention: Option<AttentionReason>,
}

impl InvoicePlan {
    const fn paid(by: PaidBy) -> Self {
        Self { state: InvoiceState::Paid, paid_by: Some(by), attention: None }
    }

    const fn attention(reason: AttentionReason) -> Self {
        Self { state: InvoiceState::Attention, paid_by: None, attention: Some(reason) }
    }

    const fn plain(state: InvoiceState) -> Self {
        Self { state, paid_by: None, attention: None }
    }
}

/// What to write and what to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The attempt's next state; `None` leaves it.
    pub attempt: Option<AttemptState>,
    /// Whether one send is taken back.
    pub unsend: bool,
    /// Where the invoice is to stand; `None` leaves it.
    pub invoice: Option<InvoicePlan>,
    /// What the caller is told.
    pub settled: Settled,
}

impl Plan {
    fn nothing(settled: Settled) -> Self {
        Self { attempt: None, unsend: false, invoice: None, settled }
    }

    /// Whether an attempt that stays open waits for a person now.
    #[must_use]
    pub fn parks(&self, standing: AttemptContext) -> bool {
        let invoice = self.invoice.map_or(standing.invoice, |plan| plan.state);
        invoice == InvoiceState::Attention
    }
}

/// What settlements add to the counters of the run that settles them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// CHARGED, once each.
    pub paid: i64,
    /// REFUSED or VOIDED.
    pub refused: i64,
    pub rejected: i64,
    /// Given back unsent.
    pub not_sent: i64,
}

impl Counted {
    /// Counts what a word came to.
    pub fn add(&mut self, plan: &Plan, outcome: Outcome) {
        if !matches!(plan.settled, Settled::Applied | Settled::Conflict(Conflict::ChargedLate)) {
            return;
        }
        match plan.attempt {
            Some(AttemptState::Charged) => self.paid += 1,
            Some(AttemptState::Refused | AttemptState::Voided) => self.refused += 1,
            Some(AttemptState::Rejected) => self.rejected += 1,
            None if outcome == Outcome::NotSent => self.not_sent += 1,
            _ => {}
        }
    }
}

/// What an attempt in this state adds to the `in_doubt` of the run that made it, whoever settles it.
#[must_use]
pub fn doubt(attempt: AttemptState) -> i64 {
    i64::from(attempt == AttemptState::InDoubt)
}

/// What recording an outcome comes to.
#[must_use]
pub fn settle(standing: AttemptContext, outcome: Outcome) -> Plan {
    if standing.attempt.is_open() { settle_open(standing, outcome) } else { settle_final(standing, outcome) }
}

/// What the ledger's row on a known attempt comes to in a repair: what [`settle`] says, except that a charge of other
/// data never makes the invoice PAID. `has_same_terms` tells whether the row has the customer and the amount of the
/// attempt and of the invoice. Without this check an invoice of 99.00 is PAID by a charge of 10.00.
#[must_use]
pub fn repair(standing: AttemptContext, outcome: Outcome, has_same_terms: bool) -> Plan {
    let plan = settle(standing, outcome);
    let is_paid = plan.invoice.is_some_and(|invoice| invoice.state == InvoiceState::Paid);
    if has_same_terms || outcome != Outcome::Charged || !is_paid {
        return plan;
    }
    let attention = InvoicePlan::attention(AttentionReason::KeyReused);
    if standing.attempt.is_open() {
        // The attempt as it was sent is not what was charged: it stays open for an operator.
        return Plan {
            invoice: (standing.invoice != InvoiceState::Attention).then_some(attention),
            ..Plan::nothing(Settled::Conflict(Conflict::Contradiction))
        };
    }
    Plan { invoice: Some(attention), ..plan }
}

fn settle_open(standing: AttemptContext, outcome: Outcome) -> Plan {
    if outcome == Outcome::Charged && standing.others.charged {
        return second_charge(Some(AttemptState::InDoubt));
    }
    let invoice = match outcome {
        Outcome::Charged => Some(InvoicePlan::paid(PaidBy::Charge)),
        // Still open: what waits for a person goes on waiting, for the reason that came first.
        Outcome::NotSent => None,
        Outcome::InDoubt(_) if standing.invoice == InvoiceState::Attention => None,
        Outcome::InDoubt(None) => None,
        Outcome::InDoubt(Some(reason)) => Some(InvoicePlan::attention(reason)),
        // This one took nothing; an earlier one did after all, late. So the invoice is paid, once.
        Outcome::Refused | Outcome::Rejected | Outcome::Voided if standing.others.charged => {
            Some(InvoicePlan::paid(PaidBy::Charge))
        }
        Outcome::Refused | Outcome::Voided => Some(InvoicePlan::plain(InvoiceState::Pending)),
        Outcome::Rejected => Some(InvoicePlan::attention(AttentionReason::Rejected)),
    };
    Plan {
        attempt: outcome.attempt(),
        unsend: outcome == Outcome::NotSent,
        invoice,
        settled: Settled::Applied,
    }
}

fn settle_final(standing: AttemptContext, outcome: Outcome) -> Plan {
    match on_final(standing.attempt, outcome) {
        None => Plan::nothing(Settled::Same),
        Some(Conflict::ChargedLate) if standing.others.charged => second_charge(None),
        Some(Conflict::ChargedLate) => {
            // PAID by import or by a person's word, and charged besides: somebody has to pay back.
            let paid_elsewhere = standing.invoice == InvoiceState::Paid;
            let invoice = if standing.others.open || paid_elsewhere {
                InvoicePlan::attention(AttentionReason::ChargedLate)
            } else {
                InvoicePlan::paid(PaidBy::Charge)
            };
            Plan {
                attempt: Some(AttemptState::Charged),
                unsend: false,
                invoice: Some(invoice),
                settled: Settled::Conflict(Conflict::ChargedLate),
            }
        }
        Some(Conflict::Contradiction) => Plan {
            invoice: (standing.invoice != InvoiceState::Attention)
                .then_some(InvoicePlan::attention(AttentionReason::Contradiction)),
            ..Plan::nothing(Settled::Conflict(Conflict::Contradiction))
        },
    }
}

/// Two attempts of one invoice are charged. The store's unique index keeps the first; this one is not recorded as
/// charged (an open one stays open, in doubt), and a person is called.
fn second_charge(attempt: Option<AttemptState>) -> Plan {
    Plan {
        attempt,
        unsend: false,
        invoice: Some(InvoicePlan::attention(AttentionReason::ChargedLate)),
        settled: Settled::Conflict(Conflict::ChargedLate),
    }
}

/// An attempt that only the ledger knew is written as final, once: its state, and where its invoice is to stand, if
/// elsewhere than now. `invoice` is the invoice's state, `others` are all attempts that the store has of it, `as_invoiced`
/// tells whether the ledger's row has the invoice's customer and amount. `None`: it is no ledger's word.
#[must_use]
pub fn adopt(
    invoice: InvoiceState,
    others: Others,
    as_invoiced: bool,
    outcome: Outcome,
) -> Option<(AttemptState, Option<InvoicePlan>)> {
    match outcome {
        Outcome::Refused => Some((AttemptState::Refused, None)),
        Outcome::Voided => Some((AttemptState::Voided, None)),
        Outcome::Charged => {
            // As if it had been closed as not charged and a late charge came to light; it is the first word on it.
            let standing = AttemptContext { attempt: AttemptState::Refused, invoice, others };
            let late = settle_final(standing, outcome);
            let plan = match late.invoice {
                Some(plan) if plan.state == InvoiceState::Paid && !as_invoiced => {
                    Some(InvoicePlan::attention(AttentionReason::KeyReused))
                }
                plan => plan,
            };
            Some((late.attempt.unwrap_or(AttemptState::Refused), plan))
        }
        Outcome::Rejected | Outcome::InDoubt(_) | Outcome::NotSent => None,
    }
}

/// What a person's word on an attempt comes to: the attempt's next state (`None` leaves it) and the invoice's, or why
/// not.
pub fn resolve(
    standing: AttemptContext,
    charged: bool,
) -> Result<(Option<AttemptState>, InvoicePlan), Resolved> {
    if !standing.attempt.is_open() {
        return resolve_final(standing, charged)
            .map(|invoice| (None, invoice))
            .ok_or(Resolved::Final(standing.attempt));
    }
    match (charged, standing.others.charged) {
        (true, true) => Err(Resolved::OtherCharged),
        (true, false) => Ok((Some(AttemptState::Charged), InvoicePlan::paid(PaidBy::Resolve))),
        (false, true) => Ok((Some(AttemptState::Voided), InvoicePlan::paid(PaidBy::Charge))),
        (false, false) => Ok((Some(AttemptState::Voided), InvoicePlan::plain(InvoiceState::Pending))),
    }
}

/// A person's word on a final attempt changes nothing of it, but ends the waiting of its invoice: what was rejected may
/// be tried again, what is charged is acknowledged. While another attempt is open, that one is to be decided first.
fn resolve_final(standing: AttemptContext, charged: bool) -> Option<InvoicePlan> {
    if standing.invoice != InvoiceState::Attention || standing.others.open {
        return None;
    }
    match (standing.attempt, charged) {
        (AttemptState::Rejected, false) if !standing.others.charged => {
            Some(InvoicePlan::plain(InvoiceState::Pending))
        }
        (AttemptState::Charged, true) => Some(InvoicePlan::paid(PaidBy::Resolve)),
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

    fn standings() -> Vec<AttemptContext> {
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
        for standing in standings().into_iter().filter(|standing| standing.others.charged) {
            for outcome in OUTCOMES {
                assert_ne!(settle(standing, outcome).attempt, Some(AttemptState::Charged), "{standing:?}");
            }
            assert!(!matches!(resolve(standing, true), Ok((Some(AttemptState::Charged), _))));
        }
    }

    #[test]
    fn a_repair_pays_an_invoice_only_by_a_charge_of_its_own_terms() {
        for standing in standings() {
            for outcome in OUTCOMES {
                let (same, other) = (repair(standing, outcome, true), repair(standing, outcome, false));
                assert_eq!(same, settle(standing, outcome), "{standing:?} {outcome:?}");
                let pays = |plan: &Plan| plan.invoice.is_some_and(|next| next.state == InvoiceState::Paid);
                if outcome == Outcome::Charged && pays(&same) {
                    assert!(!pays(&other) && matches!(other.settled, Settled::Conflict(_)), "{standing:?}");
                    let stays_open = other.attempt.unwrap_or(standing.attempt).is_open();
                    assert_eq!(stays_open, standing.attempt.is_open(), "{standing:?}");
                    assert!(other.parks(standing), "an operator decides: {standing:?}");
                } else {
                    assert_eq!(other, same, "{standing:?} {outcome:?}");
                }
            }
        }
    }

    #[test]
    fn an_invoice_goes_back_to_pending_only_when_nothing_of_it_is_open_or_charged() {
        for standing in standings() {
            for outcome in OUTCOMES {
                let plan = settle(standing, outcome);
                if plan.invoice.is_some_and(|invoice| invoice.state == InvoiceState::Pending) {
                    let attempt = plan.attempt.unwrap_or(standing.attempt);
                    assert!(
                        !attempt.is_open() && attempt != AttemptState::Charged && !standing.others.charged
                    );
                }
            }
        }
    }

    #[test]
    fn each_attention_reason_has_a_decision_that_ends_it() {
        use AttemptState::{Charged, Rejected};
        for (attempt, word, ends) in
            [(Rejected, false, InvoiceState::Pending), (Charged, true, InvoiceState::Paid)]
        {
            let alone =
                AttemptContext { attempt, invoice: InvoiceState::Attention, others: Others::default() };
            assert_eq!(resolve(alone, word).map(|(next, invoice)| (next, invoice.state)), Ok((None, ends)));
            assert_eq!(resolve(alone, !word), Err(Resolved::Final(attempt)));
            let beside_an_open_one =
                AttemptContext { others: Others { open: true, charged: false }, ..alone };
            assert_eq!(resolve(beside_an_open_one, word), Err(Resolved::Final(attempt)));
            for invoice in [InvoiceState::Pending, InvoiceState::Charging, InvoiceState::Paid] {
                assert_eq!(resolve(AttemptContext { invoice, ..alone }, word), Err(Resolved::Final(attempt)));
            }
        }
    }

    #[test]
    fn a_final_attempt_changes_only_into_charged() {
        for standing in standings().into_iter().filter(|standing| !standing.attempt.is_open()) {
            for outcome in OUTCOMES {
                let plan = settle(standing, outcome);
                assert!(matches!(plan.attempt, None | Some(AttemptState::Charged)));
                assert!(plan.attempt.is_none() || outcome == Outcome::Charged);
                assert!(!plan.unsend);
            }
        }
    }

    #[test]
    fn while_an_attempt_stays_open_what_needs_an_operator_goes_on_waiting() {
        for standing in standings() {
            for outcome in [Outcome::InDoubt(None), Outcome::NotSent] {
                assert_eq!(settle(standing, outcome).invoice, None, "{standing:?} {outcome:?}");
            }
        }
    }

    #[test]
    fn the_usual_outcomes_stand_as_the_protocol_names_them() {
        let usual = AttemptContext {
            attempt: AttemptState::Intent,
            invoice: InvoiceState::Charging,
            others: Others::default(),
        };
        for outcome in OUTCOMES {
            let plan = settle(usual, outcome);
            assert_eq!(plan.attempt, outcome.attempt());
            assert_eq!(plan.invoice.map_or(usual.invoice, |invoice| invoice.state), outcome.invoice());
            assert_eq!(plan.invoice.and_then(|invoice| invoice.attention), outcome.attention());
            assert_eq!(plan.settled, Settled::Applied);
        }
    }

    #[test]
    fn a_late_charge_of_an_invoice_paid_elsewhere_needs_an_operator() {
        let standing = AttemptContext {
            attempt: AttemptState::Refused,
            invoice: InvoiceState::Paid,
            others: Others::default(),
        };
        let plan = settle(standing, Outcome::Charged);
        assert_eq!(plan.attempt, Some(AttemptState::Charged));
        assert_eq!(plan.invoice.and_then(|invoice| invoice.attention), Some(AttentionReason::ChargedLate));
    }
}
