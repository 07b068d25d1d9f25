//! `tinjis subscriptions import` of files whose rows contradict or repeat each other, however far apart, and of imports
//! that are cut off; `tinjis schedule preview --file` of the same files. Knows the command line only.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::site::{CommandResult, Site, tinjis};

const HEADER: &str = "reference,customer_id,currency,amount,starts_on\n";
/// More than one request has.
const ROWS: usize = 1_100;

fn rows(count: usize) -> String {
    (1..=count).fold(HEADER.to_owned(), |mut csv, number| {
        writeln!(csv, "S{number:05},{},EUR,9.90,2027-01-31", 2000 + number).expect("a text can grow");
        csv
    })
}

/// Imports a file, asked only and then written, which must say the same; then previews it.
#[track_caller]
fn refused(site: &Site, name: &str, text: &str, parts: &[&str]) {
    let path = site.write(name, text);
    let preview = ["schedule", "preview", "--from", "2027-01-01", "--to", "2027-01-31", "--file", &path];
    let import = ["subscriptions", "import", &path];
    let asked = [&import[..], &["--dry-run"]].concat();
    for (command, code) in [(&asked[..], 1), (&import, 1), (&preview, 2)] {
        let said = site.ends(code, command);
        assert_eq!(said.result, "", "{command:?}: {said:?}");
        for part in parts {
            assert!(said.notes.contains(part), "{part:?} of {command:?}: {said:?}");
        }
    }
    assert_eq!(subscriptions(site), 0, "{name}");
}

fn subscriptions(site: &Site) -> i64 {
    site.services.ask_billing("SELECT count(*) FROM subscriptions")
}

#[test]
fn a_file_whose_rows_contradict_each_other_writes_nothing_however_far_apart_they_are() {
    let site = Site::by_hand(None, &[]);
    let price = rows(ROWS) + "S00001,2001,EUR,99.00,2027-01-31\n";
    let parts = [
        "line 2, column reference: stands in line 1102 with other data",
        "line 1102, column reference: stands in line 2 with other data",
        "2 bad rows",
    ];
    refused(&site, "price.csv", &price, &parts);
    let currency = rows(ROWS) + "T99999,2001,USD,9.90,2027-01-31\n";
    let part = "line 1102, column currency: differs from line 2, and a customer has one currency";
    refused(&site, "currency.csv", &currency, &[part, "1 bad row"]);
    let named = "reference,customer_reference,currency,amount,starts_on\nS1,acme,EUR,9.90,2027-01-31\n\
                 S2,other,USD,9.90,2027-01-31\nS3,acme,USD,9.90,2027-01-31\n";
    refused(&site, "named.csv", named, &["line 4, column currency: differs from line 2"]);
}

#[test]
fn a_field_that_stands_twice_in_a_price_is_refused_by_its_name() {
    let site = Site::by_hand(None, &[]);
    let file = r#"[{"reference":"S1","customer_id":1,"currency":"EUR","starts_on":"2027-01-31",
        "prices":[{"from":"2027-01-31","amount":"1.00","amount":"100.00"}]}]"#;
    let part = "line 1, index 0, reference \"S1\", column prices: duplicate field \"amount\"";
    refused(&site, "twice.json", file, &[part]);
}

#[test]
fn repeats_and_look_alikes_and_a_file_that_may_be_cut_off_are_warned_of() {
    let site = Site::by_hand(None, &[]);
    // The last row says what the first one says, in other words.
    let file = r#"{"reference":"u1","customer_id":1,"currency":"EUR","starts_on":"2027-01-31","amount":"9.9"}
{"reference":"U1","customer_id":1,"currency":"EUR","starts_on":"2027-01-31","amount":"9.90"}
{"reference":"u1","customer_id":1,"currency":"EUR","starts_on":"2027-01-31","every_months":1,"prices":[{"from":"2027-01-31","amount":9.90}]}
"#;
    let said = site.import_file("repeats.ndjson", file);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.result, "2 created, 0 unchanged; 1 repeated within the file\n");
    for part in [
        "warning: line 2, column reference: differs from that of line 1 only by case",
        "warning: line 3, column reference: repeats line 1",
    ] {
        assert!(said.notes.contains(part), "{part}: {said:?}");
    }
    let path = site.write("again.ndjson", file);
    let preview = ["schedule", "preview", "--from", "2027-01-01", "--to", "2027-01-31", "--file", &path];
    let previewed = site.ends(0, &preview);
    assert!(previewed.result.ends_with("2 invoices; EUR 19.80\n"), "{previewed:?}");

    let said = site.import_file("cut.csv", &format!("{HEADER}S1,1,EUR,9.90,2027-01-31"));
    assert!(said.code == Some(0) && said.notes.contains("the last line has no line end"), "{said:?}");
    let said = site.import_file("empty.csv", HEADER);
    assert!(said.code == Some(0) && said.notes.contains("the file has no rows"), "{said:?}");
}

