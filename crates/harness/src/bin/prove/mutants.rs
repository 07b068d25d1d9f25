//! Each patch breaks the protocol in one way; applied to a copy, it must turn the proof that it names red, which is
//! green without it. The copy shares the target folder that make names, so that only what a patch touches is built.
//! Knows the form of a patch's first lines: `breaks:`, then `proof:` with cargo's words.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::parts::{out, seconds};
use crate::run::{cargo, tail};
use crate::say;

const PATCHES: &str = "crates/tinjis/mutants";

/// An edit of production code that must be noticed.
struct Mutant {
    file: PathBuf,
    breaks: String,
    proof: String,
}

/// A copy of the last commit; gone when dropped.
struct Copy {
    folder: PathBuf,
}

/// Breaks and looks; `false` when something was not noticed.
pub(crate) fn prove() -> io::Result<bool> {
    let out = out()?;
    let mutants = read(Path::new(PATCHES))?;
    let copy = Copy::of_last_commit(&out.join("copy"))?;
    let look = |proof: &str, log: &str| {
        let args: Vec<&str> = ["test", "--locked"].into_iter().chain(proof.split(' ')).collect();
        let variables = [("PROVE_OUT", "")];
        cargo(&copy.folder, &args, &variables, &out.join(log))
    };
    let mut right = true;
    let mut table = format!("{:<52} {:<62} {:<16} seconds\n", "broken", "proof", "verdict");
    let mut row = |what: &str, proof: &str, verdict: &str, took: Duration| {
        say(&format!("-- {what}: {proof}: {verdict}, {}", seconds(took)));
        table += &format!("{what:<52} {proof:<62} {verdict:<16} {}\n", took.as_secs());
    };
    for proof in mutants.iter().map(|mutant| mutant.proof.as_str()).collect::<BTreeSet<_>>() {
        let ended = look(proof, "mutants-none.log")?;
        if !ended.is_ok {
            say(&tail(&out.join("mutants-none.log")));
        }
        right &= ended.is_ok;
        row("nothing", proof, if ended.is_ok { "green" } else { "RED WITHOUT" }, ended.took);
    }
    for mutant in &mutants {
        copy.apply(&mutant.file, &[])?;
        let built = look(
            &format!("{} --no-run", mutant.proof.split(" -- ").next().unwrap_or_default()),
            "mutants-build.log",
        )?;
        let verdict = if built.is_ok {
            let log = format!("mutants-{}.log", mutant.file.file_stem().unwrap_or_default().display());
            let ended = look(&mutant.proof, &log)?;
            (if ended.is_ok { "NOT NOTICED" } else { "red, as wanted" }, ended.took)
        } else {
            say(&tail(&out.join("mutants-build.log")));
            ("DOES NOT BUILD", built.took)
        };
        copy.apply(&mutant.file, &["--reverse"])?;
        right &= verdict.0 == "red, as wanted";
        row(&mutant.breaks, &mutant.proof, verdict.0, verdict.1);
    }
    say(&format!("\n{table}"));
    Ok(right)
}

fn read(folder: &Path) -> io::Result<Vec<Mutant>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.filter_map(Result::ok).map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "patch"));
    files.sort();
    if files.is_empty() {
        return Err(io::Error::other(format!("no patch in {}", folder.display())));
    }
    files.into_iter().map(Mutant::read).collect()
}

impl Mutant {
    fn read(file: PathBuf) -> io::Result<Self> {
        let text = fs::read_to_string(&file)?;
        let line = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name));
            let missing = || io::Error::other(format!("{} has no line {name}", file.display()));
            found.map(|rest| rest.trim().to_owned()).ok_or_else(missing)
        };
        let (breaks, proof) = (line("breaks:")?, line("proof:")?);
        Ok(Self { file: fs::canonicalize(file)?, breaks, proof })
    }
}

impl Copy {
    fn of_last_commit(folder: &Path) -> io::Result<Self> {
        let copy = Self { folder: folder.to_owned() };
        copy.remove();
        let name = folder.to_str().ok_or_else(|| io::Error::other("the folder's name is no text"))?;
        git(Path::new("."), &["worktree", "add", "--force", "--detach", name, "HEAD"])?;
        Ok(copy)
    }

    fn apply(&self, patch: &Path, flags: &[&str]) -> io::Result<()> {
        let name = patch.to_str().ok_or_else(|| io::Error::other("a patch's name is no text"))?;
        git(&self.folder, &[&["apply"], flags, &[name]].concat())
    }

    fn remove(&self) {
        if let Some(name) = self.folder.to_str().filter(|_| self.folder.exists()) {
            let _stale = git(Path::new("."), &["worktree", "remove", "--force", name]);
            let _gone = fs::remove_dir_all(&self.folder);
        }
        let _none = git(Path::new("."), &["worktree", "prune"]);
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}

fn git(folder: &Path, args: &[&str]) -> io::Result<()> {
    let output = Command::new("git").args(args).current_dir(folder).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr))))
}
