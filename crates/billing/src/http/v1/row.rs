//! Parses one line of an import from JSON text into a row that is valid by itself, or finds its first mistake. Pure.
//! Knows no other rows and no store.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::import_row;
use crate::invoice::{CustomerId, Reference};
use crate::money::{Currency, Money};
use crate::store::ImportRow;

/// An error of one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line's reference, if valid.
    pub(super) reference: Option<String>,
    /// The field at fault; `line` for the line as a whole.
    pub(super) field: &'static str,
    /// The mistake and what is allowed.
    pub(super) message: String,
}

/// The fields before any check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow, default)]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    customer_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    currency: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

type Mistake = (&'static str, String);

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<ImportRow, Fault> {
    let fault = |reference: Option<&Reference>, (field, message): Mistake| Fault {
        reference: reference.map(|reference| reference.as_str().to_owned()),
        field,
        message,
    };
    let fields = parse_fields(line).map_err(|mistake| fault(None, mistake))?;
    let reference = parse_reference(fields.reference).map_err(|mistake| fault(None, mistake))?;
    let row = |reference: &Reference| {
        let customer_id = parse_customer_id(fields.customer_id)?;
        let currency = parse_currency(fields.currency)?;
        Ok(ImportRow {
            reference: reference.clone(),
            customer_id,
            money: Money { currency, amount_minor: parse_amount(fields.amount, currency)? },
            paid: parse_paid(fields.status)?,
        })
    };
    row(&reference).map_err(|mistake| fault(Some(&reference), mistake))
}

fn parse_fields(line: &[u8]) -> Result<Fields<'_>, Mistake> {
    let whole = |message: String| ("line", message);
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(whole("must be a JSON object".to_owned()));
    }
    serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        whole(format!("{what}, at column {}", error.column()))
    })
}

fn parse_reference(raw: Option<&RawValue>) -> Result<Reference, Mistake> {
    import_row::parse_reference(&required_text("reference", raw)?).map_err(|message| ("reference", message))
}

fn parse_customer_id(raw: Option<&RawValue>) -> Result<CustomerId, Mistake> {
    let id = import_row::parse_customer_id(required("customer_id", raw)?.get());
    id.map(|id| CustomerId(id.into())).map_err(|message| ("customer_id", message))
}

fn parse_currency(raw: Option<&RawValue>) -> Result<Currency, Mistake> {
    import_row::parse_currency(&required_text("currency", raw)?).map_err(|message| ("currency", message))
}

fn parse_amount(raw: Option<&RawValue>, currency: Currency) -> Result<i64, Mistake> {
    let raw = required("amount", raw)?;
    let digits =
        if raw.get().starts_with('"') { required_text("amount", Some(raw))? } else { raw.get().to_owned() };
    import_row::parse_amount(&digits, currency)
        .map(|amount| amount.minor())
        .map_err(|message| ("amount", message))
}

fn parse_paid(raw: Option<&RawValue>) -> Result<bool, Mistake> {
    let Some(raw) = raw else { return Ok(false) };
    import_row::parse_status(&required_text("status", Some(raw))?).map_err(|message| ("status", message))
}

fn required<'a>(field: &'static str, raw: Option<&'a RawValue>) -> Result<&'a RawValue, Mistake> {
    raw.ok_or_else(|| (field, "is missing".to_owned()))
}

