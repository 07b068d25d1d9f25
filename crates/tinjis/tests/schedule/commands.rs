//! Operators' commands on the command line, with exact dates. The dates are in the past, so that nothing depends on
//! when the test runs.

use testkit::{Database, Services};

use crate::site::{CHARGES, HEADER, INVOICES, Site, TINJIS};

const S1: &str = "S1,1001,EUR,9.90,31,Europe/Copenhagen,2024-01-31,2024-08-31\n";
const S2: &str = "S2,1002,USD,5.00,30,America/New_York,2024-01-30,2024-08-31\n";

on_both! {
    a_life_of_a_subscription_is_invoiced_and_charged_date_by_date,
    customers_named_by_a_reference_are_imported_previewed_and_charged,
    missed_dates_wait_until_an_operator_says_which_are_invoiced,
    a_sum_above_the_cap_waits_for_an_operator,
    while_charging_is_stopped_the_command_invoices_says_so_and_fails,
    a_run_that_ends_without_charging_what_was_due_fails_and_says_what_to_do,
    declined_invoices_have_their_answer_and_the_command_succeeds,
    a_run_of_other_invoices_is_waited_for_by_pay_and_by_the_schedule,
    a_billing_restored_from_before_the_run_makes_no_second_invoice_and_no_second_charge,
}

fn a_life_of_a_subscription_is_invoiced_and_charged_date_by_date(database: Option<&Database>) {
    let site = Site::by_hand(database, &[]);
    site.services.import("imported-", 2);
    site.import(&format!("{S1}{S2}"));
    let said = site.ends(0, &["schedule", "run", "--until", "2024-03-30"]);
    assert!(said.result.contains("5 invoices made"), "{said:?}");
    let paid = |reference: &str, amount| (reference.to_owned(), amount, "PAID".to_owned());
    let first = [
        paid("S1@2024-01-31", 990),
        paid("S1@2024-02-29", 990),
        paid("S2@2024-01-30", 500),
        paid("S2@2024-02-29", 500),
        paid("S2@2024-03-30", 500),
    ];
    assert_eq!(site.invoices()[..5], first);
    assert_eq!(site.services.ask_payments(CHARGES), 5, "imported invoices are not the schedule's to charge");

    let again = site.ends(0, &["schedule", "run", "--until", "2024-03-30"]);
    assert!(again.result.contains("0 invoices made"), "{again:?}");

    let late =
        ["change-price", "S1", "--from", "2024-02-29", "--amount", "1.00", "--why", "w", "--actor", "a"];
    let refused = site.ends(2, &[&["subscriptions"][..], &late].concat());
    assert!(refused.notes.contains("must be after 2024-02-29"), "{refused:?}");
    let shown = site.change(&["change-price", "S1", "--from", "2024-04-01", "--amount", "12.90"]);
    assert!(shown.contains("next due 2024-03-31") && shown.contains("12.90 from 2024-04-01"), "{shown}");
    let shown = site.change(&["pause", "S2"]);
    assert!(shown.starts_with("S2: paused"), "{shown}");
    site.ends(0, &["schedule", "run", "--until", "2024-05-31"]);
    let shown = site.change(&["resume", "S2", "--from", "2024-06-01"]);
    assert!(shown.contains("next due 2024-06-30"), "{shown}");
    site.change(&["end", "S1", "--on", "2024-06-29"]);
    site.ends(0, &["schedule", "run", "--until", "2024-12-31"]);
    let rest = [
        paid("S1@2024-03-31", 990),
        paid("S1@2024-04-30", 1290),
        paid("S1@2024-05-31", 1290),
        paid("S2@2024-06-30", 500),
        paid("S2@2024-07-30", 500),
        paid("S2@2024-08-30", 500),
    ];
    let mut expected = [first.to_vec(), rest.to_vec()].concat();
    expected.sort();
    assert_eq!(site.invoices()[..11], expected[..]);
    let list = site.ends(0, &["subscriptions", "list", "--state", "ended"]);
    assert_eq!(list.result.lines().count(), 2, "{list:?}");
    site.services.pay_until_true(crate::site::WITHIN);
    site.assert_each_is_charged_once();

    let bad = site.import_file("more.csv", &format!("{HEADER}S3,3,EUR,1.00,32,UTC,2024-01-31,\n{S1}"));
    assert_eq!(bad.code, Some(1), "{bad:?}");
    let part = "line 2, reference \"S3\", column anchor_day: must be a day of the month";
    assert!(bad.notes.contains(part), "{bad:?}");
    assert!(bad.notes.contains("nothing was written"), "{bad:?}");
}

