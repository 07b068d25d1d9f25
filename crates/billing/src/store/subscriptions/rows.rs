//! Rows of subscriptions and of their schedule as billing's own types, for every database.

use jiff::civil::Date;

use super::{DueDate, OperatorAction};
use crate::invoice::{CustomerId, Reference};
use crate::money::Currency;
use crate::schedule::calendar::{parse_date, parse_time};
use crate::schedule::run::{ScheduleRun, Sum};
use crate::schedule::{AnchorDay, EveryMonths, InvalidField, Price, Prices, Terms, Zone};
use crate::store::changeset::subscription_import::{KnownCustomer, OperatorPrice};
use crate::store::rows::{Columns, FromRow};
use crate::subscription::{NextPeriod, Subscription};

fn date<R: Columns>(row: &R, column: usize) -> Result<Option<Date>, R::Error> {
    row.optional(column, |text| parse_date("", text).ok())
}

fn given_date<R: Columns>(row: &R, column: usize) -> Result<Date, R::Error> {
    row.parsed(column, |text| parse_date("", text).ok())
}

/// Columns of `subscriptions AS s`; `prices` is the subselect for a JSON array of its prices.
pub(in crate::store) fn subscription(prices: &str) -> String {
    format!(
        "s.id, s.reference, s.customer_id, s.currency, s.anchor_day, s.every_months, s.zone, s.at, s.starts_on, \
         s.ends_on, s.holidays, s.state, s.next_on, s.next_at, s.last_on, s.created_at, s.updated_at, \
         (SELECT c.reference FROM customers AS c WHERE c.id = s.customer_id), {prices}"
    )
}

impl FromRow for Subscription {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let bad = |column: usize| move |bad: InvalidField| R::corrupt(column, bad.to_string());
        let terms = Terms {
            anchor_day: AnchorDay::new(row.count(4)?.into()).map_err(bad(4))?,
            every_months: EveryMonths::new(row.count(5)?.into()).map_err(bad(5))?,
            zone: Zone::named(&row.text(6)?).map_err(bad(6))?,
            at: parse_time("at", &row.text(7)?).map_err(bad(7))?,
            starts_on: given_date(row, 8)?,
            ends_on: date(row, 9)?,
            holidays: row.value(10)?,
        };
        let next = match (date(row, 12)?, row.optional_integer(13)?) {
            (Some(on), Some(charge_at)) => Some(NextPeriod { on, charge_at }),
            _ => None,
        };
        Ok(Self {
            id: row.integer(0)?,
            reference: row.reference(1)?,
            customer_id: CustomerId(row.integer(2)?),
            customer_reference: row.optional(17, |text| Reference::stored(text).ok())?,
            currency: row.parsed(3, Currency::from_code)?,
            prices: prices(&row.text(18)?).ok_or_else(|| R::corrupt(18, "no prices".to_owned()))?,
            terms,
            state: row.value(11)?,
            next,
            last_on: date(row, 14)?,
            created_at: row.integer(15)?,
            updated_at: row.integer(16)?,
        })
    }
}

/// Reads JSON `[[date, minor units], …]`, in any order.
fn prices(json: &str) -> Option<Prices> {
    let listed: Vec<(String, i64)> = serde_json::from_str(json).ok()?;
    let price = |(from, amount_minor): (String, i64)| {
        Some(Price { from: parse_date("from", &from).ok()?, amount_minor })
    };
    let mut prices: Vec<Price> = listed.into_iter().map(price).collect::<Option<_>>()?;
    prices.sort_by_key(|price| price.from);
    Prices::new(prices).ok()
}

/// Columns of `customers AS c`.
pub(super) const KNOWN_CUSTOMER: &str = "c.id, c.currency, c.reference";

impl FromRow for KnownCustomer {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            id: CustomerId(row.integer(0)?),
            currency: row.parsed(1, Currency::from_code)?,
            reference: row.optional(2, |text| Reference::stored(text).ok())?,
        })
    }
}

pub(super) const OPERATOR_PRICE: &str = "subject, detail";

impl FromRow for OperatorPrice {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self { subscription: row.reference(0)?, detail: row.text(1)? })
    }
}

/// An invoice that has the reference of a period.
pub(super) struct TakenReference {
    pub(super) reference: Reference,
    pub(super) customer_id: CustomerId,
    pub(super) currency: Currency,
    pub(super) amount_minor: i64,
}

impl FromRow for TakenReference {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            reference: row.reference(0)?,
            customer_id: CustomerId(row.integer(1)?),
            currency: row.parsed(2, Currency::from_code)?,
            amount_minor: row.integer(3)?,
        })
    }
}

impl FromRow for DueDate {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self { on: given_date(row, 0)?, first_at: row.integer(1)? })
    }
}

/// One currency of [`Sums`](crate::schedule::run::Sums).
pub(super) struct CurrencySum(pub(super) Currency, pub(super) Sum);

impl FromRow for CurrencySum {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        let sum = Sum { count: row.integer(1)?, amount_minor: row.integer(2)? };
        Ok(Self(row.parsed(0, Currency::from_code)?, sum))
    }
}

/// A time in UTC, in milliseconds since 1970.
pub(super) struct UnixMillis(pub(super) i64);

impl FromRow for UnixMillis {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        row.integer(0).map(Self)
    }
}

pub(super) const SCHEDULE_RUN: &str = "period_on, state, reason, planned, invoices, skipped, late_ms, zone_data, \
     confirmed_by, created_at, updated_at";

impl FromRow for ScheduleRun {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            period_on: given_date(row, 0)?,
            state: row.value(1)?,
            reason: row.optional_value(2)?,
            planned: row.parsed(3, |json| serde_json::from_str(json).ok())?,
            invoices: row.integer(4)?,
            skipped: row.integer(5)?,
            late_ms: row.integer(6)?,
            zone_data: row.text(7)?,
            confirmed_by: row.optional(8, |text| Some(text.to_owned()))?,
            created_at: row.integer(9)?,
            updated_at: row.integer(10)?,
        })
    }
}

pub(in crate::store) const OPERATOR_ACTION: &str = "id, action, subject, detail, reason, actor, created_at";

impl FromRow for OperatorAction {
    fn from_row<R: Columns>(row: &R) -> Result<Self, R::Error> {
        Ok(Self {
            id: row.integer(0)?,
            action: row.text(1)?,
            subject: row.text(2)?,
            detail: row.optional(3, |text| Some(text.to_owned()))?,
            reason: row.text(4)?,
            actor: row.text(5)?,
            created_at: row.integer(6)?,
        })
    }
}
