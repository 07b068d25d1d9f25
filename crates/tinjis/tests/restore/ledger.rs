//! The ledger is lost and restored from a backup, by the page and in wrong ways: the charges that the backup lacks are
//! not executed again. Billing never got the outcome of some of them, so it sends these again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::proof::Verified;
use testkit::wait::{pause, wait_until};
use testkit::{Proof, http};

use crate::site::{Site, TINJIS, WITHIN, databases};

/// Number of charges before the backup, and after it.
const KNOWN: usize = 30;
const FORGOTTEN: usize = 60;
/// Number of the later charges whose outcome billing never gets.
const IN_DOUBT: usize = 20;
/// Much longer than the service needs to note the last row.
const NOTED_WITHIN: Duration = Duration::from_secs(1);
/// How often a wrongly restored ledger gets requests to charge.
const PAYS: usize = 4;

/// How a ledger is backed up and restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestoreMethod {
    /// By the commands of the page.
    Page,
    /// By the page without its last command, `payments new-ledger-id`.
    PageWithoutNewId,
    /// A copy of the database file alone, while payments write it.
    FileAlone,
    /// A copy of the file and its log, while payments write them.
    FileAndLog,
    /// A copy of the file while the service was stopped; it was started again afterwards.
    Stopped,
}

fn back_up(site: &mut Site, method: RestoreMethod) {
    let (db, to) = (site.services.payments.db(), site.backups().join("payments.db"));
    let with_end = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        name
    };
    match method {
        RestoreMethod::Page | RestoreMethod::PageWithoutNewId => {
            site.page_runs(&site.of_database("Payments"))
        }
        RestoreMethod::FileAlone => drop(fs::copy(&db, &to).expect("a file can be copied")),
        RestoreMethod::FileAndLog => {
            fs::copy(&db, &to).expect("a file can be copied");
            fs::copy(with_end(&db, "-wal"), with_end(&to, "-wal")).expect("a file can be copied");
        }
        RestoreMethod::Stopped => {
            site.services.stop_payments();
            fs::copy(&db, &to).expect("a file can be copied");
            site.services.payments.start_again();
        }
    }
}

fn put_back(site: &Site, method: RestoreMethod) {
    let heading = site.of_database("Put back payments");
    match method {
        RestoreMethod::Page => site.page_runs(&heading),
        RestoreMethod::PageWithoutNewId => site.page_runs_without(&heading, "new-ledger-id"),
        RestoreMethod::FileAlone | RestoreMethod::FileAndLog | RestoreMethod::Stopped => {
            let db = site.services.payments.db();
            for end in ["", "-wal", "-shm"] {
                let beside = |path: &Path| {
                    let mut name = path.as_os_str().to_owned();
                    name.push(end);
                    name
                };
                let (from, to) = (beside(&site.backups().join("payments.db")), beside(&db));
                let _none = fs::remove_file(&to);
                if Path::new(&from).exists() {
                    fs::copy(from, to).expect("a file can be copied");
                }
            }
        }
    }
}

/// Charges, backs payments up, charges more with some answers lost, and restores the backup. Returns the keys that the
/// backup lacks.
fn lose_and_restore(site: &mut Site, method: RestoreMethod) -> Vec<String> {
    site.services.import("K", KNOWN);
    site.services.pay_until_true(WITHIN);
    back_up(site, method);
    let before = site.charged_keys();
    site.services.import("A", FORGOTTEN);
    let _run = site.services.start_run();
    let paid = i64::try_from(KNOWN + FORGOTTEN - IN_DOUBT).expect("a drill is small");
    let answered = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
    wait_until("all are executed", WITHIN, || {
        site.charged_keys().len() == KNOWN + FORGOTTEN && site.services.ask_billing(answered) == paid
    });
    // The service notes its last row within moments, which a copy of the same start then lacks.
    pause(NOTED_WITHIN);
    let mut lost = site.charged_keys();
    lost.retain(|key| !before.contains(key));
    assert_eq!(lost.len(), FORGOTTEN);
    site.services.payments.set_env("FAULTS", "");
    site.services.kill_payments();
    put_back(site, method);
    lost
}

/// The fault script: every answer to the last customers' charges is lost.
fn script() -> String {
    // The customers' numbers, as `Services::import` assigns them.
    let customers = FORGOTTEN - IN_DOUBT + 2..=FORGOTTEN + 1;
    customers
        .map(|customer| {
            format!("[[rule]]\nfault = \"reply-lost\"\ntimes = 100000\ncustomer_id = {customer}\n")
        })
        .collect()
}

fn on_sqlite() -> Site {
    Site::with_faults(None, &script())
}

fn on_postgres() -> Option<Site> {
    Some(Site::with_faults(Some(databases("a restored dump")?), &script()))
}

fn a_wrong_way_executes_nothing_again(mut site: Site, method: RestoreMethod) {
    let lost = lose_and_restore(&mut site, method);
    site.services.payments.spawn();
    let known = |(status, said): (u16, String)| status == 200 || said.contains("new-ledger-id");
    wait_until("payments to know", WITHIN, || known(site.services.payments.readiness()));
    assert_eq!(site.services.payments.readiness().0, 503);
    let before = site.charged_keys();
    assert!(!before.iter().any(|key| lost.contains(key)), "{method:?}: the copy lacks what came after it");
    site.services.import("N", 5);
    for _ in 0..PAYS {
        assert!(!site.services.is_all_paid(), "{method:?}");
        pause(Duration::from_millis(200));
    }
    let direct = http::call(
        "POST",
        &format!("{}/", site.services.payments_url()),
        &[("Idempotency-Key", &lost[0])],
        br#"{"customer_id":1,"currency":"EUR","value":1.25}"#,
    );
    assert_eq!((direct.status, direct.header("not-executed")), (503, Some("true")), "{}", direct.text());
    assert_eq!(site.charged_keys(), before, "{method:?}: nothing is executed");
    assert!(site.services.payments.log().contains("payments new-ledger-id"), "the log says what helps");
    let verified = Verified::of(TINJIS, &site.services, &[]);
    assert_ne!(verified.code, Some(0), "{method:?}: {}", verified.json);
    assert_eq!(verified.number("double"), 0);
}

