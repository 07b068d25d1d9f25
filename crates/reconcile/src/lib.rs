//! Verification as a library over streams: billing's invoices and attempts on one side, the rows of a ledger on the
//! other, and findings where they disagree. `tinjis verify` uses it; a command for bank or provider reports could use
//! the same matching with other rows. No I/O, no clock, no async: callers read and report. Knows no service, so that it
//! can contradict each of them.

mod acknowledged;
mod across;
mod amounts;
mod codec;
mod currencies;
mod facts;
mod findings;
mod index;
mod key;
mod matching;
mod partitioned;
mod spool;
mod totals;

pub use acknowledged::{AcknowledgedRows, AcknowledgedUnbacked, Acknowledgement, UnbackedAcknowledgement};
pub use across::{AcrossDeployments, SharedReference, SharedReferences};
pub use facts::hundredths;
pub use facts::{AttemptFact, AttemptState, InvoiceFact, InvoiceState, LedgerRow, PaidBy, RowState};
pub use findings::{CurrencySum, Finding, FindingKind, NAMED_FINDINGS_MAX, Reconciliation};
pub use matching::{AttemptPhase, InvoicePhase, LedgerContext, LedgerPhase};
pub use partitioned::{Partitioned, PartitionedAttempts, PartitionedInvoices, PartitionedLedger};
pub use spool::{BLOCK_BYTES, BlockId, BlockStore, MemoryBlocks, SpoolError};
