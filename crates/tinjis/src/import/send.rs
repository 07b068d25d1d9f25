//! Rows on their way to billing: batches of bounded size, and billing's answers as faults of the file's lines.
//! Knows no file format.

use std::ops::Add;

use api::billing::{ImportReport, LineFault};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::row::{Fault, FileRow, Place, quote_value};
use crate::deployments::Kind;
use crate::http::{Api, CallError};

/// Maximum rows and bytes of one request, well below billing's limits.
pub(super) const ROWS_MAX: usize = 1000;
pub(super) const BYTES_MAX: usize = 512 * 1024;

/// Counts of what billing did with rows, or would do in a dry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) created: u64,
    pub(crate) unchanged: u64,
    pub(crate) updated: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            created: self.created + other.created,
            unchanged: self.unchanged + other.unchanged,
            updated: self.updated + other.updated,
        }
    }
}

/// Sends rows in batches.
#[derive(Debug)]
pub(crate) struct Sender {
    api: Api,
    path: String,
    body: Vec<u8>,
    /// Where each row of the body stands in the file.
    places: Vec<Place>,
    pub(crate) counts: Counts,
    /// Number of rows that billing refused.
    pub(crate) bad: u64,
    /// Faults of refused rows, until the caller takes them: billing lists a bounded number for each batch.
    pub(crate) faults: Vec<Fault>,
    /// References that look like stored ones, until the caller takes them.
    pub(crate) warnings: Vec<Fault>,
}

impl Sender {
    pub(crate) fn new(api: Api, kind: &Kind, dry_run: bool, update: bool) -> Self {
        let update = if update { "&update=true" } else { "" };
        Self {
            api,
            path: format!("{}?dry_run={dry_run}{update}", kind.import),
            body: Vec::new(),
            places: Vec::with_capacity(ROWS_MAX),
            counts: Counts::default(),
            bad: 0,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds a row, and sends when there are enough.
    pub(crate) async fn row(&mut self, row: &impl FileRow) -> Result<(), CallError> {
        self.add(row.place(), &row.json());
        if self.places.len() >= ROWS_MAX || self.body.len() >= BYTES_MAX {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Adds a row as billing takes it, with its place in the file.
    pub(super) fn add(&mut self, place: Place, json: &[u8]) {
        self.body.extend_from_slice(json);
        self.places.push(place);
    }

    /// Sends the rows that are left.
    pub(crate) async fn flush(&mut self) -> Result<(), CallError> {
        if self.places.is_empty() {
            return Ok(());
        }
        let body = Bytes::from(std::mem::take(&mut self.body));
        let places = std::mem::take(&mut self.places);
        let answer: ImportReport = self.api.post(&self.path, "application/x-ndjson", body.clone()).await?;
        self.counts.created += answer.created;
        self.counts.unchanged += answer.unchanged;
        self.counts.updated += answer.updated;
        self.bad += answer.errors_total;
        let at = |line: u64| line.checked_sub(1).and_then(|at| usize::try_from(at).ok());
        let place = |line: u64| at(line).and_then(|at| places.get(at)).copied().unwrap_or_default();
        // Look-alikes in the same request are shown already: the whole file was looked at.
        let beside_stored = answer.warnings.into_iter().filter(|warning| warning.like_line.is_none());
        self.warnings.extend(beside_stored.map(|warning| {
            let Place { line, index } = place(warning.line);
            Fault::new(line, "reference", warning.message).at(index, Some(warning.reference))
        }));
        let row = |line: u64| at(line).and_then(|at| body.split(|byte| *byte == b'\n').nth(at));
        self.faults.extend(answer.errors.into_iter().map(|error| {
            let Place { line, index } = place(error.line);
            let reason = message_with_value(&error, row(error.line));
            Fault::new(line, error.field.into_owned(), reason).at(index, error.reference)
        }));
        Ok(())
    }
}

/// Billing's message, and the value that it is about. That of the reference is shown beside it.
fn message_with_value(error: &LineFault, row: Option<&[u8]>) -> String {
    let row: Option<Map<String, Value>> = row.and_then(|row| serde_json::from_slice(row).ok());
    let value = match row.as_ref().and_then(|row| row.get(&*error.field)) {
        Some(Value::String(text)) if error.field != "reference" => quote_value(text),
        Some(Value::Number(number)) => number.to_string(),
        _ => return error.message.clone(),
    };
    if error.message.contains(&value) {
        return error.message.clone();
    }
    format!("{}; the row has {value}", error.message)
}
