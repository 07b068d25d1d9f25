//! The ledger contract: every decision is durable before it is returned, and a key has one decision for ever. Knows no
//! SQL and no HTTP; SQLite and PostgreSQL implement it and pass one contract suite.

use std::fmt;
use std::sync::Arc;

pub use api::payments::LEDGER_PAGE_MAX as PAGE_MAX;
use async_trait::async_trait;
use uuid::Uuid;

use crate::amount::Minor;
use crate::controls::ControlStore;
use crate::declines::Decline;
use crate::deployments::{Admission, Declaration, DeclareOutcome, DeploymentId, DeploymentRow};
use crate::faults::FaultCounts;
use crate::keys::{Fingerprint, FingerprintVersion, Key};

pub mod failover;
pub mod incarnation;
pub mod postgres;
pub mod sqlite;

/// The route of a tombstone.
const VOID_ROUTE: &str = "/v1/ledger/{key}/void";

/// Errors of a ledger; business results are values.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger is not reachable, full, locked by another process, or broken: whether the entry was recorded may be
    /// unknown.
    #[error("the ledger cannot be used")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing was recorded, because a commit could be lost.
    #[error("the ledger cannot record anything durably")]
    NotDurable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The data violates an invariant; operator action required.
    #[error("the ledger holds what it must not: {0}")]
    Corrupt(String),
    /// Nothing was recorded: rows may be missing, so that nothing may be executed. The text says what to do.
    #[error("{0}")]
    NotServing(String),
}

/// The result of a ledger call.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// The id of one ledger; a restored copy gets a new id, because it may lack keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerId(pub Uuid);

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Position of a row: grows with each row, and is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub i64);

/// The decision for a key or a request; final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The customer was charged.
    Charged,
    /// The customer was not charged, and will not be under this key.
    Refused,
    /// A tombstone: nothing was charged, and nothing will be under this key.
    Voided,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Charged, Self::Refused, Self::Voided];

    /// The state's name in SQL, JSON and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charged => "CHARGED",
            Self::Refused => "REFUSED",
            Self::Voided => "VOIDED",
        }
    }
}

/// A text that names no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a known state")]
pub struct UnknownState;

impl std::str::FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownState)
    }
}

/// The decision for one execution, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key; `None` when the caller gave none, and so is not protected against repetition.
    pub key: Option<Key>,
    /// Account of the caller.
    pub account: String,
    /// A digest of the requested charge.
    pub fingerprint: Fingerprint,
    /// The caller's own name of the charge.
    pub reference: Option<String>,
    /// The customer; 0 where the caller's route has none.
    pub customer_id: i64,
    /// The currency; empty when an existing client sent an object.
    pub currency: String,
    /// The amount.
    pub amount: Minor,
    /// The decision.
    pub state: State,
    /// Why the charge was refused, if it was.
    pub decline: Option<Decline>,
    /// The route of the request.
    pub route: &'static str,
    /// The deployment of billing that sends the request, admitted under the account; `None` when the caller names none.
    pub deployment: Option<DeploymentId>,
    /// A row that the caller has seen: a ledger without it has lost rows, and records nothing.
    pub seen: Option<Seq>,
    /// Whether a charge of the reference under another key of the account prevents the record. Needs a key and a
    /// reference.
    pub is_once: bool,
}

impl Entry {
    /// The entry that makes a key without a row unusable: nothing was charged under it, and nothing will be.
    fn tombstone(void: &Void) -> Self {
        let Void { account, key, deployment, seen } = void;
        Self {
            key: Some(key.clone()),
            account: account.clone(),
            fingerprint: Fingerprint::from_store(String::new()),
            reference: None,
            customer_id: 0,
            currency: String::new(),
            amount: Minor::hundredths(0),
            state: State::Voided,
            decline: None,
            route: VOID_ROUTE,
            deployment: *deployment,
            seen: *seen,
            is_once: false,
        }
    }
}

