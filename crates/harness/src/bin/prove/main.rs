//! `make prove` runs every proof, one after the other, and prints one table; `make prove-mutants` breaks the code on
//! purpose and looks that the named proof notices. Knows proofs by their command and by the line each leaves.

mod mutants;
mod parts;
mod run;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let right = match std::env::args().nth(1).as_deref() {
        None => parts::prove(false),
        Some("full") => parts::prove(true),
        Some("mutants") => mutants::prove(),
        Some(word) => Err(io::Error::other(format!("{word}: say nothing, full or mutants"))),
    };
    match right {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the proofs could not be run: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for whoever watches.
fn say(line: &str) {
    // Nobody listens when it is closed.
    let _ = writeln!(io::stdout(), "{line}");
}
