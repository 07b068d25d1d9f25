//! `tinjis import` on real billing: large files twice, files of other programs, and the mistakes in each row. Also the
//! proof that memory stays bounded, at full size by `make import`. Knows the command line and the tables only.

use std::fmt::Write;
use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use testkit::wait::wait_for;
use testkit::{Services, size};

/// Maximum memory of the command line and of billing, for any file.
const RSS_KIB_MAX: u64 = 64 * 1024;

struct Import {
    services: Services,
    dir: tempfile::TempDir,
}

impl Import {
    fn start() -> Self {
        let services = Services::start(env!("CARGO_BIN_EXE_tinjis"));
        Self { services, dir: tempfile::tempdir().expect("a folder can be made") }
    }

    /// Writes a file and imports it with these flags.
    fn run(&self, name: &str, text: impl AsRef<[u8]>, flags: &[&str]) -> CommandResult {
        let file = self.dir.path().join(name);
        fs::write(&file, text).expect("a file can be written");
        let output = Command::new(env!("CARGO_BIN_EXE_tinjis"))
            .arg("import")
            .arg(&file)
            .args(["--billing", &self.services.billing_url()])
            .args(flags)
            .env_clear()
            .output()
            .expect("the command can be started");
        CommandResult::of(&output)
    }

    fn count(&self, query: &str) -> i64 {
        testkit::ledger::ask(&self.services.billing.db(), query)
    }

    fn invoices(&self) -> i64 {
        self.count("SELECT count(*) FROM invoices")
    }
}

/// Output and exit code of a command.
#[derive(Debug, PartialEq, Eq)]
struct CommandResult {
    code: Option<i32>,
    result: String,
    notes: String,
}

impl CommandResult {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it says text");
        Self { code: output.status.code(), result: text(&output.stdout), notes: text(&output.stderr) }
    }

    #[track_caller]
    fn assert_notes(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.notes.contains(part), "{part:?} is not in:\n{}", self.notes);
        }
    }
}

fn rows(count: usize) -> String {
    let mut csv = String::from("reference,customer_id,currency,amount,status\n");
    for number in 1..=count {
        let status = if number % 10 == 0 { "PAID" } else { "" };
        let cents = number % 100;
        writeln!(csv, "A{number},{},EUR,{}.{cents:02},{status}", number % 50 + 1, number % 400 + 1)
            .expect("a text can grow");
    }
    csv
}

