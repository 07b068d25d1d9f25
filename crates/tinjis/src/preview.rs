//! `schedule preview`: the invoices that the schedule will make in a range of dates. Billing's generator computes them
//! here, from the subscriptions in billing or in a file. Knows no store and writes nothing anywhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use api::billing::Page;
use billing::config::schedule::{HOLIDAYS_DEFAULT, read_holidays};
use billing::customer::{CustomerName, numbers};
use billing::money::Currency;
use billing::preview::{Previewed, preview};
use billing::schedule::Holidays;
use billing::schedule::calendar::parse_date;
use billing::subscription::{NewSubscription, NextPeriod, Subscription, SubscriptionState, minor_text};
use chassis::config::Problems;
use jiff::civil::Date;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::BillingArgs;
use crate::http::{Api, SUBSCRIPTIONS_PAGE, encode_segment};
use crate::import::{self, Dialect, Format, SUBSCRIPTIONS, SubscriptionRow, new_subscription};
use crate::output::{grouped, result};

/// Maximum number of subscriptions in memory.
const SUBSCRIPTIONS_MAX: usize = 5_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct PreviewArgs {
    #[command(flatten)]
    billing: BillingArgs,
    /// First due date, as 2026-01-31
    #[arg(long, value_name = "DATE")]
    from: String,
    /// Last due date
    #[arg(long, value_name = "DATE")]
    to: String,
    /// Closed days as billing's --schedule-holidays has them: none, target or a file of dates
    #[arg(long, value_name = "none|target|FILE", default_value = HOLIDAYS_DEFAULT)]
    holidays: String,
    /// Subscriptions of this .csv, .json or .ndjson file instead of billing's
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only this subscription
    #[arg(long, value_name = "REFERENCE")]
    subscription: Option<String>,
    /// Print one JSON object per line, and a last one with the sums
    #[arg(long)]
    json: bool,
}

/// The checked options of a preview.
#[derive(Debug)]
pub(crate) struct PreviewRequest {
    range: (Date, Date),
    holidays: Holidays,
    file: Option<PathBuf>,
    only: Option<String>,
    json: bool,
}

impl PreviewArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> (Option<Api>, Option<PreviewRequest>) {
        let (from, to) = (
            parse_date_setting(problems, "--from", &self.from),
            parse_date_setting(problems, "--to", &self.to),
        );
        let range = from.zip(to);
        if range.is_some_and(|(from, to)| to < from) {
            problems.add("--to", "must not be before --from");
        }
        let holidays = problems.check("--holidays", read_holidays(&self.holidays));
        let what = range.zip(holidays).map(|(range, holidays)| {
            let (file, only, json) = (self.file, self.subscription, self.json);
            PreviewRequest { range, holidays, file, only, json }
        });
        (self.billing.resolve(problems), what)
    }
}

/// A date of an argument.
pub(crate) fn parse_date_setting(problems: &mut Problems, setting: &str, text: &str) -> Option<Date> {
    problems.check(setting, parse_date("", text).map_err(|bad| bad.problem))
}

/// A subscription in JSON, as billing shows it or a file has it.
type Object = Map<String, Value>;

/// By billing's only validator.
fn read(object: &Object, holidays: &Holidays) -> anyhow::Result<Subscription> {
    let name = || object.get("reference").and_then(Value::as_str).unwrap_or("a subscription").to_owned();
    let new = new_subscription(object, holidays)
        .map_err(|(field, problem)| anyhow::anyhow!("{}: {field} {problem}", name()))?;
    as_billing_has_it(object, new).with_context(name)
}

/// Billing shows the number of a customer that was named by a reference too.
fn read_listed(mut object: Object, holidays: &Holidays) -> anyhow::Result<Subscription> {
    object.remove("customer_reference");
    read(&object, holidays)
}

/// With the state that billing shows; one of a file begins.
fn as_billing_has_it(object: &Object, new: NewSubscription) -> anyhow::Result<Subscription> {
    let NewSubscription { reference, customer, currency, prices, terms, next } = new;
    // Nothing that is previewed depends on the customer; billing gives the number of one with a reference.
    let (customer_id, customer_reference) = match customer {
        CustomerName::Id(id) => (id, None),
        CustomerName::Reference(reference) => (numbers(&reference)[0], Some(reference)),
    };
    let given = |field: &str| object.get(field).and_then(Value::as_str);
    let day = |field: &'static str| given(field).map(|on| parse_date("date", on)).transpose();
    let state = given("state").map_or(Ok(SubscriptionState::Active), str::parse);
    let next = match given("state") {
        // Only billing tells a state, and the next period with it.
        Some(_) => day("next_on")?.map(|on| NextPeriod { on, charge_at: 0 }),
        None => next,
    };
    Ok(Subscription {
        id: 0,
        reference,
        customer_id,
        customer_reference,
        currency,
        prices,
        terms,
        state: state.context("state")?,
        next,
        last_on: day("last_on")?,
        created_at: 0,
        updated_at: 0,
    })
}

