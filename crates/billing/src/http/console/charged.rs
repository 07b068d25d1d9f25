//! Money charged by UTC day and currency: charts for the first few currencies, and a table of all.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Span;
use jiff::civil::{Date, date};
use maud::{Markup, PreEscaped, html};

use super::layout::{NONE, number, table};
use crate::money::Currency;
use crate::plot::{BarChart, Group};
use crate::store::charged_days::{ChargedDay, DAY_MS};
use crate::store::{BATCH_MAX, Result, Store};
use crate::subscription::minor_text;

/// Days that are shown, including today. The store keeps daily sums, so no attempt is read.
const DAYS: i64 = 30;
/// The most charts, one for each currency; the table has all currencies.
const CHARTS_MAX: usize = 4;

/// The sums charged on the last days.
pub(super) struct Charged {
    /// Days since the Unix epoch.
    today: i64,
    days: Vec<ChargedDay>,
}

pub(super) async fn read(store: &dyn Store) -> Result<Charged> {
    let today = store.now_ms().await?.div_euclid(DAY_MS);
    Ok(Charged { today, days: store.charged_days(today - DAYS + 1, BATCH_MAX).await? })
}

fn date_of(day: i64) -> Date {
    let span = Span::new().try_days(day).unwrap_or_default();
    date(1970, 1, 1).checked_add(span).unwrap_or(Date::MAX)
}

/// Whole units for the height of a bar, rounded up so that a small sum is visible.
pub(super) fn whole_units(currency: Currency, amount_minor: i64) -> u64 {
    let unit = 10_u64.pow(u32::from(currency.exponent()));
    u64::try_from(amount_minor).unwrap_or(0).div_ceil(unit)
}

impl Charged {
    fn currencies(&self) -> BTreeSet<Currency> {
        self.days.iter().map(|day| day.money.currency).collect()
    }

    fn chart(&self, currency: Currency) -> BarChart {
        let of: BTreeMap<i64, i64> = self
            .days
            .iter()
            .filter(|day| day.money.currency == currency)
            .map(|day| (day.day, day.money.amount_minor))
            .collect();
        let groups = (self.today - DAYS + 1..=self.today).map(|day| Group {
            label: date_of(day).strftime("%m-%d").to_string(),
            values: vec![whole_units(currency, of.get(&day).copied().unwrap_or(0))],
        });
        BarChart {
            title: format!("{} charged by day", currency.code()),
            subtitle: "whole units, rounded up; the table has the exact amounts".to_owned(),
            series: vec![currency.code().to_owned()],
            groups: groups.collect(),
        }
    }

    /// The rows: the sums of all days first, then each day with a charge, newest first, with a column for each
    /// currency.
    fn rows(&self, currencies: &BTreeSet<Currency>) -> Vec<Markup> {
        if self.days.is_empty() {
            return Vec::new();
        }
        let row = |name: &str, day: Option<i64>| {
            let of_day = || self.days.iter().filter(|one| day.is_none_or(|day| one.day == day));
            let sum = |currency: Currency| {
                let of = of_day().filter(|one| one.money.currency == currency);
                of.map(|one| one.money.amount_minor).reduce(i64::saturating_add)
            };
            html! {
                th scope="row" { (name) }
                td class="amount" { (number(of_day().map(|one| one.charges).sum())) }
                @for currency in currencies {
                    td class="amount" {
                        @match sum(*currency) {
                            Some(minor) => span class="number" { (minor_text(*currency, minor)) },
                            None => (NONE),
                        }
                    }
                }
            }
        };
        let days: BTreeSet<i64> = self.days.iter().map(|one| one.day).collect();
        let each = days.iter().rev().map(|day| row(&date_of(*day).to_string(), Some(*day)));
        std::iter::once(row("All days", None)).chain(each).collect()
    }

    /// The section of the overview page.
    pub(super) fn show(&self) -> Markup {
        let currencies = self.currencies();
        let codes = currencies.iter().map(|currency| currency.code());
        let columns: Vec<&str> = ["Day", "Charges"].into_iter().chain(codes).collect();
        html! {
            p {
                "The last " (DAYS) " days of UTC, to " (date_of(self.today))
                ". A charge counts on the day on which billing recorded it."
            }
            @for currency in currencies.iter().take(CHARTS_MAX) {
                (figure(&self.chart(*currency)))
            }
            (table("Charged by day and currency", &columns, &self.rows(&currencies)))
        }
    }
}

/// A chart that scrolls horizontally where the page is narrow.
pub(super) fn figure(chart: &BarChart) -> Markup {
    html! {
        div class="scroll" role="group" tabindex="0" aria-label={ "Chart: " (chart.title) } {
            (PreEscaped(chart.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Money;

    fn day(day: i64, currency: Currency, amount_minor: i64) -> ChargedDay {
        ChargedDay { day, charges: 1, money: Money { amount_minor, currency } }
    }

    #[test]
    fn each_day_is_a_bar_and_only_days_with_a_charge_are_rows() {
        let days = vec![
            day(20_000, Currency::SEK, 150),
            day(20_000, Currency::EUR, 250),
            day(19_990, Currency::EUR, 5),
        ];
        let charged = Charged { today: 20_000, days };
        let chart = charged.chart(Currency::EUR);
        let bars: Vec<u64> = chart.groups.iter().map(|group| group.values[0]).collect();
        assert_eq!((bars.len(), bars[29], bars[19], bars.iter().sum::<u64>()), (30, 3, 1, 4));
        assert_eq!((chart.groups[0].label.as_str(), chart.groups[29].label.as_str()), ("09-05", "10-04"));
        let page = charged.show().into_string();
        for part in ["to 2024-10-04", "2.55", "2.50", "0.05", "1.50", ">2024-09-24<", "SEK charged by day"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!(page.matches("<th scope=\"row\">").count(), 3, "{page}");
    }

    #[test]
    fn without_a_charge_the_table_says_so() {
        let page = Charged { today: 20_000, days: Vec::new() }.show().into_string();
        assert!(page.contains("None") && !page.contains("<svg"), "{page}");
    }

    #[test]
    fn units_are_those_of_the_currency() {
        let kwd = Currency::from_code("KWD").unwrap();
        let jpy = Currency::from_code("JPY").unwrap();
        assert_eq!((whole_units(kwd, 1001), whole_units(jpy, 7), whole_units(Currency::EUR, -5)), (2, 7, 0));
    }
}
