//! One log line from its parts, as JSON or text. Pure.
//! Must not know subscribers, spans or files.

use std::borrow::Cow;
use std::fmt::{Debug, Write};
use std::time::SystemTime;

use serde_json::Value;
use tracing::Level;
use tracing::field::{Field, Visit};

use crate::error_chain;

/// Where tracing keeps an event's text.
const MESSAGE: &str = "message";

/// The reserved keys of each line; a field of the same name is printed as `field.<name>`.
const RESERVED: [&str; 6] = ["timestamp", "level", "message", "target", "service.name", "trace_id"];

/// Fields in the order they were recorded, each name once.
#[derive(Default)]
pub(super) struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// A message and one number.
    pub(super) fn new(message: &str, name: &'static str, value: u64) -> Self {
        Self { message: message.to_owned(), others: vec![(name, value.into())] }
    }

    /// Adds the fields that are not present yet.
    pub(super) fn add_missing(&mut self, outer: &Self) {
        for (name, value) in &outer.others {
            if !self.others.iter().any(|(known, _)| known == name) {
                self.others.push((name, value.clone()));
            }
        }
    }

    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == MESSAGE {
            self.message = text_of(&value).into_owned();
            return;
        }
        self.others.retain(|(known, _)| *known != field.name());
        self.others.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, error_chain(value).into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

/// Everything one line shows.
pub(super) struct Line<'a> {
    pub(super) time: SystemTime,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) service: &'a str,
    pub(super) trace_id: Option<String>,
    pub(super) fields: Fields,
}

impl Line<'_> {
    /// The line as a flat JSON object with a newline.
    pub(super) fn json(&self) -> String {
        let mut line = format!("{{\"timestamp\":\"{}\"", humantime::format_rfc3339_millis(self.time));
        let mut put = |name: &str, value: &Value| {
            write!(line, ",{}:{value}", Value::from(name)).expect("a String takes any text");
        };
        put("level", &self.level.as_str().into());
        put("message", &self.fields.message.as_str().into());
        put("target", &self.target.into());
        put("service.name", &self.service.into());
        if let Some(trace_id) = &self.trace_id {
            put("trace_id", &trace_id.as_str().into());
        }
        for (name, value) in &self.fields.others {
            if RESERVED.contains(name) { put(&format!("field.{name}"), value) } else { put(name, value) }
        }
        line.push_str("}\n");
        line
    }

    /// The line as text: time, level, message and `name=value` for each field.
    pub(super) fn text(&self) -> String {
        let time = humantime::format_rfc3339_millis(self.time);
        let mut line = format!("{time} {:>5} {}", self.level, one_line(&self.fields.message));
        let mut put = |name: &str, value: &str| {
            let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"');
            let value = if plain { Cow::Borrowed(value) } else { Cow::Owned(format!("{value:?}")) };
            write!(line, " {name}={value}").expect("a String takes any text");
        };
        for (name, value) in &self.fields.others {
            put(name, &text_of(value));
        }
        if let Some(trace_id) = &self.trace_id {
            put("trace_id", trace_id);
        }
        line.push('\n');
        line
    }
}

fn text_of(value: &Value) -> Cow<'_, str> {
    value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}

/// Escapes a text, so that a client's text cannot begin a new line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}
