//! Traces of both services by OTLP: a charge is one trace across its resends, a later process continues it, sampling is
//! one decision, and a failing collector costs spans and no charge. Runs against a receiver in this process, and with
//! `make traces-test` against a real collector. Knows the services from outside only.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::otlp::{Receiver, Span, of_json_lines};
use testkit::process::free_address;
use testkit::requirements::may_have;
use testkit::wait::wait_for;
use testkit::{Builder, Services, http, runs};

const WITHIN: Duration = Duration::from_secs(60);
/// Program of the collector that `make traces-tools` builds.
const COLLECTOR: &str = "TRACES_COLLECTOR";

const INTERNAL: i64 = 1;
const SERVER: i64 = 2;
const CLIENT: i64 = 3;

/// The allowed attributes: no amount, no currency, no customer, no credential.
const ATTRIBUTES: [&str; 19] = [
    "attempt.key",
    "attempt.number",
    "attempt.sends",
    "attempt.state",
    "error.type",
    "http.request.method",
    "http.request.resend_count",
    "http.response.status_code",
    "http.route",
    "invoice.id",
    "ledger.replayed",
    "ledger.seq",
    "run.id",
    "run.trace_id",
    "server.address",
    "server.port",
    "url.full",
    "url.path",
    "url.scheme",
];

/// Both services with this endpoint for traces and this fault script.
fn services(endpoint: &str, faults: &str) -> (Services, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let script = dir.path().join("faults.toml");
    std::fs::write(&script, faults).expect("the script can be written");
    let faults = format!("--faults={}", script.display());
    let flags = ["--success-rate=1".to_owned(), faults];
    (exporting(endpoint).payments_flags(flags).start(), dir)
}

fn exporting(endpoint: &str) -> Builder {
    let mut builder = Services::of(env!("CARGO_BIN_EXE_tinjis"));
    for (name, value) in [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50")] {
        builder = builder.billing_env(name, value).payments_env(name, value);
    }
    builder
}

/// Imports invoices of 9.90 EUR.
fn import(services: &Services, count: usize) {
    let rows: String = (1..=count)
        .map(|n| {
            format!(
                "{{\"reference\":\"I{n}\",\"customer_id\":{n},\"currency\":\"EUR\",\"amount\":\"9.90\"}}\n"
            )
        })
        .collect();
    let url = format!("{}/v1/imports", services.billing_url());
    let answer = http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], rows.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The key of the only attempt.
fn only_key(services: &Services) -> String {
    let attempts = http::get(&format!("{}/v1/attempts", services.billing_url())).json();
    attempts["items"][0]["key"].as_str().expect("an attempt has a key").to_owned()
}

/// The spans of a trace, once its first span, which ends last, and `payments` spans of the other service have arrived.
fn trace_of(key: &str, payments: usize, spans: impl Fn() -> Vec<Span>) -> Vec<Span> {
    wait_for("the whole trace", WITHIN, || {
        let trace: Vec<Span> = spans().into_iter().filter(|span| span.trace_id == key).collect();
        let is_whole = trace.iter().any(|span| span.parent.is_empty())
            && trace.iter().filter(|span| span.service == "payments").count() == payments;
        is_whole.then_some(trace)
    })
}

fn of<'a>(trace: &'a [Span], kind: i64, name: &str) -> Vec<&'a Span> {
    let mut found: Vec<&Span> = trace.iter().filter(|span| span.kind == kind && span.name == name).collect();
    found.sort_by_key(|span| span.began_ns);
    found
}

/// Asserts the trace of one charge whose answer is lost twice.
fn assert_resent_twice(key: &str, trace: &[Span]) {
    let [root] = of(trace, INTERNAL, "charge")[..] else { panic!("one first span: {trace:#?}") };
    assert_eq!((root.parent.as_str(), root.attributes["attempt.state"].as_str()), ("", "CHARGED"));
    assert_eq!(
        (root.attributes["attempt.key"].as_str(), root.attributes["attempt.sends"].as_str()),
        (key, "3")
    );

    let [first, second, third] = of(trace, CLIENT, "POST")[..] else { panic!("three sends: {trace:#?}") };
    let id = |span: &Span| (key.to_owned(), span.span_id.clone());
    assert_eq!((&first.links, &second.links, &third.links), (&vec![], &vec![id(first)], &vec![id(second)]));
    assert_eq!(trace.iter().map(|span| span.links.len()).sum::<usize>(), 2, "two links in all: {trace:#?}");
    let resends =
        [first, second, third].map(|send| send.attributes.get("http.request.resend_count").cloned());
    assert_eq!(resends, [None, Some("1".to_owned()), Some("2".to_owned())]);
    assert_eq!([first, second, third].map(|send| send.is_failed), [true, true, false]);
    assert_eq!(third.attributes["http.response.status_code"], "200");

    let served = of(trace, SERVER, "POST /");
    let commits = of(trace, INTERNAL, "ledger commit");
    assert_eq!((served.len(), commits.len()), (3, 3), "{trace:#?}");
    for (nth, send) in [first, second, third].into_iter().enumerate() {
        assert_eq!(send.parent, root.span_id);
        assert_eq!((served[nth].parent.as_str(), served[nth].service.as_str()), (&*send.span_id, "payments"));
        assert_eq!(commits[nth].parent, served[nth].span_id);
        assert_eq!(commits[nth].attributes["ledger.replayed"], (nth > 0).to_string());
        assert_eq!(commits[nth].attributes["ledger.seq"], "1");
    }
    assert_eq!(of(trace, INTERNAL, "settle").len(), 3, "{trace:#?}");
    for span in trace {
        assert!(span.began_ns <= span.ended_ns && root.began_ns <= span.began_ns, "{span:#?}");
    }
}

