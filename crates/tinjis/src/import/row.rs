//! One row of an import: from a source's texts to what billing takes, or every mistake in it. Pure.
//! Must not know which format the texts came in, nor what other rows or billing say.

use std::borrow::Cow;

use billing::invoice::Reference;
use billing::money::{Amount, Currency};
use serde::{Serialize, Serializer};

/// Columns and JSON fields, in the order of the documentation.
pub(crate) const COLUMNS: [&str; 5] = ["reference", "customer_id", "currency", "amount", "status"];

/// Columns that each file must have; `status` is PENDING where it is missing.
pub(crate) const COLUMNS_REQUIRED: usize = 4;

/// The longest row, in bytes: as long as billing takes a line.
pub(crate) const ROW_BYTES_MAX: usize = 16 * 1024;

/// A mistake in a row, or in the file as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counted from 1, the header included.
    pub(crate) line: u64,
    /// The column's name; `row` for the row as a whole.
    pub(crate) column: Cow<'static, str>,
    /// What is wrong and what is allowed.
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(line: u64, column: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { line, column: column.into(), reason: reason.into() }
    }

    /// A fault of a row as a whole.
    pub(crate) fn row(line: u64, reason: impl Into<String>) -> Self {
        Self::new(line, "row", reason)
    }
}

/// A row that is right by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    #[serde(skip)]
    pub(crate) line: u64,
    #[serde(serialize_with = "reference_text")]
    pub(crate) reference: Reference,
    pub(crate) customer_id: i32,
    #[serde(serialize_with = "text")]
    pub(crate) currency: Currency,
    #[serde(serialize_with = "text")]
    pub(crate) amount: Amount,
    #[serde(rename = "status", serialize_with = "status_text")]
    pub(crate) paid: bool,
}

fn reference_text<S: Serializer>(reference: &Reference, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(reference.as_str())
}

fn text<S: Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn status_text<S: Serializer>(paid: &bool, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(if *paid { "PAID" } else { "PENDING" })
}

/// One value as its source gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Text, or a number's digits.
    Text(Cow<'a, str>),
    /// Not given.
    Missing,
    /// Given, but not as text: why.
    Bad(&'static str),
}

/// The values of a row by [`COLUMNS`].
pub(crate) type Values<'a> = [Value<'a>; COLUMNS.len()];

/// Checks a row; answers every mistake in it.
pub(crate) fn row(line: u64, values: &Values<'_>) -> Result<Row, Vec<Fault>> {
    let [reference, customer_id, currency, amount, status] = values;
    let mut faults = Vec::new();
    let reference = take(&mut faults, line, 0, required(reference).and_then(parse_reference));
    let customer_id = take(&mut faults, line, 1, required(customer_id).and_then(parse_customer_id));
    let currency = take(&mut faults, line, 2, required(currency).and_then(parse_currency));
    let amount = take(&mut faults, line, 3, required(amount).and_then(parse_amount));
    let paid = take(&mut faults, line, 4, parse_status(status));
    match (reference, customer_id, currency, amount, paid) {
        (Some(reference), Some(customer_id), Some(currency), Some(amount), Some(paid)) => {
            Ok(Row { line, reference, customer_id, currency, amount, paid })
        }
        _ => Err(faults),
    }
}

fn take<T>(faults: &mut Vec<Fault>, line: u64, column: usize, result: Result<T, String>) -> Option<T> {
    result.map_err(|reason| faults.push(Fault::new(line, COLUMNS[column], reason))).ok()
}

fn required<'a>(value: &'a Value<'_>) -> Result<&'a str, String> {
    match value {
        Value::Text(text) if text.is_empty() => Err("is empty".to_owned()),
        Value::Text(text) => Ok(text),
        Value::Missing => Err("is missing".to_owned()),
        Value::Bad(why) => Err((*why).to_owned()),
    }
}

fn parse_reference(text: &str) -> Result<Reference, String> {
    Reference::new(text).map_err(|error| error.to_string())
}

fn parse_customer_id(text: &str) -> Result<i32, String> {
    // Old clients read ids as 32-bit integers.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|id| is_number && *id >= 1);
    id.ok_or_else(|| format!("must be a whole number from 1 to {}, not {}", i32::MAX, shown(text)))
}

fn parse_currency(text: &str) -> Result<Currency, String> {
    let known = || Currency::KNOWN.map(Currency::code).join(", ");
    Currency::from_code(text).ok_or_else(|| format!("must be one of {}, not {}", known(), shown(text)))
}

fn parse_amount(text: &str) -> Result<Amount, String> {
    let amount: Amount = text.parse().map_err(|error| format!("{error}, not {}", shown(text)))?;
    if amount.minor() < 0 { Err("must not be below 0".to_owned()) } else { Ok(amount) }
}

fn parse_status(value: &Value<'_>) -> Result<bool, String> {
    match value {
        Value::Missing => Ok(false),
        Value::Text(text) => match text.as_ref() {
            "" | "PENDING" => Ok(false),
            "PAID" => Ok(true),
            other => Err(format!("must be PENDING or PAID, not {}", shown(other))),
        },
        Value::Bad(why) => Err((*why).to_owned()),
    }
}

/// A value as a message shows it: quoted, escaped and cut.
pub(crate) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'a>(texts: [&'a str; 5]) -> Values<'a> {
        texts.map(|text| Value::Text(Cow::Borrowed(text)))
    }

    #[test]
    fn a_good_row_is_what_billing_takes() {
        let row = row(2, &values(["I1", "1", "EUR", "12.15", "PAID"])).unwrap();
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(
            json,
            r#"{"reference":"I1","customer_id":1,"currency":"EUR","amount":"12.15","status":"PAID"}"#
        );
    }

    #[test]
    fn without_a_status_an_invoice_is_pending() {
        let mut row_values = values(["I1", "1", "EUR", "186", ""]);
        assert!(!row(2, &row_values).unwrap().paid);
        row_values[4] = Value::Missing;
        assert!(!row(2, &row_values).unwrap().paid);
    }

    #[test]
    fn every_mistake_of_a_row_is_told_with_its_column() {
        let faults = row(7, &values([" I1", "0", "eur", "1.234", "paid"])).unwrap_err();
        let columns: Vec<_> = faults.iter().map(|fault| fault.column.as_ref()).collect();
        assert_eq!(columns, COLUMNS);
        assert!(faults.iter().all(|fault| fault.line == 7));
    }

    #[test]
    fn numbers_that_only_look_like_numbers_are_refused() {
        for customer in ["+1", "-1", "1.0", "1e3", " 1", "2147483648", "٣"] {
            assert!(row(1, &values(["I1", customer, "EUR", "1", ""])).is_err(), "{customer}");
        }
        for amount in ["1,50", "1.500", "-1", "1,000.00", "NaN", "inf", "0x10", " 1", "£1", "1e400"] {
            assert!(row(1, &values(["I1", "1", "EUR", amount, ""])).is_err(), "{amount}");
        }
    }
}
