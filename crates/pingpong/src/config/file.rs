//! What a configuration file says, by dotted names in small letters. Must not know which names there are.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use chassis::config::Problems;
use serde_json::Value;

use super::yaml;

/// Of a file.
const BYTES_MAX: u64 = 64 * 1024;

/// What stands under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    One(String),
    Many(Vec<String>),
}

/// Everything that a file says, until it is asked for.
#[derive(Debug)]
pub(super) struct Settings(pub(super) BTreeMap<String, Said>);

impl Settings {
    /// Reads a file: JSON by its ending, else YAML.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let mut text = String::new();
        let is_file = std::fs::metadata(path).map(|found| found.is_file());
        let read = is_file.and_then(|is_file| match is_file {
            true => std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text),
            false => Err(std::io::Error::other("not a regular file")),
        });
        read.map_err(|error| format!("{name} cannot be read: {error}"))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(format!("{name} is larger than {BYTES_MAX} bytes"));
        }
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let said = if is_json { json(&text) } else { yaml::parse(&text) };
        said.map(Self).map_err(|why| format!("{name}: {why}"))
    }

    /// Takes one text; an empty one counts as not said.
    pub(super) fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<String> {
        match self.0.remove(&key.to_ascii_lowercase())? {
            Said::One(text) => Some(text).filter(|text| !text.is_empty()),
            Said::Many(_) => {
                problems.add(key, "is a list; one value is needed");
                None
            }
        }
    }

    /// Takes a list; one text is a list of what commas separate.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        match self.0.remove(&key.to_ascii_lowercase())? {
            Said::Many(texts) => Some(texts),
            Said::One(text) => Some(text.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    /// The names that nobody asked for.
    pub(super) fn left(self) -> Vec<String> {
        self.0.into_keys().collect()
    }
}

fn json(text: &str) -> Result<BTreeMap<String, Said>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !value.is_object() {
        return Err("is no JSON object".to_owned());
    }
    let mut said = BTreeMap::new();
    flatten("", value, &mut said)?;
    Ok(said)
}

fn flatten(name: &str, value: Value, said: &mut BTreeMap<String, Said>) -> Result<(), String> {
    let entry = match value {
        Value::Null => return Ok(()),
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.to_ascii_lowercase();
                flatten(&if name.is_empty() { key } else { format!("{name}.{key}") }, value, said)?;
            }
            return Ok(());
        }
        Value::Array(items) => Said::Many(items.into_iter().map(scalar).collect::<Result<_, _>>()?),
        one => Said::One(scalar(one)?),
    };
    match said.insert(name.to_owned(), entry) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is there twice")),
    }
}

fn scalar(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(is_true) => Ok(is_true.to_string()),
        _ => Err("a list holds something else than texts".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_say_the_same() {
        let json =
            json(r#"{"Service":{"PORT":8080,"protocol":"https","allowedClients":["a","b"]},"metrics":null}"#);
        let yaml =
            "Service:\n  PORT: '8080'\n  protocol: https # or http\n  allowedClients: [a, b]\nmetrics:\n";
        assert_eq!(json, yaml::parse(yaml));
    }

    #[test]
    fn a_name_twice_is_a_mistake_whatever_its_case() {
        assert!(json(r#"{"a":1,"A":2}"#).unwrap_err().contains("twice"));
    }
}
