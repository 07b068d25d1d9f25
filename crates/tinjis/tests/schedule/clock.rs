//! The schedule of a running billing, whose clock the test moves: a period is charged at its time, and six days of
//! downtime over a month end are handled as the setting says.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use testkit::Services;
use testkit::wait::wait_until;

use crate::site::{CHARGES, INVOICES, Site, TINJIS, WITHIN};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const WAITING: &str = "SELECT count(*) FROM schedule_runs WHERE state = 'waiting'";

/// The offset of billing's clock, in a file that billing reads.
struct Ahead {
    dir: TempDir,
    /// The offset with which a test begins on 31 January 2030, noon UTC.
    base_ms: i64,
}

impl Ahead {
    fn new() -> Self {
        let start: i64 = 1_896_091_200_000;
        let now = std::process::Command::new("date").arg("+%s").output().expect("date can be run").stdout;
        let now: i64 = String::from_utf8_lossy(&now).trim().parse().expect("seconds");
        let ahead =
            Self { dir: tempfile::tempdir().expect("a folder can be made"), base_ms: start - now * 1000 };
        ahead.set(0);
        ahead
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ahead")
    }

    fn set(&self, more_ms: i64) {
        fs::write(self.file(), (self.base_ms + more_ms).to_string()).expect("a file can be written");
    }

    fn site(&self, catch_up: &str) -> Site {
        let file = self.file().to_str().expect("a test's path is UTF-8").to_owned();
        let builder = Services::of(TINJIS).billing_flags([format!("--schedule-catch-up={catch_up}")]);
        Site::of(builder.billing_env("TINJIS_TRIAL_CLOCK", file).billing_env("TINJIS_TRIAL_TEMPO", "10"))
    }
}

/// Two monthly subscriptions, which are due on the last day of February and on 3 March, in this order.
const ROWS: &str = "S2,2,EUR,5.00,3,UTC,2030-02-04,2030-03-31\nS1,1,EUR,9.90,31,UTC,2030-02-01,2030-03-15\n";

#[test]
fn a_period_is_charged_when_its_time_has_come_and_not_before() {
    let ahead = Ahead::new();
    let site = ahead.site("ask");
    site.import(ROWS);
    ahead.set(27 * DAY_MS);
    wait_until("the day before is over", WITHIN, || {
        site.services.billing.metric(&["billing_schedule_late_seconds"]) == 0
    });
    assert_eq!(site.services.ask_billing(INVOICES), 0, "27 February");
    ahead.set(28 * DAY_MS);
    wait_until("February to be charged", WITHIN, || site.services.ask_payments(CHARGES) == 1);
    assert_eq!(site.references(), ["S1@2030-02-28"]);
    ahead.set(31 * DAY_MS);
    wait_until("March to be charged", WITHIN, || site.services.ask_payments(CHARGES) == 2);
    wait_until("March to be paid", WITHIN, || site.services.is_all_paid());
    assert_eq!(site.references(), ["S1@2030-02-28", "S2@2030-03-03"]);
    site.assert_each_is_charged_once();
}

/// Stops billing from before the end of February until 6 March.
fn after_six_days(catch_up: &str) -> (Site, Ahead) {
    let ahead = Ahead::new();
    let mut site = ahead.site(catch_up);
    site.import(ROWS);
    ahead.set(27 * DAY_MS);
    site.services.stop_billing();
    ahead.set(34 * DAY_MS);
    site.services.billing.start_again();
    (site, ahead)
}

#[test]
fn six_days_of_downtime_charge_nothing_and_say_what_waits_if_the_schedule_asks() {
    let (site, _ahead) = after_six_days("ask");
    wait_until("both dates to wait", WITHIN, || site.services.ask_billing(WAITING) == 2);
    assert_eq!((site.services.ask_billing(INVOICES), site.services.ask_payments(CHARGES)), (0, 0));
    let status = site.ends(0, &["schedule", "status"]).result;
    let said: Vec<&str> = status.lines().skip(1).collect();
    let expected =
        ["2030-02-28 waits (late): 1 invoices, EUR 9.90", "2030-03-03 waits (late): 1 invoices, EUR 5.00"];
    assert_eq!(said, expected);
    wait_until("lateness", WITHIN, || {
        site.services.billing.metric(&["billing_schedule_late_seconds"]) > 6 * 86_000
    });
}

#[test]
fn six_days_of_downtime_leave_each_missed_period_once_oldest_first_if_each_is_asked_for() {
    let (site, _ahead) = after_six_days("each");
    wait_until("both to be charged", WITHIN, || site.services.ask_payments(CHARGES) == 2);
    let first = "SELECT count(*) FROM invoices WHERE reference = 'S1@2030-02-28' AND id = 1";
    assert_eq!(site.services.ask_billing(first), 1, "the oldest is made first");
    let late = "SELECT count(*) FROM schedule_runs WHERE state = 'finished' AND late_ms > 2 * 86400000";
    wait_until("the runs to be finished", WITHIN, || site.services.ask_billing(late) == 2);
    wait_until("all to be paid", WITHIN, || site.services.is_all_paid());
    site.assert_each_is_charged_once();
}

#[test]
fn a_subscription_that_cannot_be_read_holds_back_its_own_date_only() {
    let ahead = Ahead::new();
    let site = ahead.site("ask");
    site.import(ROWS);
    site.services.run_billing("UPDATE subscriptions SET zone = 'Nowhere/AtAll' WHERE reference = 'S1'");
    ahead.set(31 * DAY_MS);
    wait_until("March to be charged", WITHIN, || site.services.ask_payments(CHARGES) == 1);
    assert_eq!(site.references(), ["S2@2030-03-03"]);
}
