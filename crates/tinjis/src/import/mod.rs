//! `import`: invoices from a file to billing. The whole file is checked, alone and against billing, before the first
//! row is written; a crash in mid-write leaves a prefix that the next import completes.
//! Must not know how billing keeps invoices.

mod csv;
mod file;
mod json;
mod row;
mod seen;
mod send;

use std::path::PathBuf;

use anyhow::{Context, bail};

pub(crate) use file::Format;
pub(crate) use row::Row;
pub(crate) use send::Sender;

use file::{Identity, Item};
use row::Fault;
use seen::{ROWS_MAX, Seen};
use send::Counts;

use crate::http::Api;
use crate::output::{self, grouped};
use crate::progress::Progress;

const TEMPLATE: &str = "{msg:10} [{bar:30}] {percent} %  {bytes_per_sec}  {eta}";

/// Exit code when rows are bad.
const BAD_ROWS: u8 = 1;

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) file: PathBuf,
    pub(crate) format: Format,
    pub(crate) dry_run: bool,
    pub(crate) skip_bad: bool,
    pub(crate) update: bool,
}

/// What the whole file showed by itself.
#[derive(Debug)]
struct Checked {
    identity: Identity,
    rows: u64,
    bad: u64,
    /// Rows that repeat another one.
    same: u64,
    /// Lines that are not sent: repeats and contradictions, in order.
    skipped: Vec<u64>,
    /// The file could not be read to its end.
    is_broken: bool,
}

/// The `import` command.
pub(crate) async fn command(billing: Api, options: &Options) -> anyhow::Result<u8> {
    let checked = check(options)?;
    if checked.is_broken {
        output::note("nothing was written: the file cannot be read to its end");
        return Ok(BAD_ROWS);
    }
    let would = send(&billing, options, &checked, true).await?;
    let bad = checked.bad + would.bad;
    if bad > 0 && !options.skip_bad {
        let rows = bad_rows(bad);
        output::note(format_args!("nothing was written: {rows}; mend or leave out by --skip-bad"));
        return Ok(BAD_ROWS);
    }
    if options.dry_run {
        output::result(summary("would be ", &would.counts, checked.same, bad));
        return Ok(0);
    }
    let done = send(&billing, options, &checked, false).await?;
    let bad = checked.bad + done.bad;
    output::result(summary("", &done.counts, checked.same, bad));
    Ok(if bad > 0 && !options.skip_bad { BAD_ROWS } else { 0 })
}

fn summary(would_be: &str, counts: &Counts, same: u64, bad: u64) -> String {
    let Counts { created, unchanged, updated } = *counts;
    let [created, unchanged, updated] = [created, unchanged + same, updated].map(grouped);
    let bad = bad_rows(bad);
    format!("{would_be}{created} created, {unchanged} unchanged, {updated} updated; {bad} left out")
}

fn bad_rows(count: u64) -> String {
    let noun = if count == 1 { "bad row" } else { "bad rows" };
    format!("{} {noun}", grouped(count))
}

/// Reads the whole file and tells every mistake that it holds by itself.
fn check(options: &Options) -> anyhow::Result<Checked> {
    let opened = open(options)?;
    let identity = opened.identity;
    let progress = Progress::bar("checking", identity.bytes, TEMPLATE);
    let mut checked = Checked { identity, rows: 0, bad: 0, same: 0, skipped: Vec::new(), is_broken: false };
    let mut seen = Seen::default();
    let read = opened.rows.and_then(|mut rows| {
        while let Some(item) = rows.next()? {
            checked.rows += 1;
            match item {
                Item::Row(row) if !seen.add(&row) => {
                    let reason = format!("is too far down: split the file, at most {ROWS_MAX} rows each");
                    return Err(Fault::row(row.line, reason));
                }
                Item::Row(_) => {}
                Item::Bad(faults) => {
                    checked.bad += 1;
                    tell(&progress, &faults);
                }
            }
            if checked.rows.is_multiple_of(1000) {
                progress.so_far(opened.read.so_far());
            }
        }
        Ok(())
    });
    if let Err(fault) = read {
        checked.is_broken = true;
        tell(&progress, &[fault]);
    }
    let repeats = seen.repeats();
    tell(&progress, &repeats.faults);
    checked.bad += repeats.contradicting();
    checked.same = repeats.same.len() as u64;
    checked.skipped = repeats.lines();
    Ok(checked)
}

/// What billing did with the rows of the file that are right by themselves, or would do.
async fn send(billing: &Api, options: &Options, checked: &Checked, dry_run: bool) -> anyhow::Result<Sender> {
    let opened = open(options)?;
    if opened.identity != checked.identity {
        bail!("{} changed while it was read", options.file.display());
    }
    let label = if dry_run { "asking" } else { "writing" };
    let progress = Progress::bar(label, checked.identity.bytes, TEMPLATE);
    let mut sender = Sender::new(billing.clone(), dry_run, options.update);
    let changed =
        |fault: Fault| anyhow::anyhow!("{} cannot be read again: {}", options.file.display(), fault.reason);
    let mut rows = opened.rows.map_err(changed)?;
    while let Some(item) = rows.next().map_err(changed)? {
        if let Item::Row(row) = item
            && !is_skipped(&checked.skipped, &row)
        {
            sender.row(&row).await.with_context(|| written_so_far(dry_run))?;
        }
        progress.so_far(opened.read.so_far());
        tell(&progress, &std::mem::take(&mut sender.faults));
    }
    sender.flush().await.with_context(|| written_so_far(dry_run))?;
    tell(&progress, &std::mem::take(&mut sender.faults));
    Ok(sender)
}

fn is_skipped(skipped: &[u64], row: &Row) -> bool {
    skipped.binary_search(&row.line).is_ok()
}

fn written_so_far(dry_run: bool) -> &'static str {
    if dry_run {
        "nothing was written"
    } else {
        "the first rows may be written; import the same file again to complete it"
    }
}

fn open(options: &Options) -> anyhow::Result<file::Opened> {
    file::open(&options.file, options.format)
        .with_context(|| format!("{} cannot be read", options.file.display()))
}

fn tell(progress: &Progress, faults: &[Fault]) {
    for Fault { line, column, reason } in faults {
        progress.note(format_args!("line {line}, column {column}: {reason}"));
    }
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
