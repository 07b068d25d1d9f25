//! The commands of tutorials and how-to pages, run as written but on other ports: each succeeds, and prints what its
//! page shows. Expressions of the monitoring page name metrics that exist. Knows the pages; judges nothing else.
#![cfg(test)]

use std::path::Path;

use testkit::page::Page;
use testkit::process::free_address;
use testkit::requirements;

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");

/// Runs a page in an empty folder, from a heading to its end or to another heading.
#[track_caller]
fn works(page: &str, from: &str, to: Option<&str>) {
    if !["bash", "curl", "openssl"].iter().all(|program| requirements::has(program, page)) {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let work = folder.path().join("work");
    std::fs::create_dir(&work).expect("a folder can be made");
    let page = Page::open(&path, TINJIS, folder.path());
    let ports = Ports::free();
    let differences = page.differences(from, to, &work, |commands| ports.instead_of_the_defaults(commands));
    assert!(differences.is_empty(), "{}:\n{}", path.display(), differences.join("\n"));
}

/// Free ports instead of the default ports, which another process may use.
struct Ports {
    billing: [u16; 2],
    payments: [u16; 2],
}

impl Ports {
    fn free() -> Self {
        let two = || [free_address().port(), free_address().port()];
        Self { billing: two(), payments: two() }
    }

    /// The commands with these ports, where they name a default port and where they rely on one.
    fn instead_of_the_defaults(&self, commands: &str) -> String {
        let [billing, payments] = [self.billing[0], self.payments[0]];
        let listen =
            |[port, admin]: [u16; 2]| format!("--listen 127.0.0.1:{port} --admin-listen 127.0.0.1:{admin}");
        let mut text = commands
            .replace("tinjis run payments", &format!("tinjis run payments {}", listen(self.payments)))
            .replace("tinjis run billing", &format!("tinjis run billing {}", listen(self.billing)));
        if !text.contains("--payment-provider-endpoint") {
            let keys = "--payment-provider-idempotency keys";
            text = text
                .replace(keys, &format!("{keys} --payment-provider-endpoint http://localhost:{payments}"));
        }
        if !text.contains("--payments http") {
            let verify = "tinjis verify";
            text = text.replace(verify, &format!("{verify} --payments http://localhost:{payments}"));
        }
        for command in ["pay", "import", "verify"] {
            let command = format!("tinjis {command} ");
            // A command at the end of a line has no flags.
            text = text.replace(&format!("{}\n", command.trim_end()), &format!("{command}\n"));
            text = text.replace(&format!("{};", command.trim_end()), &format!("{command};"));
            text = text.replace(&command, &format!("{command}--billing http://localhost:{billing} "));
        }
        let defaults = ["8000", "8001", "9000", "9001"].iter();
        let ports = self.billing.iter().chain(&self.payments);
        defaults.zip(ports).fold(text, |text, (default, port)| {
            text.replace(&format!("localhost:{default}"), &format!("localhost:{port}"))
        })
    }
}

#[test]
fn the_tutorial_of_the_first_charge_prints_what_it_shows() {
    works("tutorial/first-charge.md", "Start both services", None);
}

#[test]
fn mutual_tls_is_set_up_by_the_commands_of_its_page() {
    works("how-to/mtls.md", "The five commands", None);
}

#[test]
fn a_token_is_changed_by_the_commands_of_its_page() {
    works("how-to/rotate.md", "Change the token of payments", Some("The same in a cluster"));
}

#[test]
fn a_biller_is_tested_by_the_commands_of_its_page() {
    works("how-to/test-your-biller.md", "Start a provider that loses responses", None);
}

#[test]
fn the_monitoring_page_uses_only_metrics_that_are_documented() {
    const FUNCTIONS: &[&str] = &["avg_over_time", "histogram_quantile"];
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let read = |page: &str| std::fs::read_to_string(docs.join(page)).expect("the page is there");
    let (reference, page) = (read("reference/metrics.md"), read("how-to/monitor.md"));
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // The expressions of the alerts, then the other expressions.
    let alerts = page.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let looks = page.split_once("```promql\n").expect("the page has expressions").1.lines();
    let looks = looks.take_while(|line| *line != "```");
    let words = alerts.chain(looks).flat_map(|line| line.split(|c| !is_of_name(c)));
    let metrics: Vec<&str> = words
        .filter(|word| word.contains('_') && !FUNCTIONS.contains(word))
        .map(|word| word.trim_end_matches("_bucket"))
        .collect();
    let missing: Vec<&&str> =
        metrics.iter().filter(|name| !reference.contains(&format!("`{name}`"))).collect();
    assert!(metrics.len() >= 20, "expressions were found: {metrics:?}");
    assert!(missing.is_empty(), "docs/reference/metrics.md does not have {missing:?}");
}
