//! Subscriptions of a file, as JSON in billing's format. Billing's own rules say what is allowed; this module only
//! converts values by the user's settings. Knows no server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use billing::invoice::Reference;
use billing::money::Currency;
use billing::schedule::Holidays;
use billing::subscription::{Mistake, NewSubscription, RawFields};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value as Json};

use super::row::{
    Fault, FileRow, Judged, Place, Value, column, parse_amount, parse_currency, parse_reference, text_of,
};
use super::seen::Data;
use super::settings::Dialect;
use super::unique;
use crate::deployments::{Kind, SUBSCRIPTIONS};

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionRow {
    pub(crate) place: Place,
    pub(crate) reference: Reference,
    pub(crate) object: Map<String, Json>,
}

impl FileRow for SubscriptionRow {
    const KIND: &'static Kind = &SUBSCRIPTIONS;

    fn judge(place: Place, values: &[Value<'_>], dialect: &Dialect) -> Judged<Self> {
        validate_subscription(place, values, dialect)
    }

    fn place(&self) -> Place {
        self.place
    }

    fn reference(&self) -> &Reference {
        &self.reference
    }

    fn data(&self) -> Option<Data> {
        // No holiday moves a due date, and what is compared lives no longer than this process.
        let new = new_subscription(&self.object, &Holidays::default()).ok()?;
        let everything = format!("{new:?}");
        Some(Data { customer: new.customer, currency: new.currency, everything })
    }

    fn json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(&self.object).expect("an object of texts is always JSON");
        json.push(b'\n');
        json
    }
}

/// By billing's only validator, of an object as billing takes or shows it.
pub(crate) fn new_subscription(
    object: &Map<String, Json>,
    holidays: &Holidays,
) -> Result<NewSubscription, Mistake> {
    let texts: BTreeMap<&str, Cow<'_, str>> =
        object.iter().filter_map(|(name, value)| Some((name.as_str(), text(value)?))).collect();
    let given = |field: &str| texts.get(field).map(|text| &**text);
    let prices = object.get("prices").filter(|prices| !prices.is_null());
    let prices = prices.map(Vec::<Price>::deserialize).transpose();
    let prices = prices.map_err(|error| ("prices", format!("cannot be read: {error}")))?;
    let amounts: Option<Vec<_>> = prices.as_ref().map(|prices| {
        prices.iter().map(|price| (&*price.from, text(&price.amount).unwrap_or_default())).collect()
    });
    let prices = amounts.as_ref().map(|all| all.iter().map(|(from, amount)| (*from, &**amount)).collect());
    let fields = RawFields {
        reference: given("reference"),
        customer_id: given("customer_id"),
        customer_reference: given("customer_reference"),
        currency: given("currency"),
        amount: given("amount"),
        prices,
        anchor_day: given("anchor_day"),
        every_months: given("every_months"),
        zone: given("zone"),
        at: given("at"),
        starts_on: given("starts_on"),
        ends_on: given("ends_on"),
        holidays: given("holidays"),
    };
    NewSubscription::read(&fields, holidays)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    from: String,
    amount: Json,
}

/// Text or a number as text; `None` for null and for an empty text.
fn text(value: &Json) -> Option<Cow<'_, str>> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.as_str().into()).filter(|text: &Cow<'_, str>| !text.is_empty()),
        other => Some(other.to_string().into()),
    }
}

