//! The store contract: every durable fact of billing, and the conditional steps between them.
//! Knows no SQL and no HTTP; SQLite and PostgreSQL implement it and pass one contract suite.
//!
//! Time is the store's own (a database's clock, or the clock that SQLite's store was given): callers name
//! durations, never instants. Each method is one durable transaction: when it returns `Ok`, the fact is on disk.

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
    /// The data breaks an invariant of ours; an operator must examine it.
    #[error("the store holds what it must not: {0}")]
    Corrupt(String),
}

/// The store was made for another installation: keys would not match what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store belongs to deployment {stored}, not to {given}: leave --deployment-id (DEPLOYMENT_ID) out, \
     or use that deployment's store"
)]
pub struct OtherDeployment {
    pub stored: Uuid,
    /// The one of the settings.
    pub given: Uuid,
}

/// Keys of a new store are new to every provider: where there was a store before, the wrong one is open.
fn warn_of_new(deployment: Uuid) {
    tracing::warn!(
        deployment.id = %deployment,
        "the store is new and empty: it knows no invoice and no charge of any store before it"
    );
}

/// A store's answer.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The version of this program, recorded with the runs that it begins.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The most rows that one call takes or returns.
pub const BATCH_MAX: usize = 1000;

/// Invoices by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub pending: i64,
    pub charging: i64,
    pub paid: i64,
    pub attention: i64,
    pub cancelled: i64,
}

impl Counts {
    /// Whether all invoices that are not cancelled are paid, for the legacy pay calls. True for a store without any.
    #[must_use]
    pub fn all_paid(&self) -> bool {
        self.pending + self.charging + self.attention == 0
    }
}

/// Result of opening a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenedRun {
    Started(Run),
    /// The unfinished one claims all that was asked for.
    Joined(Run),
    /// The unfinished one claims less: it has to end first.
    Busy(RunId),
}

/// An invoice to be imported; already validated for shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRow {
    /// Its name at the source.
    pub reference: Reference,
    /// Who pays; made with the row's currency when unknown.
    pub customer_id: CustomerId,
    pub money: Money,
    /// `true` for `status` PAID: needs no charge.
    pub paid: bool,
}

/// Mode of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportMode {
    /// Answer what would happen; change nothing.
    pub dry_run: bool,
    /// Change a known invoice whose data differ, if no attempt of it is open or charged.
    pub update: bool,
}

/// Result of one imported row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// New here.
    Created,
    /// Known with the same data.
    Unchanged,
    /// Known with other data, now these.
    Updated,
    /// Known with other data, and `update` was not asked for.
    Differs,
    /// Known with other data, and an attempt is open or charged, or it is PAID.
    Locked,
    /// The customer has this other currency.
    CurrencyMismatch(crate::money::Currency),
}

/// Result of claiming PENDING invoices.
#[derive(Clone, Debug, Default)]
pub struct ClaimedPending {
    pub attempts: Vec<Attempt>,
    /// The first invoice that was passed over because an attempt of its customer is under way: it may be claimed once
    /// that is settled.
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
    /// Which attempt.
    pub key: Key,
    /// `true`: the provider charged it; `false`: it did not and never will (voided, or no request can be alive).
    pub charged: bool,
    /// Why the operator is sure.
    pub reason: String,
    pub actor: String,
}

/// What shows that an open attempt is not charged, when an operator decides so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The provider has voided its key. Also where nothing is to be shown: of a final attempt, and of "charged".
    Voided,
    /// The provider had refused it, for this reason: the attempt becomes REFUSED, and further attempts wait for their day.
    Refused(Decline),
    /// No request of it can be alive once it cannot have been sent for this long.
    Quiet(Duration),
}

/// Result of a resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Recorded, with its audit row.
    Applied,
    /// The attempt is final already, in this state, and its invoice needs no such decision; nothing changed.
    Final(AttemptState),
    /// Decided as not charged, but a request may still be alive for this long, by the store's clock; nothing changed.
    TooEarly(Duration),
    /// Decided as charged, but another attempt of the same invoice is CHARGED already; nothing changed. The second
    /// charge must be paid back first, then resolved as not charged.
    OtherCharged,
    /// No attempt has this key.
    Unknown,
}