/// A key to be made unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// The account that the key belongs to.
    pub account: String,
    pub key: Key,
    /// See [`Entry::deployment`].
    pub deployment: Option<DeploymentId>,
    /// See [`Entry::seen`].
    pub seen: Option<Seq>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's position.
    pub seq: Seq,
    /// See [`Entry::key`].
    pub key: Option<Key>,
    /// See [`Entry::account`].
    pub account: String,
    /// See [`Entry::fingerprint`]; empty on a tombstone.
    pub fingerprint: Fingerprint,
    /// The rule by which the fingerprint is compared.
    pub fingerprint_version: FingerprintVersion,
    /// See [`Entry::reference`].
    pub reference: Option<String>,
    /// See [`Entry::customer_id`].
    pub customer_id: i64,
    /// See [`Entry::currency`].
    pub currency: String,
    /// See [`Entry::amount`].
    pub amount: Minor,
    /// See [`Entry::state`].
    pub state: State,
    /// See [`Entry::decline`]; `None` also for refusals that an earlier version recorded.
    pub decline: Option<Decline>,
    /// See [`Entry::route`].
    pub route: String,
    /// Time of the record, in ms since the epoch.
    pub created_at_ms: i64,
}

/// Result of recording an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The entry was recorded, as this row.
    New(Seq),
    /// The account has this row under the key already; nothing was recorded. See [`crate::keys::judge_known_key`].
    Known(Row),
    /// Another account has the key, so that nothing was recorded. In the first case that account charged the key, and
    /// the caller may be the same client: it names no deployment, or one that the other account also has. In the second
    /// case the keys of an older ledger are still unique over all accounts, until `payments keys-per-account`.
    Foreign,
    /// The ledger lacks the row that [`Entry::seen`] names; nothing was recorded.
    Behind,
    /// [`Entry::is_once`] is set, and this row of the account charged the reference; nothing was recorded.
    ReferenceCharged(Row),
}

/// Result of looking a key up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "each lives in one call only")]
pub enum Found {
    /// The account's row.
    Row(Row),
    /// The account has no row and can have none: another account has the key, in a ledger whose keys are unique over
    /// all accounts.
    Foreign,
    /// The account has no row. Whether another account has one is not disclosed.
    Absent,
}

/// Result of voiding a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "each lives in one call only")]
pub enum Voided {
    /// The account's row under the key, a tombstone or an earlier decision.
    Row(Row),
    /// See [`Recorded::Foreign`].
    Foreign,
    /// See [`Recorded::Behind`].
    Behind,
}

/// A page of rows in order of `seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The rows, at most as many as requested.
    pub rows: Vec<Row>,
    /// Whether there are rows after these.
    pub more: bool,
}

impl Page {
    /// The page of rows that were read up to one more than this limit.
    fn of(mut rows: Vec<Row>, limit: usize) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self { rows, more }
    }
}

/// Warns of a new ledger: it has no memory of earlier charges, so that it is the wrong one if there was a ledger
/// before.
fn warn_of_new(id: &str) {
    tracing::warn!(
        ledger.id = id,
        "the ledger is new and empty: nothing that was charged before is known to it"
    );
}

/// The durable side of the payment service. Each method that writes is one durable transaction: when it returns `Ok`,
/// the fact is on disk. Callers rely on two guarantees of every implementation: a key of an account has one row, also
/// under races; and a page never skips a row that becomes visible later.
#[async_trait]
pub trait Ledger: ControlStore + FaultCounts {
    /// The ledger's id, written at the first migration.
    async fn id(&self) -> Result<LedgerId>;

    /// Gives a restored ledger a new id.
    async fn renew_id(&self) -> Result<LedgerId>;

    /// Records an execution, or returns the row that the account already has under the key.
    async fn record(&self, entry: &Arc<Entry>) -> Result<Recorded>;

    /// Creates the index that finds the charges of a reference, for entries of [`Entry::is_once`].
    async fn index_references(&self) -> Result<()>;

    /// Finds the row that the account has under a key.
    async fn look_up(&self, account: &str, key: &Key) -> Result<Found>;

    /// The account's rows with `seq > after`, at most `limit` (and [`PAGE_MAX`]).
    async fn page(&self, account: &str, after: Seq, limit: usize) -> Result<Page>;

    /// Makes sure that the account has a row under the key, a tombstone if there was none. No tombstone is made where
    /// it would not prove that nothing was charged.
    async fn void(&self, void: &Void) -> Result<Voided>;

    /// Whether a deployment of billing may charge under an account, by [`crate::deployments::admit`]; a deployment is
    /// recorded in the same step if that rule says so. Of several first deployments at the same time, one is recorded.
    async fn admit_deployment(&self, account: &str, deployment: DeploymentId) -> Result<Admission>;

    /// Records an operator's declaration.
    async fn declare_deployment(&self, declaration: &Declaration) -> Result<DeclareOutcome>;

    /// The account's deployments, oldest first.
    async fn deployments(&self, account: &str) -> Result<Vec<DeploymentRow>>;
}
