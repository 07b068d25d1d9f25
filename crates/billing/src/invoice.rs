//! Customers, invoices, attempts and runs, and the names of their states.
//! Plain data: knows no store, no wire format and no clock.

use std::fmt;
use std::str::FromStr;

use crate::money::{Currency, Money};
use crate::run_order::RunOrder;

pub use crate::reference::{BadReference, Reference};

/// The number of a customer, at least 1: given by the source, or by billing where the source has a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerId(pub i64);

/// The number of an invoice in this store, shown by legacy routes. A restore may reuse it, so no key is derived from
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvoiceId(pub i64);

/// The number of a run in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub i64);

/// The error for a text that is no value of the enum in SQL and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known value")]
pub struct UnknownValue;

/// Defines an enum of states with its values in SQL and JSON.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value in SQL and JSON.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl FromStr for $name {
            type Err = UnknownValue;

            fn from_str(text: &str) -> Result<Self, UnknownValue> {
                match text { $($word => Ok(Self::$variant),)* _ => Err(UnknownValue) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

states! {
    /// State of an invoice. The legacy APIs show every state but PAID and CANCELLED as PENDING.
    InvoiceState {
        /// Nothing is under way; a run attempts it, unless a hold or a decline keeps it back.
        Pending = "PENDING",
        /// One attempt is open.
        Charging = "CHARGING",
        /// Charged, imported as paid, or resolved as charged.
        Paid = "PAID",
        /// Operator action required; see `attention_reason`.
        Attention = "ATTENTION",
        /// Cancelled by an operator; only a late charge ends this state (ATTENTION). The legacy APIs do not show such
        /// an invoice.
        Cancelled = "CANCELLED",
    }
}

states! {
    /// State of an attempt. INTENT and IN_DOUBT are open; the others are final.
    AttemptState {
        /// Journaled; the request may or may not have left.
        Intent = "INTENT",
        /// The provider charged this key.
        Charged = "CHARGED",
        /// The provider refused this key: definitively not charged.
        Refused = "REFUSED",
        /// The provider called the request invalid on its first send: not charged.
        Rejected = "REJECTED",
        /// A request left and no definite response arrived.
        InDoubt = "IN_DOUBT",
        /// The provider holds a tombstone for this key: not charged, and never will be.
        Voided = "VOIDED",
    }
}

impl AttemptState {
    /// Whether the outcome is unknown.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Intent | Self::InDoubt)
    }
}

states! {
    /// What a decline means for further attempts.
    DeclineClass {
        /// This instrument will never be charged.
        Hard = "hard",
        /// New data are needed first, such as an expiry date.
        Fix = "fix",
        /// A later attempt may succeed.
        Soft = "soft",
        /// The provider did not say.
        Unknown = "unknown",
    }
}

states! {
    /// The network whose rules apply to the customer's instrument.
    Network {
        /// Unknown: no limit of a network applies.
        None = "none",
        Visa = "visa",
        Mastercard = "mastercard",
        /// SEPA direct debit.
        Sepa = "sepa",
    }
}

states! {
    /// The state that declines have left on a PENDING invoice.
    Dunning {
        /// Tried again from `next_attempt_at` on.
        Waiting = "waiting",
        /// The ladder has ended: with this instrument only a legacy pay call tries the invoice again.
        Exhausted = "exhausted",
        /// A hard decline: not tried again with this instrument.
        Hard = "hard",
        /// New data are needed: not tried again with this instrument.
        Fix = "fix",
    }
}

/// The provider's own code for a decline; safe to log and to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclineCode(Box<str>);

impl DeclineCode {
    /// The longest code, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// `None` when the text is empty, too long, or has other characters than letters, digits, `_`, `-` and `.` of
    /// ASCII.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let fits = (1..=Self::BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
        fits.then(|| Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a provider declined a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decline {
    pub class: DeclineClass,
    pub code: Option<DeclineCode>,
}

impl Decline {
    /// Class and code as stored.
    #[must_use]
    pub fn columns(decline: Option<&Self>) -> (Option<&'static str>, Option<&str>) {
        let code = decline.and_then(|decline| decline.code.as_ref());
        (decline.map(|decline| decline.class.as_str()), code.map(DeclineCode::as_str))
    }
}

impl Default for Decline {
    fn default() -> Self {
        Self { class: DeclineClass::Unknown, code: None }
    }
}

states! {
    /// The cause of PAID.
    PaidBy {
        /// A charge of ours; a CHARGED ledger row must back it.
        Charge = "charge",
        /// The import as paid, also of the demo's invoices.
        Import = "import",
        /// An operator's decision that the invoice was charged.
        Resolve = "resolve",
    }
}

states! {
    /// State of a run.
    RunState {
        /// Unfinished; at most one per store.
        Running = "running",
        Finished = "finished",
    }
}

states! {
    /// Why an invoice needs manual resolution.
    AttentionReason {
        /// The attempt may have been charged, and the provider has no keys under which it could be sent again.
        InDoubtWithoutKeys = "in-doubt-without-keys",
        /// The provider called the request invalid.
        Rejected = "rejected",
        /// The provider knows the key with other data.
        KeyReused = "key-reused",
        /// The provider rejects this request as if endpoint or credentials were wrong, while it executes others.
        NotAccepted = "not-accepted",
        /// The provider's answer contradicts one that was recorded.
        Contradiction = "contradiction",
        /// An attempt that had been closed as not charged turned out to be charged.
        ChargedLate = "charged-late",
    }
}

/// A customer. An invoice's currency is its customer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub id: CustomerId,
    pub currency: Currency,
}

/// A row of `invoices`. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// The invoice's number in this store.
    pub id: InvoiceId,
    /// The invoice's name at the source.
    pub reference: Reference,
    /// The customer who pays.
    pub customer_id: CustomerId,
    pub money: Money,
    pub state: InvoiceState,
    /// `None` unless PAID.
    pub paid_by: Option<PaidBy>,
    /// Why operator action is required; `None` when it is not.
    pub attention_reason: Option<AttentionReason>,
    /// The due time, if the schedule made the invoice.
    pub due_at: Option<i64>,
    /// The time from which a scheduled run claims the invoice, or a run tries it again after a decline; `None` after a
    /// claim.
    pub next_attempt_at: Option<i64>,
    pub dunning: Option<Dunning>,
    pub created_at: i64,
    pub updated_at: i64,
    /// Held by an operator: no run claims the invoice until it is released.
    pub held: bool,
}

/// A row of `attempts` with its invoice's reference. A resend reads only this row, never the invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The idempotency key, which names the charge to the provider.
    pub key: crate::protocol::key::Key,
    pub invoice_id: InvoiceId,
    /// The invoice's reference.
    pub reference: Reference,
    /// 1, 2, 3 …; n+1 exists only when n is definitively not charged.
    pub number: u32,
    /// The customer at the time of the claim.
    pub customer_id: CustomerId,
    /// The amount at the time of the claim.
    pub money: Money,
    pub state: AttemptState,
    /// Number of requests that may have been sent under this key, including the current one.
    pub sends: u32,
    /// The run that made the attempt.
    pub run_id: RunId,
    /// The time until which the claiming process may send; then any process may claim it. Milliseconds since the Unix
    /// epoch.
    pub lease_until: i64,
    /// The time when the attempt was journaled.
    pub created_at: i64,
    /// The time when the attempt became final.
    pub settled_at: Option<i64>,
    /// Why the attempt was refused; `None` if it was not, or if it was refused before reasons were recorded.
    pub decline: Option<Decline>,
}

