//! The commands of every program: docs/reference/cli.md matches their `--help`, and docs/reference/exit-codes.md has a
//! row for each. The row is tested where the code needs no running service. Runs the real program; knows no command by
//! name except in the table of exit codes.

use std::process::{Command, Output};

use crate::pages::current;
use crate::settings::{Setting, cell, parse};
use crate::tree::{file, none};

const PAGE: &str = "docs/reference/cli.md";
const EXIT_CODES: &str = "docs/reference/exit-codes.md";

/// Flags that at least this many commands share, with the same text, are listed once.
const COMMON_MIN: usize = 8;

/// Programs, and the arguments with which the one test binary acts as each.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("tinjis", &[]),
    ("billing", &["run", "billing"]),
    ("payments", &["run", "payments"]),
    ("pinger", &["run", "pinger"]),
    ("ponger", &["run", "ponger"]),
];

/// A command, parsed from its help.
struct Described {
    name: String,
    about: String,
    usage: String,
    arguments: Vec<(String, String)>,
    flags: Vec<Setting>,
    has_commands: bool,
}

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinjis"));
    command.args(words).env_clear().output().expect("the program can be run")
}

/// Describes this command and its subcommands, in the order of the help.
fn described(name: &str, words: &[&str], found: &mut Vec<Described>) {
    let output = run(&[words, &["--help"]].concat());
    assert!(output.status.success(), "{name} --help: {output:?}");
    let help = String::from_utf8(output.stdout).expect("help is text");
    let commands = entries(&help, "Commands:");
    let (about, _) = help.split_once("Usage:").unwrap_or_default();
    let usage = help.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
    found.push(Described {
        name: name.to_owned(),
        about: about.split_whitespace().collect::<Vec<_>>().join(" "),
        usage: usage.to_owned(),
        arguments: entries(&help, "Arguments:"),
        flags: parse(&help),
        has_commands: !commands.is_empty(),
    });
    let below = commands.iter().filter(|(command, _)| command != "help");
    for (command, _) in below {
        described(&format!("{name} {command}"), &[words, &[command]].concat(), found);
    }
}

/// Entries of a section of the help, each with its text: an entry begins with an indent of two spaces.
fn entries(help: &str, section: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let lines = help.lines().skip_while(|line| *line != section).skip(1);
    for line in lines.take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let begins = line.starts_with("  ") && !line.starts_with("   ");
        let mut words = line.split_whitespace();
        if begins && let Some(first) = words.next() {
            found.push((first.to_owned(), String::new()));
        }
        if let Some((_, text)) = found.last_mut() {
            for word in words {
                text.push_str(if text.is_empty() { "" } else { " " });
                text.push_str(word);
            }
        }
    }
    found
}

fn all() -> Vec<Described> {
    let mut found = Vec::new();
    for (name, words) in PROGRAMS {
        described(name, words, &mut found);
    }
    found
}

#[test]
fn the_page_of_commands_is_what_help_says() {
    let commands = all();
    assert!(commands.len() > 30, "the commands are found");
    let alike = |flag: &Setting| commands.iter().filter(|command| command.flags.contains(flag)).count();
    let of_tinjis = commands.iter().filter(|command| command.name.starts_with("tinjis"));
    let mut common: Vec<&Setting> = Vec::new();
    for flag in of_tinjis.flat_map(|command| &command.flags) {
        if alike(flag) >= COMMON_MIN && !common.contains(&flag) {
            common.push(flag);
        }
    }
    let mut text = vec!["## Common flags\n".to_owned(), flags(&common)];
    let mut settings: &[Setting] = &[];
    for command in &commands {
        let is_program = !command.name.contains(' ');
        text.push(format!("\n{} {}\n", if is_program { "##" } else { "###" }, command.name));
        text.push(format!("{}.\n", cell(&command.about)));
        text.push(format!("```text\n{}\n```", command.usage));
        if is_program {
            settings = if command.name == "tinjis" { &[] } else { &command.flags };
            let link = match command.name.as_str() {
                "tinjis" => continue,
                "billing" | "payments" => "[Settings](settings.md) lists its flags.",
                _ => "[The ping pair](ping.md) describes its file.",
            };
            text.push(format!("\n{link}"));
            if matches!(command.name.as_str(), "billing" | "payments") {
                continue;
            }
        }
        let is_own = |flag: &&Setting| is_program || !(common.contains(flag) || settings.contains(flag));
        let own: Vec<&Setting> = command.flags.iter().filter(is_own).collect();
        if !command.arguments.is_empty() {
            text.push("\n| argument | what |\n| --- | --- |".to_owned());
            text.extend(
                command.arguments.iter().map(|(name, what)| format!("| `{name}` | {} |", cell(what))),
            );
        }
        if !own.is_empty() {
            text.push(format!("\n{}", flags(&own)));
        }
        if command.flags.iter().any(|flag| common.contains(&flag)) {
            text.push("\nIt takes the [common flags](#common-flags) too.".to_owned());
        } else if command.flags.iter().any(|flag| settings.contains(flag)) && !is_program {
            text.push("\nIt takes the [settings](settings.md) of the service too.".to_owned());
        }
    }
    current(PAGE, &text.join("\n"));
}

