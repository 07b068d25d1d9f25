//! Sends rows to the billings of several deployments, or to the only billing: collects them, asks which billing has
//! them, sends them. The rule for the target is in `deployments`; knows no file format.

use super::row::{Fault, Row};
use super::send::{BYTES_MAX, Counts, ROWS_MAX, Sender};
use crate::deployments::{Billings, INVOICES, Line};
use crate::http::{Api, CallError};

/// Sends rows in batches, each row to its billing.
#[derive(Debug)]
pub(crate) struct Router {
    billings: Billings,
    /// One sender for each billing.
    senders: Vec<Sender>,
    waiting: Vec<Line>,
    /// The place of each waiting row in the file: line and index.
    places: Vec<(u64, Option<u64>)>,
    bytes: usize,
    /// The last line of the file with an answer.
    pub(crate) done_to: u64,
    /// Faults, until the caller takes them.
    pub(crate) faults: Vec<Fault>,
    /// References that look like stored ones, until the caller takes them.
    pub(crate) warnings: Vec<Fault>,
}

impl Router {
    pub(crate) fn new(billings: &Billings, dry_run: bool, update: bool) -> Self {
        let sender = |api: &Api| Sender::new(api.clone(), dry_run, update);
        Self {
            billings: billings.clone(),
            senders: billings.apis.iter().map(sender).collect(),
            waiting: Vec::with_capacity(ROWS_MAX),
            places: Vec::with_capacity(ROWS_MAX),
            bytes: 0,
            done_to: 0,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds a row, and sends when a batch is full.
    pub(crate) async fn row(&mut self, row: &Row) -> Result<(), CallError> {
        let line = Line { reference: row.reference.clone(), json: row.json() };
        self.bytes += line.json.len();
        self.waiting.push(line);
        self.places.push((row.line, row.index));
        if self.waiting.len() >= ROWS_MAX || self.bytes >= BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    /// Sends the waiting rows. The look-up comes directly before, to leave another import little time in between.
    pub(crate) async fn flush(&mut self) -> Result<(), CallError> {
        self.bytes = 0;
        let (waiting, places) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.places));
        let to = self.billings.places(&INVOICES, &waiting).await?;
        for ((line, place), to) in waiting.iter().zip(&places).zip(to) {
            self.senders[to].add(*place, &line.json);
        }
        for sender in &mut self.senders {
            sender.flush().await?;
            self.faults.append(&mut sender.faults);
            self.warnings.append(&mut sender.warnings);
        }
        self.faults.sort_by_key(|fault| fault.line);
        self.warnings.sort_by_key(|warning| warning.line);
        self.done_to = places.last().map_or(self.done_to, |(line, _)| *line);
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        self.senders.iter().fold(Counts::default(), |all, sender| all + sender.counts)
    }

    /// Number of rows that billing refused.
    pub(crate) fn bad(&self) -> u64 {
        self.senders.iter().map(|sender| sender.bad).sum()
    }
}
