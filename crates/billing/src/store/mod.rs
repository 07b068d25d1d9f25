//! The store contract: every durable fact of billing, and the conditional steps between them.
//! Knows no SQL and no HTTP; SQLite and PostgreSQL implement it and pass one contract suite.
//!
//! Time is the store's own (a database's clock, or the clock that SQLite's store was given): callers name
//! durations, never instants. Each method that writes is one durable transaction: when it returns `Ok`, the fact is on
//! disk.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use self::ages::Ages;
use self::control::ControlStore;
pub use self::ledger::{
    LedgerAcceptance, LedgerAcknowledgement, LedgerAcknowledgementRow, LedgerFact, LedgerSeen,
    REPAIR_NUMBERS_MAX, Repaired, UnbackedAcknowledgement, UnbackedAcknowledgementRow,
};
use self::operator_reads::OperatorReads;
pub use self::subscriptions::{SubscriptionReads, SubscriptionStore};
use crate::invoice::{
    Attempt, AttemptState, Customer, CustomerId, Decline, Invoice, InvoiceId, InvoiceState, Reference, Run,
    RunId, RunProblem,
};
use crate::money::Money;
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::{Conflict, Settlement};
use crate::run_order::RunOrder;

pub mod ages;
pub mod changeset;
pub mod charged_days;
pub mod control;
pub mod lease;
pub mod ledger;
mod located;
mod migrations;
pub mod operator_reads;
pub mod postgres;
mod reads;
mod rows;
pub mod sqlite;
pub mod subscriptions;
mod transaction;

/// Errors of a store; business results are values.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, full, locked by another process, closed, or overloaded: try again later.
    #[error("the store cannot be used")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The data break an invariant of billing; an operator must examine them.
    #[error("the store holds what it must not: {0}")]
    Corrupt(String),
}

/// The store belongs to another installation: its keys would not match those that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store belongs to deployment {stored}, not to {given}: leave --deployment-id (DEPLOYMENT_ID) out, \
     or use that deployment's store"
)]
pub struct OtherDeployment {
    pub stored: Uuid,
    /// The deployment id in the settings.
    pub given: Uuid,
}

/// Warns of a new deployment id, whose keys are new to every provider: if there was a store before, the wrong one is
/// open.
fn warn_of_new(deployment: Uuid) {
    tracing::warn!(
        deployment.id = %deployment,
        "the store is new and empty: it knows no invoice and no charge of any store before it"
    );
}

/// The result of a store's method.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The version of this program, recorded with the runs that it begins.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The most rows that one call takes or returns.
pub const BATCH_MAX: usize = 1000;

/// The number of invoices in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub pending: i64,
    pub charging: i64,
    pub paid: i64,
    pub attention: i64,
    pub cancelled: i64,
}

impl Counts {
    /// Whether all invoices that are not cancelled are paid, for the legacy pay calls. True for an empty store.
    #[must_use]
    pub fn all_paid(&self) -> bool {
        self.pending + self.charging + self.attention == 0
    }
}

/// Result of opening a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenedRun {
    Started(Run),
    /// The unfinished run was joined, because it claims all that was asked for.
    Joined(Run),
    /// The unfinished run claims less, and has to end first.
    Busy(RunId),
}

/// An invoice to be imported, with a valid form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRow {
    /// The invoice's name at the source.
    pub reference: Reference,
    /// The customer who pays; an unknown customer is created with the row's currency.
    pub customer_id: CustomerId,
    pub money: Money,
    /// `true` for `status` PAID: the invoice needs no charge.
    pub paid: bool,
}

/// Mode of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportMode {
    /// Return what would happen; change nothing.
    pub dry_run: bool,
    /// Change a known invoice whose data differ, if no attempt of it is open or charged.
    pub update: bool,
}

/// Result of one imported row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// Created.
    Created,
    /// Known with the same data.
    Unchanged,
    /// Known with other data, and updated.
    Updated,
    /// Known with other data; `update` was not set.
    Differs,
    /// Known with other data, and not changed: an attempt is open or charged, or the invoice is PAID.
    Locked,
    /// The customer has this other currency.
    CurrencyMismatch(crate::money::Currency),
}

/// Result of claiming PENDING invoices.
#[derive(Clone, Debug, Default)]
pub struct ClaimedPending {
    pub attempts: Vec<Attempt>,
    /// The first invoice that was skipped because an attempt of its customer is under way. It may be claimed once that
    /// attempt is settled.
    pub waiting_from: Option<InvoiceId>,
}

