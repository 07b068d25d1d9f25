//! JSON Schema, limited to the keywords of the schemas in this folder. An unknown keyword fails, so that none is
//! skipped. Objects must not have undeclared fields: an API server in strict mode refuses them, too.

use serde_json::Value;

/// All errors, each with its place.
pub(super) fn validate(schema: &Value, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    Validator { root: schema }.check(schema, value, "$", &mut errors);
    errors
}

struct Validator<'a> {
    root: &'a Value,
}

impl Validator<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.root.pointer(reference.trim_start_matches('#'));
            return self.check(
                target.unwrap_or_else(|| panic!("{reference} is not defined")),
                value,
                at,
                errors,
            );
        }
        for (keyword, rule) in schema.as_object().into_iter().flatten() {
            let valid = match keyword.as_str() {
                "type" => is_type(rule.as_str().unwrap_or_default(), value),
                "enum" => rule.as_array().is_some_and(|allowed| allowed.contains(value)),
                "minItems" => {
                    value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap_or(0))
                }
                "uniqueItems" => value.as_array().is_none_or(|list| {
                    rule != true || list.iter().enumerate().all(|(at, item)| !list[..at].contains(item))
                }),
                "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().unwrap_or(i64::MIN)),
                "maximum" => value.as_i64().is_none_or(|number| number <= rule.as_i64().unwrap_or(i64::MAX)),
                "required" => required(rule, value),
                "anyOf" => self.alternatives(rule, value, at) > 0,
                "oneOf" => self.alternatives(rule, value, at) == 1,
                "properties" | "items" | "additionalProperties" | "definitions" => true,
                "x-kubernetes-map-type" => true,
                // The fields with a pattern are GUIDs and dates, which the doctor does not write.
                other => panic!("{at}: the keyword {other} is not known"),
            };
            if !valid {
                errors.push(format!("{at}: {keyword} {rule}: {value}"));
            }
        }
        self.children(schema, value, at, errors);
    }

    fn alternatives(&self, rule: &Value, value: &Value, at: &str) -> usize {
        let is_valid = |schema: &&Value| {
            let mut errors = Vec::new();
            self.check(schema, value, at, &mut errors);
            errors.is_empty()
        };
        rule.as_array().into_iter().flatten().filter(is_valid).count()
    }

    fn children(&self, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            if schema["items"].is_object() {
                self.check(&schema["items"], item, &format!("{at}[{index}]"), errors);
            }
        }
        let declared = schema["properties"].as_object();
        for (field, item) in value.as_object().into_iter().flatten() {
            let at = format!("{at}.{field}");
            match (declared.and_then(|declared| declared.get(field)), &schema["additionalProperties"]) {
                (Some(schema), _) => self.check(schema, item, &at, errors),
                (None, schema @ Value::Object(_)) => self.check(schema, item, &at, errors),
                (None, Value::Bool(true)) => {}
                // An object without any declaration, such as `metadata`, is open.
                (None, Value::Null) if declared.is_none() => {}
                _ => errors.push(format!("{at}: an undeclared field")),
            }
        }
    }
}

fn required(rule: &Value, value: &Value) -> bool {
    let fields = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
    value.as_object().is_none_or(|object| fields.into_iter().all(|field| object.contains_key(field)))
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}
