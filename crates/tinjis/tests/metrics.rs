//! `docs/reference/metrics.md` lists exactly the metrics of running services, and the chart's alerts and dashboards use
//! no other. Knows the paths of these files, the format of Prometheus, and the names in a query, not its meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::http;
use testkit::{Process, Services, wait_until};

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
    std::fs::read_to_string(root().join("docs/reference/metrics.md")).expect("the page can be read")
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

/// Names and types of the metrics, without those of the process.
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
    services.pay_until_true(Duration::from_secs(60));
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
    assert!(wrong.is_empty(), "docs/reference/metrics.md:\n{}", wrong.join("\n"));
}

/// The source text. Some metrics appear only after their first event, which cannot always be caused here, so their
/// names are looked up in it.
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
    services.pay_until_true(Duration::from_secs(60));
    wait_until("the run's marks", Duration::from_secs(20), || {
        let started = services.billing.metric(&["billing_run_last_started_timestamp_seconds "]);
        let succeeded = services.billing.metric(&["billing_run_last_success_timestamp_seconds "]);
        started > 1_700_000_000 && succeeded >= started
    });
    assert_eq!(services.billing.metric(&["billing_provider_request_duration_seconds_count"]), 3);
    assert_eq!(services.billing.metric(&["billing_oldest_pending_seconds "]), 0);
}

/// An attempt in doubt has an age that grows until its outcome is known.
#[test]
fn an_attempt_in_doubt_has_an_age_until_its_outcome_is_known() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let faults = folder.path().join("faults.toml");
    std::fs::write(&faults, "[[rule]]\nfault = \"reply-lost\"\ntimes = 1000000").expect("it can be written");
    let flags = ["--success-rate=1".to_owned(), format!("--faults={}", faults.display())];
    let mut services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(flags).start();
    let age = |services: &Services| services.billing.metric(&["billing_oldest_in_doubt_seconds "]);
    assert_eq!(age(&services), 0);
    services.import("D", 2);
    let _run = services.start_run();
    wait_until("an age of two seconds", Duration::from_secs(60), || age(&services) >= 2);
    services.stop_payments();
    std::fs::write(&faults, "").expect("it can be written");
    services.payments.start_again();
    wait_until("no age once all are settled", Duration::from_secs(120), || {
        services.is_all_paid() && age(&services) == 0
    });
}

/// Metrics of other programs: kube-state-metrics knows the result of the verify job.
const FOREIGN: &[&str] = &[
    "kube_cronjob_created",
    "kube_cronjob_status_last_successful_time",
    "kube_job_failed",
    "kube_job_status_start_time",
];

/// Words of PromQL in places where a metric may be.
const WORDS: &[&str] = &["and", "bool", "inf", "nan", "offset", "or", "unless"];

/// Words of PromQL before a list of labels.
const BEFORE_LABELS: &[&str] = &["by", "group_left", "group_right", "ignoring", "on", "without"];

/// The names of metrics in a query: not in quotes, braces, brackets or a comment, and neither a function, a word of the
/// language, nor one of its labels.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let without_comments = query.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut rest = without_comments.collect::<Vec<_>>().join("\n");
    let mut is_of_labels = false;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '{' => rest.find('}').map_or(rest.len(), |end| end + 1),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            '(' if is_of_labels => rest.find(')').map_or(rest.len(), |end| end + 1),
            c if c.is_ascii_alphanumeric() || c == '_' || c == '$' => {
                rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_:.$".contains(c)).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        let word = rest[..taken].to_owned();
        rest = rest.split_off(taken);
        let is_name = first.is_ascii_alphabetic() || first == '_';
        if is_name {
            let after = rest.trim_start();
            let is_function =
                ["(", "by ", "by(", "without ", "without("].iter().any(|next| after.starts_with(next));
            if !is_function && !WORDS.contains(&word.as_str()) && !BEFORE_LABELS.contains(&word.as_str()) {
                found.insert(word.clone());
            }
        }
        is_of_labels = BEFORE_LABELS.contains(&word.as_str()) || (is_of_labels && first.is_whitespace());
    }
    found
}

