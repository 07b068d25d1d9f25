//! Rows on their way to billing: batches of bounded size, and billing's answers as faults of the file's lines.
//! Knows one route; knows no file format.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;

use super::row::{COLUMNS, Fault, Row};
use crate::http::{Api, CallError};

/// Rows and bytes of one request, well below what billing takes.
const ROWS_MAX: usize = 1000;
const BYTES_MAX: usize = 512 * 1024;

/// What billing did with rows, or would do.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) created: u64,
    pub(crate) unchanged: u64,
    pub(crate) updated: u64,
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(flatten)]
    counts: Counts,
    errors_total: u64,
    errors: Vec<LineError>,
}

#[derive(Debug, Deserialize)]
struct LineError {
    line: usize,
    field: String,
    message: String,
}

/// Sends rows in batches.
#[derive(Debug)]
pub(crate) struct Sender {
    api: Api,
    path: String,
    body: Vec<u8>,
    /// Where each line of the body ends, and its line in the file.
    lines: Vec<(usize, u64)>,
    pub(crate) counts: Counts,
    /// Rows that billing did not take.
    pub(crate) bad: u64,
    /// Their faults, until somebody takes them.
    pub(crate) faults: Vec<Fault>,
}

impl Sender {
    pub(crate) fn new(api: Api, dry_run: bool, update: bool) -> Self {
        Self {
            api,
            path: format!("/v1/imports?dry_run={dry_run}&update={update}"),
            body: Vec::new(),
            lines: Vec::with_capacity(ROWS_MAX),
            counts: Counts::default(),
            bad: 0,
            faults: Vec::new(),
        }
    }

    /// Adds a row, and sends when there are enough.
    pub(crate) async fn row(&mut self, row: &Row) -> Result<(), CallError> {
        serde_json::to_writer(&mut self.body, row).expect("a checked row is always JSON");
        self.body.push(b'\n');
        self.lines.push((self.body.len(), row.line));
        if self.lines.len() >= ROWS_MAX || self.body.len() >= BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    /// Sends what is left.
    pub(crate) async fn flush(&mut self) -> Result<(), CallError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let body = Bytes::from(std::mem::take(&mut self.body));
        let lines = std::mem::take(&mut self.lines);
        // A range of rows; billing lists a bounded number of errors, so a range with more of them is sent in halves.
        let mut ranges = vec![(0, lines.len())];
        while let Some((from, to)) = ranges.pop() {
            let start = if from == 0 { 0 } else { lines[from - 1].0 };
            let part = body.slice(start..lines[to - 1].0);
            let answer: Answer = self.api.post(&self.path, "application/x-ndjson", part).await?;
            let all_listed = answer.errors.len() as u64 == answer.errors_total;
            let middle = from + (to - from) / 2;
            if !all_listed && middle > from && self.is_dry_run() {
                ranges.push((middle, to));
                ranges.push((from, middle));
                continue;
            }
            self.counts.created += answer.counts.created;
            self.counts.unchanged += answer.counts.unchanged;
            self.counts.updated += answer.counts.updated;
            self.bad += answer.errors_total;
            self.faults.extend(answer.errors.into_iter().map(|error| {
                let line = lines.get(from + error.line - 1).map_or(0, |(_, line)| *line);
                Fault::new(line, column(error.field), error.message)
            }));
        }
        Ok(())
    }

    /// Only a dry run may be sent again in parts and still count right.
    fn is_dry_run(&self) -> bool {
        self.path.contains("dry_run=true")
    }
}

fn column(field: String) -> Cow<'static, str> {
    let known = COLUMNS.into_iter().find(|column| *column == field);
    known.map_or(Cow::Owned(field), Cow::Borrowed)
}
