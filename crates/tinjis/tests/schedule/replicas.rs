//! Two replicas on one database begin the schedule at the same instant: each period is invoiced and charged once.

use testkit::replicas::Plan;
use testkit::wait::wait_until;
use testkit::{Database, Replicas, http};

use crate::site::{CHARGES, INVOICES, TINJIS, WITHIN, tinjis};

const SUBSCRIPTIONS: usize = 300;

#[test]
fn two_replicas_that_begin_at_the_same_instant_make_one_run() {
    let Some(database) = Database::fresh("two replicas and one schedule") else { return };
    let plan = Plan::of(2, Some(1)).payments_flags(["--success-rate=1"]).billing_env("SCHEDULE", "off");
    let replicas = Replicas::start(TINJIS, &database, &plan);
    let row = |number: usize| {
        format!(
            "{{\"reference\":\"S{number}\",\"customer_id\":{number},\"currency\":\"EUR\",\"amount\":\"1.00\",\
             \"starts_on\":\"2024-01-31\",\"ends_on\":\"2024-03-31\"}}\n"
        )
    };
    let rows: String = (1..=SUBSCRIPTIONS).map(row).collect();
    let url = format!("{}/v1/subscriptions/imports", replicas.billings[0].url());
    let answer = http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], rows.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let words = ["schedule", "run", "--until", "2024-12-31"];
    let urls: Vec<String> = replicas.billings.iter().map(|billing| billing.url()).collect();
    std::thread::scope(|scope| {
        for url in &urls {
            scope.spawn(|| {
                let said = tinjis(url, &words);
                assert_eq!(said.code, Some(0), "{said:?}");
            });
        }
    });
    let invoices = i64::try_from(3 * SUBSCRIPTIONS).expect("a count");
    assert_eq!(replicas.ask_billing(INVOICES), invoices);
    wait_until("all to be charged", WITHIN, || replicas.ask_payments(CHARGES) == invoices);
    let references = "SELECT count(DISTINCT reference) FROM ledger WHERE state = 'CHARGED'";
    assert_eq!(replicas.ask_payments(references), invoices);
    let dates = "SELECT count(*) FROM schedule_runs WHERE state = 'finished' AND invoices = 300";
    assert_eq!(replicas.ask_billing(dates), 3, "one row for each date");
}
