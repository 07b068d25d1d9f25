//! Random subscriptions in every zone of the data: the calendar and the second implementation print the same lines.

use std::collections::HashMap;

use billing::schedule::calendar::{parse_date, parse_time};
use billing::schedule::{AnchorDay, EveryMonths, Holidays, Terms, Zone, periods};
use chassis::clock::Random;
use jiff::civil::Date;

use crate::days::{Day, day, days_in_month};
use crate::oracle::{Plain, lines};
use crate::tzif::Offsets;

const SEED: u64 = 20_260_131;
const MONTHS: i64 = 24;

/// Times at which clocks often change, in minutes; other times are drawn from the whole day.
const CHANGES_AT: [i64; 8] = [0, 30, 60, 90, 120, 135, 150, 180];

fn date(day: Day) -> Date {
    parse_date("date", &day.to_string()).expect("a date of the calendar")
}

fn terms(plain: &Plain) -> Terms {
    let terms = Terms {
        anchor_day: AnchorDay::new(plain.anchor_day).unwrap(),
        every_months: EveryMonths::new(plain.every_months).unwrap(),
        zone: Zone::named(plain.zone).unwrap(),
        at: parse_time("at", &format!("{:02}:{:02}", plain.at / 60, plain.at % 60)).unwrap(),
        starts_on: date(plain.starts_on),
        ends_on: plain.ends_on.map(date),
        holidays: plain.holidays.parse().unwrap(),
    };
    terms.check().expect("terms that may be stored");
    terms
}

/// Uniform in `from..=to`.
fn within(random: &Random, from: i64, to: i64) -> i64 {
    from + i64::try_from(random.below(u64::try_from(to - from + 1).unwrap())).unwrap()
}

fn draw_day(random: &Random, years: (i64, i64)) -> Day {
    let (year, month) = (within(random, years.0, years.1), within(random, 1, 12));
    day(year, month, within(random, 1, days_in_month(year, month)))
}

fn draw(random: &Random, zone: &'static str) -> Plain {
    let starts_on = draw_day(random, (1973, 2090));
    let at = match random.below(2) {
        0 => CHANGES_AT[usize::try_from(random.below(8)).unwrap()],
        _ => within(random, 0, 1439),
    };
    Plain {
        // Half of them are days that some months do not have.
        anchor_day: if random.below(2) == 0 { within(random, 28, 31) } else { within(random, 1, 31) },
        every_months: if random.below(4) == 0 { within(random, 1, 24) } else { 1 },
        zone,
        at,
        starts_on,
        ends_on: (random.below(8) == 0).then(|| draw_day(random, (starts_on.year + 1, starts_on.year + 3))),
        holidays: ["as-is", "next", "previous"][usize::try_from(random.below(3)).unwrap()],
    }
}

#[test]
fn the_calendar_agrees_with_an_independent_one_over_every_zone() {
    let random = Random::seeded(SEED);
    let zones: Vec<&'static str> = Zone::names().collect();
    let offsets: HashMap<_, _> = zones.iter().map(|zone| (*zone, Offsets::of(zone))).collect();
    let holidays = Holidays::target();
    let mut seen: HashMap<&str, u64> = HashMap::new();
    for number in 0..testkit::size("CALENDAR_SUBSCRIPTIONS", 3_000) {
        let zone = zones[number % zones.len()];
        let plain = draw(&random, zone);
        // Two years from the start, or from a later date, because a batch may begin anywhere.
        let from = if random.below(2) == 0 {
            plain.starts_on
        } else {
            draw_day(&random, (plain.starts_on.year, plain.starts_on.year + 5))
        };
        let through = Day::of_number(from.number() + MONTHS * 31);
        let expected = lines(&plain, &offsets[zone], from, through);
        let computed: Vec<String> = periods(&terms(&plain), &holidays, date(from), date(through))
            .map(|period| {
                period.notes.names().for_each(|note| *seen.entry(note).or_default() += 1);
                format!("{} {} {} {}", period.on, period.charge_on, period.instant, period.notes)
            })
            .collect();
        assert_eq!(computed, expected, "subscription {number} of seed {SEED}: {plain:?} from {from}");
        *seen.entry("periods").or_default() += computed.len() as u64;
    }
    // Each kind of period must occur: ordinary periods alone would prove little.
    for (what, at_least) in
        [("periods", 30_000), ("clamped", 3_000), ("gap", 5), ("fold", 5), ("holiday", 5_000)]
    {
        assert!(seen[what] >= at_least, "{what}: {seen:?}");
    }
    testkit::proof::progress(&format!("calendar: {seen:?}"));
}
