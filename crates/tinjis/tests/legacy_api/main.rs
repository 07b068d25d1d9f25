//! The wire contract as black-box tests, one file per older system; `docs/reference/contract.md` has the ids. Each test
//! starts processes of its own; tests without special data run against `BILLING_URL` and `PAYMENTS_URL` if these are
//! set. Links none of our crates.

mod antaeus;
mod charging;
mod invoice_app;
mod payments;
mod ping_certs;
mod pings;
mod scripted_provider;
mod site;
