//! What a test needs of the machine and does not find: the test is left out, and says so past any capture. In CI that
//! is a failure. Every test that can be left out goes this way.

use std::fmt::Display;
use std::io::Write;
use std::process::{Command, Stdio};

/// `true`: nothing may be left out.
pub const CI: &str = "CI";

/// Whether a program is on this machine. Where it is not, `what` is left out.
///
/// # Panics
/// When it is not, in CI.
#[must_use]
#[track_caller]
pub fn has(program: &str, what: impl Display) -> bool {
    let found = is_here(program);
    if !found {
        leave_out(what, format_args!("there is no {program}; install it"));
    }
    found
}

/// The same for a program that is not installed for tests: `what` is left out in CI too, and said as loudly.
#[must_use]
pub fn may_have(program: &str, what: impl Display) -> bool {
    let found = is_here(program);
    if !found {
        say(what, format_args!("there is no {program}"));
    }
    found
}

fn is_here(program: &str) -> bool {
    let mut look = Command::new("sh");
    look.args(["-c", "command -v \"$1\"", "look", program]).stdin(Stdio::null());
    look.output().is_ok_and(|output| output.status.success())
}

/// Says that something was not tested, and why; to be used where CI has all that is needed.
///
/// # Panics
/// In CI.
#[track_caller]
pub fn leave_out(what: impl Display, why: impl Display) {
    let in_ci = std::env::var_os(CI).is_some_and(|value| value == "true");
    assert!(!in_ci, "{what}: must not be left out in CI: {why}");
    say(what, why);
}

/// Says that something was not tested, and why, and goes on.
pub fn say(what: impl Display, why: impl Display) {
    // Past the capture, which knows the print macros only, and in one piece between what other threads write; nobody
    // listens when standard error is closed.
    let line = format!("\nLEFT OUT: {what}: {why}\n\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_machine_has_is_found() {
        assert!(has("sh", "a look for what is there"));
    }

    #[test]
    fn what_no_machine_has_is_not_found_and_a_name_is_no_command() {
        for name in ["a-program-that-nobody-has", "sh; true"] {
            assert!(!is_here(name), "{name}");
        }
    }
}
