//! Displays a path as text, one line per step, for readers who do not know the model.
//! Decides nothing.

use billing::protocol::transition::Outcome;

use crate::machine::{Effect, Nature, Next, Step};
use crate::search::Found;
use crate::world::{Invoice, Job, Request, World};

/// The whole path, numbered, with the error at its end.
pub(crate) fn describe_path(found: &Found) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((first, _)) = found.path.first()
        && first.provider.invalid[0]
    {
        lines.push("the provider calls I1's first amount invalid".to_owned());
    }
    let loop_from = found.path.len() - found.loop_len;
    for (at, (before, next)) in found.path.iter().enumerate() {
        let again = if found.loop_len > 0 && at == loop_from { "  (from here on for ever)" } else { "" };
        lines.push(format!("{:>2}. {}{again}", at + 1, line(before, next)));
    }
    let last = found.path.last().map_or(World::NEW, |(_, next)| next.world);
    let stands = last.store.invoices.iter().enumerate().filter(|(at, invoice)| {
        last.provider.charges[*at] > 0 || **invoice != World::NEW.store.invoices[*at]
    });
    let stands: Vec<String> = stands.map(|(at, invoice)| invoice_line(&last, at, invoice)).collect();
    lines.push(format!("=> {}: {}", found.wrong.words(), stands.join("; ")));
    lines
}

fn invoice_line(world: &World, at: usize, invoice: &Invoice) -> String {
    let reason = invoice.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let attempts = invoice.known().map(|(at, attempt)| format!("#{} {}", at + 1, attempt.state));
    let attempts: Vec<String> = attempts.collect();
    let attempts = if attempts.is_empty() { String::new() } else { format!(" [{}]", attempts.join(", ")) };
    let charges = world.provider.charges[at];
    format!("I{} {}{reason}{attempts}, charges {charges}", at + 1, invoice.state)
}

fn line(before: &World, next: &Next) -> String {
    let fault = match next.nature {
        Nature::Fault(fault) => format!(" [{}]", fault.words()),
        Nature::Regular | Nature::Choice => String::new(),
    };
    format!("{}{fault}", sentence(before, next))
}

fn sentence(before: &World, next: &Next) -> String {
    let of = |at: usize| before.replicas[at].call.job().map(attempt).unwrap_or_default();
    match next.step {
        Step::Claim(at, job) => {
            format!("{} claims {} with key {}", replica_letter(at), attempt(job), key(job.key))
        }
        Step::ClaimAgain(at, job) => {
            format!(
                "{} claims {} again with key {}, send {}",
                replica_letter(at),
                attempt(job),
                key(job.key),
                job.sends
            )
        }
        Step::Send(at) => match next.world.replicas[at].call {
            crate::world::Call::Completed(..) => format!("{} may not send {}", replica_letter(at), of(at)),
            _ => format!("{} sends {}", replica_letter(at), of(at)),
        },
        Step::GiveBack(at) => format!("{} does not send {}", replica_letter(at), of(at)),
        Step::Hear(at, word) => {
            let charged = next.world.provider.charges != before.provider.charges;
            let charged = if charged { "the provider CHARGES; " } else { "" };
            format!("{charged}{} hears of {}: {} ({:?})", replica_letter(at), of(at), word.shown, word.class)
        }
        Step::SendCopy(at) => {
            format!("a copy of {}'s request for {} goes astray", replica_letter(at), of(at))
        }
        Step::TimeOut(at) => {
            format!("{} stops waiting for {}; its request lives on", replica_letter(at), of(at))
        }
        Step::Settle(at, outcome, effect) => {
            format!(
                "{} records {} of {}{}",
                replica_letter(at),
                outcome_words(outcome),
                of(at),
                effect_words(effect)
            )
        }
        Step::Crash(at) => format!("{} is killed and starts again", replica_letter(at)),
        Step::EndLease(invoice, at) => format!("the lease of I{} #{} ends", invoice + 1, at + 1),
        Step::Arrive(request) => arrives(before, next, &request),
        Step::DropCopy(request) => format!("the late copy with key {} is lost", key(request.key)),
        _ => environment(before, next),
    }
}

fn environment(before: &World, next: &Next) -> String {
    match next.step {
        Step::LoseCommit => {
            let stands = next.world.store.invoices.iter().zip(&before.store.invoices).enumerate();
            let lost: Vec<String> = stands
                .filter(|(_, (now, then))| now != then)
                .map(|(at, (now, then))| format!("I{} {} again, not {}", at + 1, now.state, then.state))
                .collect();
            format!("the store loses its last commit: {}", lost.join(", "))
        }
        Step::BackUp => "billing's store is backed up".to_owned(),
        Step::Restore => "billing's store is restored, every replica starts again".to_owned(),
        Step::Decide(invoice, at) => {
            format!("an operator checks that I{} #{} is not charged", invoice + 1, at + 1)
        }
        Step::SayNotCharged(invoice, at) => {
            let state = next.world.store.invoices[usize::from(invoice)].state;
            format!("the word \"not charged\" on I{} #{} is recorded: {state}", invoice + 1, at + 1)
        }
        Step::SayCharged(invoice, at) => {
            format!("an operator declares that I{} #{} is charged", invoice + 1, at + 1)
        }
        Step::Edit(invoice) => format!("the amount of I{} is changed", invoice + 1),
        Step::ChangeCredential => "billing shows another credential from now on".to_owned(),
        Step::MendCredential => "billing shows its first credential again".to_owned(),
        Step::ReplaceLedger => "the provider's ledger is replaced by an empty one".to_owned(),
        Step::SetLedgerBack => {
            "the provider's ledger is set back to its beginning and keeps its id".to_owned()
        }
        Step::LoseId => "billing comes up on an empty store with another deployment id".to_owned(),
        Step::ForgetKey(invoice, at) => {
            format!("the provider forgets key {} of I{}", key(crate::store::index(at)), invoice + 1)
        }
        _ => "something happens".to_owned(),
    }
}

fn arrives(before: &World, next: &Next, request: &Request) -> String {
    let charged = next.world.provider.charges != before.provider.charges;
    let then = if charged { ": the provider CHARGES" } else { "" };
    format!("the late copy for I{} with key {} arrives{then}", request.invoice + 1, key(request.key))
}

fn replica_letter(at: usize) -> char {
    char::from(b"ABC"[at])
}

fn attempt(job: Job) -> String {
    format!("I{} #{}", job.invoice + 1, job.attempt + 1)
}

fn key(number: u8) -> String {
    format!("k{}", number + 1)
}

fn outcome_words(outcome: Outcome) -> String {
    match outcome {
        Outcome::NotSent => "not sent".to_owned(),
        Outcome::InDoubt(Some(reason)) => format!("IN_DOUBT, ATTENTION ({reason})"),
        _ => outcome.attempt().map(|state| state.to_string()).unwrap_or_default(),
    }
}

fn effect_words(effect: Effect) -> &'static str {
    match effect {
        Effect::Recorded => "",
        Effect::Same => ": it stands there already",
        Effect::Conflict => ": it contradicts what stands there",
        Effect::Unknown => ": no attempt has that key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_invoice_is_pending() {
        assert_eq!(invoice_line(&World::NEW, 0, &World::NEW.store.invoices[0]), "I1 PENDING, charges 0");
    }
}