/// Counters of a run; columns of `runs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunCounters {
    /// Invoices that were not PAID when the run began.
    pub total: i64,
    /// Attempts that were claimed for sending, fresh or again.
    pub attempted: i64,
    /// Attempts settled as CHARGED.
    pub paid: i64,
    /// Attempts settled as REFUSED or VOIDED.
    pub refused: i64,
    /// Attempts settled as REJECTED.
    pub rejected: i64,
    /// Attempts of this run that are in doubt now, even if another run resent them.
    pub in_doubt: i64,
    /// Claims that were given back unsent.
    pub not_sent: i64,
}

impl RunCounters {
    /// The counters of outcomes, which show progress. Tries do not count: otherwise calls that are rejected again and
    /// again, here or by another replica, would keep their run alive for ever.
    #[must_use]
    pub fn outcomes(&self) -> [i64; 4] {
        [self.paid, self.refused, self.rejected, self.in_doubt]
    }
}

/// A row of `runs`. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: RunId,
    pub state: RunState,
    pub started_at: i64,
    pub finished_at: Option<i64>,
    /// The time until which the driver holds the run; then any replica adopts it.
    pub lease_until: i64,
    /// The version of billing that began the run; `None` for versions that did not record it.
    pub begun_by: Option<String>,
    /// Number of joins and of changes that the driver must see: it claims again before it ends.
    pub joins: i64,
    /// The progress so far.
    pub counters: RunCounters,
    /// What kept the run from charging, as its last driver recorded it.
    pub problem: Option<RunProblem>,
    /// What the run claims. The limits are the amounts and counts that are left.
    pub order: RunOrder,
}

/// What kept a run from charging; columns of `runs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunProblem {
    /// The kind of answer: a reason of the provider's response table, or of a later version's.
    pub reason: String,
    /// The status, if there was a response.
    pub status: Option<i64>,
    /// The number of such calls in a row.
    pub count: i64,
}
