//! Sums charged on each UTC day. A store maintains them when it settles, so that they can be read without the attempts.
//! Knows no driver.

use std::collections::BTreeMap;

use super::rows::{Columns, FromRow};
use crate::money::{Currency, Money};

/// The length of a UTC day; this clock has no leap seconds.
pub const DAY_MS: i64 = 86_400_000;

/// The sum of the CHARGED attempts of one UTC day in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargedDay {
    /// Days since the Unix epoch.
    pub day: i64,
    pub charges: i64,
    /// The sum of their amounts.
    pub money: Money,
}

/// Read backwards through the primary key, without a sort. In PostgreSQL sums are `numeric`, and each has several
/// shards.
pub(super) const CHARGED_DAYS: &str =
    "SELECT day, currency, CAST(sum(amount_minor) AS bigint), CAST(sum(charges) AS bigint) FROM charged_days
     WHERE day >= $1 GROUP BY day, currency ORDER BY day DESC, currency DESC LIMIT $2";

impl FromRow for ChargedDay {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self { day: row.integer(0)?, money: row.money(1)?, charges: row.integer(3)? })
    }
}

/// The amounts that one transaction adds to its day.
#[derive(Debug, Default)]
pub(super) struct ChargedSums(BTreeMap<Currency, (i64, i64)>);

impl ChargedSums {
    pub(super) fn add(&mut self, money: Money) {
        let (charges, amount_minor) = self.0.entry(money.currency).or_default();
        *charges += 1;
        *amount_minor = amount_minor.saturating_add(money.amount_minor);
    }

    /// Currency, charges and minor units.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Currency, i64, i64)> {
        self.0.iter().map(|(currency, (charges, amount_minor))| (*currency, *charges, *amount_minor))
    }
}
