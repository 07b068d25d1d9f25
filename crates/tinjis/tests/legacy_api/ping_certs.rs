//! The ping pair with the certificates of its users: which are accepted and refused, mutual TLS, and a replacement of
//! all certificates during pings. Knows the programs from outside only.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use testkit::certs::{Authority, Pair, as_users_make_it, replace};
use testkit::requirements::has;

use crate::pings::{Program, free_port, pinger_of};

const SUCCESS: &str = "ping_requests_total{result=\"success\"}";
const FAILED: &str = "ping_requests_total{result=\"not_connected\"}";

/// A ponger with this certificate and more lines of configuration.
fn ponger(below: &Path, shows: &Pair, more: &str) -> (Program, u16) {
    let port = free_port();
    let (certificate, key) = shows.write(below, "ponger");
    let text = format!(
        "service:\n  port: {port}\n  address: 127.0.0.1\n  tlsCertificate: {}\n  tlsPrivateKey: {}\n{more}",
        certificate.display(),
        key.display()
    );
    (Program::start("ponger", below, &text), port)
}

/// A pinger that accepts this certificate, with more lines of configuration.
fn pinger(below: &Path, port: u16, accepts: &str, more: &str) -> Program {
    let accepted = below.join("accepted.pem");
    replace(&accepted, accepts);
    let url = format!("https://localhost:{port}");
    let text = format!("{}  acceptCert: {}\n{more}", pinger_of(&url), accepted.display());
    Program::start("pinger", below, &text)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn is_accepted(shows: &Pair, accepts: &str) -> bool {
    let folder = folder();
    let (_ponger, port) = ponger(folder.path(), shows, "");
    let pinger = pinger(folder.path(), port, accepts, "");
    let (mut good, mut bad) = (0, 0);
    while good + bad < 2 {
        (good, bad) = (pinger.figure(SUCCESS), pinger.figure(FAILED));
        testkit::wait::pause(std::time::Duration::from_millis(5));
    }
    assert!(good == 0 || bad == 0, "{}", pinger.log());
    good > 0
}

/// PNG-12
#[test]
fn a_certificate_made_by_openssl_works_on_both_sides() {
    let folder = folder();
    let made = as_users_make_it(folder.path(), "localhost");
    assert!(is_accepted(&made, &made.certificate));
}

/// PNG-12 PNG-07
#[test]
fn curl_takes_the_pong_by_its_certificate() {
    if !has("curl", "curl as a pinger") {
        return;
    }
    let folder = folder();
    let made = as_users_make_it(folder.path(), "pong");
    let (ponger, port) = ponger(folder.path(), &made, "  protocol: HTTPS\n");
    let url = format!("https://pong:{port}/ping");
    let curl = Command::new("curl")
        .args(["-sS", "--max-time", "10", "--resolve", &format!("pong:{port}:127.0.0.1"), "--cacert"])
        .arg(folder.path().join("ponger.pem"))
        .arg(&url)
        .output();
    let output = curl.expect("curl can be started");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "pong", "{output:?}");
    ponger.until_logged("Received GET /ping");
}

/// PNG-13 PNG-14
#[test]
fn a_pinned_leaf_and_a_leaf_of_an_accepted_authority_are_accepted() {
    let authority = Authority::new("of the ponger");
    let leaf = authority.server("localhost");
    assert!(is_accepted(&leaf, &leaf.certificate));
    assert!(is_accepted(&leaf, &authority.pem()));
}

/// PNG-15
#[test]
fn another_leaf_or_name_is_refused_although_its_twin_is_accepted() {
    let authority = Authority::new("of the ponger");
    let (leaf, other) = (authority.server("localhost"), authority.server("localhost"));
    assert!(is_accepted(&leaf, &leaf.certificate));
    assert!(!is_accepted(&other, &leaf.certificate), "another leaf of the same name");
    let (nameless, elsewhere) = (authority.nameless_server(), authority.server("pong"));
    assert!(!is_accepted(&nameless, &nameless.certificate), "no subject alternative name");
    assert!(!is_accepted(&elsewhere, &elsewhere.certificate), "another host name");
    let folder = folder();
    let (one, two) =
        (as_users_make_it(folder.path(), "localhost"), as_users_make_it(folder.path(), "localhost"));
    assert!(!is_accepted(&one, &two.certificate), "made in the same way, but another");
}

