//! Requirements of tests on the machine: a test with a missing requirement is skipped with a notice that no capture
//! hides. In CI only [`may_have`] and [`skip_notice`] allow that. Every test that may be skipped uses this module. Knows
//! no test.

use std::fmt::Display;
use std::io::Write;
use std::process::{Command, Stdio};

/// With the value `true` no test may be skipped.
pub const CI: &str = "CI";

/// Whether a program is installed. If not, `what` is reported as skipped.
///
/// # Panics
/// When the program is missing in CI.
#[must_use]
#[track_caller]
pub fn has(program: &str, what: impl Display) -> bool {
    let found = is_here(program);
    if !found {
        leave_out(what, format_args!("there is no {program}; install it"));
    }
    found
}

/// As [`has`], for a program that CI does not install: `what` is skipped in CI too, with the same notice.
#[must_use]
pub fn may_have(program: &str, what: impl Display) -> bool {
    let found = is_here(program);
    if !found {
        skip_notice(what, format_args!("there is no {program}"));
    }
    found
}

fn is_here(program: &str) -> bool {
    let mut look = Command::new("sh");
    look.args(["-c", "command -v \"$1\"", "look", program]).stdin(Stdio::null());
    look.output().is_ok_and(|output| output.status.success())
}

/// Reports that `what` was skipped, with the reason; for requirements that CI meets.
///
/// # Panics
/// In CI.
#[track_caller]
pub fn leave_out(what: impl Display, why: impl Display) {
    let in_ci = std::env::var_os(CI).is_some_and(|value| value == "true");
    assert!(!in_ci, "{what}: must not be left out in CI: {why}");
    skip_notice(what, why);
}

/// Reports that `what` was skipped, with the reason, also in CI.
pub fn skip_notice(what: impl Display, why: impl Display) {
    // Bypasses the capture, which only affects the print macros, and writes in one piece between other threads. If
    // standard error is closed, there is no reader.
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
        for name in ["a-program-that-does-not-exist", "sh; true"] {
            assert!(!is_here(name), "{name}");
        }
    }
}
