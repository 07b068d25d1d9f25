//! Each fault as a client sees it, and its effect on the ledger.

use std::io::ErrorKind;
use std::time::Duration;

use testkit::timed;

use crate::site::{GOOD, Settings, Site, problem, willing};

fn with(fault: &str) -> Site {
    willing().faults(&format!("[[rule]]\nfault = \"{fault}\"\n")).start()
}

/// The resend of a key whose fault took effect: a replay if the charge was executed, else the first execution; both
/// succeed without a fault.
#[track_caller]
fn assert_resend_is_clean(site: &Site, replayed: bool) {
    let again = site.charge("k");
    assert_eq!(again.text(), r#"{"result":"true"}"#);
    assert_eq!(again.header("idempotency-replayed"), replayed.then_some("true"));
    assert_eq!(site.charges(), 1);
}

#[test]
fn refuse_is_a_decision_that_stays() {
    let site = with("refuse");
    for _ in 0..2 {
        assert_eq!(site.charge("k").text(), r#"{"result":"false"}"#);
    }
    assert_eq!(site.ask("SELECT count(*) FROM ledger WHERE state = 'REFUSED'"), 1);
}

#[test]
fn latency_waits_and_then_charges() {
    let site = willing().faults("[[rule]]\nfault = \"latency\"\nlatency_ms = 400").start();
    let (answer, took) = timed(|| site.charge("k").text());
    assert_eq!(answer, r#"{"result":"true"}"#);
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert_resend_is_clean(&site, true);
}

#[test]
fn error_before_charges_nothing() {
    let site = with("error-before");
    let failed = site.charge("k");
    assert_eq!(problem(&failed).0, 500);
    assert_eq!(failed.header("idempotency-key"), Some("k"));
    assert_eq!(site.charges(), 0);
    assert_resend_is_clean(&site, false);
}

#[test]
fn error_after_has_charged() {
    let site = with("error-after");
    assert_eq!(problem(&site.charge("k")).0, 500);
    assert_eq!(site.charges(), 1);
    assert_resend_is_clean(&site, true);
}

#[test]
fn a_lost_reply_is_a_charge_and_a_closed_connection() {
    let site = with("reply-lost");
    let error = site.try_post("/", &[("Idempotency-Key", "k")], GOOD).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    assert_eq!(site.charges(), 1);
    assert_resend_is_clean(&site, true);
}

#[test]
fn reset_is_an_rst_before_any_charge() {
    let site = with("reset");
    let error = site.try_post("/", &[("Idempotency-Key", "k")], GOOD).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert_eq!(site.charges(), 0);
    assert_resend_is_clean(&site, false);
}

#[test]
fn malformed_is_a_charge_with_half_a_body() {
    let site = with("malformed");
    let broken = site.charge("k");
    assert_eq!(broken.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&broken.body).is_err(), "{}", broken.text());
    assert_eq!(site.charges(), 1);
    assert_resend_is_clean(&site, true);
}

#[test]
fn a_duplicated_delivery_charges_twice_only_without_a_key() {
    let site = with("duplicate");
    let keyed = site.charge("k");
    assert_eq!((keyed.text().as_str(), keyed.header("idempotency-replayed")), (r#"{"result":"true"}"#, None));
    assert_eq!(site.charges(), 1);
    site.post("/", &[], GOOD);
    assert_eq!(site.charges(), 3);
}

#[test]
fn hold_keeps_the_answer_of_a_durable_charge_back() {
    let site = willing().faults("[[rule]]\nfault = \"hold\"\nlatency_ms = 700\nnth = 2").start();
    assert_eq!(site.charge("k0").status, 200);
    let url = format!("{}/", site.process.url());
    let call = move || testkit::http::call("POST", &url, &[("Idempotency-Key", "k1")], GOOD.as_bytes());
    let held = std::thread::spawn(move || timed(call));
    testkit::wait_until("the held charge", Duration::from_secs(60), || site.charges() == 2);
    // The key is free while its response is held: a resend gets the decision.
    assert_eq!(site.charge("k1").header("idempotency-replayed"), Some("true"));
    let (answer, took) = held.join().unwrap();
    assert_eq!(answer.text(), r#"{"result":"true"}"#);
    assert!(took >= Duration::from_millis(700), "{took:?}");
}

#[test]
fn a_held_answer_does_not_hold_up_the_end() {
    let mut site = with("hold");
    let url = format!("{}/", site.process.url());
    let held = std::thread::spawn(move || testkit::http::call("POST", &url, &[], GOOD.as_bytes()).text());
    testkit::wait_until("the held charge", Duration::from_secs(60), || site.charges() == 1);
    let (ended, took) = timed(|| site.process.stop());
    assert!(
        ended.success() && took < Duration::from_secs(20),
        "{ended} after {took:?}: {}",
        site.process.log()
    );
    assert_eq!(held.join().unwrap(), r#"{"result":"true"}"#);
}

#[test]
fn a_forgotten_key_is_charged_again() {
    let site = with("forget-key");
    for (rows, charges) in [(0, 1), (1, 2), (1, 2)] {
        assert_eq!(site.charge("k").text(), r#"{"result":"true"}"#);
        assert_eq!(site.charges(), charges);
        assert_eq!(site.ask("SELECT count(*) FROM ledger WHERE key = 'k'"), rows);
    }
}

#[test]
fn a_fault_that_took_effect_before_a_restart_does_not_come_back() {
    let mut site = with("reply-lost");
    site.try_post("/", &[("Idempotency-Key", "k")], GOOD).unwrap_err();
    site.process.kill();
    site.process.start_again();
    assert_resend_is_clean(&site, true);
}

/// The outcome of one delivery, as a letter.
fn letter(answer: std::io::Result<testkit::Answer>) -> char {
    match answer {
        Err(_) => 'x',
        Ok(answer) if answer.status == 500 => '5',
        Ok(answer) if answer.text() == r#"{"result":"true"}"# => 't',
        Ok(answer) if answer.text() == r#"{"result":"false"}"# => 'f',
        Ok(_) => 'm',
    }
}

/// The outcomes of a sequence of these keys and references, one letter each.
fn story(seed: &str, rate: &str) -> String {
    let script =
        "[[rule]]\nfault = \"reply-lost\"\nshare = 0.2\n[[rule]]\nfault = \"error-before\"\nshare = 0.2\n";
    let site = Settings::default().flags(["--seed", seed, "--success-rate", rate]).faults(script).start();
    let keyed = (0..40).map(|n| site.try_post("/", &[("Idempotency-Key", &format!("k{n}"))], GOOD));
    let unkeyed = (0..40).map(|n| {
        let body = format!(r#"{{"id":"I{}","customer_id":1,"currency":"USD","value":2}}"#, n % 20);
        site.try_post("/", &[], &body)
    });
    keyed.chain(unkeyed).map(letter).collect()
}

#[test]
fn a_seed_replays_every_decision_and_every_fault() {
    let first = story("8213", "0.5");
    assert_eq!(first, story("8213", "0.5"));
    assert_ne!(first, story("8214", "0.5"));
    for letter in ['x', '5', 't', 'f'] {
        assert!(first.contains(letter), "{first}");
    }
}

/// Expected outcomes, derived from the first version by a separate program: two deliveries each of 40 keys, then two
/// each of 20 references without a key.
const RECORDED: [&str; 3] = [
    "xfffttmf5ftxxttf55xx5xxtfx5tx5f5f5xtxfxt",
    "fffftt5f5ftffttffftttfttffttt5ftf5tt5f5t",
    "5ftfftx55tfxttfxt5ffftffx5txx55ftfxfffx5",
];

#[test]
fn a_script_of_the_first_edition_has_its_recorded_outcomes() {
    let script = "seed = 8213\n[[rule]]\nfault = \"reply-lost\"\nshare = 0.2\n\
                  [[rule]]\nfault = \"error-before\"\nshare = 0.2\n\
                  [[rule]]\nfault = \"refuse\"\nshare = 0.3\ncustomer_id = 1\n\
                  [[rule]]\nfault = \"malformed\"\nnth = 7\n\
                  [[rule]]\nfault = \"error-after\"\nshare = 0.1\ntimes = 2\n";
    let site = Settings::default().flags(["--success-rate", "0.5"]).faults(script).start();
    let keyed =
        || (0..40).map(|n| letter(site.try_post("/", &[("Idempotency-Key", &format!("k{n}"))], GOOD)));
    let unkeyed = (0..40).map(|n| {
        let body = format!(r#"{{"id":"I{}","customer_id":1,"currency":"USD","value":2}}"#, n % 20);
        letter(site.try_post("/", &[], &body))
    });
    let seen: [String; 3] = [keyed().collect(), keyed().collect(), unkeyed.collect()];
    assert_eq!(seen, RECORDED);
}

#[test]
fn a_script_with_mistakes_is_refused_with_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("faults.toml");
    std::fs::write(&path, "[[rule]]\nfault = \"reset\"\nsahre = 0.5\n[[rule]]\nfault = \"boom\"\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_payments"))
        .args(["--faults", path.to_str().unwrap(), "--success-rate", "2"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8_lossy(&output.stderr);
    for mistake in ["rule 1: sahre", "rule 2: fault", "--success-rate"] {
        assert!(told.contains(mistake), "{mistake} is not in {told}");
    }
}
