//! The charge engine: claim and journal, call, settle; never the other way round.
//! Imports no HTTP and no SQL crate: the provider and the store stand behind their rooms.

pub mod key;
pub mod transition;
