//! Money in minor units. Parsed and printed as decimal text; no float ever holds an amount. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// The most minor units of one amount, either sign: 10^15, so that sums of thousands fit an `i64`.
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// A currency code. Billing takes the five of [`Currency::KNOWN`]; each has two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Currency {
    /// Euro.
    Eur,
    /// United States dollar.
    Usd,
    /// Danish krone.
    Dkk,
    /// Swedish krona.
    Sek,
    /// Pound sterling.
    Gbp,
}

impl Currency {
    /// Every currency that an invoice may have.
    pub const KNOWN: [Self; 5] = [Self::Eur, Self::Usd, Self::Dkk, Self::Sek, Self::Gbp];

    /// ISO 4217 code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Eur => "EUR",
            Self::Usd => "USD",
            Self::Dkk => "DKK",
            Self::Sek => "SEK",
            Self::Gbp => "GBP",
        }
    }

    /// The currency with this ISO 4217 code, upper case only.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|currency| currency.code() == code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why a text is no currency of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the currency must be EUR, USD, DKK, SEK or GBP")]
pub struct BadCurrency;

impl FromStr for Currency {
    type Err = BadCurrency;

    fn from_str(code: &str) -> Result<Self, BadCurrency> {
        Self::from_code(code).ok_or(BadCurrency)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<str>::deserialize(deserializer)?;
        code.parse().map_err(de::Error::custom)
    }
}

/// An amount of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Hundredths; at most [`AMOUNT_MINOR_MAX`] either way.
    pub amount_minor: i64,
    pub currency: Currency,
}

impl Money {
    /// The amount without its currency, to be printed.
    #[must_use]
    pub fn amount(self) -> Amount {
        Amount { minor: self.amount_minor }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency)
    }
}

/// An amount as decimal text: `145.40`, always two decimals when printed, none, one or two when read.
/// In JSON it is a number of exactly these characters, which no float has touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount {
    minor: i64,
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// Not digits with an optional minus sign and decimal point.
    #[error("an amount is written in digits with a decimal point, like 145.40")]
    NotDecimal,
    /// `1e2` and the like.
    #[error("an amount has no exponent: write 100 instead of 1e2")]
    Exponent,
    /// Rounding is not ours to decide.
    #[error("an amount has at most two decimals")]
    Decimals,
    /// Beyond [`AMOUNT_MINOR_MAX`].
    #[error("an amount is at most 10000000000000.00")]
    TooLarge,
}

/// Whole and fractional digits together that can still be within [`AMOUNT_MINOR_MAX`].
const DIGITS_MAX: usize = 16;

impl Amount {
    /// An amount of this many hundredths.
    ///
    /// # Errors
    /// Beyond [`AMOUNT_MINOR_MAX`], either sign.
    pub fn from_minor(minor: i64) -> Result<Self, BadAmount> {
        if (-AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX).contains(&minor) {
            Ok(Self { minor })
        } else {
            Err(BadAmount::TooLarge)
        }
    }

    /// Hundredths.
    #[must_use]
    pub fn minor(self) -> i64 {
        self.minor
    }
}

/// Reads what JSON calls a number, without an exponent and with at most two decimals; nothing is rounded.
impl FromStr for Amount {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
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
        if decimals.len() > 2 {
            return Err(BadAmount::Decimals);
        }
        if whole.len() + 2 > DIGITS_MAX {
            return Err(BadAmount::TooLarge);
        }
        let padding = "00".get(decimals.len()..).unwrap_or("");
        let digits = [whole, decimals, padding].concat();
        let minor: i64 = digits.parse().map_err(|_| BadAmount::TooLarge)?;
        Self::from_minor(if negative { -minor } else { minor })
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
        let minor = self.minor.unsigned_abs();
        write!(f, "{sign}{}.{:02}", minor / 100, minor % 100)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?;
        text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        text.get().parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<i64, BadAmount> {
        text.parse::<Amount>().map(Amount::minor)
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
            assert_eq!(parsed(text), Err(BadAmount::Decimals), "{text}");
        }
        for text in
            ["10000000000000.01", "99999999999999", "123456789012345678901234567890", "-10000000000000.01"]
        {
            assert_eq!(parsed(text), Err(BadAmount::TooLarge), "{text}");
        }
    }

    #[test]
    fn json_numbers_keep_their_trailing_zero_and_strings_are_refused() {
        let amount = Amount::from_minor(14_540).unwrap();
        assert_eq!(serde_json::to_string(&[amount]).unwrap(), "[145.40]");
        assert_eq!(serde_json::from_str::<Amount>("145.4").unwrap(), amount);
        for text in ["\"145.40\"", "null", "[]", "1e2", "true", "145.405"] {
            assert!(serde_json::from_str::<Amount>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_currency_is_its_code_in_json_and_no_other_text() {
        assert_eq!(serde_json::to_string(&Currency::KNOWN).unwrap(), r#"["EUR","USD","DKK","SEK","GBP"]"#);
        assert_eq!(serde_json::from_str::<Currency>(r#""\u0045UR""#).unwrap(), Currency::Eur);
        assert!(serde_json::from_str::<Currency>("\"eur\"").is_err());
    }

    /// The value in hundredths by long multiplication of digits, in wide integers: another way than the parser's.
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
            let amount = Amount::from_minor(minor).unwrap();
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
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
            let _ = serde_json::from_str::<Amount>(&text);
        }
    }
}
