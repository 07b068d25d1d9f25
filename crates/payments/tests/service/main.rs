//! The payment service as one real process on a real SQLite file, seen from its ports only. Tests of legacy clients are
//! in `legacy_routes`; each newer feature has a file of its own.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod availability;
mod crash;
mod deployments;
mod faults;
mod keys;
mod ledger;
mod legacy_routes;
mod providers;
mod rates;
mod references;
mod replicas;
mod run_time_faults;
mod site;
