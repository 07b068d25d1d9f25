//! Subscriptions of a file, as JSON in billing's format. Billing's own rules say what is allowed; this module only
//! converts values by the user's settings. Knows no server.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use billing::invoice::Reference;
use billing::money::Currency;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value as Json};

use super::file::{Format, Identity, Rows, open};
use super::row::{Fault, Place, Value, column, parse_amount, parse_currency, parse_reference, text_of};
use super::settings::Dialect;

/// One subscription.
#[derive(Debug)]
pub(crate) struct SubscriptionRow {
    pub(crate) line: u64,
    pub(crate) reference: Reference,
    pub(crate) object: Map<String, Json>,
}

/// The rows of an open file.
pub(crate) struct SubscriptionRows {
    rows: Rows,
    dialect: Dialect,
    identity: Identity,
}

impl SubscriptionRows {
    /// Opens a file. The inner result is a fault at the beginning of the file.
    pub(crate) fn open(
        path: &Path,
        format: Format,
        dialect: &Dialect,
    ) -> anyhow::Result<Result<Self, Fault>> {
        let opened =
            open(path, format, dialect).with_context(|| format!("{} cannot be read", path.display()))?;
        let (dialect, identity) = (dialect.clone(), opened.identity);
        Ok(opened.rows.map(|rows| Self { rows, dialect, identity }))
    }

    /// Fails when the file has changed since it had the earlier identity.
    pub(crate) fn check_same(&self, path: &Path, earlier: &Identity) -> anyhow::Result<()> {
        if self.identity == *earlier {
            return Ok(());
        }
        bail!("{} changed while it was read", path.display())
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// The name of our column in messages, with the name in the file if that differs.
    pub(crate) fn column(&self, name: &str) -> Cow<'static, str> {
        let field = self.dialect.target.fields.iter().position(|field| *field == name);
        field.map_or_else(|| Cow::Owned(name.to_owned()), |field| column(field, &self.dialect))
    }

    /// Columns that are ignored.
    pub(crate) fn ignored(&self) -> &[String] {
        self.rows.ignored()
    }

    /// The next row, or every mistake in it; a fault when the file cannot be read further.
    pub(crate) fn next(&mut self) -> Result<Option<Result<SubscriptionRow, Vec<Fault>>>, Fault> {
        let row = self.rows.next_with(|place, values| row(place, values, &self.dialect))?;
        Ok(row.map(|row| row.unwrap_or_else(|fault| Err(vec![fault]))))
    }
}

/// Converts one row. An absent, null or empty field is left out.
fn row(place: Place, values: &[Value<'_>], dialect: &Dialect) -> Result<SubscriptionRow, Vec<Fault>> {
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
            Value::Text(text) | Value::Number(text) => Ok(Some(text.as_ref().into())),
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
        Some(reference) if faults.is_empty() => Ok(SubscriptionRow { line: place.line, reference, object }),
        _ => Err(faults),
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
        let mut rows = SubscriptionRows::open(&path, format, &dialect)
            .expect("it can be opened")
            .map_err(|fault| fault.to_string())?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(|fault| fault.to_string())? {
            all.push(match row {
                Ok(row) => format!("{}: {}", row.line, Json::Object(row.object)),
                Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
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
