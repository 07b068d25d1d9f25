//! What operators stop and resume: single invoices, all invoices of a customer, and all charging. Each change also
//! writes one row of `operator_actions`. Knows no SQL; the rules are in `changeset::control`.

use async_trait::async_trait;

use super::Result;
use crate::invoice::{CustomerId, InvoiceState, Network, Reference};

/// The operator and the reason of an action; kept for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorNote {
    pub reason: String,
    pub actor: String,
}

/// An operator's action on an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceAction {
    /// No run claims the invoice until it is released.
    Hold,
    Release,
    /// No run claims the invoice any more; only a late charge of an earlier attempt changes its state (to ATTENTION).
    Cancel,
}

/// An operator's action on a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomerAction {
    /// No run claims an invoice of the customer until it is released.
    Hold,
    Release,
    /// The customer has a new instrument, or the data of the present one were corrected: earlier declines hold nothing
    /// back any more. The periods of network limits continue.
    InstrumentChanged,
    SetNetwork(Network),
}

/// What operators have recorded about a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomerStatus {
    pub held: bool,
    pub network: Network,
    /// Milliseconds since the Unix epoch.
    pub instrument_changed_at: Option<i64>,
}

impl InvoiceAction {
    /// The name in the audit row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "invoice-hold",
            Self::Release => "invoice-release",
            Self::Cancel => "invoice-cancel",
        }
    }
}

impl CustomerAction {
    /// The name in the audit row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "customer-hold",
            Self::Release => "customer-release",
            Self::InstrumentChanged => "customer-instrument-changed",
            Self::SetNetwork(Network::None) => "customer-network-none",
            Self::SetNetwork(Network::Visa) => "customer-network-visa",
            Self::SetNetwork(Network::Mastercard) => "customer-network-mastercard",
            Self::SetNetwork(Network::Sepa) => "customer-network-sepa",
        }
    }
}

/// The actions that stop and start all charging, in audit rows.
pub(super) const STOP: &str = "charging-stop";
pub(super) const START: &str = "charging-start";
/// The subject of these actions.
pub(super) const CHARGING: &str = "charging";

/// Result of an operator's action. Only [`Controlled::Applied`] changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controlled {
    /// Recorded, with its audit row.
    Applied,
    /// The state was so already.
    Unchanged,
    /// A request may be in flight: the attempt must be settled or resolved first.
    AttemptOpen,
    /// An attempt is CHARGED: the money must be paid back, which a cancellation would hide.
    Charged,
    /// The invoice is in this state, PAID or CANCELLED, and can be neither held nor cancelled.
    Final(InvoiceState),
    /// Nothing has this name.
    Unknown,
}

/// The halt of all charging by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    pub note: OperatorNote,
    /// Milliseconds since the Unix epoch.
    pub since: i64,
}

/// Holds, cancellations, and the halt of all charging.
#[async_trait]
pub trait ControlStore: Send + Sync + 'static {
    /// Applies an action to the invoice with exactly this stored reference.
    async fn control_invoice(
        &self,
        reference: &Reference,
        action: InvoiceAction,
        note: &OperatorNote,
    ) -> Result<Controlled>;

    /// Applies an action to a customer. Once a hold has returned, no transaction claims an invoice of the customer.
    async fn control_customer(
        &self,
        customer: CustomerId,
        action: CustomerAction,
        note: &OperatorNote,
    ) -> Result<Controlled>;

    /// The customer's status; `None` for an unknown customer.
    async fn customer_status(&self, customer: CustomerId) -> Result<Option<CustomerStatus>>;

    /// The halt, if charging is stopped.
    async fn halt(&self) -> Result<Option<Halt>>;

    /// Stops all charging; returns whether charging was on before. Once this has returned, no transaction of any
    /// process claims a PENDING invoice. Open attempts are still sent and settled.
    async fn stop_charging(&self, note: &OperatorNote) -> Result<bool>;

    /// Allows charging again; returns whether it was stopped.
    async fn start_charging(&self, note: &OperatorNote) -> Result<bool>;
}
