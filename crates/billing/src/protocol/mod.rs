//! The pure charge protocol: how a charge is named, and what a response does to an attempt. The stores, the provider
//! module, the engine and the exhaustive model use it; it knows invoices, and must not know these modules.

pub mod dunning;
pub mod key;
pub mod transition;
