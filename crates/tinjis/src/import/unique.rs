//! JSON that this program reads as maps and sends on: a map keeps one value of a field that stands twice, so such a field
//! must be refused before. Knows no field.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::json::without_place;
use super::row::quote_value;

/// Fails if an object has a field twice, at any depth, or if the text is no JSON.
pub(super) fn check_no_duplicate_fields(json: &str) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    DuplicateFieldCheck
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| without_place(&error))
}

#[derive(Clone, Copy)]
struct DuplicateFieldCheck;

impl<'de> DeserializeSeed<'de> for DuplicateFieldCheck {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DuplicateFieldCheck {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = object.next_key::<String>()? {
            object.next_value_seed(self)?;
            if let Some(twice) = names.replace(name) {
                return Err(A::Error::custom(format!("duplicate field {}", quote_value(&twice))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_stands_twice_in_one_object_is_named_at_any_depth() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"[{"a":{"a":[true,null,-1,1.5,"x"]}},{"b":[{"a":1,"c":2,"a":3}]}]"#,
        ] {
            assert_eq!(check_no_duplicate_fields(json), Err("duplicate field \"a\"".to_owned()), "{json}");
        }
        for json in [r#"[{"a":1},{"a":1}]"#, r#"{"a":{"a":1}}"#, "null", "-0"] {
            assert_eq!(check_no_duplicate_fields(json), Ok(()), "{json}");
        }
    }
}
