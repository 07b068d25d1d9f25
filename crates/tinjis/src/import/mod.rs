//! `import` and `subscriptions import`: rows of a file to billing. The whole file is checked, alone and against billing,
//! before the first row is written; a crash in mid-write leaves a prefix that the next import completes.
//! Must not know how billing keeps them.

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
mod unique;

use std::path::PathBuf;

use anyhow::{Context, bail};

pub(crate) use explain::command as explain;
pub(crate) use file::Format;
pub(crate) use row::{Fault, Row};
pub(crate) use send::Sender;
pub(crate) use settings::{Dialect, FileSettings};
pub(crate) use subscription::{SubscriptionRow, new_subscription};
pub(crate) use target::{INVOICES, SUBSCRIPTIONS, Target};

use file::{BytesRead, Identity, Rows};
use notes::Notes;
use route::Router;
use row::{FileRow, Judged};
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
    /// Lines or indexes that are not sent: repeats and contradictions, in order.
    skipped: Vec<u32>,
    /// Whether the file could not be read to its end.
    is_broken: bool,
}

/// The `import` and the `subscriptions import` command.
pub(crate) async fn command<R: FileRow>(billings: &Billings, options: &Options) -> anyhow::Result<u8> {
    let checked = check::<R>(options)?;
    if checked.is_broken {
        output::note("nothing was written: the file cannot be read to its end");
        return Ok(BAD_ROWS);
    }
    billings.check_ids().await?;
    let would = send::<R>(billings, options, &checked, true).await?;
    let bad = checked.bad + would.bad();
    if bad > 0 && !options.skip_bad {
        let or_skip = if options.dialect.target.is_partial { " or skip them with --skip-bad" } else { "" };
        output::note(format_args!("nothing was written: {}; fix them{or_skip}", bad_rows(bad)));
        return Ok(BAD_ROWS);
    }
    if options.dry_run {
        output::result(summary("would be ", &would.counts(), &checked, bad, options));
        return Ok(0);
    }
    let done = send::<R>(billings, options, &checked, false).await?;
    let bad = checked.bad + done.bad();
    output::result(summary("", &done.counts(), &checked, bad, options));
    Ok(if bad > 0 && !options.skip_bad { BAD_ROWS } else { 0 })
}

fn summary(would_be: &str, counts: &Counts, checked: &Checked, bad: u64, options: &Options) -> String {
    let mut text = format!("{would_be}{}", counts.display(options));
    if bad > 0 || options.dialect.target.is_partial {
        text += &format!("; {} left out", bad_rows(bad));
    }
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

impl Counts {
    fn display(self, options: &Options) -> String {
        let Self { created, unchanged, updated } = self;
        let [created, unchanged, updated] = [created, unchanged, updated].map(grouped);
        let updated = options.dialect.target.is_partial.then(|| format!(", {updated} updated"));
        format!("{created} created, {unchanged} unchanged{}", updated.unwrap_or_default())
    }
}

/// Hands on each row of a file that is right by itself, without repeats; fails if a row is wrong.
pub(crate) fn each_row<R: FileRow>(
    options: &Options,
    mut take: impl FnMut(R) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let checked = check::<R>(options)?;
    let file = options.file.display();
    if checked.is_broken {
        bail!("{file} cannot be read to its end");
    }
    if checked.bad > 0 {
        bail!("{file} has {}: fix them", bad_rows(checked.bad));
    }
    let (mut rows, _) = open_again(options, &checked)?;
    while let Some(judged) = rows.next(&options.dialect).map_err(|fault| to_reread_error(options, &fault))? {
        match judged {
            Judged::Good(row) if !is_skipped(&checked.skipped, &row) => take(row)?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads the whole file and tells the mistakes that it holds by itself.
fn check<R: FileRow>(options: &Options) -> anyhow::Result<Checked> {
    let opened = open(options)?;
    let identity = opened.identity;
    let mut notes = Notes::new("checking", identity.bytes);
    let mut checked =
        Checked { identity, rows: 0, bad: 0, same: 0, left_out: 0, skipped: Vec::new(), is_broken: false };
    let mut seen = Seen::default();
    let read = opened.rows.and_then(|mut rows| {
        notes.ignored_columns(rows.ignored());
        while let Some(judged) = rows.next::<R>(&options.dialect)? {
            checked.take(judged, &mut seen, &mut notes)?;
            if checked.rows.is_multiple_of(1000) {
                notes.so_far(opened.read.so_far());
            }
        }
        notes.ignored_columns(&rows.ignored_fields());
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
    fn take<R: FileRow>(
        &mut self,
        judged: Judged<R>,
        seen: &mut Seen,
        notes: &mut Notes,
    ) -> Result<(), Fault> {
        self.rows += 1;
        let (place, fits) = match &judged {
            Judged::Good(row) => {
                notes.suspect(row);
                (row.place(), seen.add(row))
            }
            Judged::Skipped => {
                self.left_out += 1;
                return Ok(());
            }
            Judged::Bad { faults, reference } => {
                self.bad += 1;
                notes.faults(faults);
                let place = faults.first().map(Fault::place).unwrap_or_default();
                (place, reference.as_ref().is_none_or(|reference| seen.add_wrong(reference, place)))
            }
        };
        let reason = || format!("is too far down: split the file, at most {ROWS_MAX} rows each");
        if fits { Ok(()) } else { Err(Fault::row(place.line, reason())) }
    }
}

/// What billing did with the rows of the file that are right by themselves, or would do.
async fn send<R: FileRow>(
    billings: &Billings,
    options: &Options,
    checked: &Checked,
    dry_run: bool,
) -> anyhow::Result<Router> {
    let (mut rows, read) = open_again(options, checked)?;
    let mut notes = Notes::new(if dry_run { "asking" } else { "writing" }, checked.identity.bytes);
    let mut sender = Router::new(billings, R::KIND, dry_run, options.update);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let judged = rows.next::<R>(&options.dialect).map_err(|fault| to_reread_error(options, &fault))?;
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
        sent.map_err(|error| add_progress(error, &sender, options, dry_run))?;
        notes.so_far(read.so_far());
        let faults = std::mem::take(&mut sender.faults).into_iter();
        notes.faults(&faults.map(|fault| fault.of_file(&options.dialect)).collect::<Vec<_>>());
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

fn is_skipped(skipped: &[u32], row: &impl FileRow) -> bool {
    u32::try_from(row.place().at()).is_ok_and(|at| skipped.binary_search(&at).is_ok())
}

/// A failure in the middle, with what was written before it.
fn add_progress(error: anyhow::Error, sender: &Router, options: &Options, dry_run: bool) -> anyhow::Error {
    if dry_run {
        return error.context("nothing was written");
    }
    error.context(format!(
        "the import was cut off after {}: {} so far, perhaps some of the next rows; import the same file again to \
         complete it",
        sender.done_to,
        sender.counts().display(options)
    ))
}

/// The rows of a file that was checked.
fn open_again(options: &Options, checked: &Checked) -> anyhow::Result<(Rows, BytesRead)> {
    let opened = open(options)?;
    if opened.identity != checked.identity {
        bail!("{} changed while it was read", options.file.display());
    }
    Ok((opened.rows.map_err(|fault| to_reread_error(options, &fault))?, opened.read))
}

fn to_reread_error(options: &Options, fault: &Fault) -> anyhow::Error {
    anyhow::anyhow!("{} cannot be read again: {}", options.file.display(), fault.reason)
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