#[test]
fn a_large_file_is_imported_once_however_often_it_is_imported() {
    let count = size("IMPORT_ROWS", 20_000);
    let import = Import::start();
    let file = rows(count);
    let said = import.run("all.csv", &file, &["--dry-run"]);
    assert_eq!((said.code, import.invoices()), (Some(0), 0), "{said:?}");

    let first = import.run("all.csv", &file, &[]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(import.invoices(), i64::try_from(count).unwrap());
    let paid = import.count("SELECT count(*) FROM invoices WHERE state = 'PAID' AND paid_by = 'import'");
    assert_eq!(paid, i64::try_from(count / 10).unwrap());

    let digest = "SELECT sum(id * amount_minor) + max(updated_at) FROM invoices";
    let before = import.count(digest);
    let again = import.run("all.csv", &file, &[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.result.starts_with("0 created"), "{again:?}");
    assert_eq!(import.count(digest), before, "nothing changed");
}

#[test]
fn all_three_formats_say_the_same() {
    let import = Import::start();
    let csv = "\u{feff}currency,Reference,amount,customer_id\r\nEUR,\"I,1\",12.15,1\r\nGBP,I2,10.25,2\r\n";
    let said = import.run("a.csv", csv, &[]);
    assert_eq!((said.code, import.invoices()), (Some(0), 2), "{said:?}");
    said.assert_notes(&["asking: 100 %\n", "writing: 100 %\n"]);
    let json = "[\n {\"reference\":\"I,1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":12.15},\n\
                 {\"reference\":\"I2\",\"customer_id\":\"2\",\"currency\":\"GBP\",\"amount\":\"10.25\"}]";
    let ndjson = "{\"reference\":\"I,1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":\"12.15\"}\r\n\n\
                  {\"reference\":\"I2\",\"customer_id\":2,\"currency\":\"GBP\",\"amount\":10.25,\"status\":\"PENDING\"}";
    for (name, file) in [("a.json", json), ("a.ndjson", ndjson)] {
        let said = import.run(name, file, &[]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.result.starts_with("0 created, 2 unchanged"), "{name}: {said:?}");
    }
}

#[test]
fn every_bad_row_is_reported_and_nothing_is_written() {
    let import = Import::start();
    let mut csv = b"reference,customer_id,currency,amount,status\n".to_vec();
    csv.extend_from_slice(b"good,1,EUR,1.00,\n");
    csv.extend_from_slice(b",1,EUR,1.00,\n");
    csv.extend_from_slice(b"I3,one,XXX,\"1,00\",paid\n");
    csv.extend_from_slice(b"I4,1,EUR,1.005,\n");
    csv.extend_from_slice(b"I5,1,EUR\n");
    csv.extend_from_slice(b"I\xff6,1,EUR,1.00,\n");
    csv.extend_from_slice(format!("{},1,EUR,1.00,\n", "x".repeat(20_000)).as_bytes());
    csv.extend_from_slice(b"good,1,EUR,1.00,\n");
    csv.extend_from_slice(b"twice,1,EUR,1.00,\n");
    csv.extend_from_slice(b"twice,1,EUR,2.00,\n");
    csv.extend_from_slice(b"I12,1,USD,1.00,\n");
    let said = import.run("bad.csv", &csv, &[]);
    assert_eq!((said.code, import.invoices()), (Some(1), 0), "{said:?}");
    said.assert_notes(&[
        "line 3, column reference: is empty",
        "line 4, reference \"I3\", column customer_id",
        "line 4, reference \"I3\", column currency",
        "line 4, reference \"I3\", column amount",
        "line 4, reference \"I3\", column status",
        "line 5, reference \"I4\", column amount",
        "line 6, column row: has 3 fields",
        "line 7, column reference: is not UTF-8",
        "line 8, column row: is longer",
        "warning: line 9, column reference: repeats line 2",
        "line 10, column reference: stands in line 11 with other data",
        "line 11, column reference: stands in line 10 with other data",
        "line 12, column currency: differs from line 2",
        "nothing was written: 9 bad rows",
    ]);

    let said = import.run("bad.csv", &csv, &["--skip-bad"]);
    assert_eq!((said.code, import.invoices()), (Some(0), 1), "{said:?}");
    let expected = "1 created, 0 unchanged, 0 updated; 9 bad rows left out; 1 repeated within the file";
    assert!(said.result.starts_with(expected), "{said:?}");
    assert_eq!(
        import.count("SELECT count(*) FROM invoices WHERE reference = 'twice'"),
        0,
        "which is right cannot be known"
    );

    let said = import.run("bad.csv", &csv, &["--skip-bad"]);
    let expected = "0 created, 1 unchanged, 0 updated; 9 bad rows left out; 1 repeated within the file";
    assert!(said.result.starts_with(expected), "known rows are counted apart from repeats: {said:?}");
}

#[test]
fn what_only_billing_knows_is_reported_before_anything_is_written() {
    let import = Import::start();
    assert_eq!(import.run("a.csv", "reference,customer_id,currency,amount\nI1,1,EUR,1\n", &[]).code, Some(0));
    let other = "reference,customer_id,currency,amount\nI0,2,EUR,1\nI1,1,EUR,2\nI2,1,USD,1\n";
    let said = import.run("b.csv", other, &[]);
    assert_eq!((said.code, import.invoices()), (Some(1), 1), "{said:?}");
    said.assert_notes(&[
        "line 3, reference \"I1\", column reference: is known with other data",
        "line 4, column currency",
    ]);

    let said = import.run("b.csv", other, &["--update", "--skip-bad"]);
    assert_eq!((said.code, import.invoices()), (Some(0), 2), "{said:?}");
    assert_eq!(import.count("SELECT amount_minor FROM invoices WHERE reference = 'I1'"), 200);
}

#[test]
fn bad_rows_are_listed_to_a_limit_and_all_are_counted() {
    const ROWS: usize = 400;
    let import = Import::start();
    let file = |amount: &str| {
        (0..ROWS).fold("reference,customer_id,currency,amount\n".to_owned(), |csv, number| {
            csv + &format!("I{number},1,EUR,{amount}\n")
        })
    };
    assert_eq!(import.run("a.csv", file("1"), &[]).code, Some(0));
    let said = import.run("b.csv", file("2"), &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let told = said.notes.lines().filter(|line| line.contains("known with other data")).count();
    assert_eq!(told, 100);
    said.assert_notes(&[
        "300 more mistakes are not listed: 100 of 400 are",
        "nothing was written: 400 bad rows",
    ]);
    let said = import.run("c.csv", file("x"), &[]);
    said.assert_notes(&[
        "300 more mistakes are not listed: 100 of 400 are",
        "nothing was written: 400 bad rows",
    ]);
}

#[test]
fn rows_of_an_array_on_one_line_are_told_apart() {
    let import = Import::start();
    let row = |reference: &str, amount: &str| {
        format!(r#"{{"reference":"{reference}","customer_id":1,"currency":"EUR","amount":"{amount}"}}"#)
    };
    let array = [row("I1", "1"), row("I2", "1"), row("I1", "1"), row("I3", "1"), row("I3", "2")].join(",");
    let said = import.run("a.json", format!("[{array}]"), &["--skip-bad"]);
    let expected = "2 created, 0 unchanged, 0 updated; 2 bad rows left out; 1 repeated within the file";
    assert!(said.code == Some(0) && said.result.starts_with(expected), "{said:?}");
    said.assert_notes(&[
        "warning: index 2, column reference: repeats index 0",
        "index 3, column reference: stands in index 4 with other data",
    ]);
    assert_eq!(import.invoices(), 2);
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_writes_nothing() {
    let import = Import::start();
    let open =
        format!("reference,customer_id,currency,amount\nI1,1,EUR,1\n\"I2,1,EUR,1\n{}", "x\n".repeat(200_000));
    for (name, text, part) in [
        ("a.csv", open.as_str(), "line 3, column row: is longer"),
        ("b.csv", "reference;customer_id;currency;amount\n", "separated by commas"),
        (
            "c.json",
            "[{\"reference\":\"I1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":1},\n{\"ref",
            "line 2",
        ),
        ("d.json", "{}", "must be an array"),
        (
            "e.json",
            "[{\"reference\":\"I1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":1},]",
            "line 1, index 0",
        ),
    ] {
        let said = import.run(name, text, &["--skip-bad"]);
        assert_eq!((said.code, import.invoices()), (Some(1), 0), "{name}: {said:?}");
        said.assert_notes(&[part, "nothing was written"]);
    }
}

#[test]
fn memory_stays_bounded_whatever_the_file() {
    let count = size("IMPORT_ROWS", 20_000);
    let import = Import::start();
    let file = import.dir.path().join("all.csv");
    fs::write(&file, rows(count)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tinjis"));
    command.arg("import").arg(&file).args(["--billing", &import.services.billing_url()]).env_clear();
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = wait_for("the import to end", Duration::from_secs(600), || {
        let said = fs::read_to_string(&status).unwrap_or_default();
        let line = said.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        child.try_wait().unwrap()
    });
    assert!(ended.success());
    assert!(peak > 0 && peak < RSS_KIB_MAX, "the command took {peak} KiB");
    assert_eq!(import.invoices(), i64::try_from(count).unwrap());
    let peak = import.services.billing.rss_peak_kib();
    assert!(peak < RSS_KIB_MAX, "billing took {peak} KiB");
}

/// A file of another tool, the flags that describe its format, and the one invoice in it.
struct Export {
    name: &'static str,
    text: &'static [u8],
    flags: &'static str,
    reference: &'static str,
    minor: i64,
}

const fn export(
    name: &'static str,
    text: &'static [u8],
    flags: &'static str,
    reference: &'static str,
    minor: i64,
) -> Export {
    Export { name, text, flags, reference, minor }
}

const HEADER: &str = "reference,customer_id,currency,amount";

const EXPORTS: [Export; 11] = [
    export(
        "semi.csv",
        b"reference;customer_id;currency;amount;status\nSEMI-1;1;EUR;1.234,50;\n",
        "--delimiter ; --decimal-comma --thousands .",
        "SEMI-1",
        123_450,
    ),
    export(
        "tab.csv",
        b"reference\tcustomer_id\tcurrency\tamount\nTAB-1\t1\tEUR\t12.15\n",
        "--delimiter tab",
        "TAB-1",
        1215,
    ),
    export(
        "sep.csv",
        b"sep=;\r\nreference;customer_id;currency;amount\r\nSEP-1;1;EUR;12,15\r\n",
        "--delimiter ; --decimal-comma",
        "SEP-1",
        1215,
    ),
    export(
        "sepcomma.csv",
        b"sep=,\nreference,customer_id,currency,amount\nSEP-2,1,EUR,12.15\n",
        "--delimiter ,",
        "SEP-2",
        1215,
    ),
    export(
        "latin1.csv",
        b"reference,customer_id,currency,amount\nL1-\xe9,1,EUR,1.00\n",
        "--encoding iso-8859-1",
        "L1-\u{e9}",
        100,
    ),
    export(
        "trailing.csv",
        b"reference,customer_id,currency,amount,status,\nTC-1,1,EUR,1.00,,\n",
        "--ignore-unknown-columns",
        "TC-1",
        100,
    ),
    export(
        "map.csv",
        b"Invoice,Client,Total, Notes\nMAP-1,1,99.05,x\n",
        "--map reference=invoice,customer_id=Client,amount=Total --currency EUR --ignore-unknown-columns",
        "MAP-1",
        9905,
    ),
    export("cr.csv", b"reference,customer_id,currency,amount\rCR-1,1,EUR,1.00\r", "", "CR-1", 100),
    export(
        "wrapped.json",
        br#"{"data":[{"reference":"W1","customer_id":1,"currency":"EUR","amount":1}]}"#,
        "--records data",
        "W1",
        100,
    ),
    export(
        "numbers.json",
        br#"[{"id":1042,"customer_id":1,"currency":"eur","due":1215,"x":{"y":[]}}]"#,
        "--map reference=id,amount=due,currency=currency --minor-units --ignore-unknown-columns",
        "1042",
        1215,
    ),
    export(
        "lines.txt",
        b"{\"reference\":\"N1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":\"1,50\"}\n",
        "--format ndjson --decimal-comma",
        "N1",
        150,
    ),
];

#[test]
fn exports_of_other_tools_are_read_as_the_flags_say() {
    let import = Import::start();
    for Export { name, text, flags, reference, minor } in EXPORTS {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let said = import.run(name, text, &flags);
        assert!(said.code == Some(0) && said.result.starts_with("1 created"), "{name}: {said:?}");
        let amount = format!("SELECT amount_minor FROM invoices WHERE reference = '{reference}'");
        assert_eq!(import.count(&amount), minor, "{name}");
    }
}

#[test]
fn utf_16_is_read_with_its_mark_or_by_its_name() {
    let import = Import::start();
    let bytes = |text: &str, big: bool| -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    };
    let file = |number: u32| format!("{HEADER}\r\nU16-\u{f8}{number},1,EUR,12.15\r\n");
    let marked = [&b"\xff\xfe"[..], &bytes(&file(1), false)].concat();
    let refused = import.run("a.csv", &marked, &[]);
    assert_eq!((refused.code, import.invoices()), (Some(1), 0), "{refused:?}");
    refused.assert_notes(&["--encoding utf-16le"]);
    for (text, name) in
        [(marked, "utf-16"), (bytes(&file(2), true), "utf-16be"), (bytes(&file(3), false), "utf-16le")]
    {
        let said = import.run("a.csv", &text, &["--encoding", name]);
        assert_eq!(said.code, Some(0), "{name}: {said:?}");
    }
    assert_eq!(import.count("SELECT count(*) FROM invoices WHERE reference LIKE 'U16-\u{f8}%'"), 3);
}

#[test]
fn what_no_flag_makes_right_is_refused_with_what_to_do() {
    let import = Import::start();
    for (name, rest, part) in [
        ("sep.csv", "sep=;\nreference;customer_id\n", "give --delimiter ';'"),
        (
            "twice.csv",
            "reference,customer_id,currency,amount,amount\nDC-1,1,EUR,1.00,100.00\n",
            "amount stands twice",
        ),
        (
            "unknown.csv",
            "reference,customer_id,currency,amount,stauts\nA,1,EUR,1,PAID\n",
            "\"stauts\" is no column",
        ),
        (
            "science.csv",
            "reference,customer_id,currency,amount\n1.23457E+11,1,EUR,10.00\n",
            "format the column as text",
        ),
        ("quotes.csv", "reference,customer_id,currency,amount\n\"abc\"x,1,EUR,3.00\n", "written twice"),
        (
            "nul.csv",
            "reference,customer_id,currency,amount\nNUL\0-1,1,EUR,12.15\n",
            "U+0000, a control character, here as character 4",
        ),
        ("ctrl-z.csv", "reference,customer_id,currency,amount\nA1,1,EUR,10.00\n\u{1a}", "Ctrl-Z"),
        ("tail.csv", "reference,customer_id,currency,amount\nE1,1,EUR,1.00\n,,,\n", "empty in every column"),
        (
            "total.csv",
            "reference,customer_id,currency,amount\nTotal,,,2.00\n",
            "column customer_id: is empty",
        ),
        ("symbol.csv", "reference,customer_id,currency,amount\nA,1,EUR,\u{20ac}12.15\n", "--currency"),
        ("negative.csv", "reference,customer_id,currency,amount\nA,1,EUR,(12.15)\n", "negative"),
        (
            "bidi.ndjson",
            "{\"reference\":\"INV\\u202e5\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":1}",
            "U+202E",
        ),
        ("pretty.ndjson", "{\"reference\":\"P1\",\n\"customer_id\":1}", "stands on one line"),
        (
            "commas.ndjson",
            "{\"reference\":\"T1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":1},\n",
            "no comma between",
        ),
        ("wrapped.json", "{\"data\":[]}", "--records data"),
        ("lines.json", "{\"reference\":\"T1\"}\n{}", "--format ndjson"),
        ("cr.ndjson", "{\"reference\":\"A\"}\r{\"reference\":\"B\"}\r", "not with CR alone"),
        ("narrow.csv", "reference,customer_id,currency,amount\n########,1,EUR,1\n", "error of a spreadsheet"),
        (
            "twice.json",
            "[{\"reference\":\"J9\",\"amount\":1,\"amount\":2}]",
            "index 0, reference \"J9\", column row: duplicate",
        ),
        ("empty.csv", "", "is empty"),
    ] {
        let said = import.run(name, rest, &[]);
        assert_eq!((said.code, import.invoices()), (Some(1), 0), "{name}: {said:?}");
        said.assert_notes(&[part, "nothing was written"]);
    }
}

#[test]
fn nothing_is_charged_that_a_file_may_call_paid() {
    let import = Import::start();
    let row = |more: &str| {
        format!("{{\"reference\":\"P-1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":12.15{more}}}\n")
    };
    let mapped = "--map status=state --status paid=PAID,open=PENDING --ignore-unknown-columns";
    let twice = format!("{{\"data\":[{}],\"data\":[]}}", row("").trim_end());
    for (name, file, flags, part) in [
        (
            "paid.ndjson",
            row(",\"isPaid\":true"),
            "--ignore-unknown-columns",
            "\"isPaid\" may tell what is paid",
        ),
        (
            "settled.json",
            format!("[{}]", row(",\"settled\":1")),
            "--ignore-unknown-columns",
            "\"settled\" may tell",
        ),
        (
            "other.ndjson",
            row(",\"State\":\"paid\""),
            mapped,
            "column status (\"state\"): is missing or empty",
        ),
        ("null.ndjson", row(",\"state\":null"), mapped, "column status (\"state\"): is missing or empty"),
        ("twice.json", twice, "--records data", "duplicate field \"data\""),
        (
            "on.csv",
            format!("{HEADER},Bezahlt am\nP-1,1,EUR,12.15,2026-01-31\n"),
            "--ignore-unknown-columns",
            "\"Bezahlt am\" may tell",
        ),
    ] {
        let said = import.run(name, file, &flags.split(' ').collect::<Vec<_>>());
        assert_eq!((said.code, import.invoices()), (Some(1), 0), "{name}: {said:?}");
        said.assert_notes(&[part, "nothing was written"]);
    }
    let given = ["--map", "status=state", "--status", "paid=PAID,=PENDING", "--ignore-unknown-columns"];
    let said = import.run("null.ndjson", row(",\"state\":null,\"x\":1"), &given);
    assert!(said.code == Some(0) && said.result.starts_with("1 created"), "{said:?}");
    said.assert_notes(&["columns passed over: \"x\""]);
}