fn required_text(field: &'static str, raw: Option<&RawValue>) -> Result<String, Mistake> {
    let json = required(field, raw)?.get();
    let why = if json.starts_with('"') { import_row::LONE_SURROGATE } else { "must be text" };
    serde_json::from_str(json).map_err(|_| (field, why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"reference":"A/1","customer_id":7,"currency":"SEK","amount":"145.4","status":"PAID"}"#;

    /// Replaces one field's text in a valid line; returns the field at fault and the start of its message.
    fn mistake(from: &str, to: &str) -> (&'static str, String) {
        assert!(GOOD.contains(from), "{from} is in the good line");
        let fault = parse(GOOD.replace(from, to).as_bytes()).unwrap_err();
        (fault.field, fault.message)
    }

    #[test]
    fn a_good_line_is_a_row() {
        let row = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(row.reference.as_str(), "A/1");
        assert_eq!(row.customer_id, CustomerId(7));
        assert_eq!(row.money, Money { amount_minor: 14_540, currency: Currency::SEK });
        assert!(row.paid);
    }

    #[test]
    fn status_is_pending_by_default_and_an_amount_may_be_a_number() {
        let line = br#" {"amount":0.07,"currency":"EUR","customer_id":1,"reference":"B","status":null} "#;
        let row = parse(line).unwrap();
        assert!(!row.paid);
        assert_eq!(row.money.amount_minor, 7);
    }

    #[test]
    fn each_field_is_judged_by_its_name() {
        for (from, to, field) in [
            (r#""A/1""#, r#""""#, "reference"),
            (r#""A/1""#, "12", "reference"),
            (r#""reference":"A/1","#, "", "reference"),
            (":7,", ":0,", "customer_id"),
            (":7,", ":2147483648,", "customer_id"),
            (":7,", r#":"7","#, "customer_id"),
            (":7,", ":7.0,", "customer_id"),
            ("SEK", "NOR", "currency"),
            (r#""SEK""#, "{}", "currency"),
            (r#""145.4""#, r#""145.404""#, "amount"),
            (r#""145.4""#, r#""-1.00""#, "amount"),
            (r#""145.4""#, "1e2", "amount"),
            (r#""145.4""#, r#""NaN""#, "amount"),
            (r#""145.4""#, "true", "amount"),
            (r#""145.4""#, "null", "amount"),
            ("PAID", "paid", "status"),
        ] {
            assert_eq!(mistake(from, to).0, field, "{from} as {to}");
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_named() {
        for lone in [r"A\ud800", r"A\udc00B", r"\ud83d\u0041"] {
            let (field, message) = mistake("A/1", lone);
            assert!(
                field == "reference" && message.contains("half of a surrogate pair"),
                "{lone}: {message}"
            );
        }
        assert_eq!(
            parse(GOOD.replace("A/1", r"\ud83d\ude00").as_bytes()).unwrap().reference.as_str(),
            "\u{1f600}"
        );
        assert_eq!(mistake(r#""A/1""#, "7").1, "must be text");
    }

    #[test]
    fn a_line_that_is_no_object_of_known_fields_is_at_fault_as_a_whole() {
        let deep = "[".repeat(10_000);
        for line in [
            "nonsense",
            "[]",
            r#"["A",1,"EUR","1"]"#,
            r#"{"reference":"A""#,
            r#"{"reference":"A"} {}"#,
            r#"{"reference":"A","reference":"B"}"#,
            r#"{"refrence":"A"}"#,
            "{\"reference\":\"\u{7}\"}",
            &format!(r#"{{"amount":{deep}"#),
        ] {
            let fault = parse(line.as_bytes()).unwrap_err();
            assert_eq!((fault.field, fault.reference), ("line", None), "{line:.40}");
        }
        assert_eq!(parse(b"{\"reference\":\"\xff\"}").unwrap_err().field, "line");
        let message = parse(br#"{"refrence":"A"}"#).unwrap_err().message;
        assert!(
            message.starts_with("unknown field `refrence`") && message.ends_with("at column 11"),
            "{message}"
        );
    }

    #[test]
    fn a_fault_behind_the_reference_names_it() {
        let fault = parse(GOOD.replace("SEK", "NOR").as_bytes()).unwrap_err();
        assert_eq!(fault.reference.as_deref(), Some("A/1"));
        assert_eq!(fault.message, "must be the ISO 4217 code of a currency in upper case, such as EUR");
    }
}