/// Result of one settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Recorded.
    Applied,
    /// The same outcome was recorded already.
    Same,
    /// Another outcome was recorded; see [`Conflict`].
    Conflict(Conflict),
    /// No attempt has this key.
    Unknown,
}

/// An operator's decision on an attempt, kept for ever in `resolutions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The key of the attempt.
    pub key: Key,
    /// `true`: the provider charged it; `false`: it did not and never will (voided, or no request can be alive).
    pub charged: bool,
    /// Why the operator is sure.
    pub reason: String,
    pub actor: String,
}

/// The evidence that an open attempt is not charged, when an operator decides so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The provider has voided the key. Also used where no evidence is needed: for a final attempt, and for "charged".
    Voided,
    /// The provider had refused the attempt, for this reason: it becomes REFUSED, and further attempts wait for their
    /// day.
    Refused(Decline),
    /// No request of the attempt can be alive, once it cannot have been sent for this long.
    Quiet(Duration),
}

/// Result of a resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Recorded, with its audit row.
    Applied,
    /// The attempt is final already, in this state, and its invoice does not need this decision; nothing changed.
    Final(AttemptState),
    /// The decision is "not charged", but a request may be alive for this long, by the store's clock; nothing changed.
    TooEarly(Duration),
    /// The decision is "charged", but another attempt of the same invoice is CHARGED; nothing changed. The second
    /// charge must be paid back first, then resolved as not charged.
    OtherCharged,
    /// No attempt has this key.
    Unknown,
}

/// One row of `resolutions`: a decision and what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolutionRow {
    /// The row's position, which grows with each row.
    pub id: i64,
    /// The decision.
    pub resolution: Resolution,
    /// The reference of the invoice.
    pub reference: Reference,
    /// The attempt's state before and after; `None` in rows older than these columns.
    pub attempt: Option<(AttemptState, AttemptState)>,
    /// The invoice's state before and after; `None` in rows older than these columns.
    pub invoice: Option<(InvoiceState, InvoiceState)>,
    /// The time, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// Reads of customers, invoices and attempts.
#[async_trait]
pub trait InvoiceReads: Send + Sync + 'static {
    /// Customers with `id > after`, by id, at most `limit`.
    async fn customers(&self, after: CustomerId, limit: usize) -> Result<Vec<Customer>>;

    async fn customer(&self, id: CustomerId) -> Result<Option<Customer>>;

    /// Invoices with `id > after` (and in `state`, if given), by id, at most `limit`.
    async fn invoices(
        &self,
        state: Option<InvoiceState>,
        after: InvoiceId,
        limit: usize,
    ) -> Result<Vec<Invoice>>;

    /// One invoice by its number.
    async fn invoice(&self, id: InvoiceId) -> Result<Option<Invoice>>;

    async fn invoice_by_reference(&self, reference: &Reference) -> Result<Option<Invoice>>;

    /// The texts among these that are references of stored invoices, in exactly this spelling.
    async fn stored_among(&self, texts: Vec<String>) -> Result<Vec<String>>;

    /// Attempts after (invoice, number), in that order, at most `limit`.
    async fn attempts(&self, after: (InvoiceId, u32), limit: usize) -> Result<Vec<Attempt>>;

    async fn attempt(&self, key: &Key) -> Result<Option<Attempt>>;
}

