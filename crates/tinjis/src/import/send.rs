//! Sends rows to billing in batches of bounded size, and returns billing's answers as faults of the file's lines. Knows
//! one route; knows no file format.

use std::borrow::Cow;
use std::ops::Add;

use api::billing::ImportReport;
use billing::import_row::FIELDS;
use bytes::Bytes;

use super::row::{Fault, Row};
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
    /// The place in the file of each row of the body: line and index.
    places: Vec<(u64, Option<u64>)>,
    /// The last line of the file that billing has answered for.
    pub(crate) done_to: u64,
    pub(crate) counts: Counts,
    /// Number of rows that billing refused.
    pub(crate) bad: u64,
    /// Faults of refused rows, until the caller takes them: billing lists a bounded number for each batch.
    pub(crate) faults: Vec<Fault>,
    /// References that look like stored ones, until the caller takes them.
    pub(crate) warnings: Vec<Fault>,
}

impl Sender {
    pub(crate) fn new(api: Api, dry_run: bool, update: bool) -> Self {
        Self {
            api,
            path: format!("/v1/imports?dry_run={dry_run}&update={update}"),
            body: Vec::new(),
            places: Vec::with_capacity(ROWS_MAX),
            done_to: 0,
            counts: Counts::default(),
            bad: 0,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds a row, and sends when a batch is full.
    pub(crate) async fn row(&mut self, row: &Row) -> Result<(), CallError> {
        self.add((row.line, row.index), &row.json());
        if self.places.len() >= ROWS_MAX || self.body.len() >= BYTES_MAX {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Adds a row in billing's format, with its place in the file.
    pub(super) fn add(&mut self, place: (u64, Option<u64>), json: &[u8]) {
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
        let answer: ImportReport = self.api.post(&self.path, "application/x-ndjson", body).await?;
        self.counts.created += answer.created;
        self.counts.unchanged += answer.unchanged;
        self.counts.updated += answer.updated;
        self.bad += answer.errors_total;
        self.done_to = places.last().map_or(self.done_to, |(line, _)| *line);
        let place = |line: u64| {
            let at = line.checked_sub(1).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| places.get(at)).copied().unwrap_or_default()
        };
        // Look-alikes within the same request are shown already: the check of the whole file found them.
        let beside_stored = answer.warnings.into_iter().filter(|warning| warning.like_line.is_none());
        self.warnings.extend(beside_stored.map(|warning| {
            let (line, index) = place(warning.line);
            Fault::new(line, "reference", warning.message).at(index, Some(warning.reference))
        }));
        self.faults.extend(answer.errors.into_iter().map(|error| {
            let (line, index) = place(error.line);
            Fault::new(line, column(error.field.into_owned()), error.message).at(index, error.reference)
        }));
        Ok(())
    }
}

fn column(field: String) -> Cow<'static, str> {
    let known = FIELDS.into_iter().find(|column| *column == field);
    known.map_or(Cow::Owned(field), Cow::Borrowed)
}
