//! Each alert of the chart and of the nightly doctor has its page of the runbook, the page and the table contain its
//! name, and the commands of the runbook exist. Knows the form of the rules, not their queries.

use std::process::Command;

use crate::tree::{File, file, files, none};

/// The folder of the alerts' pages; an alert's `runbook_url` ends with this and the page's name.
const PAGES: &str = "docs/how-to/runbook/";

/// The parts of each page, in this order: the effect on money, how to look, and when the alert is over.
const PARTS: [&str; 3] = ["**Money.**", "**Look.**", "**Over** when"];

/// The alerts, each with the path of its page.
fn alerts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut sources = files("deploy/chart/files/alerts", &[".yaml"]);
    sources.push(file("deploy/doctor/alerts.yaml"));
    for rules in sources {
        for rule in rules.text.split("- alert: ").skip(1) {
            let name = rule.lines().next().unwrap_or_default().to_owned();
            let url = rule.lines().find_map(|line| line.trim().strip_prefix("runbook_url: "));
            let page = url.and_then(|url| url.split_once("/blob/main/")).map(|(_, path)| path.to_owned());
            found.push((name, page.unwrap_or_default()));
        }
    }
    assert!(found.len() >= 15, "the rules are read: {found:?}");
    found
}

fn runbook() -> Vec<File> {
    let mut pages = files(PAGES.trim_end_matches('/'), &[".md"]);
    pages.push(file("docs/how-to/runbook.md"));
    pages
}

#[test]
fn every_alert_has_its_page_of_the_runbook() {
    let pages = files(PAGES.trim_end_matches('/'), &[".md"]);
    let index = file("docs/how-to/runbook.md").text;
    let alerts = alerts();
    let mut findings = Vec::new();
    for (alert, path) in &alerts {
        let Some(page) = pages.iter().find(|page| page.path == *path) else {
            findings.push(format!("{alert}: its runbook_url leads to no page: {path}"));
            continue;
        };
        if page.text.lines().next() != Some(&format!("# {alert}")) {
            findings.push(format!("{path}: the heading is not {alert}"));
        }
        let places: Vec<_> = PARTS.iter().map(|part| page.text.find(part)).collect();
        if places.contains(&None) || !places.is_sorted() {
            findings.push(format!("{path}: it should have, in this order, {}", PARTS.join(", ")));
        }
        if !index.contains(&format!("| [{alert}]({}) |", path.replace("docs/how-to/", ""))) {
            findings.push(format!("docs/how-to/runbook.md: no row of the table is about {alert}"));
        }
    }
    let idle = pages.iter().filter(|page| !alerts.iter().any(|(_, path)| *path == page.path));
    findings.extend(idle.map(|page| format!("{}: no alert leads here", page.path)));
    none("alerts and the runbook", &findings);
}

/// The commands of `tinjis` in a page: the words after the program's name, up to the end of the code or line.
fn commands(page: &File) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (number, line) in page.text.lines().enumerate() {
        if line.starts_with("```") {
            is_code = !is_code;
            continue;
        }
        let spans: Vec<&str> = if is_code {
            vec![line.split('#').next().unwrap_or_default()]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for span in spans.iter().filter(|span| span.starts_with("tinjis ")) {
            found.push((number + 1, span.split_whitespace().skip(1).map(str::to_owned).collect()));
        }
    }
    found
}

#[test]
fn the_commands_of_the_runbook_exist() {
    let mut findings = Vec::new();
    let mut count = 0;
    for page in runbook() {
        for (line, words) in commands(&page) {
            let names =
                words.iter().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            let names: Vec<&String> = names.take_while(|word| !word.starts_with('-')).take(2).collect();
            let help = Command::new(env!("CARGO_BIN_EXE_tinjis")).args(&names).arg("--help").output();
            let help = help.expect("tinjis runs");
            let text = String::from_utf8_lossy(&help.stdout);
            count += 1;
            if names.is_empty() || !help.status.success() {
                findings.push(format!("{}:{line}: tinjis {}", page.path, words.join(" ")));
            }
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                if !text.contains(&format!("{flag} ")) && !text.contains(&format!("{flag}\n")) {
                    findings.push(format!("{}:{line}: tinjis {} has no {flag}", page.path, words.join(" ")));
                }
            }
        }
    }
    assert!(count > 20, "only {count} commands were found");
    none("commands that tinjis does not have", &findings);
}
