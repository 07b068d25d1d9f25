//! Published examples, and days on which the clocks of a zone change.

use billing::schedule::calendar::{parse_date, parse_time};
use billing::schedule::{AnchorDay, EveryMonths, Holidays, Terms, Zone, first_due, periods};
use jiff::civil::Date;

fn date(text: &str) -> Date {
    parse_date("date", text).expect("a date")
}

fn monthly(anchor_day: i64, starts_on: &str, zone: &str, at: &str) -> Terms {
    Terms {
        anchor_day: AnchorDay::new(anchor_day).unwrap(),
        every_months: EveryMonths::new(1).unwrap(),
        zone: Zone::named(zone).unwrap(),
        at: parse_time("at", at).unwrap(),
        starts_on: date(starts_on),
        ends_on: None,
        holidays: "as-is".parse().unwrap(),
    }
}

fn dates(terms: &Terms, from: &str, through: &str) -> Vec<String> {
    periods(terms, &Holidays::target(), date(from), date(through))
        .map(|period| period.on.to_string())
        .collect()
}

/// The instant on one day, with its notes.
fn instant(zone: &str, on: &str, at: &str) -> String {
    let terms = monthly(i64::from(date(on).day()), on, zone, at);
    let period = periods(&terms, &Holidays::default(), date(on), date(on)).next().expect("due on that day");
    assert_eq!(period.on.to_string(), on, "a zone never moves a due date");
    format!("{} {}", period.instant, period.notes).trim_end().to_owned()
}

/// Stripe, "Setting the subscription billing cycle date" (docs.stripe.com/billing/subscriptions/billing-cycle): an
/// anchor of January 31 bills February 28 (or 29), then March 31, April 30; one of September 2 always on the 2nd.
#[test]
fn anchors_follow_stripes_examples() {
    let of = |starts_on: &str, through: &str| {
        dates(&monthly(i64::from(date(starts_on).day()), starts_on, "UTC", "00:00"), starts_on, through)
    };
    assert_eq!(of("2026-01-31", "2026-04-30"), ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]);
    assert_eq!(of("2028-01-31", "2028-04-30"), ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]);
    assert_eq!(of("2026-09-02", "2026-12-31"), ["2026-09-02", "2026-10-02", "2026-11-02", "2026-12-02"]);
}

/// Recurly, "February renewals" (support.recurly.com, article 46684925586708): a table of the renewals of the 29th,
/// 30th and 31st in February, in a leap year and in others, and in March.
#[test]
fn anchors_29_30_and_31_follow_recurlys_table() {
    for anchor_day in [29, 30, 31] {
        for (year, february) in [(2026, 28), (2027, 28), (2028, 29), (2100, 28)] {
            let terms = monthly(anchor_day, &format!("{year}-01-{anchor_day}"), "America/Chicago", "06:00");
            assert_eq!(
                dates(&terms, &format!("{year}-02-01"), &format!("{year}-03-31")),
                [format!("{year}-02-{february}"), format!("{year}-03-{anchor_day}")],
                "anchor {anchor_day}"
            );
        }
    }
}

#[test]
fn the_first_due_date_is_the_first_of_the_rule_from_the_start_on() {
    let quarterly = |anchor_day: i64, starts_on: &str| Terms {
        every_months: EveryMonths::new(3).unwrap(),
        ..monthly(anchor_day, starts_on, "UTC", "06:00")
    };
    for (anchor_day, starts_on, first) in [
        (10, "2026-02-15", "2026-05-10"),
        (15, "2026-02-15", "2026-02-15"),
        (31, "2026-02-15", "2026-02-28"),
        (31, "2026-02-28", "2026-02-28"),
        (1, "2026-11-02", "2027-02-01"),
    ] {
        let terms = quarterly(anchor_day, starts_on);
        assert_eq!(first_due(&terms), Some(date(first)), "{anchor_day} {starts_on}");
    }
    let ended = Terms { ends_on: Some(date("2026-05-09")), ..quarterly(10, "2026-02-15") };
    assert_eq!(first_due(&ended), None);
    let ends_then = Terms { ends_on: Some(date("2026-05-10")), ..quarterly(10, "2026-02-15") };
    assert_eq!(first_due(&ends_then), Some(date("2026-05-10")), "the end is a day that may be due");
}

#[test]
fn a_gap_moves_the_instant_forward_by_its_length() {
    for (zone, on, at, expected) in [
        ("Europe/Copenhagen", "2026-03-29", "02:30", "2026-03-29T03:30:00+02:00 gap"),
        ("Europe/Copenhagen", "2026-03-29", "02:00", "2026-03-29T03:00:00+02:00 gap"),
        ("Europe/Copenhagen", "2026-03-29", "01:59", "2026-03-29T01:59:00+01:00"),
        ("Europe/Copenhagen", "2026-03-29", "03:00", "2026-03-29T03:00:00+02:00"),
        // Brazil skipped midnight itself, until it gave up daylight saving time.
        ("America/Sao_Paulo", "2018-11-04", "00:00", "2018-11-04T01:00:00-02:00 gap"),
        // A gap of half an hour.
        ("Australia/Lord_Howe", "2026-10-04", "02:15", "2026-10-04T02:45:00+11:00 gap"),
        // Samoa skipped a whole day: 30 December 2011.
        ("Pacific/Apia", "2011-12-30", "06:00", "2011-12-31T06:00:00+14:00 gap"),
    ] {
        assert_eq!(instant(zone, on, at), expected, "{zone} {on} {at}");
    }
}

