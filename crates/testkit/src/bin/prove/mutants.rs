//! Each patch breaks the protocol in one way. Applied to a copy, it must turn the proof that it names red; without it
//! the proof is green. The copy is of the last commit and has a target folder of its own: cargo treats a crate of the
//! copy as the crate itself, so a shared folder would mix broken and sound builds. Knows the first lines of a patch,
//! and the parts by their names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::parts::{NOTHING_LEFT_OUT, Part, out, seconds};
use crate::print_progress;
use crate::run::{Ended, cargo, complaint, tail};
use crate::table::columns;

const PATCHES: &str = "crates/tinjis/mutants";
const NOTICED: &str = "red, as wanted";
/// Maximum length of a proof's message in the table.
const SAID_CHARS_MAX: usize = 100;

/// An edit of production code that a proof must notice.
struct Mutant {
    file: PathBuf,
    breaks: String,
    proof: Proof,
}

/// The proof that must fail: a part of `make prove`, and its tests whose names contain a word. A patch may name
/// several.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Proof {
    part: String,
    test: String,
    /// A variable and its value, where the size of the part in `cargo test` would make the failure a matter of chance.
    size: Option<(String, String)>,
}

/// A copy of the last commit, and its target folder; dropping it deletes the copy.
struct Copy {
    folder: PathBuf,
    target: PathBuf,
}

/// Runs the proofs with the patches whose file names contain `only`; `false` when a mutant was not noticed.
pub(crate) fn prove(only: &str) -> io::Result<bool> {
    let (out, began) = (out()?, Instant::now());
    let mut mutants = read(Path::new(PATCHES))?;
    mutants
        .retain(|mutant| mutant.file.file_stem().is_some_and(|stem| stem.to_string_lossy().contains(only)));
    if mutants.is_empty() {
        return Err(io::Error::other(format!("no patch is named {only}")));
    }
    let copy = Copy::of_last_commit(&out.join("copy"), out.join("mutants"))?;
    let mut rows = vec![["mutant", "noticed by", "verdict", "message", "seconds"].map(String::from)];
    let mut right = true;
    let mut tell = |what: &str, proof: &Proof, verdict: &str, said: String, took: Duration| {
        print_progress(&format!(
            "   {verdict} after {}{}{said}",
            seconds(took),
            if said.is_empty() { "" } else { ": " }
        ));
        rows.push([what.to_owned(), proof.to_string(), verdict.to_owned(), said, took.as_secs().to_string()]);
    };
    let proofs: BTreeSet<&Proof> = mutants.iter().map(|mutant| &mutant.proof).collect();
    let steps = proofs.len() + mutants.len();
    for (at, proof) in proofs.into_iter().enumerate() {
        print_progress(&format!("-- {} of {steps}: nothing is broken: {proof}", at + 1));
        let ended = copy.run_unpatched(proof, &out.join("mutants-none.log"))?;
        if !ended.is_ok {
            print_progress(&tail(&out.join("mutants-none.log")));
        }
        right &= ended.is_ok;
        tell("nothing", proof, if ended.is_ok { "green" } else { "RED" }, String::new(), ended.took);
    }
    for (at, mutant) in mutants.iter().enumerate() {
        print_progress(&format!(
            "-- {} of {steps}: {}: {}",
            steps - mutants.len() + at + 1,
            mutant.breaks,
            mutant.proof
        ));
        let stem = mutant.file.file_stem().unwrap_or_default().display();
        let log = out.join(format!("mutants-{stem}-{}.log", mutant.proof.part.replace(' ', "-")));
        let (verdict, took) = copy.look_when_broken(mutant, &log)?;
        right &= verdict == NOTICED;
        let said = if verdict == NOTICED { complaint(&log, SAID_CHARS_MAX) } else { String::new() };
        tell(&mutant.breaks, &mutant.proof, verdict, said, took);
    }
    let verdict = if right { "each was noticed" } else { "RED" };
    let took = seconds(began.elapsed());
    print_progress(&format!("\n{}\n{verdict}, in {took}, building included", columns(&rows, 4)));
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
    let mutants: Vec<Vec<Mutant>> = files.into_iter().map(Mutant::read).collect::<io::Result<_>>()?;
    Ok(mutants.into_iter().flatten().collect())
}

impl Mutant {
    /// Reads one mutant for each proof that the patch names: `part:` begins a proof, `test:` and `size:` belong to it.
    fn read(file: PathBuf) -> io::Result<Vec<Self>> {
        let text = fs::read_to_string(&file)?;
        let missing = |name: &str| io::Error::other(format!("{} has no line {name}", file.display()));
        let found = |text: &str, name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim().to_owned()).ok_or_else(|| missing(name))
        };
        let breaks = found(&text, "breaks:")?;
        let head = text.split("\ndiff ").next().unwrap_or_default();
        let mut mutants = Vec::new();
        for lines in head.split("\npart:").skip(1) {
            let part = lines.lines().next().unwrap_or_default().trim().to_owned();
            if Part::named(&part).is_none() {
                return Err(io::Error::other(format!("{}: no proof {part}", file.display())));
            }
            let size = found(lines, "size:").ok();
            let size =
                size.and_then(|size| size.split_once('=').map(|(name, value)| (name.into(), value.into())));
            let proof = Proof { part, test: found(lines, "test:")?, size };
            mutants.push(Self { file: fs::canonicalize(&file)?, breaks: breaks.clone(), proof });
        }
        if mutants.is_empty() { Err(missing("part:")) } else { Ok(mutants) }
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}: {}", self.part, self.test)
    }
}

