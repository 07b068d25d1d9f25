//! Faults and operator actions by name, and sets of them.
//! Knows no state and no protocol.

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $words:literal,)*) => {
        /// One kind of fault or operator action.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The fault's name in the table.
            pub(crate) fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

faults! {
    /// A replica is killed at any moment and starts again.
    Crash = "crash",
    /// A lease ends while its holder still works: slow, paused, or after a jump of its clock.
    LeaseEnds = "lease ends under its holder",
    /// A claimed attempt is given back unsent: during a drain, with an open breaker, or when too little of the lease is
    /// left.
    GivenBack = "claim given back unsent",
    /// The request never arrives.
    RequestLost = "request lost",
    /// A second copy of the request is in flight.
    RequestDuplicated = "request duplicated",
    /// The sender times out while its request is still in flight: it may arrive after any later request.
    RequestDelayed = "request delayed past the timeout",
    /// A late copy is dropped.
    CopyLost = "late copy lost",
    /// The request is executed, and the answer never arrives.
    AnswerLost = "answer lost",
    /// The request is executed, and something other than the answer arrives.
    ResponseCorrupted = "response corrupted or from another sender",
    /// The request is not executed; a proxy, a load shedder or a closed port answers.
    NotTaken = "request not taken",
    /// The provider still processes another copy with the same key.
    KeyInFlight = "key in flight",
    /// The newest commit is lost although it was acknowledged.
    CommitLost = "last commit lost",
    /// The commit succeeds, and its acknowledgement is lost.
    CommitUnheard = "commit not acknowledged",
    /// Billing's store is set back to an earlier copy.
    Restore = "restore from backup",
    /// An operator resolves an attempt as not charged.
    DeclaredNotCharged = "operator: not charged",
    /// An operator resolves an attempt as charged.
    DeclaredCharged = "operator: charged",
    /// An import changes an invoice's amount by the rules of imports.
    Edited = "amount edited",
    /// The amount is changed in the database, past every rule.
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

/// A set of fault kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Faults(u32);

impl Faults {
    /// No fault.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn of(kinds: &[Fault]) -> Self {
        Self::NONE.with(kinds)
    }

    /// This set with more kinds.
    pub(crate) const fn with(self, kinds: &[Fault]) -> Self {
        let mut set = self.0;
        let mut at = 0;
        while at < kinds.len() {
            set |= 1 << kinds[at] as u32;
            at += 1;
        }
        Self(set)
    }

    /// This set without these kinds.
    pub(crate) const fn without(self, kinds: &[Fault]) -> Self {
        Self(self.0 & !Self::of(kinds).0)
    }

    /// Whether the set contains this kind.
    pub(crate) const fn has(self, kind: Fault) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}
