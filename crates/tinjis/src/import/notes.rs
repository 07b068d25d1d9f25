//! Messages of an import while it reads a file: mistakes and warnings, a bounded number of each kind and their total.
//! Decides nothing.

use crate::output::grouped;
use crate::progress::Progress;

use super::row::{self, Fault, FileRow, Place};
use super::seen::{LISTED_MAX, Repeats};

const TEMPLATE: &str = "{msg:10} [{bar:30}] {percent} %  {bytes_per_sec}  {eta}";

/// Maximum number of ignored columns in a message.
const COLUMNS_NAMED_MAX: usize = 30;

/// Messages on standard error, next to a progress bar.
pub(crate) struct Notes {
    progress: Progress,
    /// Number of mistakes, printed or not.
    mistakes: u64,
    listed: usize,
    /// Number of suspicious references, printed or not.
    suspects: u64,
    /// Number of references that look like stored ones, printed or not.
    alike: usize,
}

impl Notes {
    pub(crate) fn new(label: &'static str, bytes: u64) -> Self {
        Self {
            progress: Progress::bar(label, bytes, TEMPLATE),
            mistakes: 0,
            listed: 0,
            suspects: 0,
            alike: 0,
        }
    }

    pub(crate) fn so_far(&self, bytes: u64) {
        self.progress.so_far(bytes);
    }

    pub(crate) fn faults(&mut self, faults: &[Fault]) {
        self.mistakes += faults.len() as u64;
        for fault in faults {
            if self.listed < LISTED_MAX {
                self.listed += 1;
                self.progress.note(fault);
            }
        }
    }

    /// Prints the first references that look like stored ones; the others are only counted.
    pub(crate) fn look_alikes(&mut self, warnings: &[Fault]) {
        for warning in warnings.iter().take(LISTED_MAX.saturating_sub(self.alike)) {
            self.progress.note(format_args!("warning: {warning}"));
        }
        self.alike += warnings.len();
    }

    /// Sets the number of rows that billing refused: billing lists only some of each batch.
    pub(crate) fn bad_of_billing(&mut self, rows: u64) {
        self.mistakes = self.mistakes.max(rows);
    }

    pub(crate) fn finish(&self) {
        if self.alike > LISTED_MAX {
            let more = grouped((self.alike - LISTED_MAX) as u64);
            self.progress.note(format_args!("warning: {more} more references look like stored ones"));
        }
        let more = self.mistakes.saturating_sub(self.listed as u64);
        if more > 0 {
            let (listed, all) = (self.listed, grouped(self.mistakes));
            self.progress
                .note(format_args!("{} more mistakes are not listed: {listed} of {all} are", grouped(more)));
        }
    }

    /// Prints the ignored columns, once.
    pub(crate) fn ignored_columns(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let mut named: Vec<String> =
            names.iter().take(COLUMNS_NAMED_MAX).map(|name| row::quote_value(name)).collect();
        if names.len() > named.len() {
            named.push(format!("{} more", names.len() - named.len()));
        }
        self.progress.note(format_args!("columns passed over: {}", named.join(", ")));
    }

    pub(crate) fn end_of_file(&self, rows: u64, ends_in_mid_line: bool) {
        if rows == 0 {
            self.progress.note("warning: the file has no rows");
        } else if ends_in_mid_line {
            self.progress.note("warning: the last line has no line end; if the file was cut off, its last value may be too short");
        }
        if self.suspects > 1 {
            let count = grouped(self.suspects);
            self.progress.note(format_args!(
                "warning: {count} references look like work of a spreadsheet; the first is above"
            ));
        }
    }

    /// Tells the first reference that looks as if a spreadsheet had changed it; the others are counted.
    pub(crate) fn suspect(&mut self, row: &impl FileRow) {
        let (reference, Place { line, index }) = (row.reference().as_str(), row.place());
        let Some(why) = row::suspicion(reference) else { return };
        self.suspects += 1;
        if self.suspects == 1 {
            let fault = Fault::new(line, "reference", why).at(index, Some(reference.to_owned()));
            self.progress.note(format_args!("warning: {fault}"));
        }
    }

    pub(crate) fn repeats(&mut self, repeats: &Repeats) {
        let listed = [
            (&repeats.repeated, repeats.same, "repeat an earlier row of the file and change nothing"),
            (
                &repeats.look_alikes,
                repeats.alike,
                "have a reference that people can hardly tell from an earlier one",
            ),
        ];
        for (faults, total, what) in listed {
            for fault in faults {
                self.progress.note(format_args!("warning: {fault}"));
            }
            if total > faults.len() as u64 {
                self.progress.note(format_args!(
                    "warning: {} rows {what}; the first {} are listed",
                    grouped(total),
                    faults.len()
                ));
            }
        }
        self.faults(&repeats.faults);
        self.mistakes += repeats.contradicting.saturating_sub(repeats.faults.len() as u64);
    }
}
