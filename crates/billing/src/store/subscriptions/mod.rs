//! The store's part of subscriptions and of their schedule: the role traits, and their data. Knows no SQL.

pub(super) mod import;
mod reads;
pub(super) mod rows;
pub(super) mod statements;
pub(super) mod steps;

use async_trait::async_trait;
use jiff::civil::Date;

use super::Result;
use crate::invoice::Reference;
use crate::money::Currency;
use crate::schedule::Holidays;
use crate::schedule::run::{ScheduleRun, ScheduleRunState, Sums, WaitReason};
use crate::subscription::{Change, NewSubscription, Subscription, SubscriptionState};

/// Result of one imported subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionImported {
    /// Created.
    Created,
    /// Known with the same fields, apart from operators' changes.
    Unchanged,
    /// Known with other fields.
    Differs,
    /// The customer has this other currency.
    CurrencyMismatch(Currency),
    /// Other customers have all the numbers that this customer's reference could get.
    NoNumberLeft,
}

/// An operator's change of a subscription, with its audit row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionChange {
    pub change: Change,
    pub reason: String,
    pub actor: String,
}

/// Result of an operator's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionChanged {
    Applied(Box<Subscription>),
    /// Rejected, with the field at fault and the reason; nothing changed.
    Refused(&'static str, String),
    /// No subscription has this reference.
    Unknown,
}

/// A row of `operator_actions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAction {
    pub id: i64,
    pub action: String,
    /// The name of the changed object.
    pub subject: String,
    pub detail: Option<String>,
    pub reason: String,
    pub actor: String,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

/// A date and the time of its first charge that has no invoice yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueDate {
    pub on: Date,
    /// Milliseconds since the Unix epoch.
    pub first_at: i64,
}

/// The decision about the run of a date, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleDecision {
    pub on: Date,
    pub state: ScheduleRunState,
    pub reason: Option<WaitReason>,
    /// What is left to be invoiced.
    pub planned: Sums,
    pub confirmed_by: Option<String>,
}

/// A batch of periods to be invoiced.
#[derive(Clone, Copy, Debug)]
pub struct GenerateBatch<'a> {
    pub on: Date,
    pub limit: usize,
    /// Skip a period if another due period of the same subscription follows it and is not later than this date.
    pub latest_until: Option<Date>,
    pub holidays: &'a Holidays,
}

/// The result of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    /// The number of subscriptions that moved to their next period; 0 when no period of the date is due.
    pub taken: usize,
    /// Invoices that were made.
    pub invoices: i64,
    /// Periods that were skipped, or whose reference another invoice has.
    pub skipped: i64,
}

/// Reads of subscriptions and of their schedule.
#[async_trait]
pub trait SubscriptionReads: Send + Sync + 'static {
    /// Subscriptions with `id > after` (and in `state`, if given), by id, at most `limit`.
    async fn subscriptions(
        &self,
        state: Option<SubscriptionState>,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Subscription>>;

    async fn subscription(&self, reference: &Reference) -> Result<Option<Subscription>>;

    /// Actions of operators on a subscription, oldest first, at most `limit`.
    async fn subscription_actions(
        &self,
        reference: &Reference,
        after: i64,
        limit: usize,
    ) -> Result<Vec<OperatorAction>>;

    /// The first date after `after` on which an active subscription has a period without an invoice.
    async fn next_due_date(&self, after: Option<Date>) -> Result<Option<DueDate>>;

    /// The invoices that active subscriptions still lack on a date, due or not.
    async fn left_on(&self, on: Date) -> Result<Sums>;

    /// Runs with a date after `after` (and in `state`, if given), by date, at most `limit`.
    async fn schedule_runs(
        &self,
        state: Option<ScheduleRunState>,
        after: Option<Date>,
        limit: usize,
    ) -> Result<Vec<ScheduleRun>>;

    /// The time from which a scheduled run has something to claim, in milliseconds since the Unix epoch; `None` if
    /// nothing waits.
    async fn next_attempt_at(&self) -> Result<Option<i64>>;
}

/// Changes of subscriptions, and the invoices of their due periods.
#[async_trait]
pub trait SubscriptionStore: Send + Sync + 'static {
    /// The store's time, in milliseconds since the Unix epoch.
    async fn now_ms(&self) -> Result<i64>;

    /// Imports one batch of at most [`BATCH_MAX`](super::BATCH_MAX) rows, in order; returns one result each. Rows with
    /// a problem change nothing; the others are recorded, unless it is a dry run.
    async fn import_subscriptions(
        &self,
        batch: &[NewSubscription],
        dry_run: bool,
    ) -> Result<Vec<SubscriptionImported>>;

    /// Applies an operator's change with its audit row, as [`Subscription::changed`] decides.
    async fn change_subscription(
        &self,
        reference: &Reference,
        change: &SubscriptionChange,
        holidays: &Holidays,
    ) -> Result<SubscriptionChanged>;

    /// Records a decision about the run of a date; the run begins with its first decision.
    async fn put_schedule_run(&self, decision: &ScheduleDecision) -> Result<()>;

    /// Makes the invoices of up to `limit` due periods of a date, by instant, and moves their subscriptions to the next
    /// period, in one transaction. Subscriptions locked by another process are skipped. An existing invoice with the
    /// same reference stays as it is.
    async fn generate(&self, batch: &GenerateBatch<'_>) -> Result<Generated>;
}
