//! Random subscriptions in every zone: `/v1` shows after real runs what the preview of the file listed, each period
//! once. Imports come in random order, and billing is killed and restarted; on SQLite, and with two replicas on
//! PostgreSQL. Charging is stopped: this test does not count charges. At full size by `make prove-schedule`.

use std::collections::HashMap;
use std::fmt::Write;
use std::process::Command;

use billing::schedule::Zone;
use jiff::ToSpan;
use jiff::civil::{Date, date};
use serde_json::{Value, json};
use testkit::process::Process;
use testkit::proof::{Proof, progress};
use testkit::replicas::Plan;
use testkit::wait::{SeededRng, wait_until};
use testkit::{Database, Replicas, Services, http, size};

use crate::site::{INVOICES, TINJIS, WITHIN};

/// All periods are in the past, so that all of them are due.
const FROM: Date = date(2023, 1, 1);
/// Number of parts of the import; billing is killed after every second one.
const PARTS: usize = 6;
/// Prices with two, no, three and no decimals.
const PRICES: [(&str, [&str; 2]); 4] = [
    ("EUR", ["9.90", "12.90"]),
    ("JPY", ["1290", "1300"]),
    ("KWD", ["2.750", "3.005"]),
    ("CLP", ["7990", "1"]),
];

/// A period: currency, amount in minor units, instant in seconds since the Unix epoch.
type Period = (String, i64, i64);

/// The last due date, after `SCHEDULE_MONTHS` months, at least 4. In these months clocks change and February is short.
fn to() -> Date {
    let months = i64::try_from(size("SCHEDULE_MONTHS", 4)).expect("months");
    FROM.saturating_add(months.months()).yesterday().expect("a date before")
}

fn pick<T: Copy>(rng: &mut SeededRng, of: &[T]) -> T {
    of[usize::try_from(rng.below(of.len() as u64)).expect("an index")]
}

/// One subscription as a line of NDJSON. Half of them are due on days that some months do not have, some at times that
/// clocks skip.
fn subscription(rng: &mut SeededRng, number: usize, zone: &str) -> String {
    let (currency, amounts) = PRICES[number % PRICES.len()];
    let anchor_day = if rng.below(2) == 0 { 28 + rng.below(4) } else { 1 + rng.below(31) };
    let at = match rng.below(2) {
        0 => pick(rng, &["00:00", "01:30", "02:00", "02:30", "03:00"]).to_owned(),
        _ => format!("{:02}:{:02}", rng.below(24), rng.below(60)),
    };
    let starts_on = format!("2023-01-{:02}", 1 + rng.below(31));
    let mut prices = vec![json!({ "from": starts_on, "amount": amounts[0] })];
    if rng.below(3) == 0 {
        let days = i64::try_from(31 + rng.below(600)).expect("days");
        let from = FROM.saturating_add(days.days()).to_string();
        prices.push(json!({ "from": from, "amount": amounts[1] }));
    }
    json!({
        "reference": format!("P{number}"), "customer_id": number, "currency": currency, "prices": prices,
        "anchor_day": anchor_day, "every_months": if rng.below(4) == 0 { 1 + rng.below(3) } else { 1 },
        "zone": zone, "at": at, "starts_on": starts_on, "ends_on": to().to_string(),
        "holidays": pick(rng, &["as-is", "next", "previous"]),
    })
    .to_string()
}

fn shuffle<T>(rng: &mut SeededRng, of: &mut [T]) {
    for at in (1..of.len()).rev() {
        of.swap(at, usize::try_from(rng.below(at as u64 + 1)).expect("an index"));
    }
}

fn minor(amount: &str) -> i64 {
    amount.replace('.', "").parse().expect("an amount")
}

fn seconds(instant: &str) -> i64 {
    instant.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{instant}: {error}")).as_second()
}

/// The periods that `tinjis schedule preview` lists for the file, by the reference of the invoice.
fn previewed(rows: &[String]) -> HashMap<String, Period> {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let file = dir.path().join("all.ndjson");
    std::fs::write(&file, rows.join("\n")).expect("a file can be written");
    let output = Command::new(TINJIS)
        .args(["schedule", "preview", "--from", &FROM.to_string(), "--to", &to().to_string()])
        .args(["--json", "--file"])
        .arg(&file)
        .env_clear()
        .output()
        .expect("the command can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    let (mut periods, mut count) = (HashMap::new(), 0);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        if let Some(summary) = line.get("summary") {
            assert_eq!(summary["count"], count);
            continue;
        }
        count += 1;
        let reference = format!("{}@{}", text("subscription"), text("period_on"));
        let period = (text("currency"), minor(&text("amount")), seconds(&text("instant")));
        assert_eq!(periods.insert(reference.clone(), period), None, "{reference} is previewed twice");
    }
    periods
}

