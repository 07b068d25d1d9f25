//! Pages of docs/reference that are generated from code or data match their source. With WRITE_PAGES set (`make pages`)
//! the page is written instead. Knows no source.

use std::fs;

use crate::tree::{file, root};

/// The variable that `make pages` sets.
const WRITE: &str = "WRITE_PAGES";

/// The page with a new generated part between its two marks.
fn renewed(page: &str, wanted: &str) -> Option<String> {
    let (begin, end) = ("<!-- generated: make pages -->\n", "<!-- end of generated -->\n");
    let (head, rest) = page.split_once(begin)?;
    let (_, tail) = rest.split_once(end)?;
    Some(format!("{head}{begin}\n{}\n\n{end}{tail}", wanted.trim()))
}

/// Fails unless the generated part of this page is this text.
#[track_caller]
pub(crate) fn current(path: &str, wanted: &str) {
    let page = file(path).text;
    let renewed = renewed(&page, wanted).unwrap_or_else(|| panic!("{path} has no generated part"));
    is_or_becomes(path, &page, &renewed);
}

/// Fails unless this file is this text.
#[track_caller]
pub(crate) fn whole(path: &str, wanted: &str) {
    is_or_becomes(path, &file(path).text, wanted);
}

#[track_caller]
fn is_or_becomes(path: &str, page: &str, renewed: &str) {
    if std::env::var_os(WRITE).is_some_and(|value| !value.is_empty()) {
        fs::write(root().join(path), renewed).expect("the page can be written");
        return;
    }
    let differing = page.lines().zip(renewed.lines()).position(|(is, should)| is != should);
    let line = differing.unwrap_or_else(|| page.lines().count().min(renewed.lines().count()));
    let should = renewed.lines().nth(line).unwrap_or("the end of the page");
    assert!(page == renewed, "{path}:{}: run `make pages`; the line should be: {should}", line + 1);
}

#[test]
fn only_the_generated_part_of_a_page_is_replaced() {
    let page = "# A\n\n<!-- generated: make pages -->\n\nold\n\n<!-- end of generated -->\n\nB\n";
    let renewed = renewed(page, "new\n").expect("it has the marks");
    assert_eq!(renewed, page.replace("old", "new"));
    assert_eq!(super::pages::renewed("# A\n", "new"), None);
}
