//! Amounts in the wire format: exact decimal text to minor units, rounded only on legacy routes.
//! Pure; no float holds a digit, and knows neither JSON nor routes.

use std::cmp::Ordering;

use chassis::currency::EXPONENT_OF_HUNDREDTHS;

/// Maximum minor units of one amount, of either sign.
pub const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// The longest spelling of a number; a float written out exactly has fewer than 60 digits before its exponent.
pub const NUMBER_LEN_MAX: usize = 400;

/// Largest exponent that is parsed: larger powers of ten give no amount that a ledger could hold.
const EXPONENT_MAX: i32 = 1_000_000;

/// Number of decimal digits that always fit into an `i64`.
const DIGITS_MAX: i32 = 18;

/// An amount in minor units, and the number of their decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minor {
    /// Number of minor units.
    pub units: i64,
    /// Decimals: ten to this power of minor units are one unit of the currency.
    pub exponent: u8,
}

impl Minor {
    /// An amount in minor units of two decimals.
    #[must_use]
    pub const fn hundredths(units: i64) -> Self {
        Self { units, exponent: EXPONENT_OF_HUNDREDTHS }
    }

    /// The amount in hundredths, if it is a whole number of hundredths.
    #[must_use]
    pub fn in_hundredths(self) -> Option<i64> {
        match EXPONENT_OF_HUNDREDTHS.checked_sub(self.exponent) {
            Some(more) => self.units.checked_mul(10_i64.checked_pow(more.into())?),
            None => {
                let part = 10_i64.checked_pow((self.exponent - EXPONENT_OF_HUNDREDTHS).into())?;
                (self.units % part == 0).then(|| self.units / part)
            }
        }
    }
}

/// A decimal number exactly as it was written: `± 0.d₁d₂… × 10^point`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// The digits without zeros at either end; empty for zero.
    digits: Vec<u8>,
    point: i32,
}

/// The digits cut off when a number is scaled to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remainder {
    Nothing,
    Something(Ordering),
}

/// Why a number is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// The number is more than [`AMOUNT_MINOR_MAX`].
    #[error("the amount is too large")]
    TooLarge,
    /// The number has more decimals than its minor units, where rounding is not allowed.
    #[error("the amount has more decimals than its currency")]
    TooPrecise,
}

impl Decimal {
    pub const ZERO: Self = Self { negative: false, digits: Vec::new(), point: 0 };