#[test]
fn a_ledger_restored_without_a_new_id_executes_nothing() {
    a_wrong_way_executes_nothing_again(on_sqlite(), RestoreMethod::PageWithoutNewId);
}

#[test]
fn a_dump_of_the_ledger_restored_without_a_new_id_executes_nothing() {
    let Some(site) = on_postgres() else { return };
    a_wrong_way_executes_nothing_again(site, RestoreMethod::PageWithoutNewId);
}

#[test]
fn a_copy_of_a_live_ledger_executes_nothing() {
    a_wrong_way_executes_nothing_again(on_sqlite(), RestoreMethod::FileAndLog);
}

#[test]
fn a_copy_of_a_live_ledger_without_its_log_executes_nothing() {
    a_wrong_way_executes_nothing_again(on_sqlite(), RestoreMethod::FileAlone);
}

#[test]
fn a_copy_of_a_stopped_ledger_executes_none_of_the_charges_in_doubt_again() {
    a_wrong_way_executes_nothing_again(on_sqlite(), RestoreMethod::Stopped);
}

#[test]
fn the_ledger_restored_as_the_page_says_charges_no_customer_twice() {
    restored_as_the_page_says(Proof::of("ledger drill, SQLite"), on_sqlite());
}

#[test]
fn a_dump_of_the_ledger_restored_as_the_page_says_charges_no_customer_twice() {
    let Some(site) = on_postgres() else { return };
    restored_as_the_page_says(Proof::of("ledger drill, PostgreSQL"), site);
}

fn restored_as_the_page_says(proof: Proof, mut site: Site) {
    let lost = lose_and_restore(&mut site, RestoreMethod::Page);
    site.services.payments.start_again();
    site.services.import("N", 10);
    let (code, said) = site.page_says("Look at what the ledger lost", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unbacked: A1 ") && said.contains("billing settled with ledger"), "{said}");
    let before = site.charged_keys();
    assert!(!site.services.is_all_paid(), "nothing is charged before the ledger is accepted");
    assert_eq!(site.charged_keys(), before);
    decide_open_attempts(&site);
    let ledger = http::get(&format!("{}/v1/ledger", site.services.payments_url())).json();
    let id = ledger["ledger_id"].as_str().expect("the API has this field").to_owned();
    let (code, said) = site.page_says("Accept the restored ledger", &[("LEDGER_ID", &id)]);
    assert_eq!(code, Some(0), "{said}");
    site.services.pay_until_true(WITHIN);
    let after = site.charged_keys();
    let again = lost.iter().filter(|key| after.contains(key)).count();
    assert_eq!((after.len(), again), (before.len() + 10, 0), "new invoices are charged, and none again");
    let verified = Verified::of(TINJIS, &site.services, &[]);
    let unbacked = u64::try_from(FORGOTTEN - IN_DOUBT).expect("a drill is small");
    assert_eq!(verified.json["mismatch"]["unbacked"].as_u64(), Some(unbacked), "{}", verified.json);
    assert_eq!((verified.number("findings_total"), verified.code), (unbacked, Some(1)), "{}", verified.json);
    accept_the_loss(&site, &verified);
    proof.end(&format!("{} charges forgotten by the ledger", lost.len()), verified.number("double"), 0);
}

/// Follows the page, with the references of this verification.
fn accept_the_loss(site: &Site, verified: &Verified) {
    let findings = verified.json["findings"].as_array().expect("the JSON has this field");
    let names: Vec<&str> = findings.iter().filter_map(|finding| finding["reference"].as_str()).collect();
    let file = site.backups().join("unbacked");
    std::fs::write(&file, names.join("\n") + "\n").expect("a file can be written");
    let file = file.to_str().expect("a test's path is UTF-8");
    let (code, said) = site.page_says("Accept what the ledger lost", &[("UNBACKED", file)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("unbacked acknowledged {}", names.len())), "{said}");
}

/// Resolves each open attempt as charged: the operator has found it among the real payments.
fn decide_open_attempts(site: &Site) {
    let attempts = http::get(&format!("{}/v1/attempts?limit=1000", site.services.billing_url())).json();
    let attempts = attempts["items"].as_array().expect("the API has this field");
    let open: Vec<&str> = attempts
        .iter()
        .filter(|attempt| attempt["state"] == "IN_DOUBT" || attempt["state"] == "INTENT")
        .filter(|attempt| attempt["reference"].as_str().expect("the API has this field").starts_with('A'))
        .map(|attempt| attempt["key"].as_str().expect("the API has this field"))
        .collect();
    assert_eq!(open.len(), IN_DOUBT, "{attempts:?}");
    for key in open {
        let decided = Command::new(TINJIS)
            .args(["resolve", key, "--decision", "charged", "--why", "on the statement", "--actor", "ann"])
            .args(["--billing", &site.services.billing_url()])
            .env_clear()
            .output()
            .expect("the command can be started");
        assert!(decided.status.success(), "{}", String::from_utf8_lossy(&decided.stderr));
    }
}
