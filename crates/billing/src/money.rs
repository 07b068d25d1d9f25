//! Money in minor units. Parsed and printed as decimal text; no float ever holds an amount. Pure.

use std::fmt;

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

/// An amount of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Hundredths; at most [`AMOUNT_MINOR_MAX`] either way.
    pub amount_minor: i64,
    /// Of what.
    pub currency: Currency,
}
