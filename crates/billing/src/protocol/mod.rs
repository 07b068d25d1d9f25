//! The charge protocol, pure: how a charge is named, and what an answer does to an attempt. The stores, the provider's
//! module, the engine and the exhaustive model use it; it knows invoices and none of them.

pub mod dunning;
pub mod key;
pub mod transition;
