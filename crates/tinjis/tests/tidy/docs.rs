//! Documents name only things that exist, and stay short enough to be read. Must not know what they describe.

use std::fs;
use std::path::Path;

use crate::tree::{File, file, files, none, root};

/// Maximum lines of a document.
const LENGTHS: &[(&str, usize)] = &[("README.md", 150), ("ARCHITECTURE.md", 200)];

/// Documents at the root.
const AT_ROOT: &[&str] = &["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"];

/// The table of contents of the site; mdBook renders only pages that it names.
const SUMMARY: &str = "docs/SUMMARY.md";

/// File endings by which a bare word is read as a file name.
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
    let mut findings = Vec::new();
    for document in &documents() {
        for (number, path) in paths(document) {
            let beside = Path::new(&document.path).with_file_name(&path);
            if !exists(&path) && !root().join(beside).exists() {
                findings.push(format!("{}:{number}: `{path}`", document.path));
            }
        }
    }
    none("a document names what is not there", &findings);
}

/// Every document of the repository: at the root, on the site, and next to the delivery files.
fn documents() -> Vec<File> {
    let mut found: Vec<File> =
        ["docs", "deploy", "crates"].iter().flat_map(|top| files(top, &[".md"])).collect();
    found.extend(AT_ROOT.iter().copied().map(file));
    found
}

/// The targets of a document's links with their lines, without other sites and without code.
fn links(document: &File) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (index, line) in document.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") && !link.starts_with("mailto:") {
                found.push((index + 1, link.to_owned()));
            }
        }
    }
    found
}

/// Whether a link of this document leads to an existing file and heading.
fn resolves(document: &File, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = Path::new(&document.path).parent().expect("a file lies in a folder");
    let target = if path.is_empty() { root().join(&document.path) } else { root().join(folder).join(path) };
    match fs::read_to_string(&target) {
        Ok(text) => anchor.is_empty() || anchors(&text).iter().any(|slug| slug == anchor),
        Err(_) => target.exists() && anchor.is_empty(),
    }
}

#[test]
fn every_relative_link_in_a_document_resolves() {
    let mut broken = Vec::new();
    for document in documents() {
        for (line, link) in links(&document) {
            if !resolves(&document, &link) {
                broken.push(format!("{}:{line}: {link}", document.path));
            }
        }
    }
    none("a link leads nowhere", &broken);
}

#[test]
fn every_page_of_the_site_is_in_its_table_of_contents_once() {
    let summary = file(SUMMARY);
    let listed: Vec<String> = links(&summary).into_iter().map(|(_, link)| format!("docs/{link}")).collect();
    let pages = files("docs", &[".md"]).into_iter().map(|page| page.path).filter(|path| path != SUMMARY);
    let wrong = pages.filter(|path| listed.iter().filter(|page| *page == path).count() != 1);
    let wrong: Vec<String> = wrong
        .map(|path| {
            let title =
                file(&path).text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
            format!("- [{title}]({})", path.trim_start_matches("docs/"))
        })
        .collect();
    none("docs/SUMMARY.md should have each of these lines once, in its part", &wrong);
}

/// The anchors that Markdown renderers give to headings: a repeated anchor gets a number.
fn anchors(text: &str) -> Vec<String> {
    let mut slugs: Vec<String> = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let taken = slugs.iter().filter(|other| **other == slug).count();
        let numbered = if taken == 0 { slug.clone() } else { format!("{slug}-{taken}") };
        slugs.push(numbered);
    }
    slugs
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

/// Each table with its columns, from `CREATE TABLE name (column TYPE …, …)`, with a column a line or all in one line.
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
    let document = file("docs/reference/api.md").text;
    let sources = [
        "crates/billing/src/store/migrations/sqlite/0001_billing.sql",
        "crates/billing/src/store/migrations/sqlite/0003_ledger_acceptances.sql",
        "crates/billing/src/store/migrations/sqlite/0006_ledger_seen.sql",
        "crates/billing/src/store/migrations/sqlite/0008_ledger_acknowledgements.sql",
        "crates/billing/src/store/migrations/sqlite/0014_unbacked_acknowledgements.sql",
        "crates/billing/src/store/migrations/sqlite/0015_charged_days.sql",
        "crates/payments/src/ledger/sqlite/0001_ledger.sql",
        "crates/payments/src/ledger/sqlite/0003_deployments.sql",
        "crates/chassis/src/sqlite/migrate.rs",
    ];
    let tables: Vec<String> = sources.iter().flat_map(|path| tables(&file(path).text)).collect();
    assert!(tables.len() >= 10, "{tables:?}");
    let faults = payments::faults::script::Fault::NAMES.map(|word| format!("| `{word}` |"));
    let missing = tables.iter().map(|table| format!("`{table}`")).chain(faults);
    none(
        "docs/reference/api.md does not say",
        &missing.filter(|text| !document.contains(text)).collect::<Vec<_>>(),
    );
}

/// Words in backquotes that are paths of this repository, with their lines.
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

/// Whether this path exists, or this bare file name at the root or anywhere in the crates.
fn exists(path: &str) -> bool {
    root().join(path).exists()
        || (!path.contains('/')
            && files("crates", ENDINGS).iter().any(|file| file.path.ends_with(&format!("/{path}"))))
}

#[test]
fn the_search_for_paths_can_fail() {
    let text =
        "see `crates/none.rs`, `docs/reference/contract.md`, `POST /x/y`, `a/b`, `gone.rs`, `README.md:3`"
            .to_owned();
    let document = File { path: "x.md".to_owned(), text };
    let found: Vec<String> = paths(&document).into_iter().map(|(_, path)| path).collect();
    assert_eq!(found, ["crates/none.rs", "docs/reference/contract.md", "gone.rs", "README.md"]);
    assert!(!exists("crates/none.rs") && !exists("gone.rs") && exists("docs/reference/contract.md"));
}

#[test]
fn the_search_for_links_can_fail() {
    let text = "# A b\n\n## A `b`\n\n[x](none.md) `[y](z.md)` [w](#a-b-1) [v](https://x.example/y) ![u](#a-c)\n\
                ```text\n# no heading\n[t](s.md)\n```\n[r](README.md#licence) [q](crates) [p](crates#a)\n";
    let document = File { path: "README.md".to_owned(), text: text.to_owned() };
    let found = links(&document);
    let expected = ["none.md", "#a-b-1", "#a-c", "README.md#licence", "crates", "crates#a"];
    assert_eq!(found.iter().map(|(_, link)| link.as_str()).collect::<Vec<_>>(), expected);
    assert_eq!(anchors(text), ["a-b", "a-b-1"]);
    assert!(resolves(&document, "README.md#licence") && resolves(&document, "crates"));
    assert!(!resolves(&document, "none.md") && !resolves(&document, "README.md#no-such-heading"));
    assert!(!resolves(&document, "crates#a"));
}
