//! Declines that billing lost by a restore and gets back by a repair still forbid retries. Knows the services from
//! outside only.

use testkit::wait::wait_until;
use testkit::{Database, runs};

use super::site::{NOWHERE, Site, WITHIN, databases};

/// Declines by the payment service's test amounts: a hard decline, one of the same card, a soft one, and one that needs
/// new data.
const DECLINED: &str = r#"{"reference":"HARD","customer_id":1,"currency":"EUR","amount":"40.02"}
{"reference":"SAME CARD","customer_id":1,"currency":"EUR","amount":"12.15"}
{"reference":"SOFT","customer_id":2,"currency":"EUR","amount":"40.01"}
{"reference":"FIX","customer_id":3,"currency":"EUR","amount":"40.03"}
"#;
const TRIED: &str = "SELECT count(*) FROM ledger WHERE state <> 'VOIDED'";

fn set_visa(site: &Site) {
    let network = br#"{"network":"visa","reason":"a card","actor":"ann"}"#;
    let url = format!("{}/v1/customers/1/network", site.services.billing_url());
    let set = testkit::http::call("POST", &url, &[("Content-Type", "application/json")], network);
    assert_eq!(set.status, 200, "{}", set.text());
}

#[test]
fn a_forgotten_decline_is_not_tried_again_after_the_repair() {
    forgotten(None);
}

#[test]
fn the_same_with_a_dump_of_postgres() {
    let Some(databases) = databases("forgotten declines") else { return };
    forgotten(Some(databases));
}

fn forgotten(databases: Option<[Database; 2]>) {
    let mut site = Site::with_test_amounts(databases);
    site.services.import_rows(DECLINED);
    set_visa(&site);
    site.page_runs(&site.of_database("Billing"));
    let _ended = runs::wait(&site.services.start_run(), WITHIN);
    assert_eq!(site.services.ask_payments(TRIED), 3, "of the card with the hard decline one");
    site.services.kill_billing();
    site.page_runs(&site.of_database("Put back billing"));
    site.services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", NOWHERE);
    site.services.billing.start_again();
    assert_eq!(site.services.ask_billing("SELECT count(*) FROM attempts"), 0, "all is forgotten");
    site.page_runs("Repair billing from the ledger");
    for (reference, class, flag) in
        [("HARD", "hard", "hard"), ("SOFT", "soft", "waiting"), ("FIX", "fix", "fix")]
    {
        let known = format!(
            "SELECT count(*) FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
             WHERE i.reference = '{reference}' AND i.dunning = '{flag}' AND a.state = 'REFUSED'
             AND a.decline_class = '{class}' AND a.decline_code IS NOT NULL"
        );
        assert_eq!(site.services.ask_billing(&known), 1, "{reference}");
    }
    site.services.kill_billing();
    site.services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", site.services.payments_url());
    site.services.billing.start_again();
    let run = runs::wait(&site.services.start_run(), WITHIN);
    assert_eq!(site.services.ask_payments(TRIED), 3, "nothing is tried again: {run}");
}

#[test]
fn an_attempt_that_was_claimed_before_the_repair_is_voided_where_the_card_was_declined_for_good() {
    claimed_before_the_repair(None);
}

#[test]
fn the_same_claim_with_a_dump_of_postgres() {
    let Some(databases) = databases("claimed before the repair") else { return };
    claimed_before_the_repair(Some(databases));
}

fn claimed_before_the_repair(databases: Option<[Database; 2]>) {
    let mut site = Site::with_test_amounts(databases);
    let lines: Vec<&str> = DECLINED.lines().collect();
    let (hard, soft) = (lines[0], lines[2].replace("\"customer_id\":2", "\"customer_id\":1"));
    site.services.import_rows(&soft);
    set_visa(&site);
    let _ended = runs::wait(&site.services.start_run(), WITHIN);
    site.services.import_rows(hard);
    site.page_runs(&site.of_database("Billing"));
    let _ended = runs::wait(&site.services.start_run(), WITHIN);
    assert_eq!(site.services.ask_payments(TRIED), 2, "the soft one waits for its day");
    site.services.kill_billing();
    site.page_runs(&site.of_database("Put back billing"));
    site.services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", NOWHERE);
    site.services.billing.start_again();
    // A legacy call ignores the waiting days; still nothing may be sent.
    let pay = format!("{}/rest/v1/invoices/pay", site.services.billing_url());
    let _unpaid = testkit::http::try_call("POST", &pay, &[], b"");
    let open = "SELECT count(*) FROM attempts WHERE number = 2 AND state IN ('INTENT', 'IN_DOUBT')";
    wait_until("the soft one is claimed again", WITHIN, || site.services.ask_billing(open) == 1);
    site.page_runs("Repair billing from the ledger");
    site.services.kill_billing();
    site.services.billing.set_env("PAYMENT_PROVIDER_ENDPOINT", site.services.payments_url());
    site.services.billing.start_again();
    let voided = "SELECT count(*) FROM attempts WHERE number = 2 AND state = 'VOIDED'";
    wait_until("it is voided", WITHIN, || site.services.ask_billing(voided) == 1);
    let run = runs::wait(&site.services.start_run(), WITHIN);
    assert_eq!(site.services.ask_payments(TRIED), 2, "nothing is tried again: {run}");
    assert_eq!(site.services.ask_payments("SELECT count(*) FROM ledger WHERE state = 'VOIDED'"), 1);
}
