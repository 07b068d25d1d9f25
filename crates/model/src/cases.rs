//! The cases: the production protocol within several bounds, which must hold, and every broken variant of it. Each
//! variant must be found with the error that it is known for. Knows no step.

use crate::faults::{Fault, Faults};
use crate::protocol::{
    Bounds, Expects, KEYS, Keeps, KeyRule, Leases, NO_KEYS, OnDoubt, Protocol, SettlesBy, Wrong,
};

/// A search, and its expected result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The case's row in the table.
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) bounds: Bounds,
    /// The expected error; `None` if the protocol holds.
    pub(crate) breaks: Option<Wrong>,
}

/// The size of the searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// A size that takes seconds without optimisation.
    Small,
    /// The size of the proof.
    Full,
}

/// Faults that the protocol with keys survives: all but a provider that breaks its own promise.
const SURVIVED: Faults = Faults::of(&[
    Fault::Crash,
    Fault::LeaseEnds,
    Fault::GivenBack,
    Fault::RequestLost,
    Fault::RequestDuplicated,
    Fault::RequestDelayed,
    Fault::CopyLost,
    Fault::AnswerLost,
    Fault::ResponseCorrupted,
    Fault::NotTaken,
    Fault::KeyInFlight,
    Fault::CommitLost,
    Fault::CommitUnheard,
    Fault::Restore,
    Fault::DeclaredNotCharged,
    Fault::DeclaredCharged,
    Fault::Edited,
    Fault::EditedByHand,
    Fault::Credential,
    Fault::LedgerReplaced,
]);

/// Faults that a protocol without keys survives: no journal that forgets, no duplicated request, and no fault that
/// concerns keys or the ledger.
const KEYLESS: Faults = SURVIVED.without(&[
    Fault::RequestDuplicated,
    Fault::KeyInFlight,
    Fault::CommitLost,
    Fault::Restore,
    Fault::Credential,
    Fault::LedgerReplaced,
]);

/// A store that loses its id, while earlier requests may still arrive.
const LOST_ID: Faults = Faults::of(&[
    Fault::IdLost,
    Fault::Crash,
    Fault::RequestDelayed,
    Fault::RequestDuplicated,
    Fault::AnswerLost,
    Fault::CommitLost,
    Fault::Restore,
]);

/// A ledger that loses rows which billing has seen.
const SET_BACK: Faults = Faults::of(&[
    Fault::LedgerSetBack,
    Fault::Crash,
    Fault::LeaseEnds,
    Fault::GivenBack,
    Fault::RequestLost,
    Fault::RequestDelayed,
    Fault::AnswerLost,
    Fault::CommitLost,
    Fault::Restore,
    Fault::DeclaredNotCharged,
]);

/// One process with its own store needs no lease that ends.
const ONE_PROCESS: Faults = SURVIVED.without(&[Fault::LeaseEnds]);

const fn within(replicas: usize, invoices: usize, faults_max: u8, faults: Faults) -> Bounds {
    Bounds { replicas, invoices, faults_max, faults }
}

const fn holds(name: &'static str, protocol: Protocol, bounds: Bounds) -> Case {
    Case { name, protocol, bounds, breaks: None }
}

/// Number of faults within which every broken variant is found, with two replicas and one invoice.
const ENOUGH: u8 = 3;

const fn breaks(name: &'static str, protocol: Protocol, faults: Faults, wrong: Wrong) -> Case {
    Case { name, protocol, bounds: within(2, 1, ENOUGH, faults), breaks: Some(wrong) }
}

/// The production protocol within all bounds of this size.
pub(crate) fn sound(size: Size) -> Vec<Case> {
    let (few, some, more, many) = match size {
        Size::Small => (0, 1, 1, 2),
        Size::Full => (1, 2, 3, 6),
    };
    let one_process = Protocol { leases: Leases::EndByRecovery, ..KEYS };
    let two_accounts = Protocol { keeps: Keeps::KeysOfTwoAccounts, ..KEYS };
    vec![
        holds("keys, 2 replicas, 1 invoice", KEYS, within(2, 1, more, SURVIVED)),
        holds("keys, 3 replicas, 1 invoice", KEYS, within(3, 1, some, SURVIVED)),
        holds("keys, 2 replicas, 2 invoices", KEYS, within(2, 2, few, SURVIVED)),
        holds("keys, one process and its recovery", one_process, within(1, 1, more, ONE_PROCESS)),
        holds("keys, credentials of two accounts", two_accounts, within(2, 1, some, SURVIVED)),
        holds("keys, deployment id lost", KEYS, within(2, 1, more, LOST_ID)),
        holds("keys, ledger set back behind what was seen", KEYS, within(2, 2, 1, SET_BACK)),
        holds("no keys, 2 replicas, 1 invoice", NO_KEYS, within(2, 1, many, KEYLESS)),
        holds("no keys, 3 replicas, 1 invoice", NO_KEYS, within(3, 1, more, KEYLESS)),
        holds("no keys, 2 replicas, 2 invoices", NO_KEYS, within(2, 2, some, KEYLESS)),
    ]
}

/// Every broken variant, and every limit of the sound protocols.
pub(crate) fn broken() -> Vec<Case> {
    [&keys()[..], &records(), &places(), &keyless(), &limits()].concat()
}

