//! The settings of the schedule: whether it is on, how it catches up after downtime, above which sums an operator
//! confirms, and which days are closed. Text in, checked settings out. Must not know a subscription.

use std::collections::BTreeMap;

use chassis::config::{Problems, Setting, checked, parse_on_or_off, parse_text, read_regular_text};

use crate::import_row;
use crate::money::Currency;
use crate::schedule::Holidays;
use crate::schedule::run::{Cap, CatchUp};
use crate::scheduler::ScheduleSettings;
use crate::subscription::price_minor;

/// Flags and variables.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ScheduleArgs {
    /// on: invoices and charges the due periods of subscriptions. off: only `tinjis schedule run` does
    #[arg(long, env = "SCHEDULE", value_name = "ON|OFF", help_heading = "Schedule", default_value = "on",
          value_parser = checked(parse_on_or_off))]
    schedule: Setting<bool>,
    /// Periods missed for more than a day: ask waits for an operator, each invoices all, oldest first, latest only the
    /// latest of each subscription
    #[arg(long, env = "SCHEDULE_CATCH_UP", value_name = "ASK|EACH|LATEST", help_heading = "Schedule", default_value = "ask",
          value_parser = checked(parse_catch_up))]
    schedule_catch_up: Setting<CatchUp>,
    /// Invoices of one date above which an operator confirms [default: off]
    #[arg(long, env = "SCHEDULE_MAX_COUNT", value_name = "NUMBER", help_heading = "Schedule",
          value_parser = checked(parse_count))]
    schedule_max_count: Setting<i64>,
    /// Sums of one date above which an operator confirms, as EUR=1000.00, separated by commas; a currency that is not
    /// named has no limit [default: off]
    #[arg(long, env = "SCHEDULE_MAX_AMOUNT", value_name = "AMOUNTS", help_heading = "Schedule",
          value_parser = checked(parse_amounts))]
    schedule_max_amount: Setting<BTreeMap<Currency, i64>>,
    /// Days on which no money moves: none, target (the euro's settlement system), or a file with one date per line;
    /// a subscription's holidays field decides what they do to it
    #[arg(long, env = "SCHEDULE_HOLIDAYS", value_name = "NONE|TARGET|FILE", help_heading = "Schedule",
          default_value = HOLIDAYS_DEFAULT, value_parser = checked(parse_text))]
    schedule_holidays: Setting<String>,
}

impl ScheduleArgs {
    /// `None` when a setting is wrong.
    pub(super) fn resolve(&self, problems: &mut Problems) -> Option<ScheduleSettings> {
        let is_on = self.schedule.value(problems);
        let catch_up = self.schedule_catch_up.value(problems);
        let count = self.schedule_max_count.optional(problems);
        let amounts = self.schedule_max_amount.optional(problems);
        let holidays = self.schedule_holidays.and_then(|text| read_holidays(&text)).value(problems);
        let cap = Cap { count: count?, amounts: amounts?.unwrap_or_default() };
        Some(ScheduleSettings { is_on: is_on?, catch_up: catch_up?, cap, holidays: holidays? })
    }
}

fn parse_catch_up(text: &str) -> Result<CatchUp, String> {
    text.parse().map_err(|_| format!("\"{text}\" is none of ask, each and latest"))
}

fn parse_count(text: &str) -> Result<i64, String> {
    let count = text.parse().ok().filter(|count: &i64| *count >= 1);
    count.ok_or_else(|| format!("\"{text}\" is no whole number from 1"))
}

