//! Days on which no money moves: those of TARGET, computed, and those of a file. Pure: a caller reads the file.
//! Must not know a subscription.

use std::collections::BTreeSet;

use jiff::ToSpan;
use jiff::civil::{Date, Weekday};

/// The most dates in a file of holidays: two centuries of fifty.
pub const DATES_MAX: usize = 10_000;

/// The most closed days in a row: a longer closure is a mistake in the file, and would move a charge into another
/// period.
pub const CLOSED_DAYS_MAX: i32 = 14;

/// The closed days from which `next` and `previous` move a charge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holidays {
    target: bool,
    dates: BTreeSet<Date>,
}

/// Why a file of holidays cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHolidays {
    /// Not a date.
    #[error("line {line}: {text:?} is no date; each line is one date like 2026-12-24")]
    NoDate {
        /// Counted from 1.
        line: usize,
        /// The text on this line.
        text: String,
    },
    /// More than [`DATES_MAX`].
    #[error("more than {DATES_MAX} dates")]
    TooMany,
    /// More than [`CLOSED_DAYS_MAX`] in a row, from this date.
    #[error("more than {CLOSED_DAYS_MAX} closed days in a row from {0}")]
    TooLong(Date),
}

impl Holidays {
    /// The closing days of TARGET, the euro's settlement system: Saturdays, Sundays, New Year's Day, Good Friday,
    /// Easter Monday, 1 May, 25 and 26 December. Decided by the European Central Bank on 14 December 2000 from 2002
    /// until further notice (press release "Long-term calendar for TARGET closing days"); used for earlier years too.
    #[must_use]
    pub fn target() -> Self {
        Self { target: true, dates: BTreeSet::new() }
    }

    /// The dates of a file and no others, weekends only where they are listed: one date a line, `#` begins a comment.
    ///
    /// # Errors
    /// When a line is no date, there are too many dates, or too many in a row.
    pub fn listed(text: &str) -> Result<Self, BadHolidays> {
        Self::default().with(text)
    }

    /// Adds the closed days of a file to these.
    ///
    /// # Errors
    /// As [`Holidays::listed`].
    pub fn with(mut self, text: &str) -> Result<Self, BadHolidays> {
        for (at, line) in text.lines().enumerate() {
            let written = line.split('#').next().unwrap_or_default().trim();
            if written.is_empty() {
                continue;
            }
            let no_date = || BadHolidays::NoDate { line: at + 1, text: written.to_owned() };
            self.dates.insert(super::calendar::date(written).ok_or_else(no_date)?);
            if self.dates.len() > DATES_MAX {
                return Err(BadHolidays::TooMany);
            }
        }
        match self.dates.iter().find(|date| self.open_day(**date, 1).is_none()) {
            Some(date) => Err(BadHolidays::TooLong(*date)),
            None => Ok(self),
        }
    }

    /// Whether no money moves on this date.
    #[must_use]
    pub fn is_closed(&self, date: Date) -> bool {
        self.dates.contains(&date) || (self.target && is_target_closing_day(date))
    }

    /// The first open day from `date` on, in steps of one day forward (1) or back (-1). `None` when [`CLOSED_DAYS_MAX`]
    /// days are closed.
    pub(super) fn open_day(&self, date: Date, step: i32) -> Option<Date> {
        (0..=CLOSED_DAYS_MAX)
            .filter_map(|days| date.checked_add((days * step).days()).ok())
            .find(|date| !self.is_closed(*date))
    }
}

fn is_target_closing_day(date: Date) -> bool {
    if matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday) {
        return true;
    }
    if matches!((date.month(), date.day()), (1, 1) | (5, 1) | (12, 25 | 26)) {
        return true;
    }
    let easter = easter_sunday(date.year());
    [-2, 1].iter().any(|days: &i32| easter.checked_add(days.days()).is_ok_and(|closed| closed == date))
}

