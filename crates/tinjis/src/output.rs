//! What the command line says: results on standard output, everything else on standard error.
//! Knows no command; the only place that writes to either.

use std::fmt::Display;
use std::io::{self, Write};

/// A line of the result.
pub(crate) fn result(line: impl Display) {
    write(io::stdout().lock(), &line);
}

/// A line for whoever watches.
pub(crate) fn note(line: impl Display) {
    write(io::stderr().lock(), &line);
}

/// An error with its causes, one after the other.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("error: {error:#}"));
}

/// A reader that has gone away (`| head`) is no error of ours.
fn write(mut to: impl Write, line: &dyn Display) {
    let _gone = writeln!(to, "{line}").and_then(|()| to.flush());
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

/// Hundredths as a decimal amount.
pub(crate) fn amount(minor: i128) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let minor = minor.unsigned_abs();
    let whole = i128::try_from(minor / 100).unwrap_or(i128::MAX);
    format!("{sign}{}.{:02}", grouped(whole), minor % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let numbers = [(0, "0"), (999, "999"), (1000, "1,000"), (-1_234_567, "-1,234,567")];
        for (number, text) in numbers {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn hundredths_become_amounts() {
        for (minor, text) in [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (123_456_789, "1,234,567.89")] {
            assert_eq!(amount(minor), text);
        }
    }
}