/// The files of a folder of the chart with this ending.
fn shipped(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = root().join("deploy/chart/files").join(folder);
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    assert!(!found.is_empty(), "no {ending} file is shipped");
    found
}

/// The queries of the alert rules: the text after `expr:`, until the next key.
fn queries_of_alerts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in shipped("alerts", "yaml") {
        let text = std::fs::read_to_string(&path).expect("it can be read");
        for rule in text.split("- alert: ").skip(1) {
            let (alert, rest) = rule.split_once('\n').expect("a rule has more than a name");
            let (_, rest) = rest.split_once("expr: ").expect("a rule has a query");
            let ends = ["\n        for: ", "\n        labels: "].iter().filter_map(|key| rest.find(key));
            found.push((
                alert.to_owned(),
                rest[..ends.min().expect("a rule has labels")].replace("|\n", "\n"),
            ));
        }
    }
    found
}

/// The queries of the dashboards: in panels, and in variables that list a label's values.
fn queries_of_dashboards() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in shipped("dashboards", "json") {
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let board: serde_json::Value = serde_json::from_str(&text).expect("a dashboard is JSON");
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        for panel in board["panels"].as_array().expect("a dashboard has panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().expect("a target has a query").to_owned();
                found.push((format!("{name}: {}", panel["title"]), query));
            }
        }
        for variable in board["templating"]["list"].as_array().expect("a dashboard has variables") {
            let asked = variable["definition"].as_str().and_then(|text| text.strip_prefix("label_values("));
            if let Some((metric, _)) = asked.and_then(|asked| asked.rsplit_once(',')) {
                found.push((format!("{name}: variable {}", variable["name"]), metric.to_owned()));
            }
        }
    }
    found
}

/// The names that queries may use: metrics of running services in the forms in which Prometheus stores them, and
/// registered metrics that appear only after their first event.
fn exported() -> BTreeSet<String> {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate", "1"]).start();
    services.import("Q", 2);
    services.pay_until_true(Duration::from_secs(60));
    let mut names = BTreeSet::new();
    for process in [&services.billing, &services.payments] {
        let text = http::get(&format!("{}/metrics", process.admin_url())).text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        names.extend(samples.filter_map(|line| line.split([' ', '{']).next().map(str::to_owned)));
    }
    let source = source_text();
    for row in
        documented().into_iter().filter(|row| !row.always && source.contains(&format!("\"{}\"", row.name)))
    {
        names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", row.name)));
        names.insert(row.name);
    }
    names.extend(FOREIGN.iter().map(|name| (*name).to_owned()));
    names
}

fn assert_exported(queries: &[(String, String)]) {
    let exported = exported();
    let mut unknown = Vec::new();
    for (place, query) in queries {
        let names = metrics_in(query);
        assert!(!names.is_empty(), "{place}: no metric was found in {query}");
        unknown.extend(
            names.difference(&exported).map(|name| format!("{place}: no running service shows {name}")),
        );
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn alerts_ask_for_metrics_that_running_services_show() {
    assert_exported(&queries_of_alerts());
}

#[test]
fn dashboards_ask_for_metrics_that_running_services_show() {
    assert_exported(&queries_of_dashboards());
}

#[test]
fn the_metrics_of_a_query_are_found() {
    let query = r#"sum by (job, a) (rate(x_total{b=~"y|z"}[5m])) / on (job) group_left max(z) > 14.4 * 0.1 # note
        and time() - min without(c) (w:rate5m offset 1h) < 1e3 or label_replace(v, "q", "$1", "r", "(.+)")"#;
    let expected = ["v", "w:rate5m", "x_total", "z"].map(str::to_owned);
    assert_eq!(metrics_in(query), BTreeSet::from(expected));
}