fn customers_named_by_a_reference_are_imported_previewed_and_charged(database: Option<&Database>) {
    let site = Site::by_hand(database, &[]);
    let header = "reference,customer_reference,currency,amount,starts_on,ends_on\n";
    let file =
        format!("{header}S1,acme,EUR,9.90,2024-01-31,2024-02-29\nS2,acme,EUR,1.00,2024-01-31,2024-02-29\n");
    let said = site.import_file("named.csv", &file);
    assert!(said.code == Some(0) && said.result.contains("2 created"), "{said:?}");
    let again = site.import_file("again.csv", &file);
    assert!(again.code == Some(0) && again.result.contains("0 created, 2 unchanged"), "{again:?}");
    let preview = site.ends(0, &["schedule", "preview", "--from", "2024-01-01", "--to", "2024-12-31"]);
    assert!(preview.result.contains("4 invoices; EUR 21.80"), "{preview:?}");
    site.ends(0, &["schedule", "run", "--until", "2024-12-31"]);
    let customers = "SELECT count(DISTINCT customer_id) FROM invoices";
    assert_eq!((site.services.ask_billing(INVOICES), site.services.ask_billing(customers)), (4, 1));
    site.assert_each_is_charged_once();

    let both =
        "reference,customer_id,customer_reference,currency,amount,starts_on\nS3,1,acme,EUR,1.00,2024-01-31\n";
    let neither = "reference,currency,amount,starts_on\nS3,EUR,1.00,2024-01-31\n";
    for (file, why) in [
        (both.to_owned(), "customer_reference: must not be given beside customer_id"),
        (neither.to_owned(), "customer_id: is missing; give it or customer_reference"),
        (format!("{header}S3,acme,USD,1.00,2024-01-31,\n"), "currency: customer acme pays in EUR"),
    ] {
        let bad = site.import_file("bad.csv", &file);
        assert!(bad.code == Some(1) && bad.notes.contains(why), "{why}: {bad:?}");
    }
}

fn missed_dates_wait_until_an_operator_says_which_are_invoiced(database: Option<&Database>) {
    let site = Site::by_hand(database, &[]);
    site.import(S1);
    let asked = site.ends(1, &["schedule", "run", "--until", "2024-03-31", "--catch-up", "ask"]);
    assert!(asked.notes.contains("2024-01-31 waits (late)"), "{asked:?}");
    assert_eq!((site.services.ask_billing(INVOICES), site.services.ask_payments(CHARGES)), (0, 0));
    let status = site.ends(0, &["schedule", "status"]);
    assert!(status.result.contains("2024-01-31 waits (late): 1 invoices, EUR 9.90"), "{status:?}");
    let latest = site.ends(0, &["schedule", "run", "--until", "2024-12-31", "--catch-up", "latest"]);
    assert!(latest.result.contains("1 invoices made, 7 periods skipped"), "{latest:?}");
    assert_eq!(site.references(), ["S1@2024-08-31"]);
    site.assert_each_is_charged_once();
}

fn a_sum_above_the_cap_waits_for_an_operator(database: Option<&Database>) {
    let site = Site::by_hand(database, &["--schedule-max-amount=EUR=19.79"]);
    site.import(&format!("{S1}{}", S1.replace("S1,1001", "S3,1003")));
    let asked = site.ends(1, &["schedule", "run", "--until", "2024-01-31"]);
    assert!(asked.notes.contains("2024-01-31 waits (cap): run again with --over-cap"), "{asked:?}");
    assert_eq!(site.services.ask_billing(INVOICES), 0);
    site.ends(0, &["schedule", "run", "--until", "2024-01-31", "--over-cap", "--actor", "ann"]);
    assert_eq!(site.references(), ["S1@2024-01-31", "S3@2024-01-31"]);
    let confirmed = "SELECT count(*) FROM schedule_runs WHERE confirmed_by = 'ann' AND state = 'finished'";
    assert_eq!(site.services.ask_billing(confirmed), 1);
    site.assert_each_is_charged_once();
}

fn while_charging_is_stopped_the_command_invoices_says_so_and_fails(database: Option<&Database>) {
    let site = Site::by_hand(database, &[]);
    site.import(S1);
    let note = ["--why", "a test", "--actor", "ann"];
    site.ends(0, &[&["stop"][..], &note].concat());
    let run = ["schedule", "run", "--until", "2024-01-31"];
    let said = site.ends(1, &run);
    assert!(
        said.notes.contains("charging is stopped") && said.result.contains("1 invoices made"),
        "{said:?}"
    );
    assert_eq!(site.services.ask_payments(CHARGES), 0);
    site.ends(0, &[&["start"][..], &note].concat());
    site.ends(0, &run);
    site.assert_each_is_charged_once();
}

fn a_run_that_ends_without_charging_what_was_due_fails_and_says_what_to_do(database: Option<&Database>) {
    let mut site = Site::by_hand(database, &[]);
    site.services.import("imported-", 2);
    site.import(S1);
    site.services.kill_payments();
    let run = ["schedule", "run", "--until", "2024-01-31"];
    let said = site.ends(1, &run);
    assert!(said.result.contains("1 invoices made"), "{said:?}");
    assert!(said.result.contains("not charged") && said.result.contains("not-connected"), "{said:?}");
    assert!(!said.result.contains("tinjis pay"), "it would charge what was imported: {said:?}");
    site.services.payments.start_again();
    site.services.pay_until_true(crate::site::WITHIN);
    site.assert_each_is_charged_once();
    site.ends(0, &run);
}

