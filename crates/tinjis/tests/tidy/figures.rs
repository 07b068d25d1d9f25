//! Measured figures: docs/reference/figures.md is generated from figures.toml, which contains every measured figure and
//! every proof that README and the site quote. Knows how prose writes a measurement, not what was measured.

use std::collections::BTreeMap;
use std::process::Command;

use crate::pages::current;
use crate::tree::{File, file, files, none, root};

const DATA: &str = "docs/reference/figures.toml";
const PAGE: &str = "docs/reference/figures.md";
const CHECK: &str = "deploy/scripts/figures-check.sh";

/// The comment in a page that names the figures for the rest of its section.
const MARK: &str = "<!-- figures: ";

/// Units of measurements. Limits have them too, and are listed as limits.
const UNITS: [&str; 5] = ["µs", "ms", "MiB", "MB", "KiB"];

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    figure: Vec<Figure>,
    limit: Vec<Limit>,
}

#[derive(Debug, Clone, serde::Deserialize)]
struct Figure {
    id: String,
    what: String,
    command: String,
    #[serde(flatten)]
    measured: BTreeMap<String, String>,
}

/// A line of a page whose number is a limit or a foreign figure.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    page: String,
    text: String,
}

const MEASURED: [&str; 4] = ["commit", "date", "machine", "value"];

impl Figure {
    fn is_measured(&self) -> bool {
        !self.measured.is_empty()
    }

    /// Why the figure is incomplete or malformed, if it is.
    fn fault(&self) -> Option<String> {
        let given: Vec<&str> = self.measured.keys().map(String::as_str).collect();
        let is_whole = given.is_empty() || given == MEASURED;
        let is_commit = |text: &String| text.len() >= 7 && text.chars().all(|c| c.is_ascii_hexdigit());
        let is_date = |text: &String| text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10;
        let fits = self.measured.get("commit").is_none_or(is_commit)
            && self.measured.get("date").is_none_or(is_date);
        (!is_whole || !fits).then(|| {
            format!(
                "{DATA}: {}: all of {} or none, commit in hex, date as YYYY-MM-DD",
                self.id,
                MEASURED.join(", ")
            )
        })
    }
}

fn data() -> Data {
    toml::from_str(&file(DATA).text).unwrap_or_else(|error| panic!("{DATA}: {error}"))
}

/// README and the pages of the site, without the page of figures and without decision records, which keep the figures
/// of their date.
fn quoting() -> Vec<File> {
    let mut found = files("docs", &[".md"]);
    found.retain(|page| {
        page.path != PAGE && !page.path.starts_with("docs/adr/") && !page.path.ends_with("SUMMARY.md")
    });
    found.push(file("README.md"));
    found
}

/// The lines of a page outside code, with the ids of the figures that their section names.
fn lines(page: &File) -> Vec<(usize, &str, Vec<&str>)> {
    let (mut is_code, mut named) = (false, Vec::new());
    let mut found = Vec::new();
    for (index, line) in page.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code && line.starts_with('#') {
            named.clear();
        } else if let Some(ids) = line.strip_prefix(MARK) {
            named = ids.trim_end_matches("-->").split_whitespace().collect();
        } else if !is_code {
            found.push((index + 1, line, named.clone()));
        }
    }
    found
}

/// Whether a line contains a number with a unit of measurement, or a rate.
fn has_measurement(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let plain = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let is_number =
        |word: &str| word.trim_start_matches(['(', '*', '~']).starts_with(|c: char| c.is_ascii_digit());
    words.windows(2).any(|pair| is_number(pair[0]) && UNITS.contains(&plain(pair[1]).as_str()))
        || words.windows(4).any(|part| is_number(part[0]) && part[2] == "per" && plain(part[3]) == "second")
        || words.windows(2).any(|pair| is_number(pair[0]) && plain(pair[1]) == "states")
        || line.contains("double 0")
}

#[test]
fn the_page_of_figures_is_made_from_the_data() {
    let data = data();
    none("figures", &data.figure.iter().filter_map(Figure::fault).collect::<Vec<_>>());
    let mut quoted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for page in quoting() {
        for id in page.text.lines().filter_map(|line| line.strip_prefix(MARK)) {
            for id in id.trim_end_matches("-->").split_whitespace() {
                quoted.entry(id.to_owned()).or_default().push(page.path.clone());
            }
        }
    }
    current(PAGE, &tables(&data.figure, &quoted));
}

