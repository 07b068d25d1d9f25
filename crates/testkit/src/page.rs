//! Commands of a page of the documentation, run as they stand there: a page whose commands do not work turns a test red.
//! Knows Markdown's headings and fences; judges nothing.

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

impl Page {
    /// Reads the page. `billing`, `payments` and `tinjis` in its commands mean this program; `folder` holds their names.
    ///
    /// # Panics
    /// When there is no such page.
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

    /// Runs commands of the page with these variables, and stops at the first that fails.
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
