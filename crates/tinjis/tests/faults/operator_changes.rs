//! Operator actions while charges are in doubt: credentials change, an amount is edited in the database, an operator
//! queries a provider that has no record. No action may charge a customer twice.

use std::fs;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;
use testkit::proxy::{Fault, Plan};
use testkit::wait::wait_until;
use testkit::{Proof, Services, http};

use crate::site::{Site, TINJIS, WITHIN, plain};

const INVOICES: usize = 60;
/// Minimum number of charges in doubt before the operator acts.
const DOUBTFUL_MIN: usize = 5;
const SEED: u64 = 5;

/// Every call is executed and every answer is lost.
fn all_lost() -> Plan {
    Plan::only(Fault::LostAnswer, 100)
}

/// Keys and invoices of attempts that are in doubt.
fn in_doubt(site: &Site) -> Vec<(String, i64)> {
    let page = http::get(&format!("{}/v1/attempts?limit=1000", site.services.billing_url())).json();
    let items = page["items"].as_array().cloned().unwrap_or_default();
    let doubtful = items.into_iter().filter(|attempt| attempt["state"] == "IN_DOUBT");
    let named = |attempt: Value| Some((attempt["key"].as_str()?.to_owned(), attempt["invoice_id"].as_i64()?));
    doubtful.filter_map(named).collect()
}

/// Has charges executed of which billing gets no answer.
#[track_caller]
fn bring_into_doubt(site: &Site) -> usize {
    site.services.import("H", INVOICES);
    site.proxy.follow(all_lost());
    let _run = site.services.start_run();
    wait_until("charges in doubt", WITHIN, || in_doubt(site).len() >= DOUBTFUL_MIN);
    in_doubt(site).len()
}

fn end(proof: Proof, site: &Site, doubtful: usize, flags: &[&str]) {
    let verified = site.assert_all_paid("in the end", flags);
    let how_many = format!("{doubtful} in doubt of {INVOICES} invoices");
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}

#[test]
fn a_credential_that_changes_while_charges_are_in_doubt_charges_no_customer_twice() {
    let proof = Proof::of("credential changed, SQLite");
    let folder = tempfile::tempdir().unwrap();
    let (known, shown) = (folder.path().join("known"), folder.path().join("shown"));
    fs::write(&known, "old-token\nnew-token\n").unwrap();
    fs::write(&shown, "old-token\n").unwrap();
    let builder = plain()
        .payments_env("PAYMENTS_API_TOKEN_FILE", known.to_str().unwrap())
        .billing_env("PAYMENTS_API_TOKEN_FILE", shown.to_str().unwrap());
    let site = Site::start(builder, SEED);
    let doubtful = bring_into_doubt(&site);
    fs::write(&shown, "new-token\n").unwrap();
    wait_until("the new credential is taken", WITHIN, || {
        site.services.billing.log().contains("reloaded the token file")
    });
    site.recover();
    end(proof, &site, doubtful, &["--payments-api-token-file", shown.to_str().unwrap()]);
}

#[test]
fn an_amount_that_is_edited_by_hand_while_in_doubt_is_not_sent() {
    let proof = Proof::of("amount edited, SQLite");
    // Nothing is refused, because a second attempt may have the new amount.
    let site = Site::start(Services::of(TINJIS).payments_flags(["--success-rate=1"]), SEED);
    let doubtful = bring_into_doubt(&site);
    let add = |minor: i64, of: &[i64]| {
        let store = Connection::open(site.services.billing.db()).unwrap();
        store.busy_timeout(WITHIN).unwrap();
        let sql = "UPDATE invoices SET amount_minor = amount_minor + ?1 WHERE id = ?2";
        for invoice in of {
            assert_eq!(store.execute(sql, [minor, *invoice]), Ok(1));
        }
    };
    let invoices: Vec<i64> = in_doubt(&site).into_iter().map(|(_, invoice)| invoice).collect();
    add(1, &invoices);
    site.recover();
    add(-1, &invoices);
    end(proof, &site, doubtful, &[]);
}

#[test]
fn a_provider_that_finds_nothing_has_not_said_that_nothing_was_charged() {
    let proof = Proof::of("look-up finds nothing, SQLite");
    let site = Site::start(plain(), SEED);
    let doubtful = bring_into_doubt(&site);
    site.proxy.follow(Plan { hides_ledger: true, ..all_lost() });
    for (key, _) in in_doubt(&site) {
        let words = [&key, "--decision", "not-charged", "--why", "not on the list", "--actor", "ann"];
        let output = Command::new(TINJIS)
            .args(["resolve", "--billing", &site.services.billing_url()])
            .args(words)
            .env_clear()
            .output()
            .expect("the command can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("502 Bad Gateway"), "{said}");
    }
    site.recover();
    end(proof, &site, doubtful, &[]);
}
