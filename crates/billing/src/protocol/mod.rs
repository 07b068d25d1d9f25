//! The charge protocol, pure: how a charge is named, and what an answer does to an attempt. The stores, the provider's
//! room, the engine and the exhaustive model stand on it; it knows invoices and nothing of them.

pub mod key;
pub mod transition;