/// The tables of the page: measured figures, and figures without a measurement.
fn tables(figures: &[Figure], quoted: &BTreeMap<String, Vec<String>>) -> String {
    let links = |id: &str| {
        let mut pages = quoted.get(id).cloned().unwrap_or_default();
        pages.dedup();
        let link = |page: &String| {
            let from_here =
                page.strip_prefix("docs/").map_or(format!("../../{page}"), |rest| format!("../{rest}"));
            let name = page.rsplit('/').next().unwrap_or_default().trim_end_matches(".md");
            format!("[{name}]({from_here})")
        };
        if pages.is_empty() {
            "–".to_owned()
        } else {
            pages.iter().map(link).collect::<Vec<_>>().join(", ")
        }
    };
    let command = |figure: &Figure| {
        let is_command = figure.command.starts_with("make ") || figure.command.starts_with("./");
        if is_command { format!("`{}`", figure.command) } else { figure.command.clone() }
    };
    let mut lines = vec![
        "## Measured\n".to_owned(),
        "| what | measured | command | commit | date | machine | quoted in |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    for figure in figures.iter().filter(|figure| figure.is_measured()) {
        let of = |name: &str| figure.measured.get(name).cloned().unwrap_or_default();
        let cells =
            [figure.what.clone(), of("value"), command(figure), format!("`{}`", of("commit")), of("date")];
        lines.push(format!("| {} | {} | {} |", cells.join(" | "), of("machine"), links(&figure.id)));
    }
    lines.push("\n## Not measured yet\n".to_owned());
    lines.push("| what | command | quoted in |".to_owned());
    lines.push("| --- | --- | --- |".to_owned());
    for figure in figures.iter().filter(|figure| !figure.is_measured()) {
        lines.push(format!("| {} | {} | {} |", figure.what, command(figure), links(&figure.id)));
    }
    lines.join("\n")
}

#[test]
fn every_figure_that_a_page_quotes_is_recorded() {
    let data = data();
    let mut findings = Vec::new();
    let mut ids: Vec<&str> = data.figure.iter().map(|figure| figure.id.as_str()).collect();
    ids.sort_unstable();
    let twice = ids.windows(2).filter(|pair| pair[0] == pair[1]);
    findings.extend(twice.map(|pair| format!("{DATA}: two figures have the id {}", pair[0])));
    let pages = quoting();
    for page in &pages {
        for (number, line, named) in lines(page) {
            let unknown = named.iter().filter(|id| !ids.contains(id));
            findings.extend(unknown.map(|id| format!("{}:{number}: no figure has the id {id}", page.path)));
            let is_limit = |limit: &Limit| limit.page == page.path && line.contains(&limit.text);
            if has_measurement(line) && named.is_empty() && !data.limit.iter().any(is_limit) {
                findings.push(format!(
                    "{}:{number}: name its figure in a comment, or list it as a limit: {line}",
                    page.path
                ));
            }
        }
    }
    let lines_of = |path: &str| pages.iter().find(|page| page.path == path).map(lines).unwrap_or_default();
    let is_gone =
        |limit: &&Limit| !lines_of(&limit.page).iter().any(|(_, line, _)| line.contains(&limit.text));
    findings.extend(
        data.limit
            .iter()
            .filter(is_gone)
            .map(|limit| format!("{DATA}: {} says no more: {}", limit.page, limit.text)),
    );
    none("quoted figures", &findings);
}

#[test]
fn every_proof_of_the_readme_is_recorded() {
    let commands: Vec<String> = data().figure.into_iter().map(|figure| figure.command).collect();
    let readme = file("README.md").text;
    let (_, rest) = readme.split_once("\n## Guarantees\n").expect("README states its guarantees");
    let (part, _) = rest.split_once("\n## ").expect("and goes on");
    let proofs: Vec<&str> = part.split('`').filter(|text| text.starts_with("make ")).collect();
    assert!(proofs.len() > 10, "{proofs:?}");
    let missing = proofs.into_iter().filter(|proof| !commands.iter().any(|command| command == proof));
    none("a proof without a figure", &missing.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn a_figure_older_than_thirty_days_is_found() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let data = folder.path().join("figures.toml");
    let row = |id: &str, date: &str| format!("[[figure]]\nid = \"{id}\"\ndate = \"{date}\"\n");
    let text = row("old", "2026-10-31") + "[[figure]]\nid = \"none\"\n" + &row("new", "2026-11-01");
    std::fs::write(&data, text).expect("it can be written");
    let check = |today: &str| {
        let mut command = Command::new("bash");
        command.arg(root().join(CHECK)).arg(&data).arg(today);
        let output = command.output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check("2026-11-30").0, Some(0));
    let (code, message) = check("2026-12-01");
    assert_eq!(code, Some(1));
    assert!(message.contains("old") && !message.contains("new"), "{message}");
}

#[test]
fn a_quoted_figure_is_told_from_plain_text() {
    for line in [
        "takes 0.4 ms",
        "| 38 µs |",
        "(265 µs per charge)",
        "at 15,000 requests per second",
        "13 million states at 3 states",
    ] {
        assert!(has_measurement(line), "{line}");
    }
    for line in ["version 15 of PostgreSQL", "the limit of 128Mi", "items per second", "5 s"] {
        assert!(!has_measurement(line), "{line}");
    }
    let text = format!("# A\n\n{MARK}a b -->\n\none\n\n## B\n\n```text\n3 ms\n```\ntwo\n");
    let page = File { path: "x.md".to_owned(), text };
    let found = lines(&page);
    assert!(found.contains(&(5, "one", vec!["a", "b"])) && found.contains(&(12, "two", vec![])), "{found:?}");
}
