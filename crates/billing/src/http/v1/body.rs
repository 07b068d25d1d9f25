//! JSON bodies of `/v1`: one object, whose unknown and missing fields are named. An ignored unknown field could be a
//! misspelt switch and do the opposite. Knows no route and no field.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use chassis::problem::{FieldError, Problem};
use serde::de::DeserializeOwned;

/// The bytes of a body, or the problem in reading it.
pub(super) fn bytes(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|error| Problem::new(error.status()).detail("the body could not be read"))
}

/// Parses a body; the error for a body of another form names this `shape`.
pub(super) fn read<T: DeserializeOwned>(body: &[u8], shape: &str) -> Result<T, Problem> {
    let wrong = |what: String, errors: Vec<FieldError>| {
        Problem::validation(errors).detail(format!("the body must be {shape}: {what}"))
    };
    // Serde would also accept an array of the fields in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("it is no JSON object".to_owned(), Vec::new()));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = match serde_path_to_error::deserialize(&mut json) {
        Ok(parsed) => json.end().map(|()| parsed).map_err(|error| (String::new(), error)),
        Err(error) => Err((error.path().to_string(), error.into_inner())),
    };
    parsed.map_err(|(path, error)| {
        let text = error.to_string();
        let named = if error.is_data() { field(&path, &text) } else { None };
        let errors = named.map(|field| FieldError::new(field, &*text)).into_iter().collect();
        wrong(text, errors)
    })
}

/// The field with the error: the name in serde's text, for an object as a whole, else its path.
fn field(path: &str, text: &str) -> Option<String> {
    let of_object = ["unknown field `", "missing field `", "duplicate field `"];
    let named =
        of_object.iter().find_map(|begin| text.strip_prefix(begin)).and_then(|rest| rest.split_once('`'));
    match (named, path) {
        // The path of an unknown field ends with it.
        (Some((name, _)), path) if path == "." || path == name || path.ends_with(&format!(".{name}")) => {
            Some(if path == "." { name } else { path }.to_owned())
        }
        (Some((name, _)), path) => Some(format!("{path}.{name}")),
        (None, "." | "?") => None,
        (None, path) => Some(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sold {
        paper: String,
    }

    fn fields(body: &str) -> (Vec<String>, String) {
        let problem = read::<Sold>(body.as_bytes(), "{\"paper\"}").unwrap_err();
        (problem.errors.into_iter().map(|error| error.field).collect(), problem.detail)
    }

    #[test]
    fn unknown_and_missing_fields_are_named() {
        assert_eq!(read::<Sold>(b" {\"paper\":\"Times\"}", "").unwrap().paper, "Times");
        let (named, detail) = fields(r#"{"paper":"Times","dry_run":true}"#);
        assert_eq!(named, ["dry_run"]);
        assert!(detail.starts_with("the body must be {\"paper\"}: unknown field `dry_run`"), "{detail}");
        assert_eq!(fields("{}").0, ["paper"]);
        assert_eq!(fields(r#"{"paper":"Times","paper":"Post"}"#).0, ["paper"]);
        for body in ["", "[\"Times\"]", "null", "\"Times\"", "{", "{\"paper\":\"Times\"} {}"] {
            assert_eq!(fields(body).0, [""; 0], "{body}");
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_named_by_its_field() {
        let (named, detail) = fields("{\"paper\":1}");
        assert_eq!(named, ["paper"]);
        assert!(detail.contains("expected a string"), "{detail}");
        let named = |body: &str| {
            let problem = read::<api::billing::RunRequest>(body.as_bytes(), "a run").unwrap_err();
            problem.errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(named(r#"{"dry_run":"true"}"#), ["dry_run"]);
        assert_eq!(named(r#"{"max_amount":{"EUR":10}}"#), ["max_amount.EUR"]);
        assert_eq!(named(r#"{"max_amount":{"EUR":"1.00","EUR":"9.00"}}"#), ["max_amount.EUR"]);
        assert_eq!(named(r#"{"max_count":1.0}"#), ["max_count"]);
    }
}
