//! Currencies and their minor units by ISO 4217: the one table of both services. Pure; knows no amount and no wire format.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// ISO 4217 list one as published on 2026-01-01 (<https://www.six-group.com>, list-one.xml): every code that has a
/// minor unit, in order, with its number of decimals. Metals, units of account and test codes are left out. Stored
/// amounts are read by this table, so that a number of decimals in it never changes.
#[rustfmt::skip]
const TABLE: &[(&str, u8)] = &[
    ("AED", 2), ("AFN", 2), ("ALL", 2), ("AMD", 2), ("AOA", 2), ("ARS", 2), ("AUD", 2), ("AWG", 2),
    ("AZN", 2), ("BAM", 2), ("BBD", 2), ("BDT", 2), ("BHD", 3), ("BIF", 0), ("BMD", 2), ("BND", 2),
    ("BOB", 2), ("BOV", 2), ("BRL", 2), ("BSD", 2), ("BTN", 2), ("BWP", 2), ("BYN", 2), ("BZD", 2),
    ("CAD", 2), ("CDF", 2), ("CHE", 2), ("CHF", 2), ("CHW", 2), ("CLF", 4), ("CLP", 0), ("CNY", 2),
    ("COP", 2), ("COU", 2), ("CRC", 2), ("CUP", 2), ("CVE", 2), ("CZK", 2), ("DJF", 0), ("DKK", 2),
    ("DOP", 2), ("DZD", 2), ("EGP", 2), ("ERN", 2), ("ETB", 2), ("EUR", 2), ("FJD", 2), ("FKP", 2),
    ("GBP", 2), ("GEL", 2), ("GHS", 2), ("GIP", 2), ("GMD", 2), ("GNF", 0), ("GTQ", 2), ("GYD", 2),
    ("HKD", 2), ("HNL", 2), ("HTG", 2), ("HUF", 2), ("IDR", 2), ("ILS", 2), ("INR", 2), ("IQD", 3),
    ("IRR", 2), ("ISK", 0), ("JMD", 2), ("JOD", 3), ("JPY", 0), ("KES", 2), ("KGS", 2), ("KHR", 2),
    ("KMF", 0), ("KPW", 2), ("KRW", 0), ("KWD", 3), ("KYD", 2), ("KZT", 2), ("LAK", 2), ("LBP", 2),
    ("LKR", 2), ("LRD", 2), ("LSL", 2), ("LYD", 3), ("MAD", 2), ("MDL", 2), ("MGA", 2), ("MKD", 2),
    ("MMK", 2), ("MNT", 2), ("MOP", 2), ("MRU", 2), ("MUR", 2), ("MVR", 2), ("MWK", 2), ("MXN", 2),
    ("MXV", 2), ("MYR", 2), ("MZN", 2), ("NAD", 2), ("NGN", 2), ("NIO", 2), ("NOK", 2), ("NPR", 2),
    ("NZD", 2), ("OMR", 3), ("PAB", 2), ("PEN", 2), ("PGK", 2), ("PHP", 2), ("PKR", 2), ("PLN", 2),
    ("PYG", 0), ("QAR", 2), ("RON", 2), ("RSD", 2), ("RUB", 2), ("RWF", 0), ("SAR", 2), ("SBD", 2),
    ("SCR", 2), ("SDG", 2), ("SEK", 2), ("SGD", 2), ("SHP", 2), ("SLE", 2), ("SOS", 2), ("SRD", 2),
    ("SSP", 2), ("STN", 2), ("SVC", 2), ("SYP", 2), ("SZL", 2), ("THB", 2), ("TJS", 2), ("TMT", 2),
    ("TND", 3), ("TOP", 2), ("TRY", 2), ("TTD", 2), ("TWD", 2), ("TZS", 2), ("UAH", 2), ("UGX", 0),
    ("USD", 2), ("USN", 2), ("UYI", 0), ("UYU", 2), ("UYW", 4), ("UZS", 2), ("VED", 2), ("VES", 2),
    ("VND", 0), ("VUV", 0), ("WST", 2), ("XAD", 2), ("XAF", 0), ("XCD", 2), ("XCG", 2), ("XOF", 0),
    ("XPF", 0), ("YER", 2), ("ZAR", 2), ("ZMW", 2), ("ZWG", 2),
];