fn flags(flags: &[&Setting]) -> String {
    let mut lines =
        vec!["| flag | variable | default | what |".to_owned(), "| --- | --- | --- | --- |".to_owned()];
    for flag in flags {
        let name =
            if flag.value.is_empty() { flag.flag.clone() } else { format!("{} {}", flag.flag, flag.value) };
        let variable = flag.variable.as_ref().map_or("–".to_owned(), |name| format!("`{name}`"));
        // A bare address would become a link, and a name in backquotes would be read as a path.
        let quoted = |text: &String| if text.contains("://") { format!("`{text}`") } else { cell(text) };
        let default = flag.default.as_ref().map_or("–".to_owned(), quoted);
        lines.push(format!(
            "| `{}` | {variable} | {default} | {} |",
            name.replace('|', "\\|"),
            cell(&flag.help)
        ));
    }
    lines.join("\n")
}

/// The row of this command in the page of exit codes: the meanings of 0, 1 and 2, or `–`.
fn row<'a>(page: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = page.lines().find(|line| line.starts_with("| `") && line.contains(&format!("`{name}`")))?;
    Some(line.trim_matches('|').split(" | ").map(str::trim).skip(1).collect())
}

#[test]
fn every_command_has_its_exit_codes_on_their_page() {
    let page = file(EXIT_CODES).text;
    let leaves = all().into_iter().filter(|command| !command.has_commands || !command.name.contains(' '));
    let missing = leaves.filter(|command| command.name != "tinjis" && row(&page, &command.name).is_none());
    none("exit codes of a command", &missing.map(|command| command.name).collect::<Vec<_>>());
}

#[test]
fn a_flag_that_no_command_has_is_64_for_each() {
    let mut findings = Vec::new();
    for (program, words) in PROGRAMS {
        let mut commands = Vec::new();
        described(program, words, &mut commands);
        for command in commands.iter().filter(|command| !command.has_commands) {
            let own: Vec<&str> = command.name.split(' ').skip(1).collect();
            let code = run(&[words, &own, &["--no-such-flag"]].concat()).status.code();
            if code != Some(64) {
                findings.push(format!("{}: {code:?}", command.name));
            }
        }
    }
    none("a wrong flag", &findings);
}

#[test]
fn exit_codes_that_need_no_service_are_those_of_the_page() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path is text").to_owned();
    let (good, bad, database) = (path("good.csv"), path("bad.csv"), format!("sqlite:{}", path("new.db")));
    std::fs::write(&good, "reference,customer_id,currency,amount\nA,1,EUR,1.00\n").expect("it is written");
    std::fs::write(&bad, "reference,customer_id,currency,amount\nA,1,EUR,1.0x\n").expect("it is written");
    let (none_there, copy) = (path("none.csv"), path("copy.db"));
    // No service listens on port 1 of loopback.
    let away = "http://127.0.0.1:1";
    let cases: &[(&str, &[&str], i32)] = &[
        ("tinjis pay", &["pay", "--billing", away], 2),
        ("tinjis import", &["import", &good, "--billing", away], 2),
        ("tinjis import", &["import", &bad, "--billing", away], 1),
        ("tinjis import", &["import", &none_there, "--billing", away], 2),
        ("tinjis import --explain", &["import", "--explain", &good], 0),
        ("tinjis verify", &["verify", "--billing", away, "--payments", away], 2),
        ("tinjis resolve", &["resolve", "--billing", away], 2),
        ("tinjis subscriptions list", &["subscriptions", "list", "--billing", away], 2),
        ("tinjis schedule status", &["schedule", "status", "--billing", away], 2),
        ("tinjis stop", &["stop", "--billing", away, "--why", "x", "--actor", "y"], 2),
        ("tinjis invoice", &["invoice", "hold", "A", "--billing", away, "--why", "x", "--actor", "y"], 2),
        ("tinjis customer", &["customer", "hold", "1", "--billing", away, "--why", "x", "--actor", "y"], 2),
        ("billing migrate", &["run", "billing", "migrate", "--database-url", &database], 0),
        ("tinjis backup", &["backup", "--billing", &database, &copy], 0),
        ("tinjis backup", &["backup", "--billing", &database, &copy], 1),
        ("billing healthcheck", &["run", "billing", "healthcheck", "--admin-listen", "127.0.0.1:1"], 1),
        ("billing", &["run", "billing", "--database-url", "sqlite:/nonexistent/x.db"], 1),
    ];
    let page = file(EXIT_CODES).text;
    let mut findings = Vec::new();
    for (name, words, expected) in cases {
        let code = run(words).status.code();
        if code != Some(*expected) {
            findings.push(format!("{words:?}: {code:?} instead of {expected}"));
        }
        let said = row(&page, name).and_then(|cells| cells.get(usize::try_from(*expected).ok()?).copied());
        if said.is_none_or(|text| text == "–") {
            findings.push(format!("{EXIT_CODES} does not say what {expected} of {name} means"));
        }
    }
    none("exit codes", &findings);
}
