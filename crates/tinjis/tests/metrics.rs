//! `docs/metrics.md` is what running services show, both ways. Knows where the page stands and how Prometheus writes.

use std::collections::BTreeMap;
use std::path::Path;

use testkit::http;
use testkit::{Process, Services};

/// A row of the page.
struct Documented {
    name: String,
    kind: String,
    services: Vec<String>,
    always: bool,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page can be read")
}

fn documented() -> Vec<Documented> {
    let page = page();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, _, services, shown, meaning] = cells.as_slice() else { panic!("six cells: {row}") };
        assert!(!meaning.is_empty() && ["always", "once"].contains(shown), "{row}");
        Documented {
            name: name.trim_matches('`').to_owned(),
            kind: (*kind).to_owned(),
            services: services.split(", ").map(str::to_owned).collect(),
            always: *shown == "always",
        }
    })
    .collect()
}

/// Names and types, without those of the process.
fn shown(process: &Process) -> BTreeMap<String, String> {
    let text = http::get(&format!("{}/metrics", process.admin_url())).text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .filter(|(name, _)| !name.starts_with("process_"))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[test]
fn the_page_of_metrics_is_what_running_services_show() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate", "1"]).start();
    services.import("M", 5);
    services.pay_until_true(std::time::Duration::from_secs(60));
    let page = documented();
    let mut wrong = Vec::new();
    for (service, process) in [("billing", &services.billing), ("payments", &services.payments)] {
        let shown = shown(process);
        let of = |row: &&Documented| row.services.iter().any(|name| name == service || name == "all");
        for row in page.iter().filter(of) {
            match shown.get(&row.name) {
                None if row.always => wrong.push(format!("{service} does not show {}", row.name)),
                Some(kind) if *kind != row.kind => wrong.push(format!("{service}: {} is a {kind}", row.name)),
                _ => {}
            }
        }
        for name in shown.keys().filter(|name| !page.iter().filter(of).any(|row| row.name == **name)) {
            wrong.push(format!("{service} shows {name}, which the page does not have"));
        }
    }
    let source = source_text();
    let gone = page.iter().filter(|row| !source.contains(&format!("\"{}\"", row.name)));
    wrong.extend(gone.map(|row| format!("no service registers {}", row.name)));
    assert!(wrong.is_empty(), "docs/metrics.md:\n{}", wrong.join("\n"));
}

/// What is shown only once it happens cannot all be made to happen here: it is at least registered somewhere.
fn source_text() -> String {
    let mut text = String::new();
    let mut folders: Vec<_> = ["chassis", "billing", "payments", "pingpong"]
        .map(|name| root().join("crates").join(name).join("src"))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the source can be read") {
            let path = entry.expect("the source can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    text
}

#[test]
fn a_legacy_route_has_its_label_however_its_path_is_spelt_and_runs_leave_their_marks() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate", "1"]).start();
    services.import("L", 3);
    for path in ["/rest/v1/invoices", "/REST/V1/Invoices", "/Rest/v1/invoices/"] {
        assert_eq!(http::get(&format!("{}{path}", services.billing_url())).status, 200, "{path}");
    }
    let counted = services.billing.metric(&["http_requests_total{", "route=\"/rest/v1/invoices\""]);
    assert_eq!(counted, 3);
    services.pay_until_true(std::time::Duration::from_secs(60));
    testkit::wait_until("the run's marks", std::time::Duration::from_secs(20), || {
        let started = services.billing.metric(&["billing_run_last_started_timestamp_seconds "]);
        let succeeded = services.billing.metric(&["billing_run_last_success_timestamp_seconds "]);
        started > 1_700_000_000 && succeeded >= started
    });
    assert_eq!(services.billing.metric(&["billing_provider_request_duration_seconds_count"]), 3);
    assert_eq!(services.billing.metric(&["billing_oldest_pending_seconds "]), 0);
}