const _: () = assert!(TABLE.len() < u8::MAX as usize, "a currency's number is a byte");

/// Decimals of amounts without a known currency, and of all amounts from before currencies had their own decimals.
pub const EXPONENT_OF_HUNDREDTHS: u8 = 2;

/// The most decimals of a currency.
pub const EXPONENT_MAX: u8 = 4;

/// A currency of ISO 4217 with a minor unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(u8);

impl Currency {
    pub const DKK: Self = Self::named("DKK");
    pub const EUR: Self = Self::named("EUR");
    pub const GBP: Self = Self::named("GBP");
    pub const SEK: Self = Self::named("SEK");
    pub const USD: Self = Self::named("USD");

    /// Every currency, in the order of their codes.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).take(TABLE.len()).map(Self)
    }

    /// The currency with this code, upper case only.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let at = TABLE.binary_search_by_key(&code, |(known, _)| known).ok()?;
        u8::try_from(at).ok().map(Self)
    }

    /// A currency for constants: an unknown code fails to compile.
    const fn named(code: &str) -> Self {
        let (mut at, code) = (0, code.as_bytes());
        loop {
            let known = TABLE[at as usize].0.as_bytes();
            if known[0] == code[0] && known[1] == code[1] && known[2] == code[2] {
                return Self(at);
            }
            at += 1;
        }
    }

    #[must_use]
    pub fn code(self) -> &'static str {
        TABLE[usize::from(self.0)].0
    }

    /// Decimals of an amount: one unit of the currency is ten to this power of minor units.
    #[must_use]
    pub fn exponent(self) -> u8 {
        TABLE[usize::from(self.0)].1
    }

    /// Index of the currency in [`Self::all`].
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Decimals of an amount in the currency that a text names; hundredths where the text names no currency.
#[must_use]
pub fn exponent_of(code: &str) -> u8 {
    Currency::from_code(code).map_or(EXPONENT_OF_HUNDREDTHS, Currency::exponent)
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A text that is no code of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the ISO 4217 code of a currency in upper case, such as EUR")]
pub struct UnknownCurrency;

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(code: &str) -> Result<Self, UnknownCurrency> {
        Self::from_code(code).ok_or(UnknownCurrency)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_each_finds_itself() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (at, currency) in Currency::all().enumerate() {
            assert_eq!(usize::from(currency.number()), at);
            assert_eq!(Currency::from_code(currency.code()), Some(currency));
        }
        assert_eq!(Currency::all().count(), 165);
    }

    /// Stored amounts depend on each of these numbers.
    #[test]
    fn decimals_are_those_of_the_standard() {
        let with = |exponent: u8| -> Vec<&str> {
            Currency::all().filter(|currency| currency.exponent() == exponent).map(Currency::code).collect()
        };
        let none = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
        assert_eq!(with(0).join(" "), none);
        assert_eq!(with(3).join(" "), "BHD IQD JOD KWD LYD OMR TND");
        assert_eq!(with(EXPONENT_MAX).join(" "), "CLF UYW");
        assert_eq!(with(EXPONENT_OF_HUNDREDTHS).len(), 139);
        for (code, exponent) in [("EUR", 2), ("HUF", 2), ("MRU", 2), ("MGA", 2)] {
            assert_eq!(exponent_of(code), exponent, "{code}");
        }
    }

    #[test]
    fn a_currency_is_its_code_in_json_and_no_other_text() {
        let known = [Currency::EUR, Currency::USD, Currency::DKK, Currency::SEK, Currency::GBP];
        assert_eq!(serde_json::to_string(&known).unwrap(), r#"["EUR","USD","DKK","SEK","GBP"]"#);
        assert_eq!(serde_json::from_str::<Currency>(r#""\u0045UR""#).unwrap(), Currency::EUR);
        for text in ["eur", "XXX", "XAU", "", "EU", "EURO", "\u{20ac}"] {
            assert_eq!(Currency::from_code(text), None, "{text}");
            assert_eq!(exponent_of(text), EXPONENT_OF_HUNDREDTHS, "{text}");
        }
    }
}
