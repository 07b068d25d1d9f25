//! The findings of `sslscan` on each business port. Knows its output. It gives up where a client certificate is
//! required; `make prove-callers` tests that TLS 1.2 is refused there too.

use std::process::Command;

use testkit::Process;
use testkit::requirements::has;

use crate::Site;

/// The accepted suites of TLS 1.3; none of them is weak.
const SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const OLD: [&str; 5] = ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2"];

#[test]
fn business_ports_speak_tls_1_3_and_no_weak_suite() {
    if !has("sslscan", "what sslscan finds") {
        return;
    }
    let site = Site::new();
    for (name, process) in [
        ("billing", site.service("billing")),
        ("payments", site.service("payments")),
        ("ponger", site.ponger()),
    ] {
        scan(name, &process);
    }
}

fn scan(name: &str, process: &Process) {
    let output = Command::new("sslscan")
        .args(["--no-colour", "--sni-name=localhost"])
        .arg(process.address().to_string())
        .output()
        .expect("sslscan can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = text.lines().map(words).collect();
    let has_line =
        |wanted: &[&str]| lines.iter().any(|line| line.iter().map(String::as_str).eq(wanted.iter().copied()));
    for version in OLD {
        assert!(has_line(&[version, "disabled"]), "{name}: {version}\n{text}");
    }
    assert!(has_line(&["TLSv1.3", "enabled"]), "{name}\n{text}");
    let suites = lines
        .iter()
        .filter(|line| line.first().is_some_and(|word| word == "Preferred" || word == "Accepted"));
    let suites: Vec<&Vec<String>> = suites.collect();
    assert!(!suites.is_empty(), "{name}: it found no suite at all\n{text}");
    for suite in &suites {
        assert!(suite.iter().any(|word| SUITES.contains(&word.as_str())), "{name}: {suite:?}");
        assert!(suite.iter().any(|word| word == "TLSv1.3"), "{name}: {suite:?}");
    }
    println!("  {name:18} TLS 1.3 only, {} suites, none weak", suites.len());
}
