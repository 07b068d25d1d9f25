//! The due dates of a subscription: one rule, always from the anchor day, so that no month depends on the month before.
//! Pure: must not know prices, stores or the present time.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::InvalidField;
use super::holidays::Holidays;
use super::zone::{LocalInstant, Shift, Zone};

/// The first date of a calendar. Before 1973 a zone of the data (Africa/Monrovia) had an offset with seconds, which
/// RFC 3339 cannot print.
pub const DATE_MIN: Date = Date::constant(1973, 1, 1);

/// The last date of a calendar.
pub const DATE_MAX: Date = Date::constant(2999, 12, 31);

/// Day of the month, 1 to 31; a shorter month uses its last day instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorDay(i8);

impl AnchorDay {
    /// Checks the day.
    ///
    /// # Errors
    /// When it is not 1 to 31.
    pub fn new(day: i64) -> Result<Self, InvalidField> {
        match i8::try_from(day) {
            Ok(day @ 1..=31) => Ok(Self(day)),
            _ => Err(InvalidField::new(
                "anchor_day",
                format!("must be a day of the month, 1 to 31, not {day}"),
            )),
        }
    }

    /// 1 to 31.
    #[must_use]
    pub fn day(self) -> i8 {
        self.0
    }
}

/// Months from one due date to the next, 1 to [`EveryMonths::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EveryMonths(i32);

impl EveryMonths {
    /// Ten years.
    pub const MAX: i32 = 120;

    /// Checks the interval.
    ///
    /// # Errors
    /// When it is not 1 to [`EveryMonths::MAX`].
    pub fn new(months: i64) -> Result<Self, InvalidField> {
        match i32::try_from(months) {
            Ok(months @ 1..=Self::MAX) => Ok(Self(months)),
            _ => Err(InvalidField::new(
                "every_months",
                format!("must be 1 to {} months, not {months}", Self::MAX),
            )),
        }
    }

    #[must_use]
    pub fn months(self) -> i32 {
        self.0
    }
}

/// The day of a charge whose due date is a closed day. The due date and the period stay the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HolidayRule {
    /// Charged on the due date despite the closed day.
    #[default]
    AsIs,
    /// Charged on the first open day after it.
    Next,
    /// Charged on the last open day before it.
    Previous,
}

impl HolidayRule {
    /// The spelling in `/v1/subscriptions`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsIs => "as-is",
            Self::Next => "next",
            Self::Previous => "previous",
        }
    }
}

impl FromStr for HolidayRule {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        [Self::AsIs, Self::Next, Self::Previous].into_iter().find(|rule| rule.as_str() == text).ok_or_else(
            || InvalidField::new("holidays", format!("must be as-is, next or previous, not {text:?}")),
        )
    }
}

/// Parses a date in the only accepted form: `2026-01-31`.
///
/// # Errors
/// When it has another form, is not a day, or is outside [`DATE_MIN`] to [`DATE_MAX`].
pub fn parse_date(field: &'static str, text: &str) -> Result<Date, InvalidField> {
    date(text).filter(|date| (DATE_MIN..=DATE_MAX).contains(date)).ok_or_else(|| {
        InvalidField::new(
            field,
            format!("must be a date like 2026-01-31, from {DATE_MIN} to {DATE_MAX}, not {text:?}"),
        )
    })
}

/// Parses `2026-01-31`, and rejects the other forms that jiff would read.
pub(super) fn date(text: &str) -> Option<Date> {
    let form = b"dddd-dd-dd";
    has_form(text, form).then(|| text.parse().ok()).flatten()
}

/// Parses a local time in the only accepted form: `06:00`.
///
/// # Errors
/// When it has another form, or is no time of a day.
pub fn parse_time(field: &'static str, text: &str) -> Result<Time, InvalidField> {
    has_form(text, b"dd:dd").then(|| text.parse().ok()).flatten().ok_or_else(|| {
        InvalidField::new(field, format!("must be a time like 06:00, from 00:00 to 23:59, not {text:?}"))
    })
}

/// Formats a local time as [`parse_time`] reads it.
#[must_use]
pub fn format_time(time: Time) -> String {
    format!("{:02}:{:02}", time.hour(), time.minute())
}

fn has_form(text: &str, form: &[u8]) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            _ => byte == *expected,
        })
}

/// The fields that decide when a subscription is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Day of the month.
    pub anchor_day: AnchorDay,
    /// Months from one due date to the next.
    pub every_months: EveryMonths,
    /// The time zone of `at`.
    pub zone: Zone,
    /// Local time of each due date, to the minute.
    pub at: Time,
    /// No due date is earlier; its month is the first that may have a due date.
    pub starts_on: Date,
    /// The last date that may be a due date.
    pub ends_on: Option<Date>,
    /// What a closed day does to a charge.
    pub holidays: HolidayRule,
}