/// Runs, of which at most one is unfinished, and their progress.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// The number of invoices in each state at one moment; cheap at any size.
    async fn counts(&self) -> Result<Counts>;

    /// For monitoring: the times of the first PENDING invoice, of the oldest attempt IN_DOUBT, of the last run and of
    /// the last run without a problem, and the number of invoices that are not tried again by themselves.
    async fn ages(&self) -> Result<Ages>;

    /// Starts a run with this order, or joins the unfinished one if that claims all that the order asks for. Joining
    /// increments `joins`. Sets the lease only of a run that it starts.
    async fn open_ordered_run(&self, order: &RunOrder, lease: Duration) -> Result<OpenedRun>;

    /// Opens a run of all invoices; also returns whether an unfinished run was joined.
    async fn open_run(&self, lease: Duration) -> Result<(Run, bool)> {
        match self.open_ordered_run(&RunOrder::default(), lease).await? {
            OpenedRun::Started(run) => Ok((run, false)),
            OpenedRun::Joined(run) => Ok((run, true)),
            OpenedRun::Busy(run) => {
                let why = format!("run {} of some invoices is unfinished", run.0);
                Err(StoreError::Unavailable(why.into()))
            }
        }
    }

    /// Takes over the unfinished run if its lease has ended, or was made by a wrong clock ([`lease`]).
    async fn adopt_run(&self, lease: Duration) -> Result<Option<Run>>;

    /// Prolongs the lease; `false` when the run is finished.
    async fn renew_run(&self, run: RunId, lease: Duration) -> Result<bool>;

    /// Finishes the run, unless a caller has joined it since it had `joins` joins. `false` if a caller has, or if the
    /// run was finished already.
    async fn finish_run(&self, run: RunId, joins: i64) -> Result<bool>;

    /// Stores with the run the problem that kept it from charging, in place of an earlier one.
    async fn note_problem(&self, run: RunId, problem: &RunProblem) -> Result<()>;

    async fn run(&self, run: RunId) -> Result<Option<Run>>;

    /// Runs with `id > after`, by id, at most `limit`.
    async fn runs(&self, after: RunId, limit: usize) -> Result<Vec<Run>>;

    /// The unfinished run, if there is one.
    async fn unfinished_run(&self) -> Result<Option<Run>>;

    /// The run that began last.
    async fn latest_run(&self) -> Result<Option<Run>>;

    /// The number of open attempts without a request that counts: none was sent, or the provider executed none.
    async fn unsent_attempts(&self) -> Result<i64>;
}

/// Claims and settlements of attempts.
#[async_trait]
pub trait ChargeStore: Send + Sync + 'static {
    /// Journals the next attempt of up to `limit` PENDING invoices with `id > after`, by id: invoices that this run has
    /// not attempted and that its order admits. Each invoice becomes CHARGING; its attempt is a leased INTENT with
    /// `sends` 1. Counts `attempted` and subtracts from the run's limits.
    /// Fewer attempts than `limit` mean nothing; none means that nothing is left after `after`, or that the run is
    /// finished. An invoice whose rows break an invariant is logged and skipped. A customer whose network is known has
    /// at most one open attempt: the customer's other invoices are skipped until then.
    async fn claim_in_turn(
        &self,
        run: RunId,
        after: InvoiceId,
        limit: usize,
        lease: Duration,
    ) -> Result<ClaimedPending>;

    /// Whether this run has an invoice left to claim, now or once an attempt under way is settled, of a customer whose
    /// network is known. Includes invoices that a claim skipped because another one held them at that moment.
    async fn has_claimable_left(&self, run: RunId) -> Result<bool>;

    /// Leases up to `limit` open attempts whose lease has ended, oldest lease first, and increments `sends`. Only of
    /// invoices that are CHARGING: those in ATTENTION need manual resolution. Of a customer whose network is known only
    /// the first open attempt, so that each is sent after the outcomes of the earlier ones are known. A row that breaks
    /// an invariant is logged, leased and left out.
    async fn claim_open(&self, run: Option<RunId>, limit: usize, lease: Duration) -> Result<Vec<Attempt>>;

    /// The attempts among these that must not be sent: the network of the customer's instrument, or a decline of the
    /// same invoice, forbids them now. Their keys are to be voided.
    async fn to_withdraw(&self, attempts: &[Attempt]) -> Result<HashSet<Key>>;

    /// The time until [`Self::claim_open`] can claim the next open attempt: `Some(ZERO)` for now, `None` for none. Ends
    /// leases that a wrong clock left far ahead ([`lease`]).
    async fn next_open_in(&self) -> Result<Option<Duration>>;

    /// Ends the leases of all open attempts and of the unfinished run, when the one process that holds the store
    /// starts. Returns the number of open attempts. A store shared by replicas does nothing and returns 0.
    async fn recover(&self) -> Result<u64>;

    /// Records settlements together with the invoices and the run's counters, as [`changeset::settle`] decides; returns
    /// one [`Settled`] each, in order.
    async fn settle(&self, run: Option<RunId>, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        self.settle_and_see(run, settlements, None).await
    }

    /// Like [`ChargeStore::settle`]. In the same transaction remembers the last row that was seen of a ledger, if it is
    /// later than the remembered one.
    async fn settle_and_see(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
        seen: Option<&LedgerSeen>,
    ) -> Result<Vec<Settled>>;
}

