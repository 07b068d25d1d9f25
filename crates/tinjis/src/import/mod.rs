//! `import`: invoices from a file to billing. The whole file is checked, alone and against billing, before the first
//! row is written; a crash in mid-write leaves a prefix that the next import completes.
//! Must not know how billing keeps invoices.

mod amount;
mod csv;
mod encoding;
mod explain;
mod file;
mod header;
mod json;
mod notes;
mod route;
mod row;
mod seen;
mod send;
mod settings;
mod subscription;
mod target;

use std::path::PathBuf;

use anyhow::{Context, bail};

pub(crate) use explain::command as explain;
pub(crate) use file::{Format, Identity};
pub(crate) use row::{Fault, Row};
pub(crate) use send::Sender;
pub(crate) use settings::{Dialect, FileSettings};
pub(crate) use subscription::{SubscriptionRow, SubscriptionRows};
pub(crate) use target::{INVOICES, SUBSCRIPTIONS, Target};

use notes::Notes;
use route::Router;
use row::Judged;
use seen::{ROWS_MAX, Repeats, Seen};
use send::Counts;

use crate::deployments::Billings;
use crate::output::{self, grouped};

/// Exit code when rows are bad.
const BAD_ROWS: u8 = 1;

/// The checked options of an import.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) file: PathBuf,
    pub(crate) format: Format,
    pub(crate) dialect: Dialect,
    pub(crate) dry_run: bool,
    pub(crate) skip_bad: bool,
    pub(crate) update: bool,
}

/// The result of the check without billing.
#[derive(Debug)]
struct Checked {
    identity: Identity,
    rows: u64,
    bad: u64,
    /// Rows that repeat another one.
    same: u64,
    /// Rows that are left out by their status.
    left_out: u64,
    /// Lines that are not sent, in order: repeats and contradictions.
    skipped: Vec<u32>,
    /// Whether the file could not be read to its end.
    is_broken: bool,
}

pub(crate) async fn command(billings: &Billings, options: &Options) -> anyhow::Result<u8> {
    let checked = check(options)?;
    if checked.is_broken {
        output::note("nothing was written: the file cannot be read to its end");
        return Ok(BAD_ROWS);
    }
    billings.check_ids().await?;
    let would = send(billings, options, &checked, true).await?;
    let bad = checked.bad + would.bad();
    if bad > 0 && !options.skip_bad {
        let rows = bad_rows(bad);
        output::note(format_args!("nothing was written: {rows}; fix them or skip them with --skip-bad"));
        return Ok(BAD_ROWS);
    }
    if options.dry_run {
        output::result(summary("would be ", &would.counts(), &checked, bad));
        return Ok(0);
    }
    let done = send(billings, options, &checked, false).await?;
    let bad = checked.bad + done.bad();
    output::result(summary("", &done.counts(), &checked, bad));
    Ok(if bad > 0 && !options.skip_bad { BAD_ROWS } else { 0 })
}

fn summary(would_be: &str, counts: &Counts, checked: &Checked, bad: u64) -> String {
    let Counts { created, unchanged, updated } = *counts;
    let [created, unchanged, updated] = [created, unchanged, updated].map(grouped);
    let mut text = format!(
        "{would_be}{created} created, {unchanged} unchanged, {updated} updated; {} left out",
        bad_rows(bad)
    );
    for (count, what) in [(checked.same, "repeated within the file"), (checked.left_out, "skipped by status")]
    {
        if count > 0 {
            text += &format!("; {} {what}", grouped(count));
        }
    }
    text
}

fn bad_rows(count: u64) -> String {
    let noun = if count == 1 { "bad row" } else { "bad rows" };
    format!("{} {noun}", grouped(count))
}

/// Reads the whole file and reports the mistakes that show without billing.
fn check(options: &Options) -> anyhow::Result<Checked> {
    let opened = open(options)?;
    let identity = opened.identity;
    let mut notes = Notes::new("checking", identity.bytes);
    let mut checked =
        Checked { identity, rows: 0, bad: 0, same: 0, left_out: 0, skipped: Vec::new(), is_broken: false };
    let mut seen = Seen::default();
    let read = opened.rows.and_then(|mut rows| {
        notes.ignored_columns(rows.ignored());
        while let Some(judged) = rows.next(&options.dialect)? {
            checked.take(judged, &mut seen, &mut notes)?;
            if checked.rows.is_multiple_of(1000) {
                notes.so_far(opened.read.so_far());
            }
        }
        notes.end_of_file(checked.rows, rows.ends_in_mid_line());
        Ok(())
    });
    if let Err(fault) = read {
        checked.is_broken = true;
        notes.faults(&[fault]);
    }
    let repeats = seen.repeats();
    notes.repeats(&repeats);
    notes.finish();
    let Repeats { same, contradicting, skipped, .. } = repeats;
    checked.bad += contradicting;
    (checked.same, checked.skipped) = (same, skipped);
    Ok(checked)
}

