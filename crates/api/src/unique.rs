//! A JSON object whose names are not known beforehand. Knows no meaning of a name.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// An object in which no name stands twice. Serde would keep the last of two without a word: of two amounts, one.
struct Unique<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names(PhantomData))
    }
}

struct Names<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Names<V> {
    type Value = Unique<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Unique<V>, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((name, value)) = object.next_entry::<String, V>()? {
            if found.contains_key(&name) {
                return Err(Error::custom(format!("duplicate field `{name}`")));
            }
            found.insert(name, value);
        }
        Ok(Unique(found))
    }
}

/// For a field with such an object, which may be missing or null.
pub(crate) fn unique<'de, D, V>(deserializer: D) -> Result<Option<BTreeMap<String, V>>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    Ok(Option::<Unique<V>>::deserialize(deserializer)?.map(|object| object.0))
}

#[cfg(test)]
mod tests {
    use crate::billing::RunRequest;

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        let read = |text| serde_json::from_str::<RunRequest>(text).map(|request| request.max_amount);
        let amounts = read(r#"{"max_amount":{"EUR":"1.00","USD":"2.00"}}"#).unwrap().unwrap();
        assert_eq!((amounts.len(), amounts["EUR"].as_str()), (2, "1.00"));
        assert_eq!((read("{}").unwrap(), read(r#"{"max_amount":null}"#).unwrap()), (None, None));
        let error = read(r#"{"max_amount":{"EUR":"1.00","EUR":"1000.00"}}"#).unwrap_err();
        assert!(error.to_string().starts_with("duplicate field `EUR`"), "{error}");
    }
}
