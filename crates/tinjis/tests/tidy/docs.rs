//! That documents name only what exists, and stay short enough to be read.

use std::fs;
use std::path::Path;

use crate::tree::{File, file, files, none, root};

/// What a document may hold at most, in lines; each setting is a line of README.md.
const LENGTHS: &[(&str, usize)] = &[("README.md", 150), ("ARCHITECTURE.md", 200)];

/// Endings that make a bare word the name of a file.
const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".lua", ".sh", ".yml", ".yaml"];

#[test]
fn documents_are_short() {
    let long = LENGTHS.iter().map(|(path, max)| (path, file(path).text.lines().count(), max));
    let long: Vec<String> = long
        .filter(|(_, lines, max)| lines > max)
        .map(|(path, lines, max)| format!("{path}: {lines} lines, at most {max}"))
        .collect();
    none("too long to be read", &long);
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut documents = files("docs", &[".md"]);
    documents.extend(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(file));
    let mut findings = Vec::new();
    for document in &documents {
        for (number, path) in paths(document) {
            if !exists(&path) {
                findings.push(format!("{}:{number}: `{path}`", document.path));
            }
        }
    }
    none("a document names what is not there", &findings);
}

#[test]
fn every_relative_link_in_a_document_resolves() {
    let mut documents = files("docs", &[".md"]);
    documents.extend(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(file));
    let mut broken = Vec::new();
    for document in &documents {
        let folder = Path::new(&document.path).parent().expect("a file lies in a folder");
        for (index, line) in document.text.lines().enumerate() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                if link.contains("://") {
                    continue;
                }
                let target = if path.is_empty() {
                    root().join(&document.path)
                } else {
                    root().join(folder).join(path)
                };
                let is_there = match fs::read_to_string(&target) {
                    Ok(text) => anchor.is_empty() || anchors(&text).any(|slug| slug == anchor),
                    Err(_) => target.exists() && anchor.is_empty(),
                };
                if !is_there {
                    broken.push(format!("{}:{}: {link}", document.path, index + 1));
                }
            }
        }
    }
    none("a link leads nowhere", &broken);
}

/// The anchors that renderers of Markdown give to headings.
fn anchors(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[test]
fn every_decision_record_has_its_form_and_its_row_in_the_index() {
    let index = file("docs/adr/README.md").text;
    let mut findings = Vec::new();
    for record in files("docs/adr", &[".md"]) {
        let name = record.path.rsplit('/').next().unwrap_or_default();
        let Some(number) = name.split('-').next().filter(|number| number.len() == 4) else { continue };
        let heading = record.text.lines().next().unwrap_or_default();
        let title = heading.strip_prefix(&format!("# {number}. ")).unwrap_or("no number in the heading");
        if !index.contains(&format!("| [{number}]({name}) | {title} |")) {
            findings.push(format!("{}: no row of the index says `{title}`", record.path));
        }
        let parts =
            ["- Date: ", "- Status: ", "## Context", "## Decision", "## Alternatives", "## Consequences"];
        let missing = parts.iter().filter(|part| !record.text.lines().any(|line| line.starts_with(**part)));
        findings.extend(missing.map(|part| format!("{}: no line begins with `{part}`", record.path)));
    }
    none("decision records", &findings);
}

#[test]
fn every_path_that_a_comment_names_exists() {
    let mut findings = Vec::new();
    for source in files("crates", &[".rs"]) {
        for (number, line) in source.text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            for word in comment.split(|c: char| c.is_whitespace() || "`(),;".contains(c)) {
                let word = word.trim_end_matches(['.', ':']);
                let is_ours =
                    ["docs/", "crates/", "scripts/", "deploy/"].iter().any(|top| word.starts_with(top));
                if is_ours && !exists(word) {
                    findings.push(format!("{}:{}: {word}", source.path, number + 1));
                }
            }
        }
    }
    none("a comment names what is not there", &findings);
}

/// Each table with its columns, as `CREATE TABLE name (column TYPE …, …)` says it, a column a line or all in one.
fn tables(sql: &str) -> Vec<String> {
    let starts = sql.match_indices("CREATE TABLE ").map(|(at, start)| &sql[at + start.len()..]);
    let read = |text: &str| {
        let (name, rest) = text.split_once(" (")?;
        let (columns, _) = rest.split_once(") STRICT")?;
        let lines = columns.split('\n').map(str::trim);
        let columns = lines.filter_map(|line| line.split_once(' ').map(|(column, _)| column));
        let columns: Vec<&str> = columns.filter(|word| word.chars().all(is_of_column)).collect();
        Some(format!("{}({})", name.trim_start_matches("IF NOT EXISTS "), columns.join(", ")))
    };
    starts.filter_map(read).collect()
}

fn is_of_column(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

#[test]
fn the_stores_tables_and_the_faults_are_in_the_document_that_publishes_them() {
    let document = file("docs/api.md").text;
    let sources = [
        "crates/billing/src/store/migrations/sqlite/0001_billing.sql",
        "crates/billing/src/store/migrations/sqlite/0003_ledger_acceptances.sql",
        "crates/billing/src/store/migrations/sqlite/0006_ledger_seen.sql",
        "crates/billing/src/store/migrations/sqlite/0008_ledger_acknowledgements.sql",
        "crates/payments/src/ledger/sqlite/0001_ledger.sql",
        "crates/payments/src/ledger/sqlite/0003_deployments.sql",
        "crates/chassis/src/sqlite/migrate.rs",
    ];
    let tables: Vec<String> = sources.iter().flat_map(|path| tables(&file(path).text)).collect();
    assert!(tables.len() >= 10, "{tables:?}");
    let faults = payments::faults::script::Fault::NAMES.map(|word| format!("| `{word}` |"));
    let missing = tables.iter().map(|table| format!("`{table}`")).chain(faults);
    none("docs/api.md does not say", &missing.filter(|text| !document.contains(text)).collect::<Vec<_>>());
}

/// Words in backquotes that are paths of this repository, with their line.
fn paths(document: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            let word = word.split(':').next().unwrap_or_default();
            let plain = word.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
            let top = word.split('/').next().unwrap_or_default();
            let in_folder = word.contains('/') && !top.is_empty() && root().join(top).exists();
            let is_file = !word.contains('/') && ENDINGS.iter().any(|ending| word.ends_with(ending));
            if plain && (in_folder || is_file) {
                found.push((index + 1, word.to_owned()));
            }
        }
    }
    found
}

/// Whether a path, or a bare name at the root or anywhere in the crates, is there.
fn exists(path: &str) -> bool {
    root().join(path).exists()
        || (!path.contains('/')
            && files("crates", ENDINGS).iter().any(|file| file.path.ends_with(&format!("/{path}"))))
}

#[test]
fn the_search_for_paths_can_fail() {
    let text =
        "see `crates/none.rs`, `docs/contract.md`, `POST /x/y`, `a/b`, `gone.rs`, `README.md:3`".to_owned();
    let document = File { path: "x.md".to_owned(), text };
    let found: Vec<String> = paths(&document).into_iter().map(|(_, path)| path).collect();
    assert_eq!(found, ["crates/none.rs", "docs/contract.md", "gone.rs", "README.md"]);
    assert!(!exists("crates/none.rs") && !exists("gone.rs") && exists("docs/contract.md"));
}
