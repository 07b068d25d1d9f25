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
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let errors = field_in_error(&text).map(|field| FieldError::new(field, &*text)).into_iter().collect();
        wrong(text, errors)
    })
}

/// The field name in serde's error message.
fn field_in_error(text: &str) -> Option<&str> {
    let named = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = named.iter().find_map(|begin| text.strip_prefix(begin))?;
    Some(rest.split_once('`')?.0)
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
        for body in ["", "[\"Times\"]", "null", "\"Times\"", "{", "{\"paper\":1}"] {
            assert_eq!(fields(body).0, [""; 0], "{body}");
        }
    }
}
