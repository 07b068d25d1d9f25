//! The progress of a command: a bar or a spinner on a terminal, plain lines elsewhere, always on standard error. Knows
//! no command; must not write results.

use std::cell::Cell;
use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::output;

/// Minimum time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);

/// The progress of one task.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    label: &'static str,
    total: Cell<u64>,
    said: Cell<Option<Instant>>,
}

impl Progress {
    /// A bar of a known length. `template` is indicatif's, for terminals.
    pub(crate) fn bar(label: &'static str, total: u64, template: &str) -> Self {
        let progress = Self::of(label, total, template);
        if let Some(bar) = &progress.bar {
            bar.set_message(label);
        }
        progress
    }

    /// Delays the first plain line by [`PLAIN_EVERY`], for work that is mostly shorter.
    pub(crate) fn delay_first_line(self) -> Self {
        self.said.set(Some(Instant::now()));
        self
    }

    /// A spinner for named steps of unknown number.
    pub(crate) fn spinner(label: &'static str) -> Self {
        let progress = Self::of(label, 0, "{spinner} {msg}");
        if let Some(bar) = &progress.bar {
            bar.enable_steady_tick(TICK);
        }
        progress
    }

    fn of(label: &'static str, total: u64, template: &str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = is_terminal.then(|| {
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style)
        });
        Self { bar, label, total: Cell::new(total), said: Cell::new(None) }
    }

    /// Sets the total, when it becomes known or changes.
    pub(crate) fn total(&self, total: u64) {
        self.total.set(total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// Shows the count so far with the label.
    pub(crate) fn so_far(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        } else if self.may_speak() {
            output::note(format_args!("{}: {} %", self.label, self.percent(position)));
        }
    }

    /// Shows the count so far with a short text.
    pub(crate) fn at(&self, position: u64, words: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(output::printable(&words.to_string()).into_owned());
        } else if self.may_speak() {
            output::note(format_args!("{}: {} % {words}", self.label, self.percent(position)));
        }
    }

    fn percent(&self, position: u64) -> u64 {
        position * 100 / self.total.get().max(1)
    }

    /// Shows the next step.
    pub(crate) fn step(&self, words: impl Display) {
        match &self.bar {
            Some(bar) => bar.set_message(output::printable(&words.to_string()).into_owned()),
            None => output::note(format_args!("{}: {words}", self.label)),
        }
    }

    /// Writes a line of the result without breaking the bar.
    pub(crate) fn result(&self, line: impl Display) {
        self.aside(|| output::result(&line));
    }

    /// Writes a line to standard error without breaking the bar.
    pub(crate) fn note(&self, line: impl Display) {
        self.aside(|| output::note(&line));
    }

    fn aside(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn may_speak(&self) -> bool {
        let now = Instant::now();
        let may = self.said.get().is_none_or(|said| now.duration_since(said) >= PLAIN_EVERY);
        if may {
            self.said.set(Some(now));
        }
        may
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
