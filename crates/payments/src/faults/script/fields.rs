//! The fields of one table of a fault script, each read once with its range, and every mistake named by table and
//! field. Pure; knows what a field may hold, but not what it does.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use toml::{Table, Value};

use super::{
    Fault, HOLD_DEFAULT, LATENCY_MAX, Moment, RETRY_AFTER_MAX_S, STATUS_BODY_BYTES_MAX, Share, StatusFault,
    TEXT_LEN_MAX,
};
use crate::declines::{CODES, Decline};
use crate::faults::Mistake;

/// The statuses that an answer may have.
const STATUS_MIN: i64 = 200;
const STATUS_MAX: i64 = 599;

/// The latest time after a script was set: a year.
const AFTER_MAX_S: i64 = 366 * 24 * 3600;

/// The fields of one table that were not read yet, and the mistakes in the others.
pub(super) struct Fields {
    table: Table,
    place: String,
    mistakes: Vec<Mistake>,
}

impl Fields {
    pub(super) fn of(table: Table, place: String) -> Self {
        Self { table, place, mistakes: Vec::new() }
    }

    pub(super) fn mistake(&mut self, field: &str, what: &str) {
        self.mistakes.push(Mistake::new(format!("{}: {field}", self.place), what));
    }

    pub(super) fn integer(&mut self, field: &str, min: i64, max: i64) -> Option<i64> {
        match self.table.remove(field)? {
            Value::Integer(number) if (min..=max).contains(&number) => Some(number),
            Value::Integer(_) if max == i64::MAX => {
                self.mistake(field, &format!("must be at least {min}"));
                None
            }
            Value::Integer(_) => {
                self.mistake(field, &format!("must be from {min} to {max}"));
                None
            }
            _ => {
                self.mistake(field, "must be an integer");
                None
            }
        }
    }

    pub(super) fn text(&mut self, field: &str, len_max: usize) -> Option<String> {
        match self.table.remove(field)? {
            Value::String(text) if text.len() <= len_max => Some(text),
            _ => {
                self.mistake(field, &format!("must be a text of at most {len_max} bytes"));
                None
            }
        }
    }

    pub(super) fn one_of(&mut self, field: &str, allowed: &[&str]) -> Option<String> {
        match self.table.remove(field)? {
            Value::String(text) if allowed.contains(&text.as_str()) => Some(text),
            _ => {
                self.mistake(field, &format!("must be one of {}", allowed.join(", ")));
                None
            }
        }
    }

    fn boolean(&mut self, field: &str) -> Option<bool> {
        let value = self.table.remove(field)?;
        let read = value.as_bool();
        if read.is_none() {
            self.mistake(field, "must be true or false");
        }
        read
    }

    /// An instant, or seconds after the script was set.
    pub(super) fn moment(&mut self, field: &str) -> Option<Moment> {
        let moment = match self.table.remove(field)? {
            Value::Integer(seconds) if (0..=AFTER_MAX_S).contains(&seconds) => {
                Some(Moment::After(seconds * 1000))
            }
            Value::String(text) => {
                text.parse::<Timestamp>().ok().map(|time| Moment::At(time.as_millisecond()))
            }
            _ => None,
        };
        if moment.is_none() {
            let rule = format!(
                "must be a time with its offset, as 2026-12-01T06:00:00Z, or from 0 to {AFTER_MAX_S} seconds after \
                 the script was set"
            );
            self.mistake(field, &rule);
        }
        moment
    }

    pub(super) fn share(&mut self) -> Option<Share> {
        let text = match self.table.remove("share")? {
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            other => other.to_string(),
        };
        let share = Share::parse(&text);
        if share.is_none() {
            self.mistake("share", "must be a number from 0 to 1");
        }
        share
    }

    pub(super) fn fault(&mut self) -> Option<Fault> {
        let word = match self.table.remove("fault") {
            Some(Value::String(word)) => word,
            _ => String::new(),
        };
        let fault = match word.as_str() {
            "refuse" => Fault::Refuse(self.decline()),
            "latency" => Fault::Latency(self.latency(None)?),
            "error-before" => Fault::ErrorBefore,
            "error-after" => Fault::ErrorAfter,
            "reply-lost" => Fault::ReplyLost,
            "reset" => Fault::Reset,
            "malformed" => Fault::Malformed,
            "duplicate" => Fault::Duplicate,
            "hold" => Fault::Hold(self.latency(Some(HOLD_DEFAULT))?),
            "forget-key" => Fault::ForgetKey,
            "status" => Fault::Status(Arc::new(self.status()?)),
            "slow-body" => Fault::SlowBody(self.latency(None)?),
            "truncated-body" => Fault::TruncatedBody,
            _ => {
                self.mistake("fault", &format!("must be one of {}", Fault::NAMES.join(", ")));
                return None;
            }
        };
        for (field, faults) in [
            ("latency_ms", "latency, hold and slow-body"),
            ("decline", "refuse"),
            ("status", "status"),
            ("body", "status"),
            ("content_type", "status"),
            ("retry_after_s", "status"),
            ("execute", "status"),
        ] {
            if self.table.remove(field).is_some() {
                self.mistake(field, &format!("means something for {faults} only"));
            }
        }
        Some(fault)
    }

    fn latency(&mut self, default: Option<Duration>) -> Option<Duration> {
        let max = i64::try_from(LATENCY_MAX.as_millis()).expect("an hour of ms fits an i64");
        if !self.table.contains_key("latency_ms") {
            if default.is_none() {
                self.mistake("latency_ms", "is missing");
            }
            return default;
        }
        self.integer("latency_ms", 0, max).map(|ms| Duration::from_millis(ms.unsigned_abs()))
    }

    fn decline(&mut self) -> Decline {
        let codes = CODES.map(|row| row.code);
        let code = self.one_of("decline", &codes);
        code.and_then(|code| Decline::from_code(&code)).unwrap_or(Decline::GENERIC)
    }

    fn status(&mut self) -> Option<StatusFault> {
        if !self.table.contains_key("status") {
            self.mistake("status", "is missing");
        }
        let status = self.integer("status", STATUS_MIN, STATUS_MAX);
        let body = self.text("body", STATUS_BODY_BYTES_MAX);
        let content_type = self.text("content_type", TEXT_LEN_MAX);
        if content_type.as_deref().is_some_and(|text| text.chars().any(|c| !(' '..='~').contains(&c))) {
            self.mistake("content_type", "must be visible ASCII");
        }
        let retry_after_s = self.integer("retry_after_s", 0, RETRY_AFTER_MAX_S.into());
        let execute = self.boolean("execute");
        let default = StatusFault::of(u16::try_from(status?).expect("the range was checked"));
        Some(StatusFault {
            body: body.unwrap_or_default(),
            content_type: content_type.unwrap_or(default.content_type),
            retry_after_s: retry_after_s.and_then(|s| u32::try_from(s).ok()).or(default.retry_after_s),
            execute: execute.unwrap_or_default(),
            ..default
        })
    }

    pub(super) fn tables(&mut self, field: &str) -> Vec<Table> {
        let Some(value) = self.table.remove(field) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.mistake(field, "must be written as [[rule]]");
            return Vec::new();
        };
        let tables: Vec<Table> = items.iter().filter_map(|item| item.as_table().cloned()).collect();
        if tables.len() != items.len() {
            self.mistake(field, "must be written as [[rule]]");
        }
        tables
    }

    /// Ends the table: all remaining fields are unknown.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for field in unknown {
            self.mistake(&field, "is no field that this version knows");
        }
        self.mistakes
    }
}