#[test]
fn a_mistake_is_reported_with_index_and_value() {
    let site = Site::by_hand(None, &[]);
    let file = r#"[{"reference":"S1","customer_id":1,"currency":"EUR","starts_on":"2027-01-31","amount":"9.90"},{"reference":"S2","customer_id":0,"currency":"EUR","starts_on":"2027-01-31","amount":"9.90"},{"reference":"S3","customer_id":"3","currency":"EUR","starts_on":"2027-01-31","amount":"9.90","Tag":"32"}]"#;
    let path = site.write("bad.json", file);
    let said = site.ends(1, &["subscriptions", "import", &path, "--map", "anchor_day=Tag"]);
    for (beginning, value) in [
        ("line 1, index 1, reference \"S2\", column customer_id: ", "\"0\""),
        (
            "line 1, index 2, reference \"S3\", column anchor_day (\"Tag\"): must be a day of the month",
            "\"32\"",
        ),
        ("nothing was written: 2 bad rows; fix them", ""),
    ] {
        let line = said.notes.lines().find(|line| line.starts_with(beginning));
        assert!(line.is_some_and(|line| line.contains(value)), "{beginning}: {said:?}");
    }
    assert_eq!(subscriptions(&site), 0);
}

/// Passes requests on to billing, one after the other, and closes the connection of the second one that writes.
fn cutting(billing: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        let mut writes = 0;
        for client in listener.incoming().map_while(Result::ok) {
            let (path, body) = request(&client);
            writes += usize::from(path.contains("dry_run=false"));
            if path.contains("dry_run=false") && writes == 2 {
                continue;
            }
            let headers = [("Content-Type", "application/x-ndjson")];
            let answer = testkit::http::call("POST", &format!("{billing}{path}"), &headers, &body);
            let head = format!(
                "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.status,
                answer.body.len()
            );
            let answer = [head.as_bytes(), &answer.body].concat();
            (&client).write_all(&answer).expect("the client reads its answer");
        }
    });
    url
}

fn request(client: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("a request comes") > 0, "{head}");
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    reader.read_exact(&mut body).expect("the body comes");
    (head.split(' ').nth(1).expect("a path").to_owned(), body)
}

#[test]
fn an_import_that_is_cut_off_says_what_was_written_and_the_next_one_completes_it() {
    let site = Site::by_hand(None, &[]);
    let path = site.write("all.csv", &rows(ROWS));
    let url = cutting(site.services.billing_url());
    let said: CommandResult = tinjis(&url, &["subscriptions", "import", &path]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let part = "the import was cut off after line 1001: 1,000 created, 0 unchanged so far";
    assert!(said.notes.contains(part), "{said:?}");
    assert_eq!(subscriptions(&site), 1_000);
    let again = site.ends(0, &["subscriptions", "import", &path]);
    assert_eq!(again.result, "100 created, 1,000 unchanged\n");
}

/// Nothing listens there, so a call would end with 2.
const NOWHERE: &str = "http://127.0.0.1:9";

#[test]
fn arguments_that_cannot_be_right_are_64_before_any_call() {
    let note = ["--why", "w", "--actor", "a"];
    let subscriptions = |words: &[&'static str]| [&["subscriptions"], words, &note[..]].concat();
    let run = |words: &[&'static str]| [&["schedule", "run", "--until", "today"], words].concat();
    let (long, no_why) = ("x".repeat(1_001), ["subscriptions", "pause", "S1", "--actor", "a", "--why", " "]);
    for (words, part) in [
        (vec!["subscriptions", "list", "--state", "foo"], "--state: must be active, paused or ended"),
        (no_why.to_vec(), "--why: must not be empty"),
        (
            ["subscriptions", "pause", "S1", "--actor", "a", "--why", &long].to_vec(),
            "--why: must have at most",
        ),
        (["subscriptions", "end", "S1", "--why", "w", "--actor", ""].to_vec(), "--actor: must not be empty"),
        (subscriptions(&["resume", "S1", "--from", "2026-02-30"]), "--from: must be a date"),
        (subscriptions(&["end", "S1", "--on", "31.01.2026"]), "--on: must be a date"),
        (subscriptions(&["change-price", "S1", "--from", "x", "--amount", "1"]), "--from: must be a date"),
        (
            subscriptions(&["change-price", "S1", "--from", "2026-01-31", "--amount", "12,90"]),
            "--amount: an amount is written in digits with a decimal point",
        ),
        (vec!["schedule", "run", "--until", "foo"], "--until: must be a date"),
        (run(&["--catch-up", "foo"]), "--catch-up: must be ask, each or latest"),
        (run(&["--why", ""]), "--why: must not be empty"),
        (run(&["--actor", ""]), "--actor: must not be empty"),
    ] {
        let said = tinjis(NOWHERE, &words);
        assert_eq!(said.code, Some(64), "{words:?}: {said:?}");
        assert!(
            said.notes.contains(part) && said.notes.contains("1 mistake "),
            "{part} of {words:?}: {said:?}"
        );
    }
    let good = tinjis(NOWHERE, &subscriptions(&["end", "S1", "--on", "2026-01-31"]));
    assert_eq!(good.code, Some(2), "{good:?}");
}
