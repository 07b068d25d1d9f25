//! The progress of a verification: invoices, attempts and ledger rows, counted as they arrive. Judges nothing, and
//! knows neither side.

use std::cell::Cell;

use crate::output::grouped;
use crate::progress::Progress;

const TEMPLATE: &str = "[{bar:30}] {percent} %  {msg}";

/// Counts the items that were read, and optionally shows the count.
#[derive(Debug)]
pub(crate) struct ReadProgress {
    progress: Option<Progress>,
    read: Cell<u64>,
    total: Cell<u64>,
}

impl ReadProgress {
    /// Shows the count, on a terminal at once, elsewhere only after some time.
    pub(crate) fn visible(label: &'static str) -> Self {
        Self::of(Some(Progress::bar(label, 0, TEMPLATE).delay_first_line()))
    }

    /// Shows nothing, for callers with progress of their own.
    pub(crate) fn silent() -> Self {
        Self::of(None)
    }

    fn of(progress: Option<Progress>) -> Self {
        Self { progress, read: Cell::new(0), total: Cell::new(0) }
    }

    /// Adds the estimated number of items still to be read.
    pub(crate) fn expect(&self, items: u64) {
        self.total.set(self.read.get() + items);
        if let Some(progress) = &self.progress {
            progress.total(self.total.get());
        }
    }

    /// Counts a page that was read.
    pub(crate) fn page(&self, of_what: &str, items: usize) {
        self.read.set(self.read.get() + u64::try_from(items).unwrap_or(u64::MAX));
        self.message(format_args!("{of_what}; {} items so far", grouped(self.read.get())));
    }

    /// Shows the current step.
    pub(crate) fn message(&self, words: std::fmt::Arguments<'_>) {
        if let Some(progress) = &self.progress {
            progress.at(self.read.get().min(self.total.get()), words);
        }
    }
}