#[test]
fn a_file_of_utf_8_is_not_read_in_a_single_byte_encoding() {
    let import = Import::start();
    let file = format!("{HEADER}\nRechnung-\u{fc}1,1,EUR,12.15\n");
    let said = import.run("a.csv", &file, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = import.run("a.csv", &file, &["--encoding", "windows-1252"]);
    assert_eq!((said.code, import.invoices()), (Some(1), 1), "{said:?}");
    said.assert_notes(&["is UTF-8 in all its letters", "give --encoding utf-8", "nothing was written"]);
}

#[test]
fn settings_of_another_format_and_files_that_are_none_end_the_command() {
    let import = Import::start();
    let row = "{\"reference\":\"N1\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":1}\n";
    let said = import.run("a.ndjson", row, &["--skip-lines", "1", "--delimiter", ";", "--header", "a,b"]);
    assert_eq!((said.code, import.invoices()), (Some(64), 0), "{said:?}");
    said.assert_notes(&["--skip-lines: belongs to csv, and the file is ndjson", "--delimiter", "--header"]);

    let fifo = import.dir.path().join("fifo.csv");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let fifo = fifo.to_str().expect("a path of UTF-8");
    let file = format!("{HEADER}\nA,1,EUR,1\n");
    for path in [fifo, "/dev/zero"] {
        let said = import.run("a.csv", &file, &["--profile", path]);
        assert_eq!(said.code, Some(64), "{said:?}");
        said.assert_notes(&["--profile", "not a regular file"]);
    }
    for flag in ["--dry-run", "--explain"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_tinjis")).args(["import", fifo, flag]).env_clear().output();
        let said = CommandResult::of(&output.expect("the command can be started"));
        assert_eq!(said.code, Some(2), "{said:?}");
        said.assert_notes(&["not a regular file"]);
    }
}