#[test]
fn of_a_time_that_occurs_twice_the_first_is_taken() {
    for (zone, on, at, expected) in [
        ("Europe/Copenhagen", "2026-10-25", "02:30", "2026-10-25T02:30:00+02:00 fold"),
        ("Europe/Copenhagen", "2026-10-25", "02:00", "2026-10-25T02:00:00+02:00 fold"),
        ("Europe/Copenhagen", "2026-10-25", "03:00", "2026-10-25T03:00:00+01:00"),
        ("America/Sao_Paulo", "2018-02-17", "23:30", "2018-02-17T23:30:00-02:00 fold"),
        ("Australia/Lord_Howe", "2026-04-05", "01:45", "2026-04-05T01:45:00+11:00 fold"),
    ] {
        assert_eq!(instant(zone, on, at), expected, "{zone} {on} {at}");
    }
}

#[test]
fn offsets_are_those_of_the_zone_on_that_date() {
    for (zone, on, at, expected) in [
        ("UTC", "2026-01-31", "06:00", "2026-01-31T06:00:00+00:00"),
        ("Asia/Kathmandu", "2026-01-31", "06:00", "2026-01-31T06:00:00+05:45"),
        ("America/Sao_Paulo", "2026-11-01", "00:00", "2026-11-01T00:00:00-03:00"),
        ("Pacific/Apia", "2011-12-29", "06:00", "2011-12-29T06:00:00-10:00"),
        ("Pacific/Apia", "2011-12-31", "06:00", "2011-12-31T06:00:00+14:00"),
        // Morocco set its clocks back for Ramadan: in 2024 from 10 March to 14 April.
        ("Africa/Casablanca", "2024-03-09", "06:00", "2024-03-09T06:00:00+01:00"),
        ("Africa/Casablanca", "2024-03-31", "06:00", "2024-03-31T06:00:00+00:00"),
        ("Africa/Casablanca", "2024-04-14", "02:30", "2024-04-14T03:30:00+01:00 gap"),
        ("Africa/Casablanca", "2024-04-15", "06:00", "2024-04-15T06:00:00+01:00"),
    ] {
        assert_eq!(instant(zone, on, at), expected, "{zone} {on} {at}");
    }
}

#[test]
fn holidays_move_the_charge_and_leave_the_period() {
    // Good Friday 2026 is 3 April, Easter Monday the 6th.
    for (rule, charge_on, charged_at, notes) in [
        ("as-is", "2026-04-03", "2026-04-03T06:00:00+02:00", ""),
        ("next", "2026-04-07", "2026-04-07T06:00:00+02:00", "holiday"),
        ("previous", "2026-04-02", "2026-04-02T06:00:00+02:00", "holiday"),
    ] {
        let terms =
            Terms { holidays: rule.parse().unwrap(), ..monthly(3, "2026-04-03", "Europe/Berlin", "06:00") };
        let day = date("2026-04-03");
        let period = periods(&terms, &Holidays::target(), day, day).next().unwrap();
        assert_eq!((period.on, period.charge_on), (day, date(charge_on)), "{rule}");
        assert_eq!(period.instant.to_string(), "2026-04-03T06:00:00+02:00", "{rule}");
        assert_eq!(period.charge_instant.to_string(), charged_at, "{rule}");
        assert_eq!(period.notes.to_string(), notes, "{rule}");
    }
}

#[test]
fn what_cannot_be_taken_is_refused_by_the_name_of_its_field() {
    let zone = |name: &str| Zone::named(name).unwrap_err().to_string();
    assert!(zone("Europe/Copenhage").starts_with("zone must be the name of an IANA time zone"));
    assert_eq!(zone("europe/copenhagen"), "zone must be spelt Europe/Copenhagen, not europe/copenhagen");
    for name in ["", "CEST", "+02:00", "../etc/passwd", "local"] {
        assert!(Zone::named(name).is_err(), "{name}");
    }
    for day in [0, 32, -1, i64::MAX] {
        assert!(AnchorDay::new(day).unwrap_err().to_string().starts_with("anchor_day must be"), "{day}");
    }
    for months in [0, 121, -1] {
        assert!(
            EveryMonths::new(months).unwrap_err().to_string().starts_with("every_months must be"),
            "{months}"
        );
    }
    for text in
        ["2026-02-29", "2026-2-1", "2026-01-31T00:00", "20260131", "-02026-01-31", "1972-12-31", "3000-01-01"]
    {
        assert!(
            parse_date("starts_on", text).unwrap_err().to_string().starts_with("starts_on must be"),
            "{text}"
        );
    }
    for text in ["24:00", "6:00", "06:00:00", "06:60", ""] {
        assert!(parse_time("at", text).unwrap_err().to_string().starts_with("at must be"), "{text}");
    }
    let backwards = Terms { ends_on: Some(date("2026-01-30")), ..monthly(31, "2026-01-31", "UTC", "06:00") };
    assert!(backwards.check().unwrap_err().to_string().starts_with("ends_on must not be before"));
}

#[test]
fn every_zone_of_the_data_is_taken_by_its_name() {
    let names: Vec<_> = Zone::names().collect();
    assert!(names.len() > 500, "{}", names.len());
    for name in names {
        assert_eq!(Zone::named(name).expect("a zone").name(), name);
    }
    let version = billing::schedule::zone_data_version();
    assert!(version.len() == 5 && version.starts_with("20"), "{version}");
}