/// Removes from `expected` the invoices that `/v1` shows; fails for one that is doubled, unexpected or different.
fn take_shown(url: &str, mut expected: HashMap<String, Period>) -> usize {
    let (mut shown, mut after) = (0, String::new());
    loop {
        let page = http::get(&format!("{url}/v1/invoices?limit=1000{after}")).text();
        let page: Value = serde_json::from_str(&page).expect("a page is JSON");
        for item in page["items"].as_array().expect("items") {
            let text = |name: &str| item[name].as_str().unwrap_or_else(|| panic!("{name}: {item}"));
            let period = (
                text("currency").to_owned(),
                item["amount_minor"].as_i64().expect("an amount"),
                seconds(text("due_at")),
            );
            assert_eq!(expected.remove(text("reference")), Some(period), "previewed, then shown: {item}");
            shown += 1;
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert!(expected.is_empty(), "{} previewed periods were not made", expected.len());
    shown
}

/// The steps of both cases; `ask` queries billing's store.
fn generate_and_compare(what: &str, billings: &mut [&mut Process], ask: impl Fn(&str) -> i64) {
    let proof = Proof::of(what);
    let mut rng = SeededRng::random();
    let (count, seed) = (size("SCHEDULE_SUBSCRIPTIONS", 600), rng.seed());
    let zones: Vec<&str> = Zone::names().collect();
    let mut rows: Vec<String> =
        (1..=count).map(|number| subscription(&mut rng, number, zones[number % zones.len()])).collect();
    let expected = previewed(&rows);
    shuffle(&mut rng, &mut rows);
    let note = r#"{"reason":"a test","actor":"ann"}"#;
    let halted = http::post(&format!("{}/v1/charging/stop", billings[0].url()), note);
    assert!(halted.status < 300, "{}", halted.text());
    let mut kills_in_mid_work = 0;
    for (nth, part) in rows.chunks(count.div_ceil(PARTS)).enumerate() {
        let before = ask(INVOICES);
        for batch in part.chunks(1000) {
            let url = format!("{}/v1/subscriptions/imports", pick_url(&mut rng, billings));
            let body = batch.join("\n");
            let answer =
                http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], body.as_bytes());
            assert_eq!(answer.status, 200, "seed {seed}: {}", answer.text());
        }
        wait_until("invoices to be made", WITHIN, || ask(INVOICES) > before);
        if nth % 2 == 0 {
            let at = usize::try_from(rng.below(billings.len() as u64)).expect("an index");
            kills_in_mid_work +=
                usize::from(ask("SELECT count(*) FROM subscriptions WHERE next_on IS NOT NULL") > 0);
            billings[at].kill();
            billings[at].start_again();
        }
    }
    let left = "SELECT count(*) FROM subscriptions WHERE next_on IS NOT NULL";
    wait_until("all periods to be made", WITHIN * 20, || ask(left) == 0);
    let periods = i64::try_from(expected.len()).expect("a count");
    assert_eq!(ask("SELECT CAST(sum(invoices) AS bigint) FROM schedule_runs"), periods, "seed {seed}");
    let shown = take_shown(&billings[0].url(), expected);
    assert_eq!(ask("SELECT count(*) FROM attempts"), 0, "charging is stopped");
    progress(&format!("{what}: seed {seed}, {kills_in_mid_work} kills while periods were left"));
    let mut how_many = String::new();
    write!(how_many, "{count} subscriptions, {shown} periods").expect("a text can grow");
    proof.end(&how_many, 0, 0);
}

fn pick_url(rng: &mut SeededRng, billings: &[&mut Process]) -> String {
    billings[usize::try_from(rng.below(billings.len() as u64)).expect("an index")].url()
}

#[test]
fn what_is_previewed_is_what_two_replicas_make_whatever_order_imports_and_kills_come_in() {
    let Some(database) = Database::fresh("a preview and two replicas") else { return };
    let plan =
        Plan::of(2, None).billing_env("SCHEDULE_CATCH_UP", "each").billing_env("TINJIS_TRIAL_TEMPO", "10");
    let mut replicas = Replicas::start(TINJIS, &database, &plan);
    let mut billings: Vec<&mut Process> = replicas.billings.iter_mut().collect();
    generate_and_compare("previews, PostgreSQL", &mut billings, |query| database.ask(query));
}

#[test]
fn what_is_previewed_is_what_is_made_on_sqlite_whatever_order_imports_and_kills_come_in() {
    let flags = ["--schedule-catch-up=each"];
    let builder = Services::of(TINJIS).billing_flags(flags).billing_env("TINJIS_TRIAL_TEMPO", "10");
    let mut services = builder.start();
    let db = services.billing.db();
    let mut billings = [&mut services.billing];
    generate_and_compare("previews, SQLite", &mut billings, |query| testkit::ledger::ask(&db, query));
}
