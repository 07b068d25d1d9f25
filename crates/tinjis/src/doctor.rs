//! `tinjis doctor` and `tinjis run probe`: prints and writes what the isolation tester reports. The exit code is 0 for
//! green, 1 for red, 2 when inconclusive. Knows no check.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use doctor::{Expectations, Report, Verdict};

use crate::output;
use crate::progress::Progress;

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) checks: doctor::Options,
    pub(crate) junit: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
}

/// Reads an expectations file; all errors are in one message.
pub(crate) fn expectations(path: &Path) -> Result<Expectations, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Expectations::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

pub(crate) async fn command(options: Options) -> anyhow::Result<u8> {
    let progress = Progress::spinner("doctor");
    let examined = doctor::examine(options.checks, &|step| progress.step(step)).await;
    drop(progress);
    let examination = examined?;
    let report = &examination.report;
    report.table().trim_end().lines().for_each(output::result);
    write_reports(report, options.junit.as_deref(), options.json.as_deref())?;
    examination.cleanup?;
    Ok(match report.verdict() {
        Verdict::Green => 0,
        Verdict::Red => 1,
        Verdict::CannotTell => crate::FAILED,
    })
}

fn write_reports(report: &Report, junit: Option<&Path>, json: Option<&Path>) -> anyhow::Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    junit.map(|path| write(path, report.junit())).transpose()?;
    json.map(|path| write(path, format!("{:#}\n", report.json()))).transpose()?;
    Ok(())
}

/// The probe program, in the doctor's pods.
pub(crate) fn probe(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    doctor::probe::run(args, |line| output::result(line)).unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::from(crate::FAILED)
    })
}