/// A field that is absent, null or empty is not given.
fn validate_subscription(place: Place, values: &[Value<'_>], dialect: &Dialect) -> Judged<SubscriptionRow> {
    let target = dialect.target;
    let name = text_of(&values[0]);
    let (mut object, mut faults, mut reference) = (Map::new(), Vec::new(), None);
    let currency = parse_currency(&values[target.currency], dialect);
    let known = currency.as_ref().ok().copied();
    for (field, value) in values.iter().enumerate() {
        let is_given = !matches!(value, Value::Missing) && *value != Value::Text(Cow::Borrowed(""));
        let made = match value {
            _ if field == target.currency => currency.clone().map(|currency| Some(currency.code().into())),
            _ if !is_given && field > 0 => Ok(None),
            _ if field == 0 => {
                parse_reference(value, dialect).map(|name| Some(reference.insert(name).as_str().into()))
            }
            _ if field == target.amount => amount(value, dialect, known).map(|text| text.map(Json::from)),
            Value::Json(raw) => prices(raw, dialect, known).map(Some),
            Value::Text(text) | Value::Number(text) => {
                super::row::check_spreadsheet_error(text).map(|()| Some(text.as_ref().into()))
            }
            Value::Bad(why) => Err((*why).to_owned()),
            Value::Missing => Ok(None),
        };
        match made {
            Ok(value) => object.extend(value.map(|value| (target.fields[field].to_owned(), value))),
            Err(why) => {
                let fault = Fault::new(place.line, column(field, dialect), why);
                faults.push(fault.at(place.index, name.clone()));
            }
        }
    }
    match reference {
        Some(reference) if faults.is_empty() => Judged::Good(SubscriptionRow { place, reference, object }),
        reference => Judged::Bad { faults, reference },
    }
}

/// The amount as plain decimal text; `None` for a valid amount of some currency, when the row's currency is unknown.
fn amount(
    value: &Value<'_>,
    dialect: &Dialect,
    currency: Option<Currency>,
) -> Result<Option<String>, String> {
    let amount = parse_amount(value, dialect, currency)?;
    Ok(amount.map(|amount| amount.to_string()))
}

/// The price list with plain amounts. A list of another shape is passed to billing, which reports the error.
fn prices(raw: &str, dialect: &Dialect, currency: Option<Currency>) -> Result<Json, String> {
    type Price<'a> = BTreeMap<String, Cow<'a, RawValue>>;
    unique::check_no_duplicate_fields(raw)?;
    let as_it_is = || serde_json::from_str(raw).map_err(|error| error.to_string());
    let Ok(mut listed) = serde_json::from_str::<Vec<Price<'_>>>(raw) else { return as_it_is() };
    for price in &mut listed {
        let Some(given) = price.get("amount") else { return as_it_is() };
        let value = match serde_json::from_str::<Json>(given.get()) {
            Ok(Json::String(text)) => Value::Text(text.into()),
            Ok(Json::Number(_)) => Value::Number(given.get().to_owned().into()),
            _ => return as_it_is(),
        };
        let Some(text) = amount(&value, dialect, currency)? else { continue };
        let text = to_raw_value(&text).map_err(|error| error.to_string())?;
        price.insert("amount".to_owned(), Cow::Owned(text));
    }
    serde_json::to_value(&listed).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::settings::Settings;
    use super::super::target::SUBSCRIPTIONS;
    use super::*;

    fn read(name: &str, file: &str, profile: &str) -> Result<Vec<String>, String> {
        let settings: Settings = toml::from_str(profile).expect("a profile");
        let dialect = settings.check(&SUBSCRIPTIONS, |setting, why| panic!("{setting}: {why}"));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(name);
        std::fs::write(&path, file).expect("a file can be written");
        let format = settings.format(&path).expect("a known ending");
        let opened = file::open(&path, format, &dialect).expect("it can be opened");
        let mut rows = opened.rows.map_err(|fault| fault.to_string())?;
        let mut all = Vec::new();
        while let Some(row) = rows.next(&dialect).map_err(|fault| fault.to_string())? {
            all.push(match row {
                Judged::Good(SubscriptionRow { place, object, .. }) => {
                    format!("{}: {}", place.line, Json::Object(object))
                }
                Judged::Bad { faults, .. } => {
                    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
                }
                Judged::Skipped => "no row".to_owned(),
            });
        }
        Ok(all)
    }

    const GERMAN: &str = "delimiter = ';'\ndecimal-comma = true\nthousands = '.'\ncurrency = 'EUR'\n[map]\n\
        reference = 'Vertrag'\ncustomer_reference = 'Kunde'\namount = 'Betrag'\nstarts_on = 'Beginn'";

    #[test]
    fn a_file_of_another_tool_is_read_by_its_profile() {
        let file = "Vertrag;Kunde;Betrag;Beginn\nV-1;Müller;1.234,50;2026-01-31\n";
        let expected = r#"2: {"amount":"1234.50","currency":"EUR","customer_reference":"Müller","reference":"V-1","starts_on":"2026-01-31"}"#;
        assert_eq!(read("a.csv", file, GERMAN).expect("readable"), [expected]);
        let wrong = read("a.csv", "Vertrag;Kunde;Betrag;Beginn\nV-1;Müller;12.50;2026-01-31\n", GERMAN);
        let wrong = wrong.expect("readable").concat();
        assert!(wrong.starts_with("line 2, reference \"V-1\", column amount (\"Betrag\"):"), "{wrong}");
    }

    #[test]
    fn an_error_of_a_spreadsheet_is_no_customer() {
        let file = "reference,customer_reference,currency,amount,starts_on\nS-1,#N/A,EUR,1,2026-01-31\n";
        let why = read("a.csv", file, "").expect("readable").concat();
        assert!(why.contains("column customer_reference: \"#N/A\" stands for an error"), "{why}");
    }

    #[test]
    fn an_unknown_column_is_refused_with_the_flag_that_helps() {
        let file = "reference,customer_id,currency,amount,starts_on,Notiz\n";
        let why = read("a.csv", file, "").expect_err("unknown");
        for part in ["\"Notiz\" is no column", "--map", "--ignore-unknown-columns", "--explain"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        assert!(read("a.csv", file, "ignore-unknown-columns = true").is_ok());
        let why = read("a.csv", "reference,currency,amount,starts_on,prices\n", "").expect_err("JSON only");
        assert!(why.contains("\"prices\" is no column"), "{why}");
    }

    #[test]
    fn amounts_and_prices_are_of_the_rows_currency_in_each_way_of_writing() {
        let line = |currency: &str, amount: &str| {
            format!(
                r#"{{"reference":"S","customer_id":1,"currency":"{currency}","starts_on":"2026-01-31","prices":[{{"from":"2026-01-31","amount":{amount}}}]}}"#
            )
        };
        for (profile, currency, given, expected) in [
            ("", "EUR", "9.90", "9.90"),
            ("", "KWD", "\"1.234\"", "1.234"),
            ("minor-units = true", "EUR", "990", "9.90"),
            ("minor-units = true", "JPY", "990", "990"),
            ("minor-units = true", "KWD", "\"1234\"", "1.234"),
            ("decimal-comma = true", "EUR", "\"9,90\"", "9.90"),
        ] {
            let read = read("a.ndjson", &line(currency, given), profile).expect("readable").concat();
            assert!(read.contains(&format!(r#""amount":"{expected}""#)), "{profile} {given}: {read}");
        }
        let read = |amount: &str| read("a.ndjson", &line("JPY", amount), "").expect("readable").concat();
        assert!(read("\"1500.00\"").contains("column prices: an amount in JPY has no decimals"));
        assert!(read("null").contains(r#""amount":null"#), "billing says what is allowed");
    }
}
