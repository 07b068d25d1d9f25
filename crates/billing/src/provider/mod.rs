//! The payment provider: the request, the call, and the meaning of responses. Knows nothing of stores and runs;
//! `charge` calls it and never sees HTTP.

pub mod answer;
mod client;
mod declare;
pub mod decline;
mod dialect;
mod hint;
mod ledger;
mod request;
mod retry_after;
pub mod trace;

pub use client::{Answer, Client, Preconditions, ProviderConfig, VoidOutcome};
pub use declare::DeclareOutcome;
pub use dialect::Dialect;
