//! Currency codes as small numbers, and the decimals of billing's amounts in each. Pure; knows no list of currencies.

use std::collections::BTreeMap;

/// Maximum number of distinct currency codes; existing clients of the ledger may send any text.
const CURRENCIES_MAX: usize = 250;

/// The code under which all codes beyond [`CURRENCIES_MAX`] are summed.
const OTHER: &str = "other";

/// Codes by their numbers, in the order of their first use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Currencies {
    codes: Vec<String>,
    /// Decimals of billing's amounts, by the numbers of their currencies.
    exponents: BTreeMap<u8, u8>,
}

impl Currencies {
    /// The number of a currency code; a new code gets the next number.
    pub(crate) fn number(&mut self, code: &str) -> u8 {
        let known = self.codes.iter().position(|known| known == code);
        let at = known.unwrap_or_else(|| {
            if self.codes.len() < CURRENCIES_MAX {
                self.codes.push(if self.codes.len() + 1 < CURRENCIES_MAX { code } else { OTHER }.to_owned());
            }
            self.codes.len() - 1
        });
        u8::try_from(at).unwrap_or(u8::MAX)
    }

    /// The number of a currency code, which also gets the decimals of billing's amounts.
    pub(crate) fn number_with(&mut self, code: &str, exponent: u8) -> u8 {
        let currency = self.number(code);
        self.exponents.entry(currency).or_insert(exponent);
        currency
    }

    /// Decimals of billing's amounts in this currency; `None` where billing has none.
    pub(crate) fn exponent(&self, currency: u8) -> Option<u8> {
        self.exponents.get(&currency).copied()
    }

    /// The code of a number.
    pub(crate) fn code(&self, currency: u8) -> &str {
        self.codes.get(usize::from(currency)).map_or(OTHER, String::as_str)
    }
}