fn parse_amounts(text: &str) -> Result<BTreeMap<Currency, i64>, String> {
    let amount = |part: &str| -> Result<(Currency, i64), String> {
        let (code, amount) = part
            .trim()
            .split_once('=')
            .ok_or_else(|| format!("\"{part}\" is no amount of a currency, as EUR=1000.00 is"))?;
        let currency = import_row::parse_currency(code).map_err(|problem| format!("\"{code}\" {problem}"))?;
        let minor = price_minor(currency, amount).map_err(|problem| format!("\"{part}\": {problem}"))?;
        Ok((currency, minor))
    };
    let mut amounts = BTreeMap::new();
    for part in text.split(',') {
        let (currency, minor) = amount(part)?;
        if amounts.insert(currency, minor).is_some() {
            return Err(format!("names {currency} twice; give each currency one amount"));
        }
    }
    Ok(amounts)
}

/// The default closed days. They move a charge only as the subscription's `holidays` field says.
pub const HOLIDAYS_DEFAULT: &str = "target";
/// Bytes of a file of dates; there is room for a long comment beside each.
const HOLIDAYS_BYTES_MAX: u64 = 1024 * 1024;

/// Reads `none`, `target`, or the path of a file of dates.
///
/// # Errors
/// When the file cannot be read, or has a line that is not a date.
pub fn read_holidays(text: &str) -> Result<Holidays, String> {
    match text {
        "none" => Ok(Holidays::default()),
        "target" => Ok(Holidays::target()),
        path => {
            let listed = read_regular_text(path.as_ref(), HOLIDAYS_BYTES_MAX)
                .map_err(|error| format!("cannot read {path}: {error}"))?;
            Holidays::listed(&listed).map_err(|error| format!("{path}: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::resolve;
    use super::*;

    #[test]
    fn the_schedule_is_on_and_asks_unless_it_is_told_otherwise() {
        let settings = resolve(&[]).expect("no mistakes").schedule;
        assert!(settings.is_on && settings.catch_up == CatchUp::Ask && settings.cap == Cap::default());
        assert_eq!(settings.holidays, Holidays::target());
        let words = [
            ["--schedule", "off"],
            ["--schedule-catch-up", "latest"],
            ["--schedule-max-count", "10"],
            ["--schedule-max-amount", "EUR=10.00, USD=5"],
            ["--schedule-holidays", "none"],
        ];
        let settings = resolve(&words.concat()).expect("no mistakes").schedule;
        assert!(!settings.is_on && settings.catch_up == CatchUp::Latest);
        assert_eq!(settings.holidays, Holidays::default());
        let amounts = [(Currency::EUR, 1000), (Currency::USD, 500)].into();
        assert_eq!(settings.cap, Cap { count: Some(10), amounts });
    }

    #[test]
    fn a_currency_with_two_amounts_is_a_mistake() {
        for text in ["EUR=5,EUR=1000", "EUR=1000, USD=1, EUR=5", "EUR=5,EUR=5"] {
            let mistake = resolve(&["--schedule-max-amount", text]).expect_err("a mistake");
            assert!(
                mistake.contains("--schedule-max-amount (SCHEDULE_MAX_AMOUNT): names EUR twice"),
                "{mistake}"
            );
        }
    }

    #[test]
    fn a_file_of_holidays_is_a_regular_file_of_a_limited_size() {
        assert_eq!(read_holidays("/dev/zero").unwrap_err(), "cannot read /dev/zero: not a regular file");
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, "#".repeat(1024 * 1024)).unwrap();
        assert_eq!(read_holidays(path).unwrap(), Holidays::default());
        std::fs::write(path, "#".repeat(1024 * 1024 + 1)).unwrap();
        assert!(read_holidays(path).unwrap_err().ends_with("larger than 1048576 bytes"));
    }

    #[test]
    fn each_mistake_names_its_setting() {
        let words = [
            ["--schedule", "yes"],
            ["--schedule-catch-up", "all"],
            ["--schedule-max-count", "0"],
            ["--schedule-max-amount", "EUR"],
            ["--schedule-holidays", "/nowhere/at-all"],
        ];
        let mistakes = resolve(&words.concat()).expect_err("mistakes");
        for [setting, _] in words {
            assert!(mistakes.contains(&format!("{setting} (")), "{setting} in {mistakes}");
        }
    }
}
