//! Each line of `docs/reference/contract.md` has an id, and at least one test names it in the doc comment above itself.
//! Reads the tree; runs no service. What the lines mean is for the tests that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Ids of the contract with their line numbers.
fn ids() -> BTreeMap<String, usize> {
    let text =
        fs::read_to_string(root().join("docs/reference/contract.md")).expect("the contract can be read");
    let mut ids = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let id = line.strip_prefix("- **").and_then(|rest| rest.split_once("** ")).map(|(id, _)| id);
        if let Some(id) = id.filter(|id| is_id(id)) {
            let before = ids.insert(id.to_owned(), index + 1);
            assert!(before.is_none(), "docs/reference/contract.md:{}: {id} is there twice", index + 1);
        }
    }
    ids
}

/// Whether the word is three capitals, a hyphen and two digits.
fn is_id(word: &str) -> bool {
    word.len() == 6
        && word.char_indices().all(|(index, c)| match index {
            0..=2 => c.is_ascii_uppercase(),
            3 => c == '-',
            _ => c.is_ascii_digit(),
        })
}

/// Ids in the doc comments of the test functions of a file.
fn named_by_tests(text: &str) -> Vec<String> {
    let (mut found, mut pending, mut is_test) = (Vec::new(), Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            let words = comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            pending.extend(words.filter(|word| is_id(word)).map(str::to_owned));
        } else if line.starts_with("#[") {
            is_test |= line.contains("test");
        } else {
            if is_test && (line.starts_with("fn ") || line.starts_with("async fn ")) {
                found.append(&mut pending);
            }
            pending.clear();
            is_test = false;
        }
    }
    found
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}

fn rust_files(below: PathBuf) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![below]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the crates can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_line_of_the_contract_is_named_by_a_test() {
    let ids = ids();
    assert!(ids.len() > 50, "the contract's lines are found: {}", ids.len());
    let files = rust_files(root().join("crates"));
    let own = Path::new(file!()).file_name();
    let texts = files.iter().filter(|path| path.file_name() != own);
    let texts = texts.map(|path| fs::read_to_string(path).expect("a source file can be read"));
    let named: Vec<String> = texts.flat_map(|text| named_by_tests(&text)).collect();
    let named: BTreeSet<String> = named.into_iter().collect();
    let untested: Vec<&String> = ids.keys().filter(|id| !named.contains(*id)).collect();
    let families: BTreeSet<&str> = ids.keys().map(|id| &id[..3]).collect();
    let unknown: Vec<&String> =
        named.iter().filter(|id| families.contains(&id[..3]) && !ids.contains_key(*id)).collect();
    println!("{} lines of the contract, {} without a test", ids.len(), untested.len());
    assert!(
        unknown.is_empty(),
        "tests name lines that docs/reference/contract.md does not have: {unknown:?}"
    );
    assert!(untested.is_empty(), "no test names these lines of docs/reference/contract.md: {untested:?}");
}

#[test]
fn an_id_counts_only_above_a_test() {
    let text =
        "/// ABC-01, ABC-02: both.\n#[test]\nfn a() {}\n/// ABC-03\nfn b() {}\n// ABC-04\n#[test]\nfn c() {}";
    assert_eq!(named_by_tests(text), ["ABC-01", "ABC-02"]);
    assert!(is_id("ANT-01") && !is_id("ANT-1") && !is_id("ant-01") && !is_id("UTF-8"));
}
