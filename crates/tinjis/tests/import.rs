//! `tinjis import` on real billing: large files twice, files as people's programs write them, and what is wrong with
//! each row; and the proof that memory stays bounded, at full size by `make import`. Knows the command line and the
//! tables only.

use std::fmt::Write;
use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use harness::wait::wait_for;
use harness::{Services, size};

/// What the command line, and billing, may take of memory, whatever the file.
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
    fn run(&self, name: &str, text: impl AsRef<[u8]>, flags: &[&str]) -> Said {
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
        Said::of(&output)
    }

    fn count(&self, query: &str) -> i64 {
        harness::ledger::ask(&self.services.billing.db(), query)
    }

    fn invoices(&self) -> i64 {
        self.count("SELECT count(*) FROM invoices")
    }
}

/// What a command said, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    result: String,
    notes: String,
}

impl Said {
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
fn every_bad_row_is_told_and_nothing_is_written() {
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
    csv.extend_from_slice(b"good,1,EUR,2.00,\n");
    csv.extend_from_slice(b"I10,1,USD,1.00,\n");
    let said = import.run("bad.csv", &csv, &[]);
    assert_eq!((said.code, import.invoices()), (Some(1), 0), "{said:?}");
    said.assert_notes(&[
        "line 3, column reference: is empty",
        "line 4, column customer_id",
        "line 4, column currency",
        "line 4, column amount",
        "line 4, column status",
        "line 5, column amount",
        "line 6, column row: has 3 fields",
        "line 7, column reference: is not UTF-8",
        "line 8, column row: is longer",
        "line 10, column reference: stands in line 2 with other data",
        "line 11, column currency: differs from line 2",
        "nothing was written: 8 bad rows",
    ]);
    assert!(!said.notes.contains("line 9"), "saying the same twice is no mistake: {}", said.notes);

    let said = import.run("bad.csv", &csv, &["--skip-bad"]);
    assert_eq!((said.code, import.invoices()), (Some(0), 1), "{said:?}");
    assert!(said.result.starts_with("1 created, 1 unchanged, 0 updated; 8 bad rows left out"), "{said:?}");
}

#[test]
fn what_only_billing_knows_is_told_before_anything_is_written() {
    let import = Import::start();
    assert_eq!(import.run("a.csv", "reference,customer_id,currency,amount\nI1,1,EUR,1\n", &[]).code, Some(0));
    let other = "reference,customer_id,currency,amount\nI0,2,EUR,1\nI1,1,EUR,2\nI2,1,USD,1\n";
    let said = import.run("b.csv", other, &[]);
    assert_eq!((said.code, import.invoices()), (Some(1), 1), "{said:?}");
    said.assert_notes(&["line 3, column reference: is known with other data", "line 4, column currency"]);

    let said = import.run("b.csv", other, &["--update", "--skip-bad"]);
    assert_eq!((said.code, import.invoices()), (Some(0), 2), "{said:?}");
    assert_eq!(import.count("SELECT amount_minor FROM invoices WHERE reference = 'I1'"), 200);
}

#[test]
fn more_bad_rows_than_billing_lists_are_all_told() {
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
    assert_eq!(told, ROWS);
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
