//! The ponger's own binary. Everything is in the library, which the command line links too.

use std::process::ExitCode;

fn main() -> ExitCode {
    pingpong::ponger::run(std::env::args_os())
}
