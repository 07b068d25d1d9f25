//! Requests and responses of billing's `/v1`, by resource. The legacy routes have formats of their own, each in one
//! file of the service.

mod imports;
mod invoices;
mod ledger;
mod operators;
mod runs;
mod schedule;
mod subscriptions;

use serde::{Deserialize, Serialize};

pub use imports::{ImportReport, ImportRow, LineFault, LineWarning};
pub use invoices::{Attempt, Decision, Invoice, Resolution, ResolveRequest};
pub use ledger::{
    AcceptRequest, Accepted, Acknowledgement, AcknowledgementRequest, EntryState, RepairPage, RepairReport,
    RepairRow, UnbackedAcknowledgement, UnbackedAcknowledgementRequest,
};
pub use operators::{Charging, Customer, NetworkRequest, NoteRequest};
pub use runs::{Counts, Deployment, Run, RunDryRun, RunProblem, RunRequest, RunState};
pub use schedule::{ScheduleRun, ScheduleRunRequest, ScheduleRunResult, ScheduleStatus, WaitingDate};
pub use subscriptions::{ChangeRequest, Price, Subscription, SubscriptionAction};

/// The longest reason and the longest operator's name that are recorded with a decision, in bytes.
pub const REASON_BYTES_MAX: usize = 1000;

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Cursor of the next page; null at the end.
    pub next: Option<String>,
}
