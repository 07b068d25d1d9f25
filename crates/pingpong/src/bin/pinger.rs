//! The pinger's own binary. Everything is in the library, which the command line links too.

use std::process::ExitCode;

fn main() -> ExitCode {
    pingpong::pinger::run(std::env::args_os())
}