/// Easter Sunday of the Gregorian calendar by the anonymous algorithm of 1876, with the variable names of Meeus,
/// "Astronomical Algorithms", chapter 8.
fn easter_sunday(year: i16) -> Date {
    let year_number = i32::from(year);
    let a = year_number.rem_euclid(19);
    let (b, c) = (year_number.div_euclid(100), year_number.rem_euclid(100));
    let (d, e) = (b / 4, b.rem_euclid(4));
    let f = (b + 8) / 25;
    let g = (b - f + 1) / 3;
    let h = (19 * a + b - d - g + 15).rem_euclid(30);
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k).rem_euclid(7);
    let m = (a + 11 * h + 22 * l) / 451;
    let days = h + l - 7 * m + 21;
    // 22 March is the earliest Easter, so the day is counted from 1 March.
    Date::constant(year, 3, 1).saturating_add(days.days())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn easter_is_on_the_published_days() {
        // The years of the algorithm's earliest, latest and special cases, and the coming years.
        let published = [
            (1818, 3, 22),
            (1943, 4, 25),
            (1954, 4, 18),
            (1981, 4, 19),
            (2000, 4, 23),
            (2008, 3, 23),
            (2011, 4, 24),
            (2024, 3, 31),
            (2025, 4, 20),
            (2026, 4, 5),
            (2027, 3, 28),
            (2028, 4, 16),
            (2038, 4, 25),
            (2285, 3, 22),
        ];
        for (year, month, day) in published {
            assert_eq!(easter_sunday(year), date(year, month, day));
        }
    }

    #[test]
    fn target_closes_on_its_six_holidays_and_on_weekends() {
        let target = Holidays::target();
        let closed: Vec<_> = (0..365)
            .map(|days: i32| date(2026, 1, 1).saturating_add(days.days()))
            .filter(|day| target.is_closed(*day))
            .filter(|day| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday))
            .collect();
        let expected = [(1, 1), (4, 3), (4, 6), (5, 1), (12, 25)].map(|(month, day)| date(2026, month, day));
        assert_eq!(closed, expected, "26 December 2026 is a Saturday");
        assert!(target.is_closed(date(2026, 12, 26)) && target.is_closed(date(2026, 11, 29)));
        assert_eq!(target.open_day(date(2026, 4, 3), 1), Some(date(2026, 4, 7)), "over Easter");
        assert_eq!(target.open_day(date(2026, 4, 6), -1), Some(date(2026, 4, 2)));
    }

    #[test]
    fn a_file_lists_exactly_its_dates_and_names_a_bad_line() {
        let holidays =
            Holidays::listed("# Denmark\n2026-06-05 # Constitution Day\n\n2026-12-24\n").expect("two dates");
        assert!(holidays.is_closed(date(2026, 6, 5)) && holidays.is_closed(date(2026, 12, 24)));
        assert!(!holidays.is_closed(date(2026, 6, 6)), "a Saturday that is not listed");
        let both = Holidays::target().with("2026-12-24").expect("one date");
        assert_eq!(both.open_day(date(2026, 12, 24), 1), Some(date(2026, 12, 28)));

        let error = Holidays::listed("2026-06-05\n05/06/2026\n").expect_err("no date");
        assert_eq!(error, BadHolidays::NoDate { line: 2, text: "05/06/2026".into() });
        assert!(Holidays::listed("2026-02-29").is_err(), "no such day");
    }

    #[test]
    fn a_closure_that_would_swallow_a_period_is_refused() {
        let days = |count: i32| -> String {
            (0..count).map(|day| format!("{}\n", date(2026, 7, 1).saturating_add(day.days()))).collect()
        };
        assert!(Holidays::listed(&days(CLOSED_DAYS_MAX)).is_ok());
        assert_eq!(
            Holidays::listed(&days(CLOSED_DAYS_MAX + 1)).expect_err("too long"),
            BadHolidays::TooLong(date(2026, 7, 1))
        );
    }
}