impl Terms {
    /// Checks the fields against each other.
    ///
    /// # Errors
    /// Fails for dates outside [`DATE_MIN`] to [`DATE_MAX`], an end before the start, or a time with seconds.
    pub fn check(&self) -> Result<(), InvalidField> {
        let dates = [("starts_on", Some(self.starts_on)), ("ends_on", self.ends_on)];
        for (field, date) in dates {
            if date.is_some_and(|date| !(DATE_MIN..=DATE_MAX).contains(&date)) {
                return Err(InvalidField::new(field, format!("must be from {DATE_MIN} to {DATE_MAX}")));
            }
        }
        if let Some(ends_on) = self.ends_on.filter(|ends_on| *ends_on < self.starts_on) {
            let starts_on = self.starts_on;
            return Err(InvalidField::new(
                "ends_on",
                format!("must not be before starts_on: {ends_on} is before {starts_on}"),
            ));
        }
        if (self.at.second(), self.at.subsec_nanosecond()) != (0, 0) {
            return Err(InvalidField::new("at", "must be a time to the minute, like 06:00"));
        }
        Ok(())
    }

    /// The due date of the month `number` by the rule, even before the subscription begins, and whether the month is
    /// too short for the anchor day. `None` beyond the calendar.
    fn due(&self, number: i32) -> Option<(Date, bool)> {
        let months = number.checked_mul(self.every_months.0)?.checked_add(month_number(self.starts_on))?;
        let year = i16::try_from(months.div_euclid(12)).ok()?;
        let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
        let last = Date::new(year, month, 1).ok()?.last_of_month();
        let clamped = self.anchor_day.0 > last.day();
        let due = if clamped { last } else { Date::new(year, month, self.anchor_day.0).ok()? };
        Some((due, clamped))
    }
}

/// Months since year 0.
fn month_number(date: Date) -> i32 {
    i32::from(date.year()) * 12 + i32::from(date.month()) - 1
}

/// What is unusual about a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The month does not have the anchor day; its last day is used.
    pub clamped: bool,
    /// The local time does not exist on this date; the instant is later by the length of the gap.
    pub gap: bool,
    /// The local time occurs twice on this date; the instant is the first.
    pub fold: bool,
    /// The due date is a closed day, and the charge has moved.
    pub holiday: bool,
}

impl Notes {
    /// The names of the notes that are set, in this order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(self.clamped, "clamped"), (self.gap, "gap"), (self.fold, "fold"), (self.holiday, "holiday")]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
    }
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(" "))
    }
}

impl Serialize for Notes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(None)?;
        for name in self.names() {
            names.serialize_element(name)?;
        }
        names.end()
    }
}

/// One due date of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The due date: the period's identity, and part of its invoice's reference.
    pub on: Date,
    /// The date on which the invoice is charged: the due date, unless that is closed.
    pub charge_on: Date,
    /// The instant of the due date.
    pub instant: LocalInstant,
    /// The instant from which the invoice may be charged: the local time on `charge_on`.
    pub charge_instant: LocalInstant,
    /// The notes on this period.
    pub notes: Notes,
}

/// The first due date; `None` if the subscription ends before it.
#[must_use]
pub fn first_due(terms: &Terms) -> Option<Date> {
    due_dates(terms, terms.starts_on, DATE_MAX).next().map(|(due, _)| due)
}

/// The periods of a subscription whose due dates are within `from` to `through`, both included, in order. Holidays and
/// zones change the day and the time of a charge, but not which periods exist.
pub fn periods<'a>(
    terms: &'a Terms,
    holidays: &'a Holidays,
    from: Date,
    through: Date,
) -> impl Iterator<Item = Period> + 'a {
    due_dates(terms, from, through).filter_map(|(on, clamped)| period(terms, holidays, on, clamped))
}

/// Due dates, each with whether its month was too short. Limited to the subscription's dates and the calendar.
fn due_dates(terms: &Terms, from: Date, through: Date) -> impl Iterator<Item = (Date, bool)> {
    let from = from.max(terms.starts_on).max(DATE_MIN);
    let through = through.min(terms.ends_on.unwrap_or(DATE_MAX)).min(DATE_MAX);
    // The month of `from` or an earlier one: at most one due date is skipped.
    let first = (month_number(from) - month_number(terms.starts_on)) / terms.every_months.0;
    (first..)
        .map_while(|number| terms.due(number))
        .skip_while(move |(due, _)| *due < from)
        .take_while(move |(due, _)| *due <= through)
}

/// `None` only outside the calendar, where `due_dates` has no dates.
fn period(terms: &Terms, holidays: &Holidays, on: Date, clamped: bool) -> Option<Period> {
    let charge_on = match terms.holidays {
        HolidayRule::AsIs => on,
        // [`Holidays`] limits the closed days in a row, so an open day is found.
        HolidayRule::Next => holidays.open_day(on, 1).unwrap_or(on),
        HolidayRule::Previous => holidays.open_day(on, -1).unwrap_or(on),
    };
    let (instant, shift) = terms.zone.instant(on.to_datetime(terms.at))?;
    let (charge_instant, _) = terms.zone.instant(charge_on.to_datetime(terms.at))?;
    let notes =
        Notes { clamped, gap: shift == Shift::Gap, fold: shift == Shift::Fold, holiday: charge_on != on };
    Some(Period { on, charge_on, instant, charge_instant, notes })
}
