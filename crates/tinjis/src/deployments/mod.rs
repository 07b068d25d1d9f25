//! Several deployments that share the customers by a hash of the reference: their table, and the target of an imported
//! row. The decision is docs/adr/0123-references-belong-to-the-deployment-that-has-them.md. Knows no file of rows and
//! compares nothing.

mod args;
mod billings;
mod bucket;
mod table;

pub(crate) use args::{DeploymentsArgs, Pairs};
pub(crate) use billings::{Billings, INVOICES, Kind, Line, SUBSCRIPTIONS, ids, wrong_ids};
pub(crate) use bucket::nfc;
pub(crate) use table::Table;
