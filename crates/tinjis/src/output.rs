//! The output of the command line: results on standard output, everything else on standard error. The only place that
//! writes to either stream, so that two rules hold for every command: foreign text cannot control a terminal, and a
//! result that cannot be written is an error. Knows no command.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

pub(crate) use chassis::printable::printable;

/// Exit code when the result could not be written and nothing else was wrong.
const NOT_WRITTEN: u8 = 2;

/// The first failure to write a result, for the exit code of the whole command.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Writes a line of the result.
pub(crate) fn result(line: impl Display) {
    if let Err(error) = write(io::stdout().lock(), &line) {
        let _earlier = FAILURE.set(error);
    }
}

/// Writes a progress line to standard error. A line that cannot be written is lost: no other stream is left for an
/// error.
pub(crate) fn note(line: impl Display) {
    let _lost = write(io::stderr().lock(), &line);
}

/// Writes an error with its causes, one after the other.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("error: {error:#}"));
}

/// The exit code of a command that asked for `code`: never success if a part of its result was not written. A closed
/// pipe (`| head`) is not reported: its reader has all that it needs.
pub(crate) fn exit_code(code: ExitCode) -> ExitCode {
    let Some(error) = FAILURE.get() else { return code };
    if error.kind() != ErrorKind::BrokenPipe {
        note(format_args!("error: the result could not be written to standard output: {error}"));
    }
    if code == ExitCode::SUCCESS { ExitCode::from(NOT_WRITTEN) } else { code }
}

fn write(mut to: impl Write, line: &dyn Display) -> io::Result<()> {
    let line = line.to_string();
    writeln!(to, "{}", printable(&line))?;
    to.flush()
}

/// A whole number with commas between thousands.
pub(crate) fn grouped(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Minor units as an amount with this many decimals.
pub(crate) fn amount(minor: i128, exponent: u8) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let (minor, places) = (minor.unsigned_abs(), usize::from(exponent));
    let unit = 10_u128.checked_pow(exponent.into()).unwrap_or(u128::MAX);
    let whole = grouped(i128::try_from(minor / unit).unwrap_or(i128::MAX));
    if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{:0places$}", minor % unit) }
}

#[cfg(test)]
mod tests {
    use chassis::printable::is_hidden;

    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let numbers = [(0, "0"), (999, "999"), (1000, "1,000"), (-1_234_567, "-1,234,567")];
        for (number, text) in numbers {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn minor_units_become_amounts() {
        for (minor, text) in [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (123_456_789, "1,234,567.89")] {
            assert_eq!(amount(minor, 2), text);
        }
        assert_eq!([amount(-1500, 0), amount(1234, 3), amount(1, 4)], ["-1,500", "1.234", "0.0001"]);
    }

    #[test]
    fn what_steers_a_terminal_is_escaped_and_all_other_text_stays() {
        for (text, shown) in [
            ("I1 12.15 € → “ä” 漢字 🧾", "I1 12.15 € → “ä” 漢字 🧾"),
            ("\u{1b}[2Jright: all\u{7f}", "\\u001b[2Jright: all\\u007f"),
            ("a\r\nright: 5\tb", "a\\r\\nright: 5\\tb"),
            ("\u{9b}2J", "\\u009b2J"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{61c}\u{2028}", "a\\u202eb\\u2066c\\u200f\\u061c\\u2028"),
            ("\u{feff}\u{ad}\u{200b}\u{e000}", "\\ufeff\\u00ad\\u200b\\ue000"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn a_line_of_json_stays_the_same_json() {
        let value = serde_json::json!({ "reference": "\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{e0041}\n" });
        let shown = printable(&value.to_string()).into_owned();
        assert!(shown.chars().all(|c| !is_hidden(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