    /// Parses a number in JSON's grammar; `None` for anything else, also for a number that is longer than
    /// [`NUMBER_LEN_MAX`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > NUMBER_LEN_MAX {
            return None;
        }
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if is_digits(fraction) => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        if !is_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
            return None;
        }
        let all = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0');
        let zeros = all.clone().take_while(|&digit| digit == 0).count();
        let mut digits: Vec<u8> = all.skip(zeros).collect();
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let point = i32::try_from(whole.len()).ok()? - i32::try_from(zeros).ok()? + exponent;
        Some(Self { negative, digits, point })
    }

    /// Whether the number is exactly zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// Whether the number is below zero; minus zero is not.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.negative && !self.is_zero()
    }

    /// The number in minor units with `exponent` decimals, if it has no smaller digits.
    pub fn minor_exact(&self, exponent: u8) -> Result<i64, BadAmount> {
        match self.scaled(exponent.into()).ok_or(BadAmount::TooLarge)? {
            (minor, Remainder::Nothing) => self.signed_minor(minor),
            (_, Remainder::Something(_)) => Err(BadAmount::TooPrecise),
        }
    }

    /// Hundredths, rounded half to even.
    pub fn minor_rounded(&self) -> Result<i64, BadAmount> {
        let places = EXPONENT_OF_HUNDREDTHS.into();
        let (minor, rest) = self.scaled(places).ok_or(BadAmount::TooLarge)?;
        let up = match rest {
            Remainder::Nothing | Remainder::Something(Ordering::Less) => false,
            Remainder::Something(Ordering::Equal) => minor % 2 == 1,
            Remainder::Something(Ordering::Greater) => true,
        };
        self.signed_minor(minor + i64::from(up))
    }

    /// The number times `10^places` with smaller digits cut off, if it is not negative and has at most 18 digits.
    #[must_use]
    pub fn truncated(&self, places: i32) -> Option<i64> {
        if self.is_negative() { None } else { self.scaled(places).map(|(scaled, _)| scaled) }
    }

    fn signed_minor(&self, minor: i64) -> Result<i64, BadAmount> {
        if minor > AMOUNT_MINOR_MAX {
            return Err(BadAmount::TooLarge);
        }
        Ok(if self.negative { -minor } else { minor })
    }

    /// The magnitude times `10^places`: its integer part, and how the remainder compares with one half.
    fn scaled(&self, places: i32) -> Option<(i64, Remainder)> {
        if self.is_zero() {
            return Some((0, Remainder::Nothing));
        }
        let kept = self.point + places;
        if kept > DIGITS_MAX {
            return None;
        }
        let Ok(kept) = usize::try_from(kept) else {
            return Some((0, Remainder::Something(Ordering::Less)));
        };
        let digit = |at: usize| i64::from(self.digits.get(at).copied().unwrap_or(0));
        let integer = (0..kept).fold(0, |sum, at| sum * 10 + digit(at));
        let rest = match self.digits.get(kept..) {
            None | Some([]) => Remainder::Nothing,
            Some([5]) => Remainder::Something(Ordering::Equal),
            Some([first, ..]) if *first >= 5 => Remainder::Something(Ordering::Greater),
            Some(_) => Remainder::Something(Ordering::Less),
        };
        Some((integer, rest))
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_exponent(text: &str) -> Option<i32> {
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) if text.starts_with('-') => (-1, digits),
        Some(digits) => (1, digits),
        None => (1, text),
    };
    let size = |text: &str| text.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    is_digits(digits).then(|| sign * size(digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rounded(text: &str) -> Result<i64, BadAmount> {
        Decimal::parse(text).unwrap().minor_rounded()
    }

    #[test]
    fn spellings_of_one_number_are_one_amount() {
        for text in ["12.15", "12.150", "1215e-2", "0.1215E2", "0.1215e+02", "12.1500000000"] {
            assert_eq!(Decimal::parse(text).unwrap().minor_exact(2), Ok(1215), "{text}");
        }
        assert_eq!(rounded("186"), Ok(18600));
        assert_eq!(rounded("337.5"), Ok(33750));
        assert_eq!(rounded("-0.00"), Ok(0));
        assert_eq!(rounded("0e999999999999999"), Ok(0));
    }

    #[test]
    fn halves_go_to_the_even_hundredth() {
        let table = [
            ("0.005", 0),
            ("0.015", 2),
            ("0.025", 2),
            ("0.0250000001", 3),
            ("1.005", 100),
            ("0.995", 100),
            ("0.0049999", 0),
            ("0.0051", 1),
            ("-0.015", -2),
            ("1e-400000000", 0),
            ("0.1000000000000000055511151231257827021181583404541015625", 10),
        ];
        for (text, minor) in table {
            assert_eq!(rounded(text), Ok(minor), "{text}");
        }
    }

    #[test]
    fn more_than_two_decimals_are_seen_by_value_and_not_by_length() {
        assert_eq!(Decimal::parse("1.001").unwrap().minor_exact(2), Err(BadAmount::TooPrecise));
        assert_eq!(Decimal::parse("1e-3").unwrap().minor_exact(2), Err(BadAmount::TooPrecise));
        assert_eq!(Decimal::parse("1.250").unwrap().minor_exact(2), Ok(125));
    }

    #[test]
    fn each_currency_keeps_its_own_decimals() {
        let exact = |text: &str, exponent| Decimal::parse(text).unwrap().minor_exact(exponent);
        for (text, exponent, minor) in
            [("1500", 0, 1500), ("1500.00", 0, 1500), ("1.234", 3, 1234), ("0.0001", 4, 1), ("-7", 0, -7)]
        {
            assert_eq!(exact(text, exponent), Ok(minor), "{text}");
        }
        assert_eq!(exact("0.5", 0), Err(BadAmount::TooPrecise));
        assert_eq!(exact("1.2345", 3), Err(BadAmount::TooPrecise));
        assert_eq!(exact("1000000000000001", 0), Err(BadAmount::TooLarge));
    }

    #[test]
    fn huge_numbers_are_refused() {
        assert_eq!(rounded("10000000000000"), Ok(AMOUNT_MINOR_MAX));
        for text in ["10000000000000.01", "1e16", "1e999999999999", "999999999999999999999999"] {
            assert_eq!(rounded(text), Err(BadAmount::TooLarge), "{text}");
        }
        assert_eq!(Decimal::parse(&"9".repeat(NUMBER_LEN_MAX + 1)), None);
    }

    #[test]
    fn what_json_calls_no_number_is_none() {
        for text in
            ["", "-", "+1", "01", "1.", ".5", "1e", "1e+", "NaN", "Infinity", "0x1", "1_0", " 1", "1 ", "١"]
        {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn minor_units_come_back_from_their_own_text(minor in -AMOUNT_MINOR_MAX..=AMOUNT_MINOR_MAX) {
            let sign = if minor < 0 { "-" } else { "" };
            let text = format!("{sign}{}.{:02}", minor.abs() / 100, minor.abs() % 100);
            let number = Decimal::parse(&text).unwrap();
            prop_assert_eq!(number.minor_exact(2), Ok(minor));
            prop_assert_eq!(number.minor_rounded(), Ok(minor));
        }

        #[test]
        fn rounding_agrees_with_integer_arithmetic(thousandths in 0_i64..10_000_000_000) {
            let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            let (whole, rest) = (thousandths / 10, thousandths % 10);
            let up = rest > 5 || (rest == 5 && whole % 2 == 1);
            prop_assert_eq!(rounded(&text), Ok(whole + i64::from(up)));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eE]{0,40}") {
            if let Some(number) = Decimal::parse(&text) {
                let _ = (number.minor_rounded(), number.minor_exact(2), number.truncated(18));
            }
        }
    }
}
