//! Several deployments that share the customers by a hash of the reference: their table, and where a row of an import goes.
//! docs/adr/0123-references-belong-to-the-deployment-that-has-them.md has the decision. Knows no file of rows and compares
//! nothing.

mod args;
mod billings;
mod bucket;
mod table;

pub(crate) use args::{DeploymentsArgs, Pairs};
pub(crate) use billings::{Billings, INVOICES, Line, SUBSCRIPTIONS, ids, wrong_ids};
pub(crate) use bucket::nfc;
pub(crate) use table::Table;
