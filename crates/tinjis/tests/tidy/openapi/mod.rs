//! Generates the OpenAPI documents from the wire types and a table of operations, and the page for readers from the
//! documents. Knows no operation.

mod billing;
mod document;
mod payments;

use std::fmt::Write;

use serde_json::Value;

use crate::pages::{current, whole};
use crate::tree::{files, none};

const PAGE: &str = "docs/reference/api-operations.md";

#[test]
fn the_committed_documents_are_those_of_the_wire_types() {
    for (name, document) in [("billing", billing::document()), ("payments", payments::document())] {
        let text = document::text(&document);
        let read: Value = serde_json::from_str(&text).expect("the text is JSON");
        assert_eq!(read, document, "{name}");
        whole(&format!("docs/reference/openapi/{name}.json"), &text);
    }
}

#[test]
fn the_page_of_operations_is_that_of_the_documents() {
    let mut page = String::new();
    for (title, document) in [("Billing", billing::document()), ("Payments", payments::document())] {
        section(&mut page, title, &document);
    }
    current(PAGE, &page);
}

/// The code that generates the documents is compiled for tests only.
#[test]
fn no_program_is_built_with_what_makes_the_documents() {
    let mut findings = Vec::new();
    for manifest in files("crates", &["Cargo.toml"]) {
        let mut table = "";
        for line in manifest.text.lines() {
            if line.starts_with('[') {
                table = line;
            }
            let is_optional = line.contains("optional = true");
            let makes = line.contains("\"openapi\"") || (line.starts_with("utoipa") && !is_optional);
            if makes && table != "[dev-dependencies]" {
                findings.push(format!("{}: {line}", manifest.path));
            }
        }
    }
    none("only a [dev-dependencies] may have utoipa and the feature `openapi` of api", &findings);
}

fn section(page: &mut String, title: &str, document: &Value) {
    line(page, &format!("## {title}"));
    line(page, text(&document["info"]["description"]));
    for tag in list(&document["tags"]) {
        let name = text(&tag["name"]);
        line(page, &format!("### {title}: {name}"));
        line(page, text(&tag["description"]));
        line(page, "| operation | who | parameters | body | responses |\n|---|---|---|---|---|");
        page.pop();
        for (path, item) in members(&document["paths"]) {
            for (method, operation) in members(item).filter(|(_, operation)| operation["tags"][0] == name) {
                row(page, &operation_row(method, path, operation));
            }
        }
        page.push('\n');
    }
    line(page, &format!("### {title}: schemas"));
    line(page, "| schema | field | type | meaning |\n|---|---|---|---|");
    page.pop();
    for (name, schema) in members(&document["components"]["schemas"]) {
        schema_rows(page, name, schema);
    }
    page.push('\n');
}

fn operation_row(method: &str, path: &str, operation: &Value) -> [String; 5] {
    let mut parameters: Vec<String> = Vec::new();
    for parameter in list(&operation["parameters"]).filter(|parameter| parameter["in"] != "path") {
        let place = if parameter["in"] == "header" { "header " } else { "" };
        parameters.push(format!("{place}`{}`", text(&parameter["name"])));
    }
    let body = members(&operation["requestBody"]["content"]).map(|(media, content)| {
        let kind = kind(&content["schema"]);
        if media == "application/json" { kind } else { format!("{kind} as `{media}`") }
    });
    let responses = members(&operation["responses"]).map(|(status, response)| {
        let shown = members(&response["content"]).map(|(_, content)| kind(&content["schema"]));
        let mut shown: Vec<String> = shown.filter(|kind| kind != "Problem").collect();
        shown.dedup();
        format!("{status} {}", shown.join(" or ")).trim().to_owned()
    });
    [
        format!("`{} {path}`<br>{}", method.to_uppercase(), text(&operation["summary"])),
        who(operation),
        parameters.join(", "),
        body.collect::<Vec<_>>().join(" or "),
        responses.collect::<Vec<_>>().join(", "),
    ]
}

/// The security schemes of an operation, one of which is enough.
fn who(operation: &Value) -> String {
    let mut names: Vec<String> = Vec::new();
    for alternative in list(&operation["security"]) {
        let all: Vec<String> = members(alternative).map(|(name, _)| name.clone()).collect();
        if !all.is_empty() {
            names.push(all.join(" and "));
        }
    }
    if names.is_empty() { "open".to_owned() } else { names.join(", ") }
}

fn schema_rows(page: &mut String, name: &str, schema: &Value) {
    let meaning = text(&schema["description"]).to_owned();
    row(page, &[name.to_owned(), String::new(), kind(schema), meaning]);
    let required: Vec<&str> = list(&schema["required"]).map(text).collect();
    for (field, property) in members(&schema["properties"]) {
        let left_out = if required.contains(&field.as_str()) { "" } else { ", may be left out" };
        let kind = format!("{}{left_out}", kind(property));
        row(page, &[String::new(), format!("`{field}`"), kind, text(&property["description"]).to_owned()]);
    }
}

/// A short text for a schema.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or(name).to_owned();
    }
    for several in ["anyOf", "oneOf"] {
        if schema[several].is_array() {
            return list(&schema[several]).map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if schema["const"] != Value::Null {
        return format!("`{}`", schema["const"]);
    }
    if schema["enum"].is_array() {
        return list(&schema["enum"]).map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    if schema["type"] == "array" {
        return format!("array of {}", kind(&schema["items"]));
    }
    match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(" or "),
        one => text(one).to_owned(),
    }
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}\n").expect("a text takes text");
}

/// Adds a table row; a bar would end its cell, so it is escaped.
fn row(page: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
    writeln!(page, "| {} |", cells.join(" | ")).expect("a text takes text");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
