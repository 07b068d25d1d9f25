//! Sends rows to the billings of several deployments, or to the only billing: collects them, asks which billing has
//! them, sends them. The rule for the target is in `deployments`; knows no file format.

use super::row::{Fault, FileRow, Place};
use super::send::{BYTES_MAX, Counts, ROWS_MAX, Sender};
use crate::deployments::{Billings, Kind, Line};
use crate::http::{Api, CallError};

/// Sends rows in batches, each row to its billing.
#[derive(Debug)]
pub(crate) struct Router {
    billings: Billings,
    kind: &'static Kind,
    /// One for each billing.
    senders: Vec<Sender>,
    waiting: Vec<Line>,
    /// Where each of them stands in the file.
    places: Vec<Place>,
    bytes: usize,
    /// The last row of the file that was answered for.
    pub(crate) done_to: Place,
    /// Until the caller takes them.
    pub(crate) faults: Vec<Fault>,
    /// References that look like stored ones, until the caller takes them.
    pub(crate) warnings: Vec<Fault>,
}

impl Router {
    pub(crate) fn new(billings: &Billings, kind: &'static Kind, dry_run: bool, update: bool) -> Self {
        let sender = |api: &Api| Sender::new(api.clone(), kind, dry_run, update);
        Self {
            billings: billings.clone(),
            kind,
            senders: billings.apis.iter().map(sender).collect(),
            waiting: Vec::with_capacity(ROWS_MAX),
            places: Vec::with_capacity(ROWS_MAX),
            bytes: 0,
            done_to: Place::default(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds a row, and sends when there are enough.
    pub(crate) async fn row(&mut self, row: &impl FileRow) -> Result<(), CallError> {
        let line = Line { reference: row.reference().clone(), json: row.json() };
        self.bytes += line.json.len();
        self.waiting.push(line);
        self.places.push(row.place());
        if self.waiting.len() >= ROWS_MAX || self.bytes >= BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    /// Sends the waiting rows. The look-up comes directly before, to leave another import little time in between.
    pub(crate) async fn flush(&mut self) -> Result<(), CallError> {
        self.bytes = 0;
        let (waiting, places) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.places));
        let to = self.billings.places(self.kind, &waiting).await?;
        for ((line, place), to) in waiting.iter().zip(&places).zip(to) {
            self.senders[to].add(*place, &line.json);
        }
        for sender in &mut self.senders {
            sender.flush().await?;
            self.faults.append(&mut sender.faults);
            self.warnings.append(&mut sender.warnings);
        }
        self.faults.sort_by_key(|fault| fault.place().at());
        self.warnings.sort_by_key(|warning| warning.place().at());
        self.done_to = places.last().copied().unwrap_or(self.done_to);
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
