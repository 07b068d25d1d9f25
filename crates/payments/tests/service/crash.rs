//! SIGKILL at each named point: answered charges are on disk, and a resend under the key is charged once. The points
//! exist with debug assertions only; each test asserts that its point was really reached.

use std::time::Duration;

use crate::site::{GOOD, Site, willing};

const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// Kills the service at the second hit of a point, during the second charge; returns the site and the number of rows
/// that are left.
fn killed_at(point: &str) -> (Site, i64) {
    let mut site =
        willing().env("TINJIS_CRASH", &format!("{point}:2")).env("TINJIS_CRASH_HITS", "hits").start();
    assert_eq!(site.charge("first").text(), r#"{"result":"true"}"#);
    site.try_post("/", &[("Idempotency-Key", "second")], GOOD).unwrap_err();
    testkit::wait_until("the kill", ENDED_WITHIN, || site.process.ended().is_some());
    let reached =
        std::fs::read_to_string(site.path("hits")).unwrap().lines().filter(|line| *line == point).count();
    assert_eq!(reached, 2, "hits of {point}");
    site.process.kill();
    let rows = site.ask("SELECT count(*) FROM ledger");
    (site, rows)
}

/// Starts the service again. The same plan is in force, so that the point may be hit once more, but not twice.
#[track_caller]
fn assert_resend_charges_once(mut site: Site, replayed: bool) {
    site.process.start_again();
    let again = site.charge("second");
    assert_eq!(again.text(), r#"{"result":"true"}"#);
    assert_eq!(again.header("idempotency-replayed"), replayed.then_some("true"));
    assert_eq!(site.charges(), 2);
    assert_eq!(site.ask("SELECT count(*) FROM ledger WHERE key IN ('first', 'second')"), 2);
}

#[test]
fn killed_before_anything_is_written_nothing_was_charged() {
    let (site, rows) = killed_at("P1");
    assert_eq!(rows, 1);
    assert_resend_charges_once(site, false);
}

#[test]
fn killed_inside_the_transaction_nothing_was_charged() {
    let (site, rows) = killed_at("P2");
    assert_eq!(rows, 1);
    assert_resend_charges_once(site, false);
}

#[test]
fn killed_after_the_commit_the_charge_is_known() {
    let (site, rows) = killed_at("P3");
    assert_eq!(rows, 2);
    assert_resend_charges_once(site, true);
}

#[test]
fn killed_before_the_answer_the_charge_is_known() {
    let (site, rows) = killed_at("P4");
    assert_eq!(rows, 2);
    assert_resend_charges_once(site, true);
}

#[test]
fn killed_with_half_an_answer_written_the_charge_is_known() {
    let (site, rows) = killed_at("P5");
    assert_eq!(rows, 2);
    assert_resend_charges_once(site, true);
}

#[test]
fn whatever_was_answered_survives_a_kill() {
    let mut site = willing().start();
    let mut answered = 0;
    for round in 0..3 {
        let keys: Vec<String> = (0..60).map(|n| format!("k-{round}-{n}")).collect();
        let half = keys.len() / 2;
        for key in &keys[..half] {
            assert_eq!(site.charge(key).status, 200);
            answered += 1;
        }
        site.process.kill();
        assert_eq!(site.charges(), answered);
        site.process.start_again();
        for key in &keys {
            let replayed = site.charge(key).header("idempotency-replayed") == Some("true");
            assert_eq!(replayed, keys[..half].contains(key), "{key}");
        }
        answered = site.charges();
    }
}
