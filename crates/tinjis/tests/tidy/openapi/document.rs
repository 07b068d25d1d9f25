//! Builds the OpenAPI 3.1 document of a service: schemas from the wire types, operations one by one, and the text that
//! is committed. Knows no operation of any service.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const PROBLEM: &str = "application/problem+json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The credentials that an operation requires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Open,
    /// Billing: a reader's token; none on loopback.
    Reader,
    /// Billing: an operator's token; none on loopback when none is configured.
    Operator,
    /// Payments: the credentials of an account, by `--payments-api-token` and the other proofs.
    Account,
    /// Payments: an operator's token besides the account's credentials.
    AccountOperator,
}

/// One operation, built step by step.
pub(super) struct Operation {
    method: &'static str,
    path: &'static str,
    pub(super) parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Value>,
    head: Value,
}

/// The schemas and operations of a document.
#[derive(Default)]
pub(super) struct Document {
    schemas: Map<String, Value>,
    paths: Map<String, Value>,
}

impl Document {
    /// Adds a wire type as a component; returns a reference to it.
    pub(super) fn schema<T: ToSchema>(&mut self) -> Value {
        let name = T::name().into_owned();
        let mut found: Vec<(String, RefOr<Schema>)> = vec![(name.clone(), T::schema())];
        T::schemas(&mut found);
        for (name, schema) in found {
            let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
            require_all(&name, &mut schema);
            limit_words(&name, &mut schema);
            self.schemas.insert(name, schema);
        }
        reference(&name)
    }

    /// Adds a page of this type as a component of its own, because generic types share one name.
    pub(super) fn page<T: ToSchema>(&mut self) -> Value {
        let name = format!("{}Page", T::name());
        let items = self.schema::<T>();
        let page = json!({
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": { "type": "array", "items": items },
                "next": { "type": ["string", "null"], "description": "Cursor of the next page; null at the end." },
            },
        });
        self.schemas.insert(name.clone(), page);
        reference(&name)
    }

    /// Adds a schema without a wire type as a component; returns a reference to it.
    pub(super) fn component(&mut self, name: &str, schema: Value) -> Value {
        self.schemas.insert(name.to_owned(), schema);
        reference(name)
    }

    pub(super) fn add(&mut self, operation: Operation) {
        let Operation { method, path, parameters, body, answers, mut head } = operation;
        if !parameters.is_empty() {
            head["parameters"] = parameters.into();
        }
        if let Some(body) = body {
            head["requestBody"] = body;
        }
        let answers = answers.into_iter().map(|(status, answer)| (status.to_string(), answer));
        head["responses"] = Value::Object(answers.collect());
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[method] = head;
    }

    pub(super) fn finish(
        self,
        title: &str,
        description: &str,
        port: u16,
        tags: &[(&str, &str)],
        schemes: Value,
    ) -> Value {
        let tags: Vec<Value> = tags
            .iter()
            .map(|(name, description)| json!({ "name": name, "description": description }))
            .collect();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": title,
                "description": description,
                "version": env!("CARGO_PKG_VERSION"),
                "license": { "name": "MIT", "identifier": "MIT" },
            },
            "servers": [{ "url": format!("http://127.0.0.1:{port}") }],
            "tags": tags,
            "paths": self.paths,
            "components": { "schemas": self.schemas, "securitySchemes": schemes },
        })
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Fields that a service omits from a response when they are empty.
const LEFT_OUT: [(&str, &[&str]); 4] = [
    ("ImportReport", &["warnings_total", "warnings"]),
    ("LineFault", &["reference"]),
    ("Problem", &["detail", "errors"]),
    ("Subscription", &["customer_reference"]),
];

/// Makes all other fields required: this version always writes them. Requests keep the required fields of their
/// readers.
fn require_all(name: &str, schema: &mut Value) {
    if name.ends_with("Request") || name == "ImportRow" {
        return;
    }
    let left_out = LEFT_OUT.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, fields)| fields);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<&String> =
        properties.keys().filter(|field| !left_out.contains(&field.as_str())).collect();
    schema["required"] = json!(required);
}

/// Texts of operators must not be blank.
fn limit_words(name: &str, schema: &mut Value) {
    for field in ["reason", "actor", "why"] {
        let property = schema.pointer_mut(&format!("/properties/{field}"));
        if let Some(property) =
            property.filter(|property| name.ends_with("Request") && property["type"] == "string")
        {
            property["pattern"] = "\\S".into();
        }
    }
}

impl Operation {
    pub(super) fn new(
        method: &'static str,
        path: &'static str,
        id: &str,
        tag: &str,
        access: Access,
        summary: &str,
    ) -> Self {
        let security = match access {
            Access::Open => json!([]),
            Access::Reader => json!([{}, { "reader": [] }, { "operator": [] }]),
            Access::Operator => json!([{}, { "operator": [] }]),
            Access::Account => json!([{}, { "token": [] }, { "bearer": [] }, { "certificate": [] }]),
            Access::AccountOperator => json!([
                {},
                { "operator": [] },
                { "token": [], "operator": [] },
                { "bearer": [], "operator": [] },
                { "certificate": [], "operator": [] },
            ]),
        };
        let head = json!({ "operationId": id, "tags": [tag], "summary": summary, "security": security });
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters = names.map(|name| path_parameter(path, name)).collect();
        Self { method, path, parameters, body: None, answers: BTreeMap::new(), head }
    }