/// Asserts that no span contains an amount, a customer or a credential.
fn assert_discreet(spans: &[Span]) {
    for span in spans {
        for (name, value) in &span.attributes {
            assert!(ATTRIBUTES.contains(&name.as_str()), "{name} of {span:#?}");
            let is_secret =
                ["9.90", "990", "EUR", "secret"].iter().any(|text| value == text || value.contains("9.9"));
            assert!(!is_secret || name == "server.port", "{name} of {span:#?}");
        }
    }
}

const LOST_TWICE: &str = "seed = 1\n[[rule]]\nfault = \"reply-lost\"\ntimes = 2\n";

#[test]
fn a_charge_resent_twice_is_one_trace_with_two_links() {
    let receiver = Receiver::start();
    let (services, _script) = services(&receiver.url(), LOST_TWICE);
    import(&services, 1);
    let run = runs::wait(&services.start_run(), WITHIN);
    assert_eq!(run["paid"], 1, "{run}");
    let key = only_key(&services);
    let trace = trace_of(&key, 6, || receiver.spans());
    assert_resent_twice(&key, &trace);
    assert_discreet(&receiver.spans());

    // The run belongs to the trace of the call that started it, and each charge names that trace.
    let spans = wait_for("the run", WITHIN, || {
        Some(receiver.spans()).filter(|spans| spans.iter().any(|span| span.name == "run"))
    });
    let [run] = of(&spans, INTERNAL, "run")[..] else { panic!("one run: {spans:#?}") };
    assert_eq!(of(&trace, INTERNAL, "charge")[0].attributes["run.trace_id"], run.trace_id);
    let [call] = of(&spans, SERVER, "POST /v1/runs")[..] else { panic!("one call: {spans:#?}") };
    assert_eq!((&call.trace_id, &call.span_id), (&run.trace_id, &run.parent));
    for head in receiver.heads() {
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /v1/traces "), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    }
}

#[test]
fn a_resend_of_a_later_process_continues_the_trace_and_links_to_the_send_before() {
    let receiver = Receiver::start();
    let held = "seed = 1\n[[rule]]\nfault = \"hold\"\nlatency_ms = 60000\ntimes = 1\n";
    let (mut services, _script) = services(&receiver.url(), held);
    import(&services, 1);
    let _run = services.start_run();
    wait_for("the first charge", WITHIN, || {
        (services.ask_payments("SELECT count(*) FROM ledger") == 1).then_some(())
    });
    let key = only_key(&services);
    services.kill_billing();
    services.billing.start_again();
    // The answer of the first call is held: its own span may never arrive, but the span of its commit has.
    let trace = wait_for("the whole trace", WITHIN, || {
        let trace: Vec<Span> = receiver.spans().into_iter().filter(|span| span.trace_id == key).collect();
        let is_whole =
            of(&trace, INTERNAL, "charge").len() == 1 && of(&trace, INTERNAL, "ledger commit").len() == 2;
        is_whole.then_some(trace)
    });
    let [send] = of(&trace, CLIENT, "POST")[..] else { panic!("one send has ended: {trace:#?}") };
    let [(linked_trace, linked_span)] = &send.links[..] else { panic!("it links to the first: {trace:#?}") };
    assert_eq!(linked_trace, &key);
    assert_ne!(linked_span, &send.span_id);
    assert_eq!(send.attributes["http.request.resend_count"], "1");
    assert_eq!(of(&trace, INTERNAL, "charge")[0].span_id, send.parent);
    assert_eq!(of(&trace, INTERNAL, "charge")[0].attributes["attempt.sends"], "2");
}

#[test]
fn a_send_that_was_not_executed_and_the_next_one_are_two_spans_although_one_is_counted() {
    let receiver = Receiver::start();
    let not_executed = "seed = 1\n[[rule]]\nfault = \"status\"\nstatus = 404\ntimes = 1\n";
    let (services, _script) = services(&receiver.url(), not_executed);
    import(&services, 1);
    let key = {
        let run = runs::wait(&services.start_run(), WITHIN);
        assert_eq!(run["paid"], 1, "{run}");
        only_key(&services)
    };
    let trace = trace_of(&key, 3, || receiver.spans());
    let [first, second] = of(&trace, CLIENT, "POST")[..] else { panic!("two sends: {trace:#?}") };
    assert_eq!(first.attributes["http.response.status_code"], "404");
    assert_ne!(first.span_id, second.span_id);
    assert_eq!(second.links, [(key.clone(), first.span_id.clone())]);
    assert_eq!(second.attributes["http.request.resend_count"], "1");
    assert_eq!(of(&trace, INTERNAL, "charge")[0].attributes["attempt.sends"], "1");
}

#[test]
fn a_trace_that_billing_does_not_sample_is_not_recorded_by_payments_either() {
    let receiver = Receiver::start();
    let services = exporting(&receiver.url())
        .billing_env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .billing_env("OTEL_TRACES_SAMPLER_ARG", "0.1")
        .payments_flags(["--success-rate=1"])
        .start();
    import(&services, 200);
    let run = runs::wait(&services.start_run(), WITHIN);
    assert_eq!(run["paid"], 200, "{run}");
    // As the sampler of OpenTelemetry's SDKs: the low 63 bits of the id decide.
    let attempts = http::get(&format!("{}/v1/attempts?limit=1000", services.billing_url())).json();
    let keys = attempts["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["key"].as_str().unwrap().to_owned());
    let is_sampled = |key: &String| u64::from_str_radix(&key[16..], 16).unwrap() >> 1 < (1 << 63) / 10;
    let sampled: std::collections::BTreeSet<String> = keys.filter(is_sampled).collect();
    assert!((1..100).contains(&sampled.len()), "{sampled:?}");
    let commits = |spans: &[Span]| -> std::collections::BTreeSet<String> {
        spans.iter().filter(|span| span.name == "ledger commit").map(|span| span.trace_id.clone()).collect()
    };
    wait_for("the sampled charges", WITHIN, || {
        (commits(&receiver.spans()).len() == sampled.len()).then_some(())
    });
    assert_eq!(commits(&receiver.spans()), sampled);
    let charges = |spans: &[Span]| spans.iter().filter(|span| span.name == "charge").count();
    wait_for("their settlements", WITHIN, || (charges(&receiver.spans()) == sampled.len()).then_some(()));
}

#[test]
fn a_collector_that_fails_costs_spans_and_no_charge() {
    let receiver = Receiver::start();
    receiver.refuse("500 Internal Server Error");
    let (mut services, _script) = services(&receiver.url(), "seed = 1\n");
    import(&services, 20);
    let run = runs::wait(&services.start_run(), WITHIN);
    assert_eq!(run["paid"], 20, "{run}");
    wait_for("lost spans", WITHIN, || {
        (services.billing.metric(&["traces_spans_total", "failed"]) >= 20).then_some(())
    });
    assert_eq!(services.billing.metric(&["traces_spans_total", "exported"]), 0);
    assert!(services.stop_billing().success());
    let warnings = services.billing.log().matches("the collector does not take traces").count();
    assert_eq!(warnings, 1, "{}", services.billing.log());
}

#[test]
fn what_is_still_queued_is_sent_at_the_end() {
    let receiver = Receiver::start();
    let slow = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut services =
        exporting(&receiver.url()).billing_env(slow.0, slow.1).payments_flags(["--success-rate=1"]).start();
    import(&services, 3);
    let run = runs::wait(&services.start_run(), WITHIN);
    assert_eq!(run["paid"], 3, "{run}");
    assert!(receiver.spans().iter().all(|span| span.service == "payments"));
    assert!(services.stop_billing().success());
    assert_eq!(of(&receiver.spans(), INTERNAL, "charge").len(), 3);
}

/// A running collector, which ends with the test.
struct Collector(Child);

impl Drop for Collector {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn start_collector(program: &str, dir: &Path) -> (Collector, String) {
    let address = free_address();
    let config = format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"{address}\"}}}}}}}}\n\
         exporters: {{file: {{path: \"{}\", flush_interval: 100ms}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n",
        dir.join("spans.json").display()
    );
    let file = dir.join("collector.yaml");
    std::fs::write(&file, config).expect("the settings can be written");
    let mut command = Command::new(program);
    command.arg("--config").arg(file).env_clear().stdout(Stdio::null()).stderr(Stdio::null());
    let collector = Collector(command.spawn().expect("the collector starts"));
    wait_for("the collector", WITHIN, || std::net::TcpStream::connect(address).ok());
    (collector, format!("http://{address}"))
}

#[test]
fn a_real_collector_has_one_trace_with_two_links_of_a_charge_resent_twice() {
    let given = std::env::var_os(COLLECTOR).and_then(|path| path.into_string().ok());
    let program = given.unwrap_or_else(|| "otelcol-tinjis".to_owned());
    if !may_have(&program, "the test of traces with a real collector, which `make traces-tools` builds") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_collector, endpoint) = start_collector(&program, dir.path());
    let (services, _script) = services(&endpoint, LOST_TWICE);
    import(&services, 1);
    let run = runs::wait(&services.start_run(), WITHIN);
    assert_eq!(run["paid"], 1, "{run}");
    let written =
        || of_json_lines(&std::fs::read_to_string(dir.path().join("spans.json")).unwrap_or_default());
    let key = only_key(&services);
    let trace = trace_of(&key, 6, written);
    assert_resent_twice(&key, &trace);
    assert_discreet(&written());
    println!("a real collector has {} spans of one trace, with two links", trace.len());
}
