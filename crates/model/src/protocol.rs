//! A protocol as the model runs it: the production functions, and at named places what a broken variant does instead.
//! A variant lives here only; production code has no switch for it.

use billing::protocol::transition::Idempotency;

use crate::faults::Faults;

/// Which key a request goes under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRule {
    /// The production key: deployment, reference and attempt number.
    Derived,
    /// Random, drawn at the claim and journaled with it.
    Journaled,
    /// Random, drawn for each send.
    PerTry,
}

/// Whether the provider supports idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// A key is executed once, for any caller.
    Keys,
    /// As many accounts as credentials; a key is still executed once, and another account's answers 403.
    KeysOfTwoAccounts,
    /// A key is executed once for each credential.
    KeysByCredential,
    /// Every delivery is executed.
    Nothing,
}

/// What an answer is recorded under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettlesBy {
    /// The key that was sent.
    Key,
    /// The invoice: whichever attempt of it is open now.
    Invoice,
}

/// What follows an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDoubt {
    /// The production transition.
    Stays,
    /// It is taken for a failure, and the next attempt gets a new key.
    NewKey,
    /// The key is looked up at the provider; unknown there is taken for not charged.
    LookUp,
}

/// How leases come to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leases {
    /// By time, as with several replicas on one store.
    EndByTime,
    /// By recovery at start alone, as with one process on its own store.
    EndByRecovery,
    /// Not at all: recovery at start is skipped.
    NeverEnd,
}

/// When billing sends the expected ledger to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    /// Once a definite answer has named it, as in production.
    Remembered,
    /// Never, nor does it look at what an answer names.
    Nothing,
}

/// The protocol in one value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) idempotency: Idempotency,
    pub(crate) keys: KeyRule,
    pub(crate) keeps: Keeps,
    pub(crate) settles_by: SettlesBy,
    pub(crate) on_doubt: OnDoubt,
    pub(crate) leases: Leases,
    pub(crate) expects: Expects,
    /// A 503 without the not-executed mark is taken for not sent.
    pub(crate) trusts_503: bool,
    /// "Not sent" is recorded again when its commit was not acknowledged.
    pub(crate) unsends_again: bool,
    /// A resend reads the invoice instead of the attempt.
    pub(crate) resends_invoice: bool,
    /// An operator's "not charged" is accepted without a void, while a request may be alive.
    pub(crate) believes_at_once: bool,
    /// Without keys, an operator's "not charged" is accepted for an attempt that can still be claimed.
    pub(crate) believes_unparked: bool,
    /// The ledger may be replaced although a request that names no ledger can still arrive or be made.
    pub(crate) replaced_early: bool,
    /// The provider takes requests of every deployment.
    pub(crate) ignores_deployments: bool,
    /// The provider takes requests of those who have seen rows that its ledger lacks.
    pub(crate) ignores_watermark: bool,
    /// The ledger may be set back although a store or a request has not seen a row that it loses.
    pub(crate) set_back_early: bool,
    /// The store may go back behind an edit, and an amount may be edited once it has gone back, though no repair has
    /// read the provider's ledger back.
    pub(crate) edits_unrepaired: bool,
}

/// As in production, towards a provider that keeps keys.
pub(crate) const KEYS: Protocol = Protocol {
    idempotency: Idempotency::Keys,
    keys: KeyRule::Derived,
    keeps: Keeps::Keys,
    settles_by: SettlesBy::Key,
    on_doubt: OnDoubt::Stays,
    leases: Leases::EndByTime,
    expects: Expects::Remembered,
    trusts_503: false,
    unsends_again: false,
    resends_invoice: false,
    believes_at_once: false,
    believes_unparked: false,
    replaced_early: false,
    ignores_deployments: false,
    ignores_watermark: false,
    set_back_early: false,
    edits_unrepaired: false,
};

/// As in production, towards a provider that keeps none.
pub(crate) const NO_KEYS: Protocol =
    Protocol { idempotency: Idempotency::None, keeps: Keeps::Nothing, expects: Expects::Nothing, ..KEYS };

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Replicas that charge at once.
    pub(crate) replicas: usize,
    /// Invoices to be charged.
    pub(crate) invoices: usize,
    /// Faults and acts of persons on one path, all kinds together.
    pub(crate) faults_max: u8,
    pub(crate) faults: Faults,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The provider charged an invoice twice.
    ChargedTwice,
    /// PAID, and no charge backs it.
    Unbacked,
    /// PAID, and the charge has another amount than the attempt.
    OtherAmount,
    /// An attempt is recorded as not charged, and its key is charged.
    RecordedAsNotCharged,
    /// What the store's indexes and the states of the protocol rule out.
    BadState,
    /// An answer contradicted what was recorded.
    Conflict,
    /// Faults have stopped, and an attempt stays in doubt.
    Stuck,
    /// Faults have stopped, and a charged invoice is neither PAID nor in ATTENTION.
    Lost,
    /// Faults have stopped, and an operator is asked needlessly.
    AskedNeedlessly,
}

impl Wrong {
    /// Its name in the table.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::ChargedTwice => "charged twice",
            Self::Unbacked => "PAID without a charge",
            Self::OtherAmount => "PAID with another amount",
            Self::RecordedAsNotCharged => "charged, recorded as not",
            Self::BadState => "impossible state",
            Self::Conflict => "contradiction",
            Self::Stuck => "an attempt stays in doubt for ever",
            Self::Lost => "lost",
            Self::AskedNeedlessly => "an operator was asked needlessly",
        }
    }
}
