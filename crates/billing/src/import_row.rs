//! The one validator of the values of an imported invoice. The route and the command line both use it, so that a file
//! is valid for both or for neither. Pure: knows no JSON, no CSV and no store.

use crate::invoice::Reference;
use crate::money::{Amount, Currency};

/// Fields of a row, in the order of the documentation.
pub const FIELDS: [&str; 5] = ["reference", "customer_id", "currency", "amount", "status"];

/// The longest row, in bytes.
pub const ROW_BYTES_MAX: usize = 16 * 1024;

/// The only fault that a well-formed JSON string can have as text (RFC 8259 section 8.2).
pub const LONE_SURROGATE: &str = "holds one half of a surrogate pair, such as \\ud800, which is no character: write both halves, or the character itself";

/// Parses the reference.
///
/// # Errors
/// Why the text is not a reference.
pub fn parse_reference(text: &str) -> Result<Reference, String> {
    Reference::new(text).map_err(|error| error.to_string())
}

/// Parses the customer's number, which existing clients read as a 32-bit integer.
///
/// # Errors
/// What is allowed.
pub fn parse_customer_id(text: &str) -> Result<i32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|id| is_number && *id >= 1);
    id.ok_or_else(|| format!("must be a whole number from 1 to {}", i32::MAX))
}

/// Parses the currency: its ISO 4217 code in upper case.
///
/// # Errors
/// What is allowed.
pub fn parse_currency(text: &str) -> Result<Currency, String> {
    text.parse().map_err(|error: chassis::currency::UnknownCurrency| error.to_string())
}

/// Parses the amount: digits with a decimal point and at most the decimals of its currency.
///
/// # Errors
/// What is allowed.
pub fn parse_amount(text: &str, currency: Currency) -> Result<Amount, String> {
    let amount = Amount::parse(text, currency).map_err(|error| error.to_string())?;
    if amount.minor() < 0 { Err("must not be below 0".to_owned()) } else { Ok(amount) }
}

/// Parses the status; returns whether it is PAID.
///
/// # Errors
/// What is allowed.
pub fn parse_status(text: &str) -> Result<bool, String> {
    match text {
        "PENDING" => Ok(false),
        "PAID" => Ok(true),
        _ => Err("must be PENDING or PAID".to_owned()),
    }
}
