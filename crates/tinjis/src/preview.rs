//! `schedule preview`: the invoices that the schedule will make in a range of dates. Billing's generator computes them
//! here, from the subscriptions in billing or in a file. Knows no store and writes nothing anywhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use api::billing::Page;
use billing::config::schedule::{HOLIDAYS_DEFAULT, holidays};
use billing::customer::{CustomerName, numbers};
use billing::money::Currency;
use billing::preview::{Previewed, preview};
use billing::schedule::Holidays;
use billing::schedule::calendar::parse_date;
use billing::subscription::{
    NewSubscription, NextPeriod, RawFields, Subscription, SubscriptionState, minor_text,
};
use chassis::config::Problems;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::BillingArgs;
use crate::http::{Api, SUBSCRIPTIONS_PAGE, segment};
use crate::import::{Dialect, Fault, Format, SUBSCRIPTIONS, SubscriptionRows};
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
    /// Subscriptions of this .csv or .ndjson file instead of billing's
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
pub(crate) struct What {
    range: (Date, Date),
    holidays: Holidays,
    file: Option<PathBuf>,
    only: Option<String>,
    json: bool,
}

impl PreviewArgs {
    pub(crate) fn resolve(self, problems: &mut Problems) -> (Option<Api>, Option<What>) {
        let mut date = |setting: &str, text: &str| {
            problems.check(setting, parse_date("", text).map_err(|bad| bad.problem))
        };
        let (from, to) = (date("--from", &self.from), date("--to", &self.to));
        let range = from.zip(to);
        if range.is_some_and(|(from, to)| to < from) {
            problems.add("--to", "must not be before --from");
        }
        let holidays = problems.check("--holidays", holidays(&self.holidays));
        let what = range.zip(holidays).map(|(range, holidays)| {
            let (file, only, json) = (self.file, self.subscription, self.json);
            What { range, holidays, file, only, json }
        });
        (self.billing.resolve(problems), what)
    }
}

/// A subscription in JSON. Values may be texts or numbers.
#[derive(Deserialize)]
struct Row {
    reference: Option<Value>,
    customer_id: Option<Value>,
    customer_reference: Option<Value>,
    currency: Option<Value>,
    amount: Option<Value>,
    prices: Option<Vec<PriceRow>>,
    anchor_day: Option<Value>,
    every_months: Option<Value>,
    zone: Option<Value>,
    at: Option<Value>,
    starts_on: Option<Value>,
    ends_on: Option<Value>,
    holidays: Option<Value>,
    state: Option<String>,
    next_on: Option<String>,
    last_on: Option<String>,
}

#[derive(Deserialize)]
struct PriceRow {
    from: String,
    amount: Value,
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.as_str().into()).filter(|text: &Cow<'_, str>| !text.is_empty()),
        other => Some(other.to_string().into()),
    }
}

impl Row {
    /// Drops the reference of the customer: billing lists the customer's number too.
    fn listed(self) -> Self {
        Self { customer_reference: None, ..self }
    }

    /// Reads the row by billing's only validator.
    fn read(&self, holidays: &Holidays) -> anyhow::Result<Subscription> {
        let values = [
            &self.reference,
            &self.customer_id,
            &self.customer_reference,
            &self.currency,
            &self.amount,
            &self.anchor_day,
            &self.every_months,
            &self.zone,
            &self.at,
            &self.starts_on,
            &self.ends_on,
            &self.holidays,
        ];
        let texts = values.map(|value| value.as_ref().and_then(text));
        let [
            reference,
            customer_id,
            customer_reference,
            currency,
            amount,
            anchor_day,
            every_months,
            zone,
            at,
            starts_on,
            ends_on,
            closed,
        ] = texts.each_ref().map(Option::as_deref);
        let prices: Option<Vec<_>> = self.prices.as_ref().map(|prices| {
            prices.iter().map(|price| (&*price.from, text(&price.amount).unwrap_or_default())).collect()
        });
        let prices = prices.as_ref().map(|all| all.iter().map(|(from, amount)| (*from, &**amount)).collect());
        let fields = RawFields {
            reference,
            customer_id,
            customer_reference,
            currency,
            amount,
            prices,
            anchor_day,
            every_months,
            zone,
            at,
            starts_on,
            ends_on,
            holidays: closed,
        };
        let name = reference.unwrap_or("a subscription");
        let new = NewSubscription::read(&fields, holidays)
            .map_err(|(field, problem)| anyhow::anyhow!("{name}: {field} {problem}"))?;
        self.as_billing_has_it(new).with_context(|| name.to_owned())
    }

