//! A protocol of the model: the production functions, with replacements at named places in a broken variant. A variant
//! exists only here; production code has no switch for it.

use billing::protocol::transition::Idempotency;

use crate::faults::Faults;

/// The rule for a request's key.
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
    /// One account per credential; a key is still executed once, and a request of another account gets 403.
    KeysOfTwoAccounts,
    /// A key is executed once for each credential.
    KeysByCredential,
    /// Every delivery is executed.
    Nothing,
}

/// How the attempt of an answer is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettlesBy {
    /// By the key that was sent.
    Key,
    /// By the invoice: the answer settles the attempt that is open now.
    Invoice,
}

/// The handling of an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDoubt {
    /// The production transition.
    Stays,
    /// The outcome is treated as a failure, and the next attempt gets a new key.
    NewKey,
    /// The key is looked up at the provider; an unknown key is treated as not charged.
    LookUp,
}

/// How leases end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leases {
    /// By time, as with several replicas on one store.
    EndByTime,
    /// By recovery at a start only, as with one process on its own store.
    EndByRecovery,
    /// Never: recovery at a start is skipped.
    NeverEnd,
}

/// When billing sends the expected ledger to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    /// After a definite answer has named it, as in production.
    Remembered,
    /// Never; billing also ignores the ledger in an answer.
    Nothing,
}

/// All choices of a protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) idempotency: Idempotency,
    pub(crate) keys: KeyRule,
    pub(crate) keeps: Keeps,
    pub(crate) settles_by: SettlesBy,
    pub(crate) on_doubt: OnDoubt,
    pub(crate) leases: Leases,
    pub(crate) expects: Expects,
    /// A 503 without the not-executed mark is treated as not sent.
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
    /// The provider accepts requests of every deployment.
    pub(crate) ignores_deployments: bool,
    /// The provider accepts requests of callers that have seen rows which its ledger lacks.
    pub(crate) ignores_watermark: bool,
    /// The ledger may be set back although a store or a request has not seen a row that the ledger loses.
    pub(crate) set_back_early: bool,
    /// The store may be set back behind an edit, and an amount may be edited after a set-back, without a repair from
    /// the provider's ledger.
    pub(crate) edits_unrepaired: bool,
}

/// The production protocol with a provider that keeps keys.
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

/// The production protocol with a provider that keeps no keys.
pub(crate) const NO_KEYS: Protocol =
    Protocol { idempotency: Idempotency::None, keeps: Keeps::Nothing, expects: Expects::Nothing, ..KEYS };

/// The bounds of the search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Number of replicas that charge at the same time.
    pub(crate) replicas: usize,
    /// Number of invoices to be charged.
    pub(crate) invoices: usize,
    /// Maximum number of faults and operator actions on one path, all kinds together.
    pub(crate) faults_max: u8,
    pub(crate) faults: Faults,
}

/// An error that the search can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The provider charged an invoice twice.
    ChargedTwice,
    /// An invoice is PAID without a charge.
    Unbacked,
    /// An invoice is PAID, and its charge has another amount than the attempt.
    OtherAmount,
    /// An attempt is recorded as not charged although its key is charged.
    RecordedAsNotCharged,
    /// A state that the store's indexes and the states of the protocol exclude.
    BadState,
    /// An answer contradicted the record.
    Conflict,
    /// Faults have stopped, and an attempt stays in doubt.
    Stuck,
    /// Faults have stopped, and a charged invoice is neither PAID nor in ATTENTION.
    Lost,
    /// Faults have stopped, and an invoice needs manual resolution without a reason.
    AskedNeedlessly,
}

impl Wrong {
    /// The error's name in the table.
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
