//! The retired words of the project's language, each with its replacement. Reads code, comments, help, documents,
//! scripts, chart and SQL. Must not know any other rule. A new word is a line in a table here.

use std::fs;

use crate::tree::{File, files, has_word, none, root};

/// Where a word is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In all text: code, comments, help and documents, in any letter case.
    Text,
    /// In the code of Rust files: a name in exactly this spelling.
    Name,
}

/// A retired word or phrase.
struct Retired {
    text: &'static str,
    place: Where,
    instead: &'static str,
}

const fn text(text: &'static str, instead: &'static str) -> Retired {
    Retired { text, place: Where::Text, instead }
}

const fn name(text: &'static str, instead: &'static str) -> Retired {
    Retired { text, place: Where::Name, instead }
}

const RETIRED: &[Retired] = &[
    text("this room", "this crate, module or component"),
    text("a room", "a crate, module or component"),
    text("the room", "the crate, module or component"),
    text("every room", "every crate, module or component"),
    text("rooms", "crates, modules or components"),
    text("the house", "crate, service or fixture"),
    text("the wires", "API or wire format"),
    text("old wires", "legacy API"),
    text("clients of old", "existing clients"),
    text("as often as it should be", "exactly once"),
    text("perhaps charged", "in doubt, or not charged"),
    text("waits for a person", "needs manual resolution"),
    text("wait for a person", "need manual resolution"),
    text("a person", "an operator"),
    text("a person's word", "an operator's decision"),
    text("looked around", "recovered, or refreshed"),
    text("look around", "recover, or refresh"),
    text("sheet", "changeset"),
    text("tally", "counter deltas, or counts"),
    text("keeper", "supervisor, or guard"),
    text("learnt", "outcome or result"),
    text("is told", "is reported, or gets"),
    text("was told", "was reported, or got"),
    text("are told", "are reported, or get"),
    text("let in", "accepted"),
    text("lets in", "accepts"),
    text("calls a second", "requests per second"),
    text("a second's worth", "a burst of one second"),
    text("twin", "positive control"),
    text("twins", "positive controls"),
    text("mend", "fix or repair"),
    text("mends", "fixes or repairs"),
    text("mended", "fixed or repaired"),
    text("thousand million", "billion"),
    text("everybody writes first", "naive biller (control group)"),
    text("whoever", "the caller, task or process that is meant"),
    text("everybody", "every caller, every user"),
    text("somebody", "another caller, task or process"),
    text("nobody", "no process, no caller or no invoice; nothing"),
    text("when nothing is said", "by default"),
    text("in vain", "without effect"),
    text("aloud", "with a message"),
    text("must look", "operator action required"),
    name("Sheet", "Changeset"),
    name("AttemptLine", "AttemptChange"),
    name("Book", "SettleStatements"),
    name("Tally", "CounterDeltas, or counts"),
    name("Moves", "StateCountDeltas"),
    name("Standing", "AttemptContext"),
    name("took_nothing", "not_executed"),
    name("from_word", "FromStr"),
    name("insist", "retry_until_stopped"),
    name("Learnt", "AttemptResult"),
    name("Figures", "ChargeMetrics"),
    name("Outlook", "Admission"),
    name("keeper", "supervisor, or guard"),
    name("look_around", "refresh_metrics_and_ledger"),
    name("LettingGo", "RunGuard"),
    name("Asked", "RequestFacts"),
    name("Heard", "ResponseFacts"),
    name("words_fit", "validate_reason_and_actor"),
    name("Intake", "ImportPlan, or ImportStream"),
    name("shake_hands", "handshake"),
    name("Door", "ClientVerifier, or the state of a listener"),
    name("let_in", "record_accepted"),
    name("Undone", "ExchangeError"),
    name("Exclusive", "Http1Connection"),
    name("dress", "finish_headers"),
    name("Lane", "PoolClass"),
    name("Lent", "ConnectionGuard"),
    name("Way", "TlsMode"),
    name("bent", "overrides"),
    name("paced", "scaled"),
    name("Roster", "ConnectionRegistry"),
    name("Spoil", "ResponseFault"),
    name("Told", "ChargeReply"),
    name("Desk", "ChargerInner"),
    name("Scribe", "BatchWriter"),
    name("spoilt", "apply_response_fault, or corrupt"),
    name("Leash", "BoundedReader"),
    name("Books", "BillingIndex"),
    name("Ground", "ClusterSession"),
    name("Said", "RawValue, or the reply that it is"),
    name("Dice", "SeededRng"),
    name("House", "StoreFixture, or the fixture that it is"),
];

