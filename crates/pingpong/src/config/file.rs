//! The values of a configuration file, by dotted names in lower case. Must not know which names there are.

use std::collections::BTreeMap;
use std::path::Path;

use chassis::config::{Problems, read_regular_text};
use serde_json::Value;

use super::yaml;

/// Maximum size of a configuration file.
const BYTES_MAX: u64 = 64 * 1024;

/// The value of one name, before it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RawValue {
    Scalar(String),
    List(Vec<String>),
}

/// The values of a file that have not been read yet.
#[derive(Debug)]
pub(super) struct Settings(pub(super) BTreeMap<String, RawValue>);

impl Settings {
    /// Reads a file: JSON if the name ends in `.json`, else YAML.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let text =
            read_regular_text(path, BYTES_MAX).map_err(|error| format!("{name} cannot be read: {error}"))?;
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let values = if is_json { json(&text) } else { yaml::parse(&text) };
        values.map(Self).map_err(|error| format!("{name}: {error}"))
    }

    /// Takes one text; an empty text counts as unset.
    pub(super) fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<String> {
        match self.0.remove(&key.to_ascii_lowercase())? {
            RawValue::Scalar(text) => Some(text).filter(|text| !text.is_empty()),
            RawValue::List(_) => {
                problems.add(key, "must be one value, not a list");
                None
            }
        }
    }

    /// Takes a list; a text is split at commas.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        match self.0.remove(&key.to_ascii_lowercase())? {
            RawValue::List(texts) => Some(texts),
            RawValue::Scalar(text) => Some(text.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    /// Whether any name below `name` is set.
    pub(super) fn has_block(&self, name: &str) -> bool {
        self.0.keys().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The names that were not read.
    pub(super) fn left(self) -> Vec<String> {
        self.0.into_keys().collect()
    }
}

fn json(text: &str) -> Result<BTreeMap<String, RawValue>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !value.is_object() {
        return Err("not a JSON object".to_owned());
    }
    let mut values = BTreeMap::new();
    flatten("", value, &mut values)?;
    Ok(values)
}

fn flatten(name: &str, value: Value, values: &mut BTreeMap<String, RawValue>) -> Result<(), String> {
    let entry = match value {
        Value::Null => return Ok(()),
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.to_ascii_lowercase();
                flatten(&if name.is_empty() { key } else { format!("{name}.{key}") }, value, values)?;
            }
            return Ok(());
        }
        Value::Array(items) => RawValue::List(items.into_iter().map(scalar).collect::<Result<_, _>>()?),
        one => RawValue::Scalar(scalar(one)?),
    };
    match values.insert(name.to_owned(), entry) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is set twice")),
    }
}

fn scalar(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(is_true) => Ok(is_true.to_string()),
        _ => Err("a list may contain texts only".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_give_the_same_values() {
        let json =
            json(r#"{"Service":{"PORT":8080,"protocol":"https","allowedClients":["a","b"]},"metrics":null}"#);
        let yaml =
            "Service:\n  PORT: '8080'\n  protocol: https # or http\n  allowedClients: [a, b]\nmetrics:\n";
        assert_eq!(json, yaml::parse(yaml));
    }

    #[test]
    fn a_duplicate_name_is_an_error_in_any_case_of_letters() {
        assert!(json(r#"{"a":1,"A":2}"#).unwrap_err().contains("twice"));
    }
}
