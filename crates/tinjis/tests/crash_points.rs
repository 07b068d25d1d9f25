//! Billing is killed at each of its named points in turn, started again and paid: nobody is charged twice, nothing is
//! lost, and a point that is never reached fails. Release builds have no such points.
//! Knows the services from outside only, and the names of the points.
#![cfg(debug_assertions)]

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use harness::ledger::{Verdict, ask, judge};
use harness::wait::wait_for;
use harness::{Services, http};

/// However long a machine takes, a point is reached and a round is paid within this.
const WITHIN: Duration = Duration::from_secs(60);
/// Plain invoices of a round; where needed, one whose answer is held back comes before them.
const INVOICES: usize = 50;
/// Answers to these customers' first deliveries are held back: shortly, and for longer than a run goes unrenewed.
const HELD: usize = 901;
const HELD_LONG: usize = 902;
const FAULTS: &str = "
    [[rule]]
    fault = \"hold\"
    customer_id = 901
    latency_ms = 1500
    [[rule]]
    fault = \"hold\"
    customer_id = 902
    latency_ms = 7000
";

/// How billing is brought to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A start on no store at all.
    NewStore,
    /// A start that finds attempts open.
    Restart,
    /// A run.
    Run,
    /// A run that lasts until its lease is renewed.
    LongRun,
    /// A person's word while the call is under way.
    Resolve,
    /// SIGTERM in a run.
    Stop,
}

/// Each point, at which hit billing dies, and the way there. The new store comes first: it forgets what was charged.
const POINTS: [(&str, usize, Way); 14] = [
    ("migration", 1, Way::NewStore),
    ("K1", 2, Way::Run),
    ("K2", 2, Way::Run),
    ("client-connected", 3, Way::Run),
    ("client-half-request", 1, Way::Run),
    ("client-request-sent", 5, Way::Run),
    ("client-half-answer", 1, Way::Run),
    ("K7", 5, Way::Run),
    ("K8", 2, Way::Run),
    ("K9", 1, Way::Run),
    ("K10", 1, Way::Restart),
    ("K11", 1, Way::Resolve),
    ("K12", 1, Way::LongRun),
    ("K14", 1, Way::Stop),
];

#[test]
fn billing_killed_at_each_named_point_charges_every_invoice_once() {
    let folder = tempfile::tempdir().unwrap();
    let faults = folder.path().join("faults.toml");
    std::fs::write(&faults, FAULTS).unwrap();
    let faults = format!("--faults={}", faults.display());
    let flags = [faults.as_str(), "--success-rate=0.9", "--seed=1"];
    let mut services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(flags).start();
    let mut all = 0;
    for (point, nth, way) in POINTS {
        let hits = die_at(&mut services, point, nth, way);
        assert!(hits >= nth, "{point} was reached {hits} times, not {nth}");
        services.billing.start_again();
        if way == Way::NewStore {
            services.import(&format!("{point}-"), INVOICES);
        }
        services.pay_until_true(WITHIN);
        all += INVOICES as i64 + i64::from(held(way).is_some());
        let wanted = Verdict { invoices: all, paid: all, charges: all, ..Verdict::default() };
        let verdict = judge(&services.billing.db(), &services.payments.db());
        assert_eq!(verdict, wanted, "after {point}: each invoice is charged once, and known to be");
    }
}

/// Leaves billing dead at this point; answers how often the point was reached.
fn die_at(services: &mut Services, point: &str, nth: usize, way: Way) -> usize {
    if let Some(customer) = held(way) {
        import_held(services, point, customer);
    }
    if way != Way::NewStore {
        services.import(&format!("{point}-"), INVOICES);
    }
    if way == Way::Restart {
        let _run = services.start_run();
        let _key = open_attempt(services);
    }
    services.billing.kill();
    let hits = services.dir().join(format!("{point}.hits"));
    services.billing.set_env("TINJIS_CRASH", format!("{point}:{nth}"));
    services.billing.set_env("TINJIS_CRASH_HITS", hits.to_str().expect("a test's path is UTF-8"));
    if way == Way::NewStore {
        forget_store(services);
    }
    if matches!(way, Way::NewStore | Way::Restart) {
        services.billing.spawn();
    } else {
        services.billing.start_again();
        ask_for_run(services);
    }
    let status = match way {
        Way::Stop => {
            let _key = open_attempt(services);
            services.billing.stop()
        }
        Way::Resolve => {
            say_not_charged(services);
            death(services, point)
        }
        _ => death(services, point),
    };
    assert_eq!(status.signal(), Some(9), "{point}: billing dies by SIGKILL");
    services.billing.set_env("TINJIS_CRASH", "");
    services.billing.set_env("TINJIS_CRASH_HITS", "");
    let reached = std::fs::read_to_string(hits).unwrap_or_default();
    reached.lines().filter(|line| *line == point).count()
}

/// Billing may die before it can answer.
fn ask_for_run(services: &Services) {
    let _lost = http::try_call("POST", &format!("{}/v1/runs", services.billing_url()), &[], b"");
}

fn death(services: &mut Services, point: &str) -> ExitStatus {
    let status = wait_for(&format!("billing to die at {point}"), WITHIN, || services.billing.ended());
    services.billing.kill();
    status
}

/// The customer of an invoice whose answer must be held back on this way.
fn held(way: Way) -> Option<usize> {
    match way {
        Way::NewStore | Way::Run => None,
        Way::Restart | Way::Resolve | Way::Stop => Some(HELD),
        Way::LongRun => Some(HELD_LONG),
    }
}

fn import_held(services: &Services, point: &str, customer: usize) {
    let row = format!(
        "{{\"reference\":\"held-{point}\",\"customer_id\":{customer},\"currency\":\"EUR\",\"amount\":\"12.15\"}}\n"
    );
    let url = format!("{}/v1/imports", services.billing_url());
    let answer = http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], row.as_bytes());
    assert_eq!(answer.status, 200, "import: {}", answer.text());
}

/// Waits for an open attempt; answers its key.
fn open_attempt(services: &Services) -> String {
    let open = "SELECT coalesce(min(invoice_id), 0) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";
    let invoice = wait_for("an attempt to be open", WITHIN, || {
        Some(ask(&services.billing.db(), open)).filter(|invoice| *invoice > 0)
    });
    let url = format!("{}/v1/attempts?after={invoice}.0&limit=1", services.billing_url());
    http::get(&url).json()["items"][0]["key"].as_str().expect("an attempt has a key").to_owned()
}

/// The answer is lost with the process.
fn say_not_charged(services: &Services) {
    let url = format!("{}/v1/attempts/{}/resolve", services.billing_url(), open_attempt(services));
    let word = br#"{"decision":"not_charged","reason":"looked it up","actor":"anna"}"#;
    let _lost = http::try_call("POST", &url, &[("Content-Type", "application/json")], word);
}

fn forget_store(services: &Services) {
    let db = services.billing.db();
    for end in ["", "-wal", "-shm"] {
        let file = format!("{}{end}", db.display());
        let _missing = std::fs::remove_file(file);
    }
}
