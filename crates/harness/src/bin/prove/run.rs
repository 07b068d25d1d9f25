//! Runs one command with its words in a file of its own, and says how long it took. Knows no proof.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// What goes in the log's place on the screen, when it goes wrong.
const TAIL_LINES: usize = 40;

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) is_ok: bool,
    pub(crate) took: Duration,
}

/// A cargo command in a folder, with variables.
pub(crate) fn cargo(
    folder: &Path,
    args: &[&str],
    variables: &[(&str, &str)],
    log: &Path,
) -> io::Result<Ended> {
    let began = Instant::now();
    let file = File::create(log)?;
    let status = Command::new("cargo")
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()?;
    Ok(Ended { is_ok: status.success(), took: began.elapsed() })
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