/// Faults for a broken variant: those of a sound provider and other accidents, without the two that multiply states
/// most.
const USUAL: Faults = SURVIVED.without(&[Fault::Restore, Fault::LedgerReplaced]);

/// Variants with broken keys.
#[rustfmt::skip]
fn keys() -> [Case; 8] {
    use Wrong::ChargedTwice;
    let delayed = Faults::of(&[Fault::RequestDelayed]);
    let lost = Faults::of(&[Fault::CommitLost, Fault::Crash]);
    let forgets = USUAL.with(&[Fault::KeyForgotten]);
    let replaced = USUAL.with(&[Fault::LedgerReplaced]);
    let unexpected = Protocol { expects: Expects::Nothing, replaced_early: true, ..KEYS };
    let scoped = Protocol { keeps: Keeps::KeysByCredential, ..KEYS };
    [
        breaks("no keys at the provider, retry", Protocol { keeps: Keeps::Nothing, ..KEYS }, delayed, ChargedTwice),
        breaks("fresh key for each try", Protocol { keys: KeyRule::PerTry, ..KEYS }, delayed, ChargedTwice),
        breaks("random key, last commit lost", Protocol { keys: KeyRule::Journaled, ..KEYS }, lost, ChargedTwice),
        breaks("new key after a timeout", Protocol { on_doubt: OnDoubt::NewKey, ..KEYS }, USUAL, ChargedTwice),
        breaks("looked up, 404, new key", Protocol { on_doubt: OnDoubt::LookUp, ..KEYS }, USUAL, ChargedTwice),
        breaks("the provider forgets keys", KEYS, forgets, ChargedTwice),
        breaks("ledger replaced, none expected", unexpected, replaced, ChargedTwice),
        breaks("key scoped by credential", scoped, USUAL, ChargedTwice),
    ]
}

/// Variants with broken records, resends or conclusions.
#[rustfmt::skip]
fn records() -> [Case; 4] {
    use Wrong::{ChargedTwice, OtherAmount, RecordedAsNotCharged, Stuck};
    let by_invoice = Protocol { settles_by: SettlesBy::Invoice, ..KEYS };
    let present = Protocol { resends_invoice: true, ..KEYS };
    let unrecovered = Protocol { leases: Leases::NeverEnd, ..KEYS };
    let unvoided = Protocol { believes_at_once: true, ..KEYS };
    [
        breaks("settled by invoice, not by key", by_invoice, USUAL, RecordedAsNotCharged),
        breaks("resend reads the invoice's amount", present, USUAL, OtherAmount),
        breaks("recovery at start skipped", unrecovered, Faults::of(&[Fault::Crash]), Stuck),
        breaks("\"not charged\" without a void", unvoided, USUAL, ChargedTwice),
    ]
}

/// Variants that use another store, or a ledger that lost rows.
#[rustfmt::skip]
fn places() -> [Case; 2] {
    use Wrong::ChargedTwice;
    let unknown = Protocol { ignores_deployments: true, ..KEYS };
    let behind = Protocol { ignores_watermark: true, ..KEYS };
    let two_invoices = within(1, 2, ENOUGH, SET_BACK);
    [
        breaks("deployment id lost, not checked", unknown, LOST_ID, ChargedTwice),
        Case { name: "ledger set back, watermark ignored", protocol: behind, bounds: two_invoices, breaks: Some(ChargedTwice) },
    ]
}

/// Variants that are broken only without keys.
#[rustfmt::skip]
fn keyless() -> [Case; 3] {
    use Wrong::{ChargedTwice, RecordedAsNotCharged};
    let trusts_503 = Protocol { trusts_503: true, ..NO_KEYS };
    let unsends = Protocol { unsends_again: true, ..NO_KEYS };
    let believes = Protocol { believes_unparked: true, ..NO_KEYS };
    [
        breaks("no keys, 503 taken for not sent", trusts_503, KEYLESS, ChargedTwice),
        breaks("no keys, \"not sent\" recorded twice", unsends, KEYLESS, ChargedTwice),
        breaks("no keys, \"not charged\" while claimable", believes, KEYLESS, RecordedAsNotCharged),
    ]
}

/// Limits of the sound protocols: faults that none of them survives, and forbidden operator actions.
#[rustfmt::skip]
fn limits() -> [Case; 5] {
    use Wrong::ChargedTwice;
    let lost = KEYLESS.with(&[Fault::CommitLost]);
    let repeated = KEYLESS.with(&[Fault::RequestDuplicated]);
    let replaced = USUAL.with(&[Fault::LedgerReplaced]);
    let edited = Faults::of(&[Fault::Restore, Fault::Edited]);
    let replaced_early = Protocol { replaced_early: true, ..KEYS };
    let set_back_early = Protocol { set_back_early: true, ..KEYS };
    let unrepaired = Protocol { edits_unrepaired: true, ..KEYS };
    [
        breaks("limit: no keys, last commit lost", NO_KEYS, lost, ChargedTwice),
        breaks("limit: no keys, request repeated", NO_KEYS, repeated, ChargedTwice),
        breaks("limit: ledger replaced before it is known", replaced_early, replaced, ChargedTwice),
        breaks("limit: ledger set back before its rows are seen", set_back_early, SET_BACK, ChargedTwice),
        breaks("limit: restored and edited, not repaired", unrepaired, edited, ChargedTwice),
    ]
}
