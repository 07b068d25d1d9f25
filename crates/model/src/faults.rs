//! Faults and operator actions by name, and sets of them.
//! Knows no state and no protocol.

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $words:literal,)*) => {
        /// One kind of fault or operator action.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            /// Every kind.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in the table.
            pub(crate) fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

faults! {
    /// A replica is killed at any moment and starts again.
    Crash = "crash",
    /// A lease ends while its holder is still at work: slow, paused, or its clock jumped.
    LeaseEnds = "lease ends under its holder",
    /// A claimed attempt is given back unsent: drain, open breaker, or too little lease left.
    GivenBack = "claim given back unsent",
    /// The request never arrives.
    RequestLost = "request lost",
    /// A second copy of the request is under way.
    RequestDuplicated = "request duplicated",
    /// The sender times out while its request is still under way: it may arrive after any later one.
    RequestDelayed = "request delayed past the timeout",
    /// A late copy is dropped.
    CopyLost = "late copy lost",
    /// Executed, and the answer never arrives.
    AnswerLost = "answer lost",
    /// Executed, and something else than the answer arrives.
    ResponseCorrupted = "response corrupted or from another sender",
    /// Not executed; a proxy, a load shedder or a closed port answers.
    NotTaken = "request not taken",
    /// The provider is at work on another copy of the key.
    KeyInFlight = "key in flight",
    /// The newest commit, already acknowledged, is gone.
    CommitLost = "last commit lost",
    /// Committed, and the response to the commit is lost.
    CommitUnheard = "commit not acknowledged",
    /// Billing's store is set back to an earlier copy.
    Restore = "restore from backup",
    /// An operator resolves an attempt as not charged.
    DeclaredNotCharged = "operator: not charged",
    /// An operator resolves an attempt as charged.
    DeclaredCharged = "operator: charged",
    /// An import changes an invoice's amount by the rules of imports.
    Edited = "amount edited",
    /// The amount is changed by hand in the database, past every rule.
    EditedByHand = "amount edited by hand",
    /// Another credential is used.
    Credential = "credential changed",
    /// The provider's ledger is replaced by an empty one, with another id.
    LedgerReplaced = "ledger replaced",
    /// The provider forgets a key; its ledger keeps its id.
    KeyForgotten = "key forgotten",
    /// The provider's ledger is set back to its beginning and keeps its id.
    LedgerSetBack = "ledger set back",
    /// Billing starts on an empty store, with the same invoices and a deployment id of its own.
    IdLost = "deployment id lost",
}

/// Some kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faults(u32);

impl Faults {
    /// No fault.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn of(kinds: &[Fault]) -> Self {
        Self::NONE.with(kinds)
    }

    /// These as well.
    pub(crate) const fn with(self, kinds: &[Fault]) -> Self {
        let mut set = self.0;
        let mut at = 0;
        while at < kinds.len() {
            set |= 1 << kinds[at] as u32;
            at += 1;
        }
        Self(set)
    }

    /// All but these.
    pub(crate) const fn without(self, kinds: &[Fault]) -> Self {
        Self(self.0 & !Self::of(kinds).0)
    }

    /// Whether this one may happen.
    pub(crate) const fn has(self, kind: Fault) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}
