//! Runs one command with its output in a file and measures its duration. Knows no proof.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

/// Number of log lines that are shown when a command fails.
const TAIL_LINES: usize = 40;

/// The result of a command.
pub(crate) struct Ended {
    pub(crate) is_ok: bool,
    pub(crate) took: Duration,
}

/// Runs a cargo command in a folder, with variables.
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

/// The message of the first failed test, in one line.
pub(crate) fn complaint(log: &Path, chars_max: usize) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut lines = text.lines().skip_while(|line| !line.contains(" panicked at ")).skip(1);
    let said = lines.next().unwrap_or_default();
    let said = said.strip_prefix("assertion `left == right` failed").unwrap_or(said);
    let said = said.trim_start_matches([':', ' ']).split('{').next().unwrap_or_default();
    let left = lines.next().map(str::trim).filter(|line| line.starts_with("left: "));
    let said = [said.trim_end_matches([':', ' ']), left.unwrap_or_default()].join(" ");
    said.trim().chars().take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line_without_the_object_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let of = |text: &str| {
            std::fs::write(&log, format!("thread 'x' (7) panicked at a.rs:1:2:\n{text}\nstack")).unwrap();
            complaint(&log, 40)
        };
        assert_eq!(of("waited 10s without success for: it"), "waited 10s without success for: it");
        let object =
            "assertion `left == right` failed: in the end: {\"double\":5}\n  left: [5, 0]\n right: [0, 0]";
        assert_eq!(of(object), "in the end left: [5, 0]");
        assert_eq!(of(&"x".repeat(99)).len(), 40);
    }
}
