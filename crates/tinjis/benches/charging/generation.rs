//! What it costs to invoice many due periods while charging is stopped: invoices per second, and billing's memory.
//! Knows no goal that ends the benchmark; a test asserts the memory limit.

use std::io::{self, Write};

use testkit::wait::timed;
use testkit::{Database, Services, http};

use crate::{grouped, mebibytes};

/// Periods of each subscription.
const MONTHS: usize = 10;

/// Measures and prints a line for each database.
pub(crate) fn report(out: &mut impl Write, invoices: usize, on_postgres: bool) -> io::Result<()> {
    writeln!(out)?;
    line(out, "SQLite", invoices, None)?;
    if let Some(database) = on_postgres.then(|| Database::fresh("the benchmark of generation")).flatten() {
        line(out, "PostgreSQL", invoices, Some(&database))?;
    }
    Ok(())
}

fn line(out: &mut impl Write, name: &str, invoices: usize, database: Option<&Database>) -> io::Result<()> {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .on(database)
        .inside(env!("CARGO_TARGET_TMPDIR"))
        .billing_flags(["--schedule=off"])
        .start();
    let url = services.billing_url();
    let post = |path: &str, kind: &str, body: &str| {
        let answer = http::call("POST", &format!("{url}{path}"), &[("Content-Type", kind)], body.as_bytes());
        if answer.status >= 300 { Err(io::Error::other(answer.text())) } else { Ok(answer.text()) }
    };
    post("/v1/charging/stop", "application/json", r#"{"reason":"a benchmark","actor":"bench"}"#)?;
    let numbers: Vec<usize> = (1..=invoices.div_ceil(MONTHS)).collect();
    for batch in numbers.chunks(1000) {
        let row = |number: &usize| {
            format!(
                r#"{{"reference":"G{number}","customer_id":{number},"currency":"EUR","amount":"9.90","starts_on":"2024-01-31","ends_on":"2024-10-31"}}"#
            ) + "\n"
        };
        post(
            "/v1/subscriptions/imports",
            "application/x-ndjson",
            &batch.iter().map(row).collect::<String>(),
        )?;
    }
    let order = r#"{"until":"2024-12-31","catch_up":"each","reason":"a benchmark","actor":"bench"}"#;
    let (made, took) = timed(|| -> io::Result<()> {
        while post("/v1/schedule/runs", "application/json", order)?.contains(r#""more":true"#) {}
        Ok(())
    });
    made?;
    let count = usize::try_from(services.ask_billing("SELECT count(*) FROM invoices")).unwrap_or(0);
    let per_second = count as u128 * 1000 / took.as_millis().max(1);
    writeln!(
        out,
        "generation, {name:<10} {} invoices in {}.{} s, {}/s, peak billing {}",
        grouped(count),
        took.as_secs(),
        took.subsec_millis() / 100,
        grouped(usize::try_from(per_second).unwrap_or(0)),
        mebibytes(services.billing.rss_peak_kib())
    )
}