/// PNG-15
#[test]
fn an_expired_certificate_is_refused_although_it_is_pinned() {
    if !has("openssl", "a ponger whose certificate has expired") {
        return;
    }
    let folder = folder();
    let authority = Authority::new("of the ponger");
    let expired = authority.expired_server("localhost");
    // Our own ponger does not serve an expired certificate, so openssl does.
    let (certificate, key) = expired.write(folder.path(), "expired");
    let port = free_port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-accept", &port.to_string(), "-cert"])
        .arg(certificate)
        .arg("-key")
        .arg(key)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut server = server.expect("openssl can be started");
    let pinger = pinger(folder.path(), port, &expired.certificate, "");
    pinger.until_logged("Expired");
    assert_eq!(pinger.figure(SUCCESS), 0);
    server.kill().expect("it can be ended");
    server.wait().expect("it ends");
}

/// PNG-16
#[test]
fn only_clients_on_the_list_get_a_pong() {
    let folder = folder();
    let below = folder.path();
    let authority = Authority::new("of both");
    replace(&below.join("ca.pem"), &authority.pem());
    let rules = format!(
        "  clientCA: {}\n  allowedClients:\n    - pinger.ping-pong\n    - spiffe://cluster/pinger\n",
        below.join("ca.pem").display()
    );
    let (ponger, port) = ponger(below, &authority.server("localhost"), &rules);
    for (name, is_accepted) in
        [("pinger.ping-pong", true), ("spiffe://cluster/pinger", true), ("other", false)]
    {
        let (certificate, key) = authority.client(name).write(below, "client");
        let shows = format!("  clientCert: {}\n  clientKey: {}\n", certificate.display(), key.display());
        let pinger = pinger(below, port, &authority.pem(), &shows);
        pinger.until_figure(if is_accepted { SUCCESS } else { FAILED }, 2);
        assert_eq!(pinger.figure(if is_accepted { FAILED } else { SUCCESS }), 0, "{name}: {}", pinger.log());
    }
    ponger.until_figure("tls_refusals_total{reason=\"wrong_name\"}", 2);
    let before = ponger.figure(SUCCESS);
    let anonymous = pinger(below, port, &authority.pem(), "");
    ponger.until_figure("tls_refusals_total{reason=\"no_certificate\"}", 2);
    assert_eq!((anonymous.figure(SUCCESS), ponger.figure(SUCCESS)), (0, before));
}

/// PNG-18
#[test]
fn both_sides_change_their_certificates_and_no_ping_fails() {
    let folder = folder();
    let below = folder.path();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    replace(&below.join("ca.pem"), &old.pem());
    let rules =
        format!("  clientCA: {}\n  allowedClients: [pinger.ping-pong]\n", below.join("ca.pem").display());
    let (ponger, port) = ponger(below, &old.server("localhost"), &rules);
    let (certificate, key) = old.client("pinger.ping-pong").write(below, "client");
    let shows = format!("  clientCert: {}\n  clientKey: {}\n", certificate.display(), key.display());
    let pinger = pinger(below, port, &old.pem(), &shows);
    pinger.until_figure(SUCCESS, 5);
    // Both authorities are trusted before a new leaf is used, and the old one is removed last.
    let steps: [&dyn Fn(); 3] = [
        &|| {
            replace(&below.join("ca.pem"), &(old.pem() + &new.pem()));
            replace(&below.join("accepted.pem"), &(old.pem() + &new.pem()));
        },
        &|| {
            new.server("localhost").write(below, "ponger");
            new.client("pinger.ping-pong").write(below, "client");
        },
        &|| {
            replace(&below.join("ca.pem"), &new.pem());
            replace(&below.join("accepted.pem"), &new.pem());
        },
    ];
    for (taken, step) in (1..).zip(steps) {
        step();
        for side in [&pinger, &ponger] {
            side.until_figure("tls_reloads_total{result=\"ok\"}", taken);
        }
        pinger.until_figure(SUCCESS, pinger.figure(SUCCESS) + 5);
    }
    for result in ["not_connected", "timeout", "no_answer", "wrong_status", "wrong_body"] {
        assert_eq!(
            pinger.figure(&format!("ping_requests_total{{result=\"{result}\"}}")),
            0,
            "{}",
            pinger.log()
        );
    }
    replace(&below.join("ponger.pem"), "broken");
    ponger.until_figure("tls_reloads_total{result=\"bad\"}", 1);
    pinger.until_figure(SUCCESS, pinger.figure(SUCCESS) + 5);
    assert_eq!(pinger.figure(FAILED), 0);
}
