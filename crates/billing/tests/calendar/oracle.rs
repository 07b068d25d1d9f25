//! A second implementation of the rule of due dates, from its text in docs/explanation/calendar.md. Must not use jiff
//! or `billing::schedule`, whose errors it must not share.

use crate::days::{Day, day, days_in_month};
use crate::tzif::{Offsets, Reading};

/// A subscription's terms in plain numbers.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) anchor_day: i64,
    pub(crate) every_months: i64,
    pub(crate) zone: &'static str,
    /// Minutes since midnight.
    pub(crate) at: i64,
    pub(crate) starts_on: Day,
    pub(crate) ends_on: Option<Day>,
    pub(crate) holidays: &'static str,
}

/// The due dates from `from` through `through` as lines: due date, date of the charge, instant, notes.
pub(crate) fn lines(plain: &Plain, offsets: &Offsets, from: Day, through: Day) -> Vec<String> {
    let (mut year, mut month) = (plain.starts_on.year, plain.starts_on.month);
    let mut lines = Vec::new();
    loop {
        let last = days_in_month(year, month);
        let due = day(year, month, plain.anchor_day.min(last));
        if due > through || plain.ends_on.is_some_and(|ends_on| due > ends_on) {
            return lines;
        }
        if due >= plain.starts_on && due >= from {
            lines.push(line(plain, offsets, due, plain.anchor_day > last));
        }
        for _ in 0..plain.every_months {
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
    }
}

fn line(plain: &Plain, offsets: &Offsets, due: Day, clamped: bool) -> String {
    let mut charge = due;
    while plain.holidays != "as-is" && is_target_closed(charge) {
        charge = if plain.holidays == "next" { charge.next() } else { charge.previous() };
    }
    let (instant, shifted) = match offsets.read(due.number() * 86_400 + plain.at * 60) {
        Reading::Once(instant) => (instant, None),
        Reading::Gap(instant) => (instant, Some("gap")),
        Reading::Fold(instant) => (instant, Some("fold")),
    };
    let notes: Vec<&str> = [clamped.then_some("clamped"), shifted, (charge != due).then_some("holiday")]
        .into_iter()
        .flatten()
        .collect();
    format!("{due} {charge} {} {}", rfc3339(instant, offsets.offset(instant)), notes.join(" "))
}

fn rfc3339(instant: i64, offset: i64) -> String {
    let local = instant + offset;
    let (day, second) = (Day::of_number(local.div_euclid(86_400)), local.rem_euclid(86_400));
    let (sign, east) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
    assert_eq!(east % 60, 0, "an offset with seconds");
    format!(
        "{day}T{:02}:{:02}:{:02}{sign}{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60,
        east / 3600,
        east / 60 % 60
    )
}

/// Whether the day is closed: Saturday, Sunday, 1 January, Good Friday, Easter Monday, 1 May, 25 and 26 December.
fn is_target_closed(date: Day) -> bool {
    let easter = easter(date.year).number();
    date.weekday() >= 5
        || [(1, 1), (5, 1), (12, 25), (12, 26)].contains(&(date.month, date.day))
        || [easter - 2, easter + 1].contains(&date.number())
}

/// Easter by the tables of Clavius, as in Knuth, "The Art of Computer Programming", volume 1, exercise 1.3.2-14: the
/// calendar in `billing` uses another algorithm.
fn easter(year: i64) -> Day {
    let golden = year % 19 + 1;
    let century = year / 100 + 1;
    let skipped_leap_years = 3 * century / 4 - 12;
    let moon = (8 * century + 5) / 25 - 5;
    let sunday = 5 * year / 4 - skipped_leap_years - 10;
    let mut epact = (11 * golden + 20 + moon - skipped_leap_years).rem_euclid(30);
    if (epact == 25 && golden > 11) || epact == 24 {
        epact += 1;
    }
    let mut full_moon = 44 - epact;
    if full_moon < 21 {
        full_moon += 30;
    }
    let on = full_moon + 7 - (sunday + full_moon).rem_euclid(7);
    if on > 31 { day(year, 4, on - 31) } else { day(year, 3, on) }
}
