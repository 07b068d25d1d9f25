//! The table of settings in docs/reference/settings.md contains each service's `--help` word for word, within the
//! allowed number. Runs the real programs; knows no setting by name.

use std::process::Command;

use crate::tree::{file, none};

/// The marks before and after the table.
const BEGIN: &str = "<!-- settings: from --help -->";
const END: &str = "<!-- end of settings -->";

/// Maximum number of settings of a service.
const SETTINGS_MAX: usize = 40;

/// One setting of one service, or one flag of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) flag: String,
    /// The name of the setting's value, such as `<FILE>`, or empty.
    pub(crate) value: String,
    pub(crate) variable: Option<String>,
    pub(crate) default: Option<String>,
    pub(crate) help: String,
}

#[test]
fn the_settings_page_is_what_help_says() {
    let page = file("docs/reference/settings.md").text;
    let between = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (shown, _) =
        between.expect("docs/reference/settings.md has a table of settings between its two marks");
    let wanted = table(&settings_of("billing"), &settings_of("payments"));
    assert!(
        shown.trim() == wanted.trim(),
        "the table of docs/reference/settings.md of settings should be:\n\n{wanted}\n"
    );
}

#[test]
fn every_setting_has_a_variable_and_a_line_of_help_and_there_are_few() {
    let mut findings = Vec::new();
    for service in ["billing", "payments"] {
        let settings = settings_of(service);
        assert!(settings.len() > 5, "{service} --help is read: {settings:?}");
        if settings.len() > SETTINGS_MAX {
            findings.push(format!("{service} has {} settings, at most {SETTINGS_MAX}", settings.len()));
        }
        let bare = settings.iter().filter(|setting| setting.variable.is_none() || setting.help.is_empty());
        findings.extend(bare.map(|setting| format!("{service} {}: no variable, or no help", setting.flag)));
        // Kubernetes itself sets variables with these endings, for its Services.
        let taken = settings.iter().filter_map(|setting| setting.variable.as_deref());
        let taken = taken.filter(|name| name.ends_with("_PORT") || name.ends_with("_HOST"));
        findings.extend(taken.map(|name| format!("{service} {name}: Kubernetes may set it")));
    }
    none("a setting without a variable or help", &findings);
}

/// The page's table of OpenTelemetry's variables matches the variables that the code reads.
#[test]
fn the_settings_page_has_every_variable_of_traces() {
    let source = file("crates/chassis/src/config/traces.rs").text;
    let (code, _) = source.split_once("#[cfg(test)]").expect("its tests are at its end");
    let literals = code.split('"').skip(1).step_by(2);
    let whole = literals.clone().filter(|text| text.starts_with("OTEL_") && !text.contains('{'));
    let of_traces = code.split("of_traces(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let of_traces = of_traces.map(|what| format!("OTEL_EXPORTER_OTLP_{what}"));
    let mut read: Vec<String> = whole.map(str::to_owned).chain(of_traces).collect();
    read.sort();
    read.dedup();
    assert!(read.len() > 10, "{read:?}");
    let page = file("docs/reference/settings.md").text;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `OTEL_")?.split('`').next());
    let mut shown: Vec<String> = rows.map(|name| format!("OTEL_{name}")).collect();
    shown.sort();
    assert_eq!(shown, read, "docs/reference/settings.md and crates/chassis/src/config/traces.rs");
}

fn settings_of(service: &str) -> Vec<Setting> {
    let output = Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(["run", service, "--help"])
        .env_clear()
        .output()
        .expect("the program can be run");
    assert!(output.status.success(), "{service} --help: {output:?}");
    parse(&String::from_utf8(output.stdout).expect("help is text"))
}

/// Parses clap's long help: a line with the flag, then its text, then `[env: …]` and `[default: …]`.
pub(crate) fn parse(help: &str) -> Vec<Setting> {
    let mut entries: Vec<String> = Vec::new();
    let mut inside = false;
    for line in help.lines() {
        let trimmed = line.trim();
        if !line.starts_with(' ') && !trimmed.is_empty() {
            inside = false;
        }
        if line.starts_with(' ') && trimmed.starts_with('-') {
            entries.push(trimmed.to_owned());
            inside = true;
        } else if let Some(entry) = entries.last_mut().filter(|_| inside) {
            entry.push(' ');
            entry.push_str(trimmed);
        }
    }
    let settings = entries.iter().filter_map(|entry| setting(entry));
    settings.filter(|setting| !matches!(setting.flag.as_str(), "--help" | "--version")).collect()
}

fn setting(entry: &str) -> Option<Setting> {
    let words: Vec<&str> = entry.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("--"))?;
    let flag = words[at].trim_end_matches(',').to_owned();
    let mut rest = words[at + 1..].join(" ");
    let mut value = String::new();
    if rest.starts_with(['<', '[']) && !rest.starts_with("[env") {
        let end = rest.find(if rest.starts_with('[') { ']' } else { '>' })?;
        rest[..=end].clone_into(&mut value);
        rest = rest[end + 1..].trim().to_owned();
    }
    let variable = bracket(&mut rest, "[env: ").map(|text| text.trim_end_matches('=').to_owned());
    let default = bracket(&mut rest, "[default: ");
    Some(Setting { flag, value, variable, default, help: rest.trim().to_owned() })
}