impl Checked {
    fn take(&mut self, judged: Judged, seen: &mut Seen, notes: &mut Notes) -> Result<(), Fault> {
        self.rows += 1;
        let (line, fits) = match &judged {
            Judged::Good(row) => {
                notes.suspect(row);
                (row.line, seen.add(row))
            }
            Judged::Skipped => {
                self.left_out += 1;
                return Ok(());
            }
            Judged::Bad { faults, reference } => {
                self.bad += 1;
                notes.faults(faults);
                let line = faults.first().map_or(0, |fault| fault.line);
                (line, reference.as_ref().is_none_or(|reference| seen.add_wrong(reference, line)))
            }
        };
        let reason = || format!("is too far down: split the file, at most {ROWS_MAX} rows each");
        if fits { Ok(()) } else { Err(Fault::row(line, reason())) }
    }
}

/// Sends the rows that are valid by themselves; with `dry_run` billing only checks them.
async fn send(
    billings: &Billings,
    options: &Options,
    checked: &Checked,
    dry_run: bool,
) -> anyhow::Result<Router> {
    let opened = open(options)?;
    if opened.identity != checked.identity {
        bail!("{} changed while it was read", options.file.display());
    }
    let mut notes = Notes::new(if dry_run { "asking" } else { "writing" }, checked.identity.bytes);
    let mut sender = Router::new(billings, dry_run, options.update);
    let changed =
        |fault: Fault| anyhow::anyhow!("{} cannot be read again: {}", options.file.display(), fault.reason);
    let mut rows = opened.rows.map_err(changed)?;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let judged = rows.next(&options.dialect).map_err(changed)?;
        let is_end = judged.is_none();
        let step = async {
            match judged {
                Some(Judged::Good(row)) if !is_skipped(&checked.skipped, &row) => sender.row(&row).await,
                Some(_) => Ok(()),
                None => sender.flush().await,
            }
        };
        let sent = tokio::select! {
            sent = step => sent.map_err(anyhow::Error::from),
            _ = &mut interrupted => Err(anyhow::anyhow!("interrupted")),
        };
        sent.map_err(|error| stopped(error, &sender, dry_run))?;
        notes.so_far(opened.read.so_far());
        notes.faults(&std::mem::take(&mut sender.faults));
        let warnings = std::mem::take(&mut sender.warnings);
        // Printed in the dry run only, so that each warning appears once.
        if dry_run {
            notes.look_alikes(&warnings);
        }
        if is_end {
            notes.bad_of_billing(sender.bad());
            notes.finish();
            return Ok(sender);
        }
    }
}

fn is_skipped(skipped: &[u32], row: &Row) -> bool {
    u32::try_from(row.line).is_ok_and(|line| skipped.binary_search(&line).is_ok())
}

/// The error of an interrupted import, with the counts of rows written before.
fn stopped(error: anyhow::Error, sender: &Router, dry_run: bool) -> anyhow::Error {
    let Counts { created, unchanged, updated } = sender.counts();
    if dry_run {
        return error.context("nothing was written");
    }
    let [created, unchanged, updated] = [created, unchanged, updated].map(grouped);
    error.context(format!(
        "the import was cut off after line {}: {created} created, {unchanged} unchanged, {updated} updated so far, \
         perhaps some of the next rows; import the same file again to complete it",
        sender.done_to
    ))
}

fn open(options: &Options) -> anyhow::Result<file::Opened> {
    file::open(&options.file, options.format, &options.dialect)
        .with_context(|| format!("{} cannot be read", options.file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_row_is_one() {
        let said = [0, 1, 2, 1000].map(bad_rows);
        assert_eq!(said, ["0 bad rows", "1 bad row", "2 bad rows", "1,000 bad rows"]);
    }
}
