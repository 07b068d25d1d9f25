//! `make prove` runs every proof, one after the other, and prints one table; `make prove-mutants` breaks the code on
//! purpose and checks that the named proof fails. Knows proofs by their command and by the result line of each.

mod mutants;
mod parts;
mod run;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use parts::Size;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let right = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["small"] => parts::prove(Size::Small, ""),
        ["small", only] => parts::prove(Size::Small, only),
        ["beyond-tests"] => parts::prove(Size::BeyondTests, ""),
        ["full"] => parts::prove(Size::Full, ""),
        ["full", only] => parts::prove(Size::Full, only),
        ["mutants"] => mutants::prove(""),
        ["mutants", only] => mutants::prove(only),
        _ => Err(io::Error::other(
            "say small or full, then perhaps a part; or beyond-tests; or mutants, then perhaps a patch",
        )),
    };
    match right {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            print_progress(&format!("the proofs could not be run: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a progress line.
fn print_progress(line: &str) {
    // When standard output is closed, there is no reader to report the error to.
    let _ = writeln!(io::stdout(), "{line}");
}
