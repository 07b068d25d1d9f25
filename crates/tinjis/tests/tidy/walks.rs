//! Pages that point into the code name existing files and functions: the steps of one payment, and the table of edge
//! cases with their tests. Reads tables only; another test checks the links of all documents.

use std::collections::BTreeSet;

use crate::tree::{File, file, none, root};

const PAYMENT: &str = "docs/explanation/one-payment.md";
const EDGE_CASES: &str = "docs/reference/edge-cases.md";

/// Maximum number of files that one payment may pass.
const FILES_MAX: usize = 45;
/// Maximum number of billing's files among them.
const BILLING_FILES_MAX: usize = 20;

/// A name in backquotes after a link to the file that contains it.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    line: usize,
    path: String,
    name: String,
}

/// The cells of each table row, numbered by line, without headers and rulers.
fn rows(page: &File) -> Vec<(usize, Vec<&str>)> {
    let lines = page.text.lines().enumerate().filter(|(_, line)| line.starts_with('|'));
    let cells = lines.map(|(index, line)| {
        (index + 1, line.trim_matches('|').split('|').map(str::trim).collect::<Vec<&str>>())
    });
    let mut rows: Vec<(usize, Vec<&str>)> = cells.collect();
    let rulers: Vec<usize> =
        rows.iter().filter(|(_, cells)| cells[0].starts_with("---")).map(|(line, _)| *line).collect();
    rows.retain(|(line, _)| !rulers.contains(line) && !rulers.contains(&(line + 1)));
    rows
}

/// The names in a text, each with the link before it.
fn named(line: usize, text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut path = None;
    let mut rest = text;
    while let Some(at) = rest.find(['`', ']']) {
        let after = &rest[at + 1..];
        if rest[at..].starts_with(']') {
            rest = after;
            let Some((target, behind)) = after.strip_prefix("(../").and_then(|link| link.split_once(')'))
            else {
                continue;
            };
            // Links to code begin with `../` at any depth of the page; the rest is the path from the root.
            path = Some(target.trim_start_matches("../"));
            rest = behind;
        } else {
            let Some((name, behind)) = after.split_once('`') else { break };
            let path = path.unwrap_or("no link stands before it").to_owned();
            found.push(Named { line, path, name: name.to_owned() });
            rest = behind;
        }
    }
    found
}

/// Whether the file defines the function, or contains the text if it is not Rust.
fn holds(named: &Named) -> bool {
    if !root().join(&named.path).is_file() {
        return false;
    }
    let text = file(&named.path).text;
    if !named.path.ends_with(".rs") {
        return text.contains(&named.name);
    }
    let definition = format!("fn {}", named.name);
    text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        code.split_once(&definition).is_some_and(|(_, rest)| rest.starts_with(['(', '<']))
    })
}

#[track_caller]
fn none_is_gone(page: &str, names: Vec<Named>) {
    assert!(!names.is_empty(), "{page} names nothing: the search is broken");
    let gone = names.into_iter().filter(|named| !holds(named));
    let gone = gone.map(|Named { line, path, name }| format!("{page}:{line}: {name} in {path}"));
    none("a page names what is gone", &gone.collect::<Vec<_>>());
}

/// The functions of each step of a payment.
fn steps(page: &File) -> Vec<Named> {
    let mut names = Vec::new();
    for (index, (line, cells)) in rows(page).into_iter().enumerate() {
        assert_eq!(cells[0], (index + 1).to_string(), "{PAYMENT}:{line}: the number of the step");
        let of_step = named(line, &format!("{} {}", cells[1], cells[2]));
        assert!(!of_step.is_empty(), "{PAYMENT}:{line}: a step names its file and a function");
        names.extend(of_step);
    }
    names
}

#[test]
fn each_step_of_a_payment_names_functions_that_exist() {
    none_is_gone(PAYMENT, steps(&file(PAYMENT)));
}

#[test]
fn a_payment_passes_few_files_and_the_page_counts_them_right() {
    let page = file(PAYMENT);
    let files: BTreeSet<String> = steps(&page).into_iter().map(|named| named.path).collect();
    let billing = files.iter().filter(|path| path.starts_with("crates/billing/")).count();
    assert!(files.len() <= FILES_MAX, "{} files, at most {FILES_MAX}", files.len());
    assert!(billing <= BILLING_FILES_MAX, "{billing} files of billing, at most {BILLING_FILES_MAX}");
    let says = format!("**{} files, {billing} of them in billing**", files.len());
    assert!(page.text.contains(&says), "{PAYMENT} does not say: {says}");
}

#[test]
fn each_edge_case_names_tests_that_exist() {
    let page = file(EDGE_CASES);
    let mut names = Vec::new();
    let mut untested = Vec::new();
    for (line, cells) in rows(&page) {
        let tests = named(line, cells.last().expect("a row has cells"));
        if tests.is_empty() {
            untested.push(format!("{EDGE_CASES}:{line}"));
        }
        names.extend(tests);
    }
    none("a case without a test", &untested);
    none_is_gone(EDGE_CASES, names);
}

#[test]
fn the_search_for_names_can_fail() {
    let text = "| what | test |\n| --- | --- |\n| a `b` | [x](../../crates/none.rs) `c`, [y](../Makefile): `d`, `help` |\n";
    let page = File { path: "x.md".to_owned(), text: text.to_owned() };
    let rows = rows(&page);
    assert_eq!(rows.len(), 1);
    let names = named(3, rows[0].1[1]);
    let shown: Vec<(&str, &str)> =
        names.iter().map(|named| (named.path.as_str(), named.name.as_str())).collect();
    assert_eq!(shown, [("crates/none.rs", "c"), ("Makefile", "d"), ("Makefile", "help")]);
    assert!(!holds(&names[0]) && holds(&names[2]));
    let here = |name: &str| Named {
        line: 1,
        path: "crates/tinjis/tests/tidy/walks.rs".to_owned(),
        name: name.to_owned(),
    };
    assert!(holds(&here("rows")) && !holds(&here("row")) && !holds(&here("gone")));
    assert_eq!(named(1, "`a` without a link")[0].path, "no link stands before it");
}