/// Removes `[name: text]` from the rest and returns the text.
fn bracket(rest: &mut String, opening: &str) -> Option<String> {
    let start = rest.find(opening)?;
    let end = start + rest[start..].find(']')?;
    let text = rest[start + opening.len()..end].to_owned();
    rest.replace_range(start..=end, "");
    Some(text)
}

/// The table: settings of both services, then of one.
fn table(billing: &[Setting], payments: &[Setting]) -> String {
    let mut lines = vec![
        "| service | flag | variable | default | what |".to_owned(),
        "| --- | --- | --- | --- | --- |".to_owned(),
    ];
    let shared = |setting: &Setting, others: &[Setting]| {
        others.iter().find(|other| other.flag == setting.flag).cloned()
    };
    for setting in billing {
        if let Some(other) = shared(setting, payments) {
            let default = match (&setting.default, &other.default) {
                (Some(ours), Some(theirs)) if ours != theirs => Some(format!("{ours}; {theirs}")),
                _ => setting.default.clone(),
            };
            lines.push(row("both", &Setting { default, ..setting.clone() }));
        }
    }
    let of_one = |service: &str, settings: &[Setting], others: &[Setting]| {
        let own = settings.iter().filter(|setting| shared(setting, others).is_none());
        own.map(|setting| row(service, setting)).collect::<Vec<_>>()
    };
    lines.extend(of_one("billing", billing, payments));
    lines.extend(of_one("payments", payments, billing));
    lines.join("\n")
}

fn row(service: &str, setting: &Setting) -> String {
    let variable = setting.variable.as_ref().map_or("–".to_owned(), |name| format!("`{name}`"));
    // A bare address would become a link.
    let quoted = |text: &String| if text.contains("://") { format!("`{text}`") } else { text.clone() };
    let default = setting.default.as_ref().map_or("–".to_owned(), quoted);
    let help = cell(&setting.help);
    format!("| {service} | `{}` | {variable} | {default} | {help} |", setting.flag)
}

/// A help text, escaped for a table cell.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}

#[test]
fn help_is_read_as_it_is_written() {
    let help = "Sells papers\n\nUsage: kiosk [OPTIONS]\n\nCommands:\n  migrate  Makes\n\nOptions:\n      --listen <ADDRESS:PORT>\n          \
                Where it\n          listens\n\n          [env: LISTEN=]\n          [default: here]\n\n  -h, --help\n          \
                Print help\n\nMore:\n      --open[=<x>]  Opens [env: OPEN]\n";
    let read = parse(help);
    assert_eq!(read[0].flag, "--listen");
    assert_eq!((read[0].variable.as_deref(), read[0].default.as_deref()), (Some("LISTEN"), Some("here")));
    assert_eq!(read[0].help, "Where it listens");
    assert_eq!(read.len(), 2);
}
