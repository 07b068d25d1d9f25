//! Each patch that breaks the protocol on purpose still applies to the code as it is, and names a proof that exists.
//! Whether the proofs notice them is shown by `make prove-mutants`.
#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn patches() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|end| end == "patch")).collect()
}

#[test]
fn every_mutant_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let patches = patches();
    assert!(patches.len() >= 8, "{patches:?}");
    for patch in patches {
        let output =
            Command::new("git").args(["apply", "--check"]).arg(&patch).current_dir(&root).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", patch.display());
    }
}

#[test]
fn every_mutant_names_what_it_breaks_and_the_proof_that_notices() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for patch in patches() {
        let text = std::fs::read_to_string(&patch).unwrap();
        let line =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        assert!(!line("breaks:").is_empty());
        let proof = line("proof:");
        let word = |flag: &str| proof.split(flag).nth(1).and_then(|rest| rest.split_whitespace().next());
        let tests = root.join(word("-p").unwrap()).join("tests");
        let test = word("--test").unwrap();
        let exists = tests.join(format!("{test}.rs")).exists() || tests.join(test).join("main.rs").exists();
        assert!(exists, "{}: no such proof: {proof}", patch.display());
    }
}