fn declined_invoices_have_their_answer_and_the_command_succeeds(database: Option<&Database>) {
    let builder = Services::of(TINJIS).on(database).billing_flags(["--schedule=off"]);
    let site = Site::with(builder.payments_flags(["--success-rate=0"]));
    site.import(S1);
    let said = site.ends(0, &["schedule", "run", "--until", "2024-01-31"]);
    assert!(said.result.contains("paid 0, refused 1"), "{said:?}");
}

fn a_run_of_other_invoices_is_waited_for_by_pay_and_by_the_schedule(database: Option<&Database>) {
    let site = Site::by_hand(database, &[]);
    site.services.import("imported-", 3);
    site.import(S1);
    // The run has one call in flight while payments is paused.
    site.services.payments.pause();
    let url = format!("{}/v1/runs", site.services.billing_url());
    assert_eq!(testkit::http::post(&url, r#"{"max_count":1}"#).status, 202);
    let waiting = [
        site.begin(&["schedule", "run", "--until", "2024-01-31"], "which charges other invoices"),
        site.begin(&["pay"], "waiting: run "),
    ];
    site.services.payments.go_on();
    for command in waiting {
        let said = command.ended();
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    site.assert_each_is_charged_once();
}

/// Deletes everything that the run wrote, like a restored backup from before the run.
const FORGET: &str = "
    DELETE FROM attempts;
    DELETE FROM invoices;
    DELETE FROM schedule_runs;
    UPDATE subscriptions SET next_on = (SELECT k.next_on FROM kept AS k WHERE k.id = subscriptions.id),
        next_at = (SELECT k.next_at FROM kept AS k WHERE k.id = subscriptions.id), last_on = NULL, state = 'active'";

fn a_billing_restored_from_before_the_run_makes_no_second_invoice_and_no_second_charge(
    database: Option<&Database>,
) {
    let site = Site::by_hand(database, &[]);
    site.import(&format!("{S1}{S2}"));
    site.services.run_billing("CREATE TABLE kept AS SELECT id, next_on, next_at FROM subscriptions");
    let run = ["schedule", "run", "--until", "2024-12-31"];
    site.ends(0, &run);
    let before = site.invoices();
    assert_eq!(before.len(), 16, "{before:?}");
    site.services.run_billing(FORGET);
    assert_eq!(site.services.ask_billing(INVOICES), 0);
    site.ends(0, &run);
    assert_eq!(site.invoices(), before);
    assert_eq!(site.services.ask_payments(CHARGES), 16, "the ledger knows each key");
    site.assert_each_is_charged_once();
}

#[test]
fn subscriptions_of_another_tool_are_imported_by_a_profile_that_is_proposed_for_them() {
    let site = Site::by_hand(None, &[]);
    let file = "Vertrag;Kunde;W\u{e4}hrung;Betrag;Beginn;Notiz\nV-1;Meier;EUR;1.234,50;2024-01-31;x\nV-2;Meier;EUR;12,15;2024-01-31;\n";
    let path = site.write("contracts.csv", file);
    let import = |more: &[&str]| site.tinjis(&[&["subscriptions", "import", &path], more].concat());
    let refused = import(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.notes.contains("give --delimiter ';'"), "{refused:?}");

    let proposed = import(&["--explain"]);
    assert_eq!(proposed.code, Some(0), "{proposed:?}");
    let profile = site.write("profile.toml", &proposed.result);
    let asked = import(&["--profile", &profile, "--dry-run"]);
    assert!(asked.code == Some(0) && asked.result.contains("would be 2 created"), "{asked:?}");
    let said = import(&["--profile", &profile]);
    assert!(said.code == Some(0) && said.notes.contains("columns passed over: \"Notiz\""), "{said:?}");
    let list = site.ends(0, &["subscriptions", "list"]).result;
    assert!(list.contains("V-1: active, next due 2024-01-31, EUR 1234.50 from 2024-01-31"), "{list}");
    assert!(list.contains("V-2: active, next due 2024-01-31, EUR 12.15 from 2024-01-31"), "{list}");

    let unknown =
        import(&["--delimiter", ";", "--decimal-comma", "--map", "reference=Vertrag,amount=Betrag"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    for part in ["\"Notiz\" is no column", "--map names other columns", "--ignore-unknown-columns"] {
        assert!(unknown.notes.contains(part), "{part}: {unknown:?}");
    }
    let strange = import(&["--profile", &profile, "--status", "x=SKIP"]);
    assert_eq!(strange.code, Some(64), "{strange:?}");
    assert!(strange.notes.contains("--status") && strange.notes.contains("have no status"), "{strange:?}");

    let minor = site
        .write("minor.csv", "reference,customer_id,currency,amount,starts_on\nM1,9,KWD,1234,2024-01-31\n");
    let said = site.tinjis(&["subscriptions", "import", &minor, "--minor-units"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let list = site.ends(0, &["subscriptions", "list"]).result;
    assert!(list.contains("M1: active, next due 2024-01-31, KWD 1.234 from 2024-01-31"), "{list}");
}
