//! The payment service: a provider with a durable ledger that executes a key once, and with faults on demand.
//! Depends on `chassis` only; knows no other service's code.

pub mod amount;
pub mod faults;
pub mod keys;
pub mod ledger;
