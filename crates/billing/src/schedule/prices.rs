//! Dated prices: the amount of a period is the price of its due date. Pure: knows no currency and no store.

use jiff::civil::Date;

use super::InvalidField;
use super::calendar::{Terms, first_due};
use crate::money::AMOUNT_MINOR_MAX;

/// The most price changes of one subscription: one a month for eighty years.
pub const PRICES_MAX: usize = 1_000;

/// An amount that is valid from a date until the next price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// The first due date with this amount.
    pub from: Date,
    /// The amount in minor units of the subscription's currency.
    pub amount_minor: i64,
}

/// The prices of a subscription, at least one, in strictly increasing order of their dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices(Vec<Price>);

impl Prices {
    /// Checks the order and the amounts.
    ///
    /// # Errors
    /// When there are none or too many, a date does not follow the previous one, or an amount is not allowed for an
    /// invoice.
    pub fn new(prices: Vec<Price>) -> Result<Self, InvalidField> {
        let bad = |problem: String| Err(InvalidField::new("prices", problem));
        if prices.is_empty() {
            return bad("must have at least one price".to_owned());
        }
        if prices.len() > PRICES_MAX {
            return bad(format!("must be at most {PRICES_MAX}"));
        }
        if let Some(pair) = prices.windows(2).find(|pair| pair[1].from <= pair[0].from) {
            let (before, after) = (pair[0].from, pair[1].from);
            return bad(format!(
                "must be in the order of their dates, each date once: {after} follows {before}"
            ));
        }
        match prices.iter().find(|price| !(0..=AMOUNT_MINOR_MAX).contains(&price.amount_minor)) {
            Some(price) => {
                bad(format!("must be amounts that an invoice may have; that from {} is not", price.from))
            }
            None => Ok(Self(prices)),
        }
    }

    /// Checks that each due date of these terms has a price.
    ///
    /// # Errors
    /// When the first price begins after the first due date.
    pub fn check_covers(&self, terms: &Terms) -> Result<(), InvalidField> {
        let first_from = self.0[0].from;
        match first_due(terms) {
            Some(due) if first_from > due => Err(InvalidField::new(
                "prices",
                format!("must cover the first due date, {due}; the first price begins on {first_from}"),
            )),
            _ => Ok(()),
        }
    }

    /// The amount of a period that is due on this date, in minor units; `None` before the first price.
    #[must_use]
    pub fn on(&self, due: Date) -> Option<i64> {
        let begun = self.0.partition_point(|price| price.from <= due);
        begun.checked_sub(1).map(|last| self.0[last].amount_minor)
    }

    /// All prices, by date.
    #[must_use]
    pub fn as_slice(&self) -> &[Price] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn price(year: i16, month: i8, day: i8, amount_minor: i64) -> Price {
        Price { from: date(year, month, day), amount_minor }
    }

    #[test]
    fn a_price_holds_from_its_date_until_the_day_before_the_next() {
        let prices = Prices::new(vec![price(2026, 1, 31, 990), price(2026, 4, 30, 1290)]).expect("in order");
        for (due, amount) in [
            (date(2026, 1, 30), None),
            (date(2026, 1, 31), Some(990)),
            (date(2026, 4, 29), Some(990)),
            (date(2026, 4, 30), Some(1290)),
            (date(2099, 1, 1), Some(1290)),
        ] {
            assert_eq!(prices.on(due), amount, "{due}");
        }
    }

    #[test]
    fn bad_prices_are_refused_by_name() {
        let refused = |prices: Vec<Price>| Prices::new(prices).expect_err("refused").to_string();
        assert_eq!(refused(vec![]), "prices must have at least one price");
        assert_eq!(
            refused(vec![price(2026, 2, 1, 1), price(2026, 2, 1, 2)]),
            "prices must be in the order of their dates, each date once: 2026-02-01 follows 2026-02-01"
        );
        for amount in [-1, AMOUNT_MINOR_MAX + 1] {
            assert!(refused(vec![price(2026, 2, 1, amount)]).contains("that from 2026-02-01"), "{amount}");
        }
        assert!(Prices::new(vec![price(2026, 2, 1, 0), price(2026, 2, 2, AMOUNT_MINOR_MAX)]).is_ok());
    }
}
