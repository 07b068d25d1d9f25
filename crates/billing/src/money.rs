//! Money in minor units. Parsed and printed as decimal text; no float ever holds an amount. Pure.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub use chassis::currency::Currency;

/// The most minor units of one amount, positive or negative: 10^15, so that sums of thousands fit an `i64`.
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// An amount in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Minor units of the currency, at most [`AMOUNT_MINOR_MAX`], positive or negative.
    pub amount_minor: i64,
    pub currency: Currency,
}

impl Money {
    /// The amount without its currency, for display.
    #[must_use]
    pub fn amount(self) -> Amount {
        Amount { minor: self.amount_minor, exponent: self.currency.exponent() }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency)
    }
}

/// An amount as decimal text with all decimals of its currency: `145.40`, `1500` of JPY, `1.234` of KWD.
/// In JSON it is a number of exactly these characters, which no float has touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Amount {
    minor: i64,
    exponent: u8,
}

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// Not digits with an optional minus sign and decimal point.
    #[error("an amount is written in digits with a decimal point, like 145.40")]
    NotDecimal,
    /// An exponent, like `1e2`.
    #[error("an amount has no exponent: write 100 instead of 1e2")]
    Exponent,
    /// More decimals than the currency has. They are not rounded, and a point is not guessed to group thousands.
    #[error("{}", too_many_decimals(*.0))]
    Decimals(Currency),
    /// Beyond [`AMOUNT_MINOR_MAX`].
    #[error("{}", too_large(*.0))]
    TooLarge(Currency),
}

fn too_many_decimals(currency: Currency) -> String {
    match currency.exponent() {
        0 => format!("an amount in {currency} has no decimals"),
        most => format!("an amount in {currency} has at most {most} decimals"),
    }
}

fn too_large(currency: Currency) -> String {
    let most = Money { amount_minor: AMOUNT_MINOR_MAX, currency }.amount();
    format!("an amount in {currency} is at most {most}")
}

/// The most digits, whole and fractional together, of an amount within [`AMOUNT_MINOR_MAX`].
const DIGITS_MAX: usize = 16;

/// The least decimals that existing clients of the legacy API expect.
const LEGACY_DECIMALS_MIN: u8 = 2;

impl Amount {
    /// An amount of this many minor units.
    ///
    /// # Errors
    /// When it is beyond [`AMOUNT_MINOR_MAX`], positive or negative.
    pub fn from_minor(minor: i64, currency: Currency) -> Result<Self, BadAmount> {
        if (-AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX).contains(&minor) {
            Ok(Self { minor, exponent: currency.exponent() })
        } else {
            Err(BadAmount::TooLarge(currency))
        }
    }

    /// Checks whether a text is an amount of some currency.
    ///
    /// # Errors
    /// What is allowed.
    pub fn check(text: &str) -> Result<(), BadAmount> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, decimals) = digits.split_once('.').map_or((digits, None), |(w, d)| (w, Some(d)));
        check_digits(whole, decimals)
    }

    /// Parses a JSON number without an exponent and with at most the decimals of the currency; nothing is rounded.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, BadAmount> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, decimals) = match digits.split_once('.') {
            Some((whole, decimals)) => (whole, Some(decimals)),
            None => (digits, None),
        };
        check_digits(whole, decimals)?;
        let decimals = decimals.unwrap_or("");
        let places = usize::from(currency.exponent());
        if decimals.len() > places {
            return Err(BadAmount::Decimals(currency));
        }
        if whole.len() + places > DIGITS_MAX {
            return Err(BadAmount::TooLarge(currency));
        }
        let digits = format!("{whole}{decimals:0<places$}");
        let minor: i64 = digits.parse().map_err(|_| BadAmount::TooLarge(currency))?;
        Self::from_minor(if negative { -minor } else { minor }, currency)
    }

    #[must_use]
    pub fn minor(self) -> i64 {
        self.minor
    }

    /// The same amount with the two decimals that existing clients expect, or with more if it needs more.
    #[must_use]
    pub fn legacy(self) -> Self {
        let missing = LEGACY_DECIMALS_MIN.saturating_sub(self.exponent);
        Self { minor: self.minor * 10_i64.pow(missing.into()), exponent: self.exponent + missing }
    }
}

