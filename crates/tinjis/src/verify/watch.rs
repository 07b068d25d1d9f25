//! How far a look is, for whoever waits for it: invoices, attempts and rows of the ledger, counted as they are read.
//! Judges nothing, and knows neither side.

use std::cell::Cell;

use crate::output::grouped;
use crate::progress::Progress;

const TEMPLATE: &str = "[{bar:30}] {percent} %  {msg}";

/// Counts; shows it or not.
#[derive(Debug)]
pub(crate) struct Watch {
    progress: Option<Progress>,
    read: Cell<u64>,
    in_all: Cell<u64>,
}

impl Watch {
    /// Shows it on a terminal at once, elsewhere once it takes long.
    pub(crate) fn shown(label: &'static str) -> Self {
        Self::of(Some(Progress::bar(label, 0, TEMPLATE).patient()))
    }

    /// For whoever shows how far it is otherwise.
    pub(crate) fn silent() -> Self {
        Self::of(None)
    }

    fn of(progress: Option<Progress>) -> Self {
        Self { progress, read: Cell::new(0), in_all: Cell::new(0) }
    }

    /// So many are still to be read, as far as anybody knows by now.
    pub(crate) fn to_come(&self, items: u64) {
        self.in_all.set(self.read.get() + items);
        if let Some(progress) = &self.progress {
            progress.total(self.in_all.get());
        }
    }

    /// A page was read.
    pub(crate) fn page(&self, of_what: &str, items: usize) {
        self.read.set(self.read.get() + u64::try_from(items).unwrap_or(u64::MAX));
        self.say(format_args!("{of_what}; {} items so far", grouped(self.read.get())));
    }

    /// Everything was read; this is what goes on now.
    pub(crate) fn say(&self, words: std::fmt::Arguments<'_>) {
        if let Some(progress) = &self.progress {
            progress.at(self.read.get().min(self.in_all.get()), words);
        }
    }
}
