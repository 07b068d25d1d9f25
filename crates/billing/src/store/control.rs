//! What operators stop and go on with: single invoices, all of a customer's, and all charging. Each change is one row of
//! `operator_actions` as well. Knows no SQL; the rules are in `changeset::control`.

use async_trait::async_trait;

use super::Result;
use crate::invoice::{CustomerId, InvoiceState, Network, Reference};

/// Who does it, and why; kept for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorNote {
    pub reason: String,
    pub actor: String,
}

/// What is done to an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvoiceAction {
    /// No run claims it until it is released.
    Hold,
    Release,
    /// It is never charged: final.
    Cancel,
}

/// What is done to a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CustomerAction {
    /// No run claims an invoice of the customer until it is released.
    Hold,
    Release,
    /// The customer pays with another instrument, or its data were corrected: declines of the old one hold nothing back
    /// any more. The windows of network limits go on.
    InstrumentChanged,
    SetNetwork(Network),
}

/// What operators have said of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CustomerStatus {
    pub held: bool,
    pub network: Network,
    /// In milliseconds since the Unix epoch.
    pub instrument_changed_at: Option<i64>,
}

impl InvoiceAction {
    /// As it is recorded.
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
    /// As it is recorded.
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

/// How the end and the beginning of all charging are recorded.
pub(super) const STOP: &str = "charging-stop";
pub(super) const START: &str = "charging-start";
/// What they are done to.
pub(super) const CHARGING: &str = "charging";

/// Result of an operator's action. Only [`Controlled::Applied`] changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controlled {
    /// Recorded, with its audit row.
    Applied,
    /// It is so already.
    Unchanged,
    /// A request may be on its way: the attempt must be settled or resolved first.
    AttemptOpen,
    /// An attempt is CHARGED: there is money to be paid back, which cancelling would hide.
    Charged,
    /// The invoice is in this state, which is final.
    Final(InvoiceState),
    /// Nothing has this name.
    Unknown,
}

/// All charging is stopped by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    pub note: OperatorNote,
    /// In milliseconds since the Unix epoch.
    pub since: i64,
}

/// Holds, cancellations, and the end of all charging.
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

    /// `None` for a customer that is not known.
    async fn customer_status(&self, customer: CustomerId) -> Result<Option<CustomerStatus>>;

    /// The halt, if charging is stopped.
    async fn halt(&self) -> Result<Option<Halt>>;

    /// Stops all charging; answers whether it was not stopped before. Once this has returned, no transaction of any
    /// process claims a PENDING invoice. Open attempts are still sent and settled.
    async fn stop_charging(&self, note: &OperatorNote) -> Result<bool>;

    /// Lets charging go on; answers whether it was stopped.
    async fn start_charging(&self, note: &OperatorNote) -> Result<bool>;
}
