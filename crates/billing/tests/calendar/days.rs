//! Days as plain numbers, by the Gregorian leap rule. Must not use jiff, because these tests check what it computes.

/// A date, ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
}

pub(crate) fn day(year: i64, month: i64, day: i64) -> Day {
    Day { year, month, day }
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

pub(crate) fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Day {
    /// Days since 1 January 1970.
    pub(crate) fn number(self) -> i64 {
        let before = self.year - 1;
        let leap_days = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
        let in_year: i64 = (1..self.month).map(|month| days_in_month(self.year, month)).sum();
        (self.year - 1970) * 365 + leap_days + in_year + self.day - 1
    }

    /// 0 is Monday: 1 January 1970 was a Thursday.
    pub(crate) fn weekday(self) -> i64 {
        (self.number() + 3).rem_euclid(7)
    }

    pub(crate) fn next(self) -> Day {
        if self.day < days_in_month(self.year, self.month) {
            day(self.year, self.month, self.day + 1)
        } else if self.month < 12 {
            day(self.year, self.month + 1, 1)
        } else {
            day(self.year + 1, 1, 1)
        }
    }

    pub(crate) fn previous(self) -> Day {
        if self.day > 1 {
            day(self.year, self.month, self.day - 1)
        } else if self.month > 1 {
            day(self.year, self.month - 1, days_in_month(self.year, self.month - 1))
        } else {
            day(self.year - 1, 12, 31)
        }
    }

    /// The day of this number, by counting from a year's first day.
    pub(crate) fn of_number(number: i64) -> Day {
        let mut year = 1970 + number.div_euclid(365);
        while day(year, 1, 1).number() > number {
            year -= 1;
        }
        while day(year + 1, 1, 1).number() <= number {
            year += 1;
        }
        let mut found = day(year, 1, 1);
        while day(year, found.month, days_in_month(year, found.month)).number() < number {
            found.month += 1;
        }
        found.day = number - found.number() + 1;
        found
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[test]
fn numbers_and_days_agree_over_five_centuries() {
    let mut each = day(1800, 1, 1);
    let mut number = -62_091;
    while each.year < 2300 {
        assert_eq!((each.number(), Day::of_number(number)), (number, each));
        assert_eq!(each.next().previous(), each);
        (each, number) = (each.next(), number + 1);
    }
    assert_eq!(number, 120_530, "days until 1 January 2300");
}