    /// The subscription with the state that billing shows; a subscription of a file begins as active.
    fn as_billing_has_it(&self, new: NewSubscription) -> anyhow::Result<Subscription> {
        let NewSubscription { reference, customer, currency, prices, terms, next } = new;
        // A preview does not depend on the customer; billing chooses the number of a customer with a reference.
        let (customer_id, customer_reference) = match customer {
            CustomerName::Id(id) => (id, None),
            CustomerName::Reference(reference) => (numbers(&reference)[0], Some(reference)),
        };
        let day = |on: &Option<String>| on.as_deref().map(|on| parse_date("date", on)).transpose();
        let state = self.state.as_deref().map_or(Ok(SubscriptionState::Active), str::parse);
        let next = match self.state {
            // Only a listed subscription has a state, and with it the next period.
            Some(_) => day(&self.next_on)?.map(|on| NextPeriod { on, charge_at: 0 }),
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
            last_on: day(&self.last_on)?,
            created_at: 0,
            updated_at: 0,
        })
    }
}

/// Reads a file as `subscriptions import` does without settings.
fn of_file(path: &Path, only: Option<&str>, holidays: &Holidays) -> anyhow::Result<Vec<Subscription>> {
    let at = |fault: &Fault| anyhow::anyhow!("{}, {fault}", path.display());
    let format = Format::of(path)
        .with_context(|| format!("{} must end in .csv, .json, .ndjson or .jsonl", path.display()))?;
    let dialect = Dialect::plain(&SUBSCRIPTIONS);
    let mut rows = SubscriptionRows::open(path, format, &dialect)?.map_err(|fault| at(&fault))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(|fault| at(&fault))? {
        let row = row.map_err(|faults| faults.first().map_or_else(|| anyhow::anyhow!("a bad row"), at))?;
        let line = || format!("{}, line {}", path.display(), row.line);
        let read: Row = serde_json::from_value(Value::Object(row.object)).with_context(line)?;
        let subscription = Row { state: None, ..read }.read(holidays).with_context(line)?;
        if only.is_none_or(|only| subscription.reference.as_str() == only) {
            all.push(subscription);
        }
        if all.len() > SUBSCRIPTIONS_MAX {
            bail!("{} has more than {SUBSCRIPTIONS_MAX} subscriptions: split it", path.display());
        }
    }
    Ok(all)
}

async fn of_billing(
    billing: &Api,
    only: Option<&str>,
    holidays: &Holidays,
) -> anyhow::Result<Vec<Subscription>> {
    if let Some(reference) = only {
        let row: Row = billing.get(&format!("/v1/subscriptions/{}", segment(reference))).await?;
        return Ok(vec![row.listed().read(holidays)?]);
    }
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let cursor = after.map_or(String::new(), |after: String| format!("&after={}", segment(&after)));
        let page: Page<Row> =
            billing.get(&format!("/v1/subscriptions?limit={SUBSCRIPTIONS_PAGE}{cursor}")).await?;
        for row in page.items {
            all.push(row.listed().read(holidays)?);
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
pub(crate) async fn command(billing: &Api, what: What) -> anyhow::Result<u8> {
    let only = what.only.as_deref();
    let subscriptions = match &what.file {
        Some(path) => of_file(path, only, &what.holidays)?,
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