/// One row of `resolutions`: a decision and what it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolutionRow {
    /// Its position: grows with each row.
    pub id: i64,
    /// The decision.
    pub resolution: Resolution,
    /// Its invoice.
    pub reference: Reference,
    /// The attempt before and after; `None` in rows older than these columns.
    pub attempt: Option<(AttemptState, AttemptState)>,
    /// The invoice before and after; as above.
    pub invoice: Option<(InvoiceState, InvoiceState)>,
    /// When, in milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// Customers, invoices and attempts as they are.
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

    /// Which of these texts are references of stored invoices, exactly so.
    async fn stored_among(&self, texts: Vec<String>) -> Result<Vec<String>>;

    /// Attempts after (invoice, number), in that order, at most `limit`.
    async fn attempts(&self, after: (InvoiceId, u32), limit: usize) -> Result<Vec<Attempt>>;

    async fn attempt(&self, key: &Key) -> Result<Option<Attempt>>;
}

/// Runs, of which at most one is unfinished, and how far they are.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Invoices by state, counted as of one moment; cheap at any size.
    async fn counts(&self) -> Result<Counts>;

    /// For monitoring.
    async fn ages(&self) -> Result<Ages>;

    /// Starts a run with this order, or joins the unfinished one if that claims all that the order asks for: its `joins`
    /// grow. Sets the lease only of a run that it starts.
    async fn open_ordered_run(&self, order: &RunOrder, lease: Duration) -> Result<OpenedRun>;

    /// The same for a run of all invoices; answers whether it was joined.
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

    /// Takes over the unfinished run if its lease has ended, or is a wrong clock's ([`lease`]).
    async fn adopt_run(&self, lease: Duration) -> Result<Option<Run>>;

    /// Prolongs the lease; `false` when the run is finished.
    async fn renew_run(&self, run: RunId, lease: Duration) -> Result<bool>;

    /// Finishes the run, unless a caller has joined it since it had these `joins`; `false` then, or when it was
    /// finished already.
    async fn finish_run(&self, run: RunId, joins: i64) -> Result<bool>;

    /// Keeps with the run what kept it from charging; the last one counts.
    async fn note_problem(&self, run: RunId, problem: &RunProblem) -> Result<()>;

    async fn run(&self, run: RunId) -> Result<Option<Run>>;

    /// Runs with `id > after`, by id, at most `limit`.
    async fn runs(&self, after: RunId, limit: usize) -> Result<Vec<Run>>;

    /// The unfinished run, if there is one.
    async fn unfinished_run(&self) -> Result<Option<Run>>;

    /// The run that began last.
    async fn latest_run(&self) -> Result<Option<Run>>;

    /// Open attempts of which no request counts: none was sent, or the provider executed none.
    async fn unsent_attempts(&self) -> Result<i64>;
}

/// Attempts as they are claimed, sent and settled.
#[async_trait]
pub trait ChargeStore: Send + Sync + 'static {
    /// Journals the next attempt of up to `limit` PENDING invoices with `id > after` that this run has not
    /// attempted and that its order admits, by id: invoice to CHARGING, attempt INTENT with `sends` 1, leased. Counts
    /// `attempted` and takes from the run's limits.
    /// Fewer than `limit` say nothing; empty means that none is left after `after`, or that the run is finished. An
    /// invoice whose rows break an invariant is logged and passed over. Of a customer whose network is known at most one
    /// attempt is open: the customer's other invoices are passed over while it is.
    async fn claim_in_turn(
        &self,
        run: RunId,
        after: InvoiceId,
        limit: usize,
        lease: Duration,
    ) -> Result<ClaimedPending>;

    /// Whether an invoice of a customer whose network is known is left for this run to claim, now or once an attempt that
    /// is under way is settled; also one that a claim passed over because another held it at that moment.
    async fn has_claimable_left(&self, run: RunId) -> Result<bool>;

    /// Leases up to `limit` open attempts whose lease has ended, oldest lease first, of invoices that are CHARGING
    /// (those in ATTENTION need manual resolution): `sends` grows by one. Of a customer whose network is known only the
    /// first that is open, so that each knows the outcome of those before it. A row that breaks an invariant is logged,
    /// leased and left out.
    async fn claim_open(&self, run: Option<RunId>, limit: usize, lease: Duration) -> Result<Vec<Attempt>>;

    /// Which of these open attempts must not be sent, because the network of the customer's instrument, or a decline of the
    /// same invoice, allows no attempt now: their keys are to be voided.
    async fn to_withdraw(&self, attempts: &[Attempt]) -> Result<HashSet<Key>>;

    /// When the next open attempt of a CHARGING invoice may be claimed, as by [`Self::claim_open`]: `Some(ZERO)` for now, `None` for none. Leases
    /// that a wrong clock left far ahead ([`lease`]) end here.
    async fn next_open_in(&self) -> Result<Option<Duration>>;

    /// Ends the leases of all open attempts and of the unfinished run: for the one process that holds the store,
    /// at start. Answers how many attempts are open. A store shared by replicas does nothing and answers 0.
    async fn recover(&self) -> Result<u64>;

    /// Records settlements together with the invoices and the run's counters, as [`changeset::settle`] decides;
    /// answers one [`Settled`] each, in order.
    async fn settle(&self, run: Option<RunId>, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        self.settle_and_see(run, settlements, None).await
    }

    /// As [`ChargeStore::settle`]; in the same transaction remembers the last row that was seen of a ledger, if that is
    /// later than the one that is remembered of it.
    async fn settle_and_see(
        &self,
        run: Option<RunId>,
        settlements: &[Settlement],
        seen: Option<&LedgerSeen>,
    ) -> Result<Vec<Settled>>;
}

