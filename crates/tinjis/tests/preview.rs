//! `tinjis schedule preview` on a real billing: the lines and the sums of each format, and refused arguments. Knows the
//! services from outside only.
#![cfg(test)]

use std::process::Command;

use testkit::{Services, http};

/// Exit code, standard output and standard error.
fn preview(services: &Services, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tinjis"))
        .args(["schedule", "preview", "--billing", &services.billing_url()])
        .args(words)
        .env_clear()
        .output()
        .expect("the command can be started");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn create(services: &Services, body: &str) {
    let url = format!("{}/v1/subscriptions", services.billing_url());
    let answer = http::call("POST", &url, &[("Content-Type", "application/json")], body.as_bytes());
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
}

/// Two months of 2028, which are in the future: the schedule invoices nothing of them during the test.
const RANGE: [&str; 4] = ["--from", "2028-02-01", "--to", "2028-03-31"];

fn services() -> Services {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).billing_flags(["--schedule=off"]).start();
    create(
        &services,
        r#"{"reference":"S-1","customer_id":1,"currency":"EUR","anchor_day":31,"every_months":1,
            "prices":[{"from":"2028-01-01","amount":"9.90"},{"from":"2028-03-01","amount":"12.00"}],
            "zone":"Europe/Copenhagen","at":"06:00","starts_on":"2028-01-31","holidays":"as-is"}"#,
    );
    // Clocks skip 02:30 on 26 March 2028, a Sunday.
    create(
        &services,
        r#"{"reference":"S-2","customer_id":2,"currency":"USD","prices":[{"from":"2028-01-01","amount":"5.00"}],
            "anchor_day":26,"every_months":1,"zone":"Europe/Copenhagen","at":"02:30","starts_on":"2028-01-26",
            "holidays":"next"}"#,
    );
    services
}

#[test]
fn every_invoice_is_one_line_of_json_in_the_order_of_instants_and_the_last_line_has_the_sums() {
    let services = services();
    let words = [&RANGE[..], &["--holidays", "target", "--json"]].concat();
    let (code, lines, notes) = preview(&services, &words);
    assert_eq!(code, Some(0), "{notes}");
    let expected = [
        r#"{"subscription":"S-2","period_on":"2028-02-26","charge_on":"2028-02-28","instant":"2028-02-26T02:30:00+01:00","currency":"USD","amount":"5.00","notes":["holiday"]}"#,
        r#"{"subscription":"S-1","period_on":"2028-02-29","charge_on":"2028-02-29","instant":"2028-02-29T06:00:00+01:00","currency":"EUR","amount":"9.90","notes":["clamped"]}"#,
        r#"{"subscription":"S-2","period_on":"2028-03-26","charge_on":"2028-03-27","instant":"2028-03-26T03:30:00+02:00","currency":"USD","amount":"5.00","notes":["gap","holiday"]}"#,
        r#"{"subscription":"S-1","period_on":"2028-03-31","charge_on":"2028-03-31","instant":"2028-03-31T06:00:00+02:00","currency":"EUR","amount":"12.00","notes":[]}"#,
        r#"{"summary":{"count":4,"sums":{"EUR":"21.90","USD":"10.00"}}}"#,
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    assert_eq!(services.ask_billing("SELECT count(*) FROM invoices"), 0, "a preview writes nothing");
}

#[test]
fn without_json_it_is_a_table_with_a_summary_and_may_be_of_one_subscription() {
    let services = services();
    let (code, lines, notes) = preview(&services, &[&RANGE[..], &["--subscription", "S-1"]].concat());
    assert_eq!(code, Some(0), "{notes}");
    let expected = [
        "2028-02-29T06:00:00+01:00  S-1@2028-02-29  9.90 EUR  clamped",
        "2028-03-31T06:00:00+02:00  S-1@2028-03-31  12.00 EUR",
        "2 invoices; EUR 21.90; clamped: 1",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    let (code, _, notes) = preview(&services, &["--from", "2028-02-30", "--to", "2028-03-31"]);
    assert_eq!((code, notes.contains("--from")), (Some(64), true), "{notes}");
    let (code, _, notes) = preview(&services, &["--from", "2028-03-01", "--to", "2028-02-01"]);
    assert_eq!((code, notes.contains("must not be before --from")), (Some(64), true), "{notes}");
    let (code, _, _) = preview(&services, &[&RANGE[..], &["--subscription", "S-9"]].concat());
    assert_eq!(code, Some(2), "no such subscription");
}

#[test]
fn a_file_gives_the_lines_that_billing_gives_once_it_has_them() {
    let services = services();
    let file = services.dir().join("subscriptions.csv");
    let rows = "reference,customer_id,currency,amount,anchor_day,zone,at,starts_on,holidays\n\
                S-2,2,USD,5.00,26,Europe/Copenhagen,02:30,2028-01-26,next\n";
    std::fs::write(&file, rows).expect("a file can be written");
    let path = file.display().to_string();
    let of_file = preview(&services, &[&RANGE[..], &["--json", "--file", &path]].concat());
    let of_billing = preview(&services, &[&RANGE[..], &["--json", "--subscription", "S-2"]].concat());
    assert_eq!((of_file.0, &of_file.1), (Some(0), &of_billing.1), "{}", of_file.2);
    std::fs::write(&file, rows.replace("anchor_day", "day_of_anchor")).expect("a file can be written");
    let (code, _, notes) = preview(&services, &[&RANGE[..], &["--file", &path]].concat());
    assert_eq!((code, notes.contains("day_of_anchor")), (Some(2), true), "{notes}");
}
