//! `tinjis run SERVICE …`: the programs of billing, payments, pinger and ponger in one binary, so that the demo and
//! system tests can kill real processes. Also the programs that tests of a deployment run in pods. Passes all arguments
//! through; knows no setting.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, ValueParser};

use crate::{doctor, load};

/// Message when no service is named.
#[cfg(feature = "services")]
pub(crate) const WHICH: &str = "which service: billing, payments, pinger or ponger";
/// Message when the named service is not in this binary.
#[cfg(not(feature = "services"))]
pub(crate) const WHICH: &str =
    "no service is in this program; billing, payments, pinger and ponger have images of their own";

/// The services in this program.
#[cfg(feature = "services")]
pub(crate) const SERVICES: [&str; 4] = ["billing", "payments", "pinger", "ponger"];
#[cfg(not(feature = "services"))]
pub(crate) const SERVICES: [&str; 0] = [];

/// Accepts the services in this program. A program without services accepts each name, and answers with [`WHICH`].
pub(crate) fn names() -> ValueParser {
    if SERVICES.is_empty() { ValueParser::string() } else { PossibleValuesParser::new(SERVICES).into() }
}

/// Runs the service that argv names; `None` for any other command.
pub(crate) fn service(args: &[OsString]) -> Option<ExitCode> {
    let (service, words) = match args {
        [_, load, words @ ..] if load == "load" => (load, words),
        [_, run, service, words @ ..] if run == "run" => (service, words),
        _ => return None,
    };
    let words = std::iter::once(service.clone()).chain(words.iter().cloned());
    match service.to_str()? {
        #[cfg(feature = "services")]
        "billing" => Some(billing::run(words)),
        #[cfg(feature = "services")]
        "payments" => Some(payments::run(words)),
        #[cfg(feature = "services")]
        "pinger" => Some(pingpong::pinger::run(words)),
        #[cfg(feature = "services")]
        "ponger" => Some(pingpong::ponger::run(words)),
        "probe" => Some(doctor::probe(words)),
        "load" => Some(load::run(words)),
        _ => None,
    }
}