/// Whose store it is, and with which ledger it settles.
#[async_trait]
pub trait LedgerStore: Send + Sync + 'static {
    /// Whether other processes use this store at the same time. A store that is not shared is held by one process.
    fn is_shared(&self) -> bool;

    /// The deployment's id: written at the first migration, travels with a backup.
    async fn deployment(&self) -> Result<DeploymentId>;

    /// The provider ledger that this store has settled with; `None` before the first keyed answer.
    async fn ledger_id(&self) -> Result<Option<String>>;

    /// The remembered ledger with the last of its rows that any process has seen.
    async fn ledger_seen(&self) -> Result<Option<LedgerSeen>>;

    /// Remembers the ledger, if none was remembered; answers the remembered one.
    async fn remember_ledger(&self, ledger_id: &str) -> Result<String>;

    /// Remembers this ledger instead of the one that was remembered, with its audit row; answers the former. The one
    /// that is remembered already changes nothing and leaves no row.
    async fn accept_ledger(&self, acceptance: &LedgerAcceptance) -> Result<Option<String>>;
}

/// What operators bring in and decide.
#[async_trait]
pub trait OperatorStore: Send + Sync + 'static {
    /// Imports one batch of at most [`BATCH_MAX`] rows, in order; answers one [`Imported`] each.
    /// Rows with a problem change nothing; the others are recorded.
    async fn import(&self, rows: &[ImportRow], mode: ImportMode) -> Result<Vec<Imported>>;

    /// Records a decision, with its audit row. Of an open attempt: attempt CHARGED, VOIDED or REFUSED, invoice PAID (by
    /// resolve, or by charge when another attempt is CHARGED) or PENDING. A final attempt stays as it is; if its invoice
    /// is in ATTENTION and none of its attempts is open, "not charged" of a REJECTED one makes the invoice PENDING, and
    /// "charged" of the CHARGED one makes it PAID (by resolve).
    async fn resolve(&self, resolution: &Resolution) -> Result<Resolved> {
        self.resolve_by(resolution, &Evidence::Voided).await
    }

    /// As [`OperatorStore::resolve`], by this evidence. By [`Evidence::Quiet`], "not charged" of an open attempt changes
    /// something only when its invoice is in ATTENTION and it cannot have been sent for so long, by the clock of the store
    /// in the same transaction: the clock of a process may be ahead, and another process may claim the attempt meanwhile.
    async fn resolve_by(&self, resolution: &Resolution, evidence: &Evidence) -> Result<Resolved>;

    /// Applies rows of the provider's ledger, at most [`BATCH_MAX`] in the ledger's order; returns one
    /// [`Repaired`] each. A known key is settled as by [`ChargeStore::settle`], but a charge of another customer or
    /// amount than the attempt's and the invoice's makes no invoice PAID. An unknown one is adopted when it is the key
    /// of its reference's attempt number n, n up to [`REPAIR_NUMBERS_MAX`] past the last that is known: the attempt is
    /// written as final, with the row's customer and amount, and the invoice follows. It belongs to the latest run, or
    /// to a finished one made for it. Repeating a repair changes nothing; one that changes something joins the
    /// unfinished run, so that its driver checks for new work.
    async fn repair(&self, facts: &[LedgerFact]) -> Result<Vec<Repaired>>;
}

/// Rows of the provider's ledger that operators have explained, and lost ones that they have accepted: appended, never
/// changed.
#[async_trait]
pub trait AcknowledgementStore: Send + Sync + 'static {
    /// Records that an operator has explained these ledger rows; each call is a row of its own.
    async fn acknowledge(&self, acknowledgement: &LedgerAcknowledgement) -> Result<LedgerAcknowledgementRow>;

    /// Records that an operator has accepted the loss of an invoice's ledger row; each call is a row of its own. `None`,
    /// and no record, unless the invoice is PAID by a charge and the store settles with that ledger.
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