#[test]
fn references_are_one_by_nfc_and_look_alikes_are_reported() {
    let import = Import::start();
    let said = import.run("windows.csv", format!("{HEADER}\ncaf\u{e9}-1,1,EUR,49.00\n"), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = import.run("mac.csv", format!("{HEADER}\ncafe\u{301}-1,1,EUR,49.00\n"), &[]);
    assert!(said.result.starts_with("0 created, 1 unchanged"), "{said:?}");
    let said =
        import.run("both.csv", format!("{HEADER}\n\u{e5},1,EUR,1\na\u{30a},1,EUR,1\n\u{c5},1,EUR,1\n"), &[]);
    assert!(said.result.starts_with("2 created, 0 unchanged"), "{said:?}");
    said.assert_notes(&[
        "line 3, column reference: repeats line 2",
        "line 4, column reference: differs from that of line 2 only by case",
    ]);
}

#[test]
fn a_reference_that_looks_like_a_stored_one_is_warned_of_once_and_taken() {
    let import = Import::start();
    let said = import.run("old.csv", format!("{HEADER}\nINV-1,1,EUR,1.00\n"), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = import.run("new.csv", format!("{HEADER}\nX-1,1,EUR,1.00\ninv-1,1,EUR,1.00\n"), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.result.starts_with("2 created"), "{said:?}");
    let warning = "warning: line 3, reference \"inv-1\", column reference: differs from the stored \"INV-1\"";
    said.assert_notes(&[warning]);
    assert_eq!(said.notes.matches("differs from the stored").count(), 1, "{said:?}");
}

#[test]
fn two_rows_that_contradict_each_other_are_both_skipped_and_reported() {
    let import = Import::start();
    let file = format!("{HEADER}\nA-1,1,EUR,1.00\nB-1,1,EUR,1.00\nA-1,1,EUR,2.00\n");
    let said = import.run("both.csv", file, &["--skip-bad"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.result.contains("1 created") && said.result.contains("2 bad rows left out"), "{said:?}");
    said.assert_notes(&[
        "line 2, column reference: stands in line 4",
        "line 4, column reference: stands in line 2",
    ]);
    assert_eq!(import.count("SELECT count(*) FROM invoices WHERE reference = 'A-1'"), 0);
}

#[test]
fn a_profile_holds_the_flags_and_a_flag_beats_it() {
    let import = Import::start();
    let profile = import.dir.path().join("profile.toml");
    fs::write(&profile, "delimiter = ';'\ndecimal-comma = true\n[map]\namount = 'Betrag'\n").unwrap();
    let flags = ["--profile", profile.to_str().unwrap()];
    let said = import.run("a.csv", "reference;customer_id;currency;Betrag\nP1;1;EUR;1,50\n", &flags);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = import.run(
        "b.csv",
        "reference,customer_id,currency,Total\nP2,1,EUR,2.50\n",
        &[&flags[..], &["--delimiter", ",", "--decimal-comma=false", "--map", "amount=Total"]].concat(),
    );
    assert_eq!(
        (said.code, import.count("SELECT sum(amount_minor) FROM invoices")),
        (Some(0), 400),
        "{said:?}"
    );
    fs::write(&profile, "delimeter = ';'\n").unwrap();
    let said = import.run("a.csv", "x", &flags);
    assert_eq!(said.code, Some(64), "{said:?}");
    said.assert_notes(&["--profile", "unknown field `delimeter`"]);
}

#[test]
fn a_proposed_profile_can_be_saved_and_used() {
    let import = Import::start();
    let file = "Rechnungsnummer;Kundennummer;Betrag;W\u{e4}hrung;Status;Notiz\nRE-1;1;1.234,50;EUR;offen;x\nRE-2;2;12,15;EUR;bezahlt;\n";
    let proposed = import.run("a.csv", file, &["--explain"]);
    assert_eq!((proposed.code, import.invoices()), (Some(0), 0), "{proposed:?}");
    let profile = import.dir.path().join("proposed.toml");
    fs::write(&profile, &proposed.result).unwrap();
    let said = import.run("a.csv", file, &["--profile", profile.to_str().unwrap()]);
    assert!(said.code == Some(0) && said.result.starts_with("2 created"), "{said:?}\n{}", proposed.result);
    said.assert_notes(&["columns passed over: \"Notiz\""]);
    assert_eq!(import.count("SELECT amount_minor FROM invoices WHERE reference = 'RE-1'"), 123_450);
    assert_eq!(import.count("SELECT count(*) FROM invoices WHERE state = 'PAID'"), 1);
}

/// Profile, export, and the expected results: sum to be charged, number of paid invoices, and skipped rows.
const PROFILES: [(&str, &str, i64, i64, &str); 5] = [
    ("woocommerce", "woocommerce.csv", 7940 + 149_990, 1, "1 skipped by status"),
    ("datev", "datev.csv", 119_000 + 5950, 0, "1 skipped by status"),
    ("chargebee", "chargebee.ndjson", 1999 + 9905, 0, "2 skipped by status"),
    ("fortnox", "fortnox.json", 125_050 + 4900, 0, "1 skipped by status"),
    ("coupa", "coupa.csv", 1_234_560 + 9995, 0, ""),
];

#[test]
fn each_documented_export_is_imported_by_its_profile() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/import-profiles/");
    for (profile, file, pending, paid, skipped) in PROFILES {
        let import = Import::start();
        let text = fs::read(format!("{folder}{file}")).unwrap();
        let profile = format!("{folder}{profile}.toml");
        let said = import.run(file, &text, &["--profile", &profile]);
        assert!(said.code == Some(0) && said.result.contains(skipped), "{profile}: {said:?}");
        let sum = "SELECT sum(amount_minor) FROM invoices WHERE state = 'PENDING'";
        assert_eq!(import.count(sum), pending, "{profile}: {said:?}");
        assert_eq!(import.count("SELECT count(*) FROM invoices WHERE state = 'PAID'"), paid, "{profile}");
        let strict = import.run(file, &text, &[]);
        assert_eq!(strict.code, Some(1), "without its profile nothing of it is guessed: {strict:?}");
    }
    let profiles = fs::read_dir(folder).unwrap().flatten();
    let profiles = profiles.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "toml"));
    assert_eq!(profiles.count(), PROFILES.len(), "each profile is tested");
}

#[test]
fn an_import_that_billing_stops_says_what_was_written() {
    let mut import = Import::start();
    import.services.kill_billing();
    let said = import.run("a.csv", format!("{HEADER}\nI1,1,EUR,1\n"), &[]);
    assert_eq!(said.code, Some(2), "{said:?}");
    said.assert_notes(&["nothing was written"]);
}