impl Copy {
    fn of_last_commit(folder: &Path, target: PathBuf) -> io::Result<Self> {
        let copy = Self { folder: folder.to_owned(), target };
        copy.remove();
        let name = text_of(folder)?;
        git(Path::new("."), &["clone", "--quiet", "--shared", ".", name])?;
        Ok(copy)
    }

    /// Runs the proof on the unpatched copy.
    fn run_unpatched(&self, proof: &Proof, log: &Path) -> io::Result<Ended> {
        let part = Part::named(&proof.part).expect("its name was looked up when it was read");
        let args = [&part.command(false)[..], &[&proof.test]].concat();
        // The row of this proof does not belong in the table of `make prove`.
        let mut variables =
            vec![NOTHING_LEFT_OUT, ("PROVE_OUT", ""), ("CARGO_TARGET_DIR", text_of(&self.target)?)];
        variables.extend(proof.size.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        cargo(&self.folder, &args, &variables, log)
    }

    /// Runs the proof on the patched copy, which must first build: a failed build is not a failed proof.
    fn look_when_broken(&self, mutant: &Mutant, log: &Path) -> io::Result<(&'static str, Duration)> {
        let part = Part::named(&mutant.proof.part).expect("its name was looked up when it was read");
        self.apply(&mutant.file, &[])?;
        let command = part.command(false);
        let build: Vec<&str> =
            command.into_iter().take_while(|word| *word != "--").chain(["--no-run"]).collect();
        let built = cargo(&self.folder, &build, &[("CARGO_TARGET_DIR", text_of(&self.target)?)], log)?;
        let ended = if built.is_ok {
            let ended = self.run_unpatched(&mutant.proof, log)?;
            (if ended.is_ok { "NOT NOTICED" } else { NOTICED }, ended.took)
        } else {
            print_progress(&tail(log));
            ("DOES NOT BUILD", built.took)
        };
        self.apply(&mutant.file, &["--reverse"])?;
        Ok(ended)
    }

    fn apply(&self, patch: &Path, flags: &[&str]) -> io::Result<()> {
        git(&self.folder, &[&["apply"], flags, &[text_of(patch)?]].concat())
    }

    fn remove(&self) {
        let _none = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.remove();
    }
}

fn text_of(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other(format!("{} is no text", path.display())))
}

fn git(folder: &Path, args: &[&str]) -> io::Result<()> {
    let output = Command::new("git").args(args).current_dir(folder).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn each_of_eight_mutants_names_its_proof_and_applies_to_the_code_as_it_is() {
        let mutants = read(&root().join(PATCHES)).unwrap();
        assert!(mutants.len() >= 8, "{}", mutants.len());
        for mutant in mutants {
            git(&root(), &["apply", "--check", text_of(&mutant.file).unwrap()]).unwrap();
            assert!(!mutant.breaks.is_empty() && !mutant.proof.test.is_empty());
        }
    }

    /// The text of every Rust file below these paths.
    fn sources(paths: Vec<PathBuf>) -> String {
        let mut text = String::new();
        let mut paths = paths;
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(fs::read_dir(path).unwrap().flatten().map(|entry| entry.path()));
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
        text
    }

    /// The word selects tests by their names. A word without a match would select none, and nothing could turn red.
    #[test]
    fn each_mutant_selects_a_test_of_its_part() {
        for mutant in read(&root().join(PATCHES)).unwrap() {
            let Proof { part, test, .. } = &mutant.proof;
            let text = match Part::named(part).unwrap().integration_test() {
                None => sources(vec![root().join("crates").join(part).join("src")]),
                Some(name) => {
                    let crates = fs::read_dir(root().join("crates")).unwrap().flatten();
                    let of_crate = |folder: PathBuf| {
                        [folder.join(format!("tests/{name}.rs")), folder.join("tests").join(name)]
                    };
                    let places = crates.flat_map(|entry| of_crate(entry.path())).filter(|path| path.exists());
                    sources(places.collect())
                }
            };
            let word = test.rsplit("::").next().unwrap();
            // The line is a test function, or an entry of a table from which a macro makes the tests.
            let selects = |line: &str| {
                let line = line.trim_start();
                let line = line.strip_prefix("async ").unwrap_or(line);
                let line = line.strip_prefix("fn ").unwrap_or(line);
                let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
                line[..end].contains(word) && line[end..].starts_with(['(', ':', ','])
            };
            assert!(text.lines().any(selects), "{}: no test of {part} holds {word}", mutant.file.display());
        }
    }

    #[test]
    fn a_mutant_that_names_no_part_of_make_prove_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.patch");
        fs::write(&file, "breaks: all\npart: hope\ntest: x\n").unwrap();
        assert!(Mutant::read(file).is_err());
    }

    #[test]
    fn a_mutant_may_name_several_proofs_and_a_size_belongs_to_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.patch");
        let text = "breaks: all\npart: model\ntest: x\npart: simulation\ntest: y\nsize: SIM_SEEDS=3\n\ndiff x\npart: z\n";
        fs::write(&file, text).unwrap();
        let proofs: Vec<Proof> = Mutant::read(file).unwrap().into_iter().map(|mutant| mutant.proof).collect();
        let shown: Vec<String> = proofs.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["model: x", "simulation: y"]);
        assert_eq!(proofs[0].size, None);
        assert_eq!(proofs[1].size, Some(("SIM_SEEDS".to_owned(), "3".to_owned())));
    }
}
