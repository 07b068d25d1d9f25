//! The fields of a charge in a JSON body: names in any letter case, unknown fields skipped, no value guessed. Pure;
//! knows no route, no status and no limit but those of the shape.

use std::fmt;

pub(super) use api::payments::LEDGER_TEXT_BYTES_MAX as TEXT_LEN_MAX;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Maximum depth of a body; bodies of legacy clients have two levels.
pub(super) const DEPTH_MAX: usize = 32;

/// A field has another type than its route allows, or is longer than any real value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongType;

/// The body is not one JSON object, names a field twice, or nests too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedBody;

/// One value as the body has it; absent and `null` are the same.
pub(super) type Field<'a> = Option<&'a RawValue>;

/// The fields that any of the routes reads.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) customer_id: Field<'a>,
    pub(super) currency: Field<'a>,
    pub(super) value: Field<'a>,
    pub(super) id: Field<'a>,
}

impl<'a> Fields<'a> {
    /// Reads a body. A bare `null` is an object without fields, as in the original service.
    ///
    /// # Errors
    /// When the body is not valid.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, MalformedBody> {
        if is_deeper_than(body, DEPTH_MAX) {
            return Err(MalformedBody);
        }
        let fields: Option<Self> = serde_json::from_slice(body).map_err(|_| MalformedBody)?;
        Ok(fields.unwrap_or_default())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields<'de>, M::Error> {
                let mut fields = [None; Name::COUNT];
                while let Some(name) = map.next_key::<Name>()? {
                    if name == Name::Other {
                        map.next_value::<IgnoredAny>()?;
                    } else if fields[name as usize].replace(map.next_value::<&'de RawValue>()?).is_some() {
                        return Err(serde::de::Error::custom("a field is named twice"));
                    }
                }
                let [customer_id, currency, value, id] =
                    fields.map(|field| field.filter(|raw| raw.get() != "null"));
                Ok(Fields { customer_id, currency, value, id })
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A field's name, recognised without keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    CustomerId,
    Currency,
    Value,
    Id,
    Other,
}

impl Name {
    /// Number of names without `Other`.
    const COUNT: usize = 4;

    fn of(text: &str) -> Self {
        let is = |name| text.eq_ignore_ascii_case(name);
        match () {
            () if is("customer_id") => Self::CustomerId,
            () if is("currency") => Self::Currency,
            () if is("value") => Self::Value,
            () if is("id") => Self::Id,
            () => Self::Other,
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name::of(text))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// Parses an integer that is written as one: no quotes, no decimals, no exponent.
///
/// # Errors
/// For any other type, and for a number beyond 64 bits.
pub(super) fn integer(field: &RawValue) -> Result<i64, WrongType> {
    field.get().parse().map_err(|_| WrongType)
}

/// Parses a text.
///
/// # Errors
/// For any other type, for a text beyond [`TEXT_LEN_MAX`], and for one with a NUL, which PostgreSQL cannot store.
pub(super) fn text(field: &RawValue) -> Result<String, WrongType> {
    let text: String = serde_json::from_str(field.get()).map_err(|_| WrongType)?;
    if text.len() <= TEXT_LEN_MAX && !text.contains('\0') { Ok(text) } else { Err(WrongType) }
}

/// Parses a currency: a text, or any object, which counts as the empty text.
///
/// # Errors
/// For any other type, for a text beyond [`TEXT_LEN_MAX`], and for one with a NUL, which PostgreSQL cannot store.
pub(super) fn currency(field: &RawValue) -> Result<Currency, WrongType> {
    if field.get().starts_with('{') { Ok(Currency::Object) } else { text(field).map(Currency::Text) }
}

/// How a currency was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Currency {
    /// The currency was sent as a text, possibly empty.
    Text(String),
    /// The currency was sent as an object: an enumeration that a client's JSON library wrote as an empty bean.
    Object,
}

impl Currency {
    /// The text to store; `None` for an empty text, which counts as missing.
    #[must_use]
    pub(super) fn into_ledger_text(self) -> Option<String> {
        match self {
            Self::Text(text) if text.is_empty() => None,
            Self::Text(text) => Some(text),
            Self::Object => Some(String::new()),
        }
    }
}

/// Whether brackets outside of strings nest deeper than `depth_max`; checks nothing else.
fn is_deeper_than(body: &[u8], depth_max: usize) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(field: Field<'_>) -> Option<&str> {
        field.map(RawValue::get)
    }

    #[test]
    fn names_come_in_any_case_and_order_and_unknown_ones_are_skipped() {
        let body = br#" {"VALUE":1.25,"x":[{"value":3}],"Currency":{},"id":null,"cuSTomer_ID":7,"idd":1} "#;
        let fields = Fields::parse(body).unwrap();
        assert_eq!(raw(fields.value), Some("1.25"));
        assert_eq!(raw(fields.currency), Some("{}"));
        assert_eq!(raw(fields.customer_id), Some("7"));
        assert_eq!(raw(fields.id), None);
    }

    #[test]
    fn a_field_named_twice_is_refused_also_in_another_case_or_spelling() {
        for body in [
            r#"{"value":1,"value":2}"#,
            r#"{"value":1,"Value":1}"#,
            r#"{"value":null,"value":1}"#,
            r#"{"id":"a","\u0069d":"b"}"#,
        ] {
            assert_eq!(Fields::parse(body.as_bytes()).unwrap_err(), MalformedBody, "{body}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = [b"{\"a\":".repeat(DEPTH_MAX + 1), b"1".to_vec(), b"}".repeat(DEPTH_MAX + 1)].concat();
        let abyss = b"[".repeat(1_000_000);
        let bodies: [&[u8]; 13] = [
            b"",
            b" ",
            b"[]",
            b"1",
            b"\"\"",
            b"{",
            b"{\"value\":NaN}",
            b"{\"value\":1}x",
            b"{\"value\":01}",
            b"{\"value\":.5}",
            b"{'value':1}",
            &deep,
            &abyss,
        ];
        for body in bodies {
            assert!(Fields::parse(body).is_err(), "{:?}", &body[..body.len().min(40)]);
        }
        assert!(Fields::parse(b"null").unwrap().value.is_none());
    }

    #[test]
    fn an_integer_is_written_as_one() {
        let read = |text: &str| integer(&RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(read("7"), Ok(7));
        assert_eq!(read("-7"), Ok(-7));
        for text in ["1.0", "1e0", "\"1\"", "true", "{}", "[1]", "9223372036854775808"] {
            assert_eq!(read(text), Err(WrongType), "{text}");
        }
    }

    #[test]
    fn a_currency_is_a_text_or_an_object() {
        let read = |text: &str| currency(&RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(read("\"€\\u0041\"").unwrap().into_ledger_text(), Some("€A".to_owned()));
        assert_eq!(read("{\"a\":1}").unwrap().into_ledger_text(), Some(String::new()));
        assert_eq!(read("\"\"").unwrap().into_ledger_text(), None);
        for text in [
            "1",
            "true",
            "[]",
            "\"\\ud800\"",
            "\"a\\u0000\"",
            &format!("\"{}\"", "x".repeat(TEXT_LEN_MAX + 1)),
        ] {
            assert_eq!(read(text), Err(WrongType), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Fields::parse(&body);
        }

        #[test]
        fn no_text_of_json_panics(body in r#"[{}\[\]":,\\a-dinvlueNE0-9.+ -]{0,60}"#) {
            if let Ok(fields) = Fields::parse(body.as_bytes()) {
                let _ = (fields.customer_id.map(integer), fields.currency.map(currency), fields.id.map(text));
            }
        }
    }
}
