//! Runs the commands of a documentation page as written: a page whose commands do not work fails a test. Knows
//! Markdown's headings and fences; judges nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A page, and the folder of the programs that its commands name.
#[derive(Debug)]
pub struct Page {
    text: String,
    programs: PathBuf,
}

/// One block of commands, and the output that the page shows after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub commands: String,
    pub output: Option<String>,
}

impl Page {
    /// Reads the page. `billing`, `payments` and `tinjis` in its commands mean this program; `folder` holds their names.
    ///
    /// # Panics
    /// When the page does not exist.
    #[must_use]
    #[track_caller]
    pub fn open(page: &Path, tinjis: &str, folder: &Path) -> Self {
        let text = fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let programs = folder.join("programs");
        fs::create_dir_all(&programs).expect("a folder can be made");
        for (name, words) in [("billing", "run billing "), ("payments", "run payments "), ("tinjis", "")] {
            let path = programs.join(name);
            fs::write(&path, format!("#!/bin/sh\nexec '{tinjis}' {words}\"$@\"\n"))
                .expect("a program can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be made one");
        }
        Self { text, programs }
    }

    /// The commands under a heading, up to the next heading.
    ///
    /// # Panics
    /// When the page has no such heading, or no commands under it.
    #[must_use]
    #[track_caller]
    pub fn commands(&self, heading: &str) -> String {
        let mut lines = self.text.lines();
        let is_it = |line: &str| line.trim_start_matches('#').trim() == heading && line.starts_with('#');
        assert!(lines.any(is_it), "the page has no heading {heading:?}");
        let (mut commands, mut is_inside) = (String::new(), false);
        for line in lines {
            match (is_inside, line) {
                (false, "```sh") => is_inside = true,
                (true, "```") => is_inside = false,
                (true, line) => commands.push_str(&format!("{line}\n")),
                (false, line) if line.starts_with('#') => break,
                (false, _) => {}
            }
        }
        assert!(!commands.is_empty(), "the page has no commands under {heading:?}");
        commands
    }

    /// The blocks of commands from a heading to another one, or to the end of the page, in their order. A block of
    /// `text` directly after commands is their output.
    ///
    /// # Panics
    /// When the page has no such heading, or no commands from there on.
    #[must_use]
    #[track_caller]
    pub fn steps(&self, from: &str, to: Option<&str>) -> Vec<Step> {
        let steps = steps(&self.text, from, to);
        assert!(!steps.is_empty(), "the page has no commands from the heading {from:?} on");
        steps
    }

    /// Runs all steps in one shell, in a folder, and compares the output of each with the page; returns one line for
    /// each difference. Background processes of the steps end with the shell. `edit` changes commands before they run,
    /// such as their ports.
    #[must_use]
    #[track_caller]
    pub fn differences(
        &self,
        from: &str,
        to: Option<&str>,
        folder: &Path,
        edit: impl Fn(&str) -> String,
    ) -> Vec<String> {
        const MARK: &str = "--- end of step ";
        let steps = self.steps(from, to);
        let mut script =
            "cd \"$FOLDER\"\ntrap 'for job in $(jobs -p); do kill \"$job\" || true; done' EXIT\n".to_owned();
        for (index, step) in steps.iter().enumerate() {
            script.push_str(&format!("{}echo '{MARK}{index}'\n", edit(&step.commands)));
        }
        let output = self.run(&script, &[("FOLDER", folder.to_str().expect("a test's path is UTF-8"))]);
        let (shown, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let mut rest = shown.as_ref();
        let mut found = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let Some((before, after)) = rest.split_once(&format!("{MARK}{index}\n")) else {
                found.push(format!("failed:\n{}{rest}{errors}", step.commands));
                break;
            };
            if let Some(difference) = step.output.as_deref().and_then(|page| difference(page, before)) {
                found.push(format!("after\n{}{difference}", step.commands));
            }
            rest = after;
        }
        found
    }

    /// Runs commands of the page with these variables, and stops at the first failure.
    ///
    /// # Panics
    /// When there is no shell.
    #[must_use]
    #[track_caller]
    pub fn run(&self, commands: &str, variables: &[(&str, &str)]) -> Output {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Command::new("/bin/bash")
            .args(["-euo", "pipefail", "-c", commands])
            .env_clear()
            .env("PATH", format!("{}:{}", self.programs.display(), path.display()))
            .env("USER", "ann")
            .envs(variables.iter().copied())
            .output()
            .expect("a shell can be started")
    }
}

fn steps(text: &str, from: &str, to: Option<&str>) -> Vec<Step> {
    let is_it = |line: &str, heading| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
    let lines = text.lines().skip_while(|line| !is_it(line, from));
    let mut lines = lines.take_while(|line| to.is_none_or(|to| !is_it(line, to)));
    let mut steps: Vec<Step> = Vec::new();
    let mut is_next = false;
    while let Some(line) = lines.next() {
        // Blocks in a list are indented.
        let indent = line.len() - line.trim_start().len();
        let Some(kind) = line[indent..].strip_prefix("```") else { continue };
        let block = lines.by_ref().take_while(|line| line.trim_start() != "```");
        let block: String = block.map(|line| format!("{}\n", line.get(indent..).unwrap_or(""))).collect();
        match (kind, steps.last_mut()) {
            ("sh", _) => steps.push(Step { commands: block, output: None }),
            ("text", Some(step)) if is_next => step.output = Some(block),
            _ => {}
        }
        is_next = kind == "sh";
    }
    steps
}

/// The first difference between an output and the page; `…` on the page stands for any text within a line.
fn difference(page: &str, output: &str) -> Option<String> {
    let (mut expected, mut lines) = (page.lines(), output.lines());
    loop {
        match (expected.next(), lines.next()) {
            (None, None) => return None,
            (Some(expected), Some(line)) if fits(expected, line) => {}
            (expected, line) => {
                let [expected, line] = [expected, line].map(|line| line.unwrap_or("(no further line)"));
                return Some(format!("the page shows\n{expected}\nand the output is\n{line}"));
            }
        }
    }
}

fn fits(expected: &str, line: &str) -> bool {
    let Some((first, others)) = expected.split_once('…') else { return expected == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = others.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_belongs_to_the_commands_right_before_it() {
        let text = "# A\n```sh\nno\n```\n# B\n```sh\none\n```\nand\n```text\n1\n```\n```text\nno output\n```\n\
                    1. x\n\n   ```sh\n   two\n     more\n   ```\n```toml\nx = 1\n```\n```text\nno output\n```\n";
        let step = |commands: &str, output: Option<&str>| Step {
            commands: commands.to_owned(),
            output: output.map(str::to_owned),
        };
        assert_eq!(steps(text, "B", None), [step("one\n", Some("1\n")), step("two\n  more\n", None)]);
        assert_eq!(steps(text, "A", Some("B")), [step("no\n", None)]);
        assert_eq!(steps(text, "C", None), []);
    }

    #[test]
    fn a_difference_in_any_line_is_found() {
        assert_eq!(difference("a\nkey …   row 1, …\n", "a\nkey 0f   row 1, 5\n"), None);
        assert_eq!(difference("…end …\nx…c\n", "the end \nx c c\n"), None);
        for (page, output) in [
            ("a\n", "b\n"),
            ("a\n", ""),
            ("a\n", "a\nb\n"),
            ("a…c\n", "a b\n"),
            ("a…\n", "b\n"),
            ("a…c\n", "a c d\n"),
            ("a\n", "a more\n"),
        ] {
            assert!(difference(page, output).is_some(), "{page:?} and {output:?}");
        }
    }
}