/// The identity of the store, and the ledger that it settles with.
#[async_trait]
pub trait LedgerStore: Send + Sync + 'static {
    /// Whether other processes use this store at the same time. A store that is not shared belongs to one process.
    fn is_shared(&self) -> bool;

    /// The deployment id, written by the first migration and included in a backup.
    async fn deployment(&self) -> Result<DeploymentId>;

    /// The provider ledger that this store has settled with; `None` before the first keyed answer.
    async fn ledger_id(&self) -> Result<Option<String>>;

    /// The remembered ledger with the last of its rows that any process has seen.
    async fn ledger_seen(&self) -> Result<Option<LedgerSeen>>;

    /// Remembers the ledger, if none was remembered; returns the remembered ledger.
    async fn remember_ledger(&self, ledger_id: &str) -> Result<String>;

    /// Remembers this ledger in place of the former one, with an audit row; returns the former. A ledger that is
    /// remembered already changes nothing and writes no audit row.
    async fn accept_ledger(&self, acceptance: &LedgerAcceptance) -> Result<Option<String>>;
}

/// Imports, decisions and repairs by operators.
#[async_trait]
pub trait OperatorStore: Send + Sync + 'static {
    /// Imports one batch of at most [`BATCH_MAX`] rows, in order; returns one [`Imported`] each. Rows with a problem
    /// change nothing; the others are recorded.
    async fn import(&self, rows: &[ImportRow], mode: ImportMode) -> Result<Vec<Imported>>;

    /// Records a decision, with its audit row. An open attempt becomes CHARGED, VOIDED or REFUSED, and its invoice PAID
    /// (by resolve, or by charge when another attempt is CHARGED) or PENDING. A final attempt stays. If its invoice is
    /// in ATTENTION without an open attempt, "not charged" of a REJECTED attempt makes the invoice PENDING. Likewise,
    /// "charged" of a CHARGED attempt makes it PAID (by resolve).
    async fn resolve(&self, resolution: &Resolution) -> Result<Resolved> {
        self.resolve_by(resolution, &Evidence::Voided).await
    }

    /// Like [`OperatorStore::resolve`], with this evidence. With [`Evidence::Quiet`], "not charged" of an open attempt
    /// needs an invoice in ATTENTION and an attempt that cannot have been sent for so long. The clock is the store's in
    /// the same transaction: a process's clock may be ahead, and another process may claim the attempt meanwhile.
    async fn resolve_by(&self, resolution: &Resolution, evidence: &Evidence) -> Result<Resolved>;

    /// Applies rows of the provider's ledger, at most [`BATCH_MAX`] in the ledger's order; returns one [`Repaired`]
    /// each. A known key is settled as in [`ChargeStore::settle`], but a charge makes no invoice PAID if its customer
    /// or amount differs from the attempt's or the invoice's. An unknown key is adopted when it is the key of its
    /// reference with a number up to [`REPAIR_NUMBERS_MAX`] past the last known one. The adopted attempt is final, has
    /// the row's customer and amount, and determines the invoice's state. It belongs to the latest run, or to a
    /// finished run made for it. Repeating a repair changes nothing. A repair with changes joins the unfinished run, so
    /// that its driver checks for new work.
    async fn repair(&self, facts: &[LedgerFact]) -> Result<Vec<Repaired>>;
}

/// Ledger rows that operators have explained, and lost rows that they have accepted. Records are appended, never
/// changed.
#[async_trait]
pub trait AcknowledgementStore: Send + Sync + 'static {
    /// Records that an operator has explained these ledger rows; each call adds a row.
    async fn acknowledge(&self, acknowledgement: &LedgerAcknowledgement) -> Result<LedgerAcknowledgementRow>;

    /// Records that an operator has accepted the loss of an invoice's ledger row; each call adds a row. `None`, and no
    /// record, unless the invoice is PAID by a charge and the store settles with that ledger.
    async fn acknowledge_unbacked(
        &self,
        acknowledgement: &UnbackedAcknowledgement,
    ) -> Result<Option<UnbackedAcknowledgementRow>>;
}

/// The durable side of billing: everything that the engine and the routes need.
pub trait Store:
    InvoiceReads
    + RunStore
    + ChargeStore
    + LedgerStore
    + OperatorStore
    + AcknowledgementStore
    + SubscriptionReads
    + SubscriptionStore
    + ControlStore
    + OperatorReads
{
}

impl<S> Store for S where
    S: InvoiceReads
        + RunStore
        + ChargeStore
        + LedgerStore
        + OperatorStore
        + AcknowledgementStore
        + SubscriptionReads
        + SubscriptionStore
        + ControlStore
        + OperatorReads
{
}

#[cfg(test)]
mod list_plans;