fn check_digits(whole: &str, decimals: Option<&str>) -> Result<(), BadAmount> {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits(whole) && decimals.is_none_or(is_digits) {
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        return if leading_zero { Err(BadAmount::NotDecimal) } else { Ok(()) };
    }
    let (mantissa, exponent) = decimals.unwrap_or(whole).split_once(['e', 'E']).unwrap_or_default();
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let has_exponent = is_digits(mantissa) && is_digits(exponent) && (decimals.is_none() || is_digits(whole));
    Err(if has_exponent { BadAmount::Exponent } else { BadAmount::NotDecimal })
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        let (minor, places) = (self.minor.unsigned_abs(), usize::from(self.exponent));
        let unit = 10_u64.pow(self.exponent.into());
        write!(f, "{sign}{}", minor / unit)?;
        if places > 0 { write!(f, ".{:0places$}", minor % unit) } else { Ok(()) }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?;
        text.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<i64, BadAmount> {
        parsed_in("EUR", text)
    }

    fn parsed_in(code: &str, text: &str) -> Result<i64, BadAmount> {
        Amount::parse(text, Currency::from_code(code).unwrap()).map(Amount::minor)
    }

    #[test]
    fn plain_decimal_text_is_read_exactly() {
        for (text, minor) in [
            ("145.40", 14_540),
            ("145.4", 14_540),
            ("145", 14_500),
            ("0.07", 7),
            ("-0.07", -7),
            ("0", 0),
            ("-0.00", 0),
            ("10000000000000.00", AMOUNT_MINOR_MAX),
            ("-10000000000000", -AMOUNT_MINOR_MAX),
        ] {
            assert_eq!(parsed(text), Ok(minor), "{text}");
        }
    }

    #[test]
    fn what_is_not_plain_is_refused_with_its_reason() {
        for text in [
            "", "-", ".", ".5", "5.", "+5", "--5", "05", "1,5", " 5", "5 ", "NaN", "inf", "0x5", "\u{0661}",
            "\"5\"", "1e", "e5", ".1e5", "null",
        ] {
            assert_eq!(parsed(text), Err(BadAmount::NotDecimal), "{text:?}");
        }
        for text in ["1e2", "1E+2", "1.4540e2", "-14540e-2"] {
            assert_eq!(parsed(text), Err(BadAmount::Exponent), "{text}");
        }
        for text in ["1.234", "1.100", "0.000000000000000000001"] {
            assert_eq!(parsed(text), Err(BadAmount::Decimals(Currency::EUR)), "{text}");
        }
        for text in
            ["10000000000000.01", "99999999999999", "123456789012345678901234567890", "-10000000000000.01"]
        {
            assert_eq!(parsed(text), Err(BadAmount::TooLarge(Currency::EUR)), "{text}");
        }
    }

    #[test]
    fn json_numbers_keep_their_trailing_zero() {
        let amount = Amount::from_minor(14_540, Currency::EUR).unwrap();
        assert_eq!(serde_json::to_string(&[amount]).unwrap(), "[145.40]");
    }

    #[test]
    fn each_currency_has_its_own_decimals() {
        for (code, text, minor, shown, legacy) in [
            ("JPY", "1500", 1_500, "1500", "1500.00"),
            ("CLP", "-7", -7, "-7", "-7.00"),
            ("KWD", "1.234", 1_234, "1.234", "1.234"),
            ("KWD", "1.2", 1_200, "1.200", "1.200"),
            ("KWD", "-0.001", -1, "-0.001", "-0.001"),
            ("HUF", "1234.5", 123_450, "1234.50", "1234.50"),
            ("CLF", "0.0001", 1, "0.0001", "0.0001"),
            ("JPY", "1000000000000000", AMOUNT_MINOR_MAX, "1000000000000000", "1000000000000000.00"),
            ("KWD", "1000000000000", AMOUNT_MINOR_MAX, "1000000000000.000", "1000000000000.000"),
        ] {
            let amount = Amount::parse(text, Currency::from_code(code).unwrap()).unwrap();
            assert_eq!((amount.minor(), amount.to_string().as_str()), (minor, shown), "{code} {text}");
            assert_eq!(amount.legacy().to_string(), legacy, "{code} {text}");
        }
        for (code, text, why) in [
            ("JPY", "1500.00", "an amount in JPY has no decimals"),
            ("KWD", "1.2345", "an amount in KWD has at most 3 decimals"),
            ("EUR", "1.234", "an amount in EUR has at most 2 decimals"),
            ("JPY", "1000000000000001", "an amount in JPY is at most 1000000000000000"),
            ("KWD", "1000000000000.001", "an amount in KWD is at most 1000000000000.000"),
        ] {
            assert_eq!(parsed_in(code, text).unwrap_err().to_string(), why);
        }
    }

    /// The value in hundredths by long multiplication of digits, in wide integers: another algorithm than the parser's.
    fn exact_minor(text: &str) -> i128 {
        let negative = text.starts_with('-');
        let mut minor: i128 = 0;
        let mut places = None;
        for byte in text.trim_start_matches('-').bytes() {
            match byte {
                b'.' => places = Some(0),
                digit => {
                    minor = minor * 10 + i128::from(digit - b'0');
                    places = places.map(|places| places + 1);
                }
            }
        }
        for _ in places.unwrap_or(0)..2 {
            minor *= 10;
        }
        if negative { -minor } else { minor }
    }

    proptest! {
        #[test]
        fn printing_and_reading_again_changes_nothing(minor in -AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX) {
            for currency in ["EUR", "JPY", "KWD", "CLF"].map(|code| Currency::from_code(code).unwrap()) {
                let amount = Amount::from_minor(minor, currency).unwrap();
                prop_assert_eq!(Amount::parse(&amount.to_string(), currency), Ok(amount));
                prop_assert_eq!(serde_json::to_string(&amount).unwrap(), amount.to_string());
            }
        }

        #[test]
        fn no_accepted_text_changes_its_value(text in "-?[0-9]{1,18}(\\.[0-9]{0,3})?") {
            if let Ok(minor) = parsed(&text) {
                prop_assert_eq!(i128::from(minor), exact_minor(&text));
            }
        }

        #[test]
        fn two_decimals_within_the_limit_are_always_accepted(text in "-?(0|[1-9][0-9]{0,12})(\\.[0-9]{1,2})?") {
            prop_assert!(parsed(&text).is_ok());
        }

        #[test]
        fn garbage_never_panics_and_is_never_an_amount(text in "\\PC*") {
            let plain = !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'.'));
            prop_assert!(parsed(&text).is_err() || plain);
        }
    }
}