    pub(super) fn describe(mut self, text: &str) -> Self {
        self.head["description"] = text.into();
        self
    }

    pub(super) fn with(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    pub(super) fn all(self, parameters: impl IntoIterator<Item = Value>) -> Self {
        parameters.into_iter().fold(self, Self::with)
    }

    pub(super) fn takes(mut self, media_type: &str, schema: Value, is_required: bool) -> Self {
        let body = self.body.get_or_insert_with(|| json!({ "required": is_required, "content": {} }));
        body["content"][media_type] = json!({ "schema": schema });
        self
    }

    /// Adds an example body for each media type.
    pub(super) fn example(mut self, example: &Value) -> Self {
        let contents = self.body.as_mut().and_then(|body| body["content"].as_object_mut());
        for (_, content) in contents.into_iter().flatten() {
            content["example"] = example.clone();
        }
        self
    }

    pub(super) fn answers(mut self, status: u16, media_type: &str, schema: Value, text: &str) -> Self {
        let answer =
            self.answers.entry(status).or_insert_with(|| json!({ "description": text, "content": {} }));
        answer["content"][media_type] = json!({ "schema": schema });
        self
    }

    /// Adds a problem response; several texts of one status are joined.
    pub(super) fn problem(mut self, status: u16, text: &str) -> Self {
        let text = match self.answers.get(&status).and_then(|answer| answer["description"].as_str()) {
            Some(before) => format!("{before}; {text}"),
            None => text.to_owned(),
        };
        let answer = self.answers.entry(status).or_insert_with(|| json!({ "content": {} }));
        answer["description"] = text.into();
        answer["content"][PROBLEM] = json!({ "schema": reference("Problem") });
        self
    }

    pub(super) fn header(mut self, status: u16, name: &str, text: &str) -> Self {
        if let Some(answer) = self.answers.get_mut(&status) {
            answer["headers"][name] = json!({ "description": text, "schema": { "type": "string" } });
        }
        self
    }
}

pub(super) fn parameter(place: &str, name: &str, schema: Value, text: &str) -> Value {
    json!({ "in": place, "name": name, "required": place == "path", "schema": schema, "description": text })
}

/// A path parameter. Its example names a row in the tests of the documents, whose keys are of deployment
/// 00000000-0000-4000-8000-000000000001.
fn path_parameter(path: &str, name: &str) -> Value {
    let (schema, example) = match name {
        "id" => (
            json!({ "type": "integer", "format": "int64" }),
            json!(if path.contains("/customers/") { 5 } else { 1 }),
        ),
        "key" => (json!({ "type": "string", "minLength": 1 }), json!("bca1897f57e947286a9d2dcb4be588f1")),
        _ if path.starts_with("/v1/subscriptions/") => {
            (json!({ "type": "string", "minLength": 1 }), json!("GYM-1"))
        }
        _ => (json!({ "type": "string", "minLength": 1 }), json!("I1")),
    };
    let mut parameter = parameter("path", name, schema, "Percent-encoded.");
    parameter["example"] = example;
    parameter
}

pub(super) fn query(name: &str, schema: Value, text: &str) -> Value {
    parameter("query", name, schema, text)
}

/// `after` and `limit` of every list.
pub(super) fn page() -> [Value; 2] {
    [
        query("after", json!({ "type": "string" }), "The `next` of the page before."),
        query(
            "limit",
            json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
            "Items of a page.",
        ),
    ]
}

/// The operation of `/v1/openapi.json`.
pub(super) fn own_document(document: &mut Document) {
    let operation =
        Operation::new("get", "/v1/openapi.json", "getOpenApi", "api", Access::Open, "This document");
    document.add(operation.answers(200, JSON, json!({ "type": "object" }), "OpenAPI 3.1"));
}

/// The document as committed and served: JSON with a line for each operation and component, so that it is short and a
/// diff shows each change.
pub(super) fn text(document: &Value) -> String {
    let mut lines = Vec::new();
    for (name, value) in ["openapi", "info", "servers", "tags"].map(|name| (name, &document[name])) {
        lines.push(format!("{}{}:{value},\n", if lines.is_empty() { "{" } else { "" }, quoted(name)));
    }
    lines.push(format!("{}:{},\n", quoted("paths"), nested(&document["paths"], 2)));
    lines.push(format!("{}:{}}}\n", quoted("components"), nested(&document["components"], 2)));
    lines.concat()
}

/// An object with a line for each member, down to this many levels.
fn nested(value: &Value, levels: usize) -> String {
    let Some(members) = value.as_object().filter(|_| levels > 0) else { return value.to_string() };
    let members =
        members.iter().map(|(name, value)| format!("\n{}:{}", quoted(name), nested(value, levels - 1)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn quoted(name: &str) -> String {
    Value::from(name).to_string()
}