/// As `subscriptions import` reads it without settings.
fn of_file(file: PathBuf, only: Option<&str>, holidays: &Holidays) -> anyhow::Result<Vec<Subscription>> {
    let format = Format::of(&file)
        .with_context(|| format!("{} must end in .csv, .json, .ndjson or .jsonl", file.display()))?;
    let dialect = Dialect::for_target(&SUBSCRIPTIONS);
    let options = import::Options { file, format, dialect, dry_run: true, skip_bad: false, update: false };
    let mut all = Vec::new();
    import::each_row(&options, |mut row: SubscriptionRow| {
        let file = options.file.display();
        row.object.remove("state");
        let subscription =
            read(&row.object, holidays).with_context(|| format!("{file}, line {}", row.place.line))?;
        if only.is_none_or(|only| subscription.reference.as_str() == only) {
            all.push(subscription);
        }
        if all.len() > SUBSCRIPTIONS_MAX {
            bail!("{file} has more than {SUBSCRIPTIONS_MAX} subscriptions: split it");
        }
        Ok(())
    })?;
    Ok(all)
}

async fn of_billing(
    billing: &Api,
    only: Option<&str>,
    holidays: &Holidays,
) -> anyhow::Result<Vec<Subscription>> {
    if let Some(reference) = only {
        let row: Object = billing.get(&format!("/v1/subscriptions/{}", encode_segment(reference))).await?;
        return Ok(vec![read_listed(row, holidays)?]);
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let cursor =
            after.map_or(String::new(), |after: String| format!("&after={}", encode_segment(&after)));
        let page: Page<Object> =
            billing.get(&format!("/v1/subscriptions?limit={SUBSCRIPTIONS_PAGE}{cursor}")).await?;
        for row in page.items {
            all.push(read_listed(row, holidays)?);
        }
        if all.len() > SUBSCRIPTIONS_MAX {
            bail!("billing has more than {SUBSCRIPTIONS_MAX} subscriptions; preview one with --subscription");
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    subscription: &'a str,
    period_on: String,
    charge_on: String,
    instant: String,
    currency: &'static str,
    amount: String,
    notes: billing::schedule::Notes,
}

/// Number and sums of all previewed invoices.
#[derive(Default)]
struct Summary {
    count: u64,
    sums: BTreeMap<Currency, i128>,
    notes: BTreeMap<&'static str, u64>,
}

impl Summary {
    fn add(&mut self, previewed: &Previewed<'_>) {
        self.count += 1;
        let sum = self.sums.entry(previewed.subscription.currency).or_default();
        *sum += i128::from(previewed.invoice.amount_minor);
        for note in previewed.period.notes.names() {
            *self.notes.entry(note).or_default() += 1;
        }
    }

    fn sums(&self) -> BTreeMap<&'static str, String> {
        let text = |(currency, minor): (&Currency, &i128)| {
            // [`SUBSCRIPTIONS_MAX`] keeps a sum within the range of a store.
            (currency.code(), minor_text(*currency, i64::try_from(*minor).unwrap_or(i64::MAX)))
        };
        self.sums.iter().map(text).collect()
    }

    fn display(&self) -> String {
        let sums = self.sums().into_iter().map(|(currency, sum)| format!("; {currency} {sum}"));
        let notes = self.notes.iter().map(|(note, count)| format!("; {note}: {}", grouped(*count)));
        let noun = if self.count == 1 { "invoice" } else { "invoices" };
        format!("{} {noun}{}{}", grouped(self.count), sums.collect::<String>(), notes.collect::<String>())
    }
}

/// Prints every invoice of the range in the order of their instants, then the sums.
pub(crate) async fn command(billing: &Api, what: PreviewRequest) -> anyhow::Result<u8> {
    let only = what.only.as_deref();
    let subscriptions = match what.file {
        Some(file) => of_file(file, only, &what.holidays)?,
        None => of_billing(billing, only, &what.holidays).await?,
    };
    let mut summary = Summary::default();
    for previewed in preview(&subscriptions, &what.holidays, what.range) {
        let previewed = previewed?;
        summary.add(&previewed);
        let Previewed { subscription, period, invoice } = &previewed;
        let amount = minor_text(subscription.currency, invoice.amount_minor);
        let (reference, currency) = (subscription.reference.as_str(), subscription.currency.code());
        if what.json {
            let line = Line {
                subscription: reference,
                period_on: period.on.to_string(),
                charge_on: period.charge_on.to_string(),
                instant: period.instant.to_string(),
                currency,
                amount,
                notes: period.notes,
            };
            result(serde_json::to_string(&line)?);
        } else {
            let moved = if period.charge_on == period.on {
                String::new()
            } else {
                format!(" -> {}", period.charge_on)
            };
            let line = format!(
                "{}  {reference}@{}{moved}  {amount} {currency}  {}",
                period.instant, period.on, period.notes
            );
            result(line.trim_end());
        }
    }
    if what.json {
        result(json!({ "summary": { "count": summary.count, "sums": summary.sums() } }));
    } else {
        result(summary.display());
    }
    Ok(0)
}