/// Folders that are searched, and the endings of their files.
const PLACES: &[(&str, &[&str])] = &[
    ("crates", &[".rs", ".toml", ".sql", ".patch", ".lua"]),
    ("deploy", &[".sh", ".yaml", ".yml", ".tpl", ".txt", ".toml", ".sql", ".jq", ".md"]),
    ("docs", &[".md"]),
    (".github", &[".yml"]),
];

/// Files at the root that are searched. The changelog is not, because it contains earlier names.
const AT_ROOT: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "book.toml",
    "Makefile",
    "Cargo.toml",
    "clippy.toml",
    "deny.toml",
    "docker-compose.yml",
    ".ci/run",
];

/// Paths that are not searched, each with its reason.
const NOT_LOOKED_AT: &[(&str, &str)] = &[
    ("crates/tinjis/tests/tidy/words.rs", "holds the words themselves"),
    ("deploy/envs/", "rendered from the chart, which is looked at; values are data"),
];

/// Allowed lines with a retired word: path, part of the line, reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("crates/doctor/src/expectations.rs", "everybody", "a source in doctor.toml, which users have written"),
    ("docs/how-to/doctor.md", "everybody", "documents that source"),
    ("crates/doctor/src/report.rs", "twin", "a key of the JSON report, which programs read"),
    ("docs/how-to/doctor.md", "`twin`", "documents that key"),
    ("crates/testkit/src/postgres/process_guard.rs", "\"nobody\"", "the Linux user"),
    ("deploy/chart/tests/shape_test.yaml", "nobody's user", "the Linux user"),
];

/// The retired words in one file, each as `line: word, say …`.
fn findings(file: &File) -> Vec<String> {
    let is_rust = file.path.ends_with(".rs");
    let mut found = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let code = if is_rust { line.split("//").next().unwrap_or_default() } else { "" };
        let small = line.to_lowercase();
        for retired in RETIRED {
            let hit = match retired.place {
                Where::Text => has_word(&small, retired.text),
                Where::Name => has_word(code, retired.text),
            };
            if hit && !is_allowed(&file.path, line) {
                found.push(format!(
                    "{}:{}: `{}`, say {}",
                    file.path,
                    index + 1,
                    retired.text,
                    retired.instead
                ));
            }
        }
    }
    found
}

fn is_allowed(path: &str, line: &str) -> bool {
    ALLOWED.iter().any(|(allowed, part, _)| path == *allowed && line.contains(part))
}

/// Every file that is searched.
fn looked_at() -> Vec<File> {
    let mut all: Vec<File> = PLACES.iter().flat_map(|(below, endings)| files(below, endings)).collect();
    for path in AT_ROOT {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        all.push(File { path: (*path).to_owned(), text });
    }
    all.retain(|file| !NOT_LOOKED_AT.iter().any(|(path, _)| file.path.starts_with(path)));
    all
}

#[test]
fn no_retired_word_is_used() {
    none("retired words", &looked_at().iter().flat_map(findings).collect::<Vec<_>>());
}

#[test]
fn every_allowance_is_used() {
    let unused = ALLOWED.iter().filter(|(path, part, _)| {
        let text = fs::read_to_string(root().join(path)).unwrap_or_default();
        !text.lines().any(|line| line.contains(part))
    });
    none(
        "an allowed line is gone",
        &unused.map(|(path, part, _)| format!("{path}: {part}")).collect::<Vec<_>>(),
    );
}

#[test]
fn a_planted_word_is_found() {
    let planted = |path: &str, text: &str| findings(&File { path: path.to_owned(), text: text.to_owned() });
    assert_eq!(planted("a.md", "fine\nThis Room knows no SQL.").len(), 1);
    assert_eq!(
        planted("a.md", "It knows whoever calls, and waits for a person.").len(),
        3,
        "also the shorter phrase"
    );
    assert_eq!(planted("a.rs", "struct Sheet; // a comment without one").len(), 2, "as a name and as a word");
    assert_eq!(planted("a.rs", "fn make_room() {} // no room for mushrooms"), Vec::<String>::new());
    assert_eq!(
        planted("a.md", "`Lane` is the name of a street"),
        Vec::<String>::new(),
        "a name of code only"
    );
}
