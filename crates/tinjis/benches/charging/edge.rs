//! What authentication costs payments: the handshake of a connection, full and resumed, and the signed token of a
//! request. The service itself counts each kind, so that none is taken for another. Knows no goal.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use chassis::clock::Clock;
use serde_json::json;
use testkit::certs::Authority;
use testkit::http::Connection;
use testkit::issuer::{SigningKey, key_set};
use testkit::process::{Process, Spec, run_by};
use testkit::secure::{Dialer, Page};
use testkit::wait::timed;

use crate::grouped;

/// Clients that connect at the same time.
const CLIENTS: usize = 4;
/// Minimum and maximum number of connections of a leg; in between it is one for 25 invoices of the benchmark.
const CONNECTIONS: (usize, usize) = (400, 4000);
/// Minimum and maximum number of requests of a leg on a kept connection; in between it is one for 5 invoices.
const REQUESTS: (usize, usize) = (2000, 20_000);
/// The leg with a new token for each request sends this fraction of the requests: making a token takes longer than
/// verifying it.
const NEW_TOKENS_SHARE: usize = 5;
const CLIENT: &str = "spiffe://test/bench";
const SUBJECT: &str = "system:serviceaccount:bench:bench";
/// A page of no rows, which is rejected after authentication, so that the ledger is not measured.
const GUARDED: &str = "/v1/ledger?limit=0";

/// A rate, and the CPU time that it cost payments.
struct Cost {
    per_second: usize,
    cpu_us: u64,
}

/// Measures and prints all legs.
pub(crate) fn report(out: &mut impl Write, invoices: usize) -> io::Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    writeln!(out, "\n{:<46} {:>9} {:>13}", "at payments' edge", "/s", "CPU payments")?;
    let connections = (invoices / 25).clamp(CONNECTIONS.0, CONNECTIONS.1);
    let requests = (invoices / 5).clamp(REQUESTS.0, REQUESTS.1);
    handshakes(out, folder.path(), connections)?;
    proofs(out, folder.path(), requests)?;
    writeln!(out, "CPU is per connection with one request, or per request on a kept connection.\n")
}

fn line(out: &mut impl Write, what: &str, cost: &Cost) -> io::Result<()> {
    writeln!(out, "{what:<46} {:>9} {:>10} µs", grouped(cost.per_second), cost.cpu_us)
}

fn handshakes(out: &mut impl Write, folder: &Path, connections: usize) -> io::Result<()> {
    let authority = Authority::new("of the benchmark");
    let (certificate, key) = authority.server("localhost").write(folder, "server");
    let trusted = folder.join("ca.pem");
    fs::write(&trusted, authority.pem())?;
    let plain = payments(folder, "plain", &[]);
    let secured = payments(
        folder,
        "secured",
        &[
            ("TLS_CERT", certificate.display().to_string()),
            ("TLS_KEY", key.display().to_string()),
            ("TLS_CLIENT_CA", trusted.display().to_string()),
            ("TLS_ALLOWED_CLIENTS", CLIENT.to_owned()),
        ],
    );
    let resuming = Dialer::new(&authority.pem(), Some(&authority.client(CLIENT)));
    let anew = resuming.clone().never_resuming();
    // A session is resumed once, and each connection brings several sessions: enough for all clients at once.
    for _ in 0..CLIENTS {
        over_tls(&resuming, secured.address())?;
    }
    let costs = connect(&plain, connections, |address| {
        let mut connection = Connection::open(&address.to_string())?;
        connection.call("GET", "/health", &[("Connection", "close")], b"").map(|answer| answer.status)
    })?;
    line(out, "connection and request, plain", &costs)?;
    for (what, kind, dialer) in [
        ("the same, mutual TLS, full handshake", "full", &anew),
        ("the same, mutual TLS, resumed session", "resumed", &resuming),
    ] {
        let made = || secured.metric(&["tls_handshakes_total", &format!("kind=\"{kind}\"")]);
        let before = made();
        let cost = connect(&secured, connections, |address| over_tls(dialer, address))?;
        let made = usize::try_from(made() - before).unwrap_or_default();
        assert!(made + CLIENTS >= connections, "{made} of {connections} were {kind}");
        line(out, what, &cost)?;
    }
    Ok(())
}

fn over_tls(dialer: &Dialer, address: SocketAddr) -> io::Result<u16> {
    let mut connection = dialer.open(address, "localhost")?;
    connection.call("GET", "/health", &[("Connection", "close")], b"").map(|answer| answer.status)
}

/// Opens this many connections by several clients at once, each with one request.
fn connect(
    payments: &Process,
    connections: usize,
    once: impl Fn(SocketAddr) -> io::Result<u16> + Sync,
) -> io::Result<Cost> {
    let (address, before) = (payments.address(), payments.cpu_ms());
    let of_one = || -> io::Result<()> {
        for _ in 0..connections / CLIENTS {
            assert_eq!(once(address)?, 200, "payments are healthy");
        }
        Ok(())
    };
    let (result, took) = timed(|| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(of_one)).collect();
            clients.into_iter().try_for_each(|client| client.join().expect("a client ends"))
        })
    });
    result?;
    Ok(cost(payments, connections, took, before))
}

fn proofs(out: &mut impl Write, folder: &Path, requests: usize) -> io::Result<()> {
    let authority = Authority::new("of the API server");
    let (rsa, p256) = (SigningKey::rsa("k-rsa"), SigningKey::p256("k-p256"));
    let keys = Page::serve(&authority, key_set(&[rsa.jwk(), p256.jwk()]));
    fs::write(folder.join("ca.crt"), authority.pem())?;
    fs::write(folder.join("tokens"), "the-token")?;
    let payments = payments(
        folder,
        "proofs",
        &[
            ("PAYMENTS_API_TOKEN_FILE", folder.join("tokens").display().to_string()),
            ("JWT_AUDIENCE", "payments".to_owned()),
            ("JWT_ISSUER", "https://issuer.test".to_owned()),
            ("JWT_SUBJECTS", SUBJECT.to_owned()),
            ("JWT_JWKS_URL", keys.url()),
            ("JWT_CREDENTIALS", folder.display().to_string()),
        ],
    );
    let token = vec![("X-Token", "the-token".to_owned()); requests];
    line(out, "request, static token", &ask(&payments, &token)?)?;
    let bearer = |text: String| ("Authorization", format!("Bearer {text}"));
    let known = vec![bearer(jwt(&rsa, 0)); requests];
    line(out, "the same, signed token that was seen before", &ask(&payments, &known)?)?;
    for (what, key) in
        [("the same, a new token each time, RS256", &rsa), ("the same, a new token each time, ES256", &p256)]
    {
        let numbers = 1..=requests / NEW_TOKENS_SHARE;
        let new: Vec<_> = numbers.map(|number| bearer(jwt(key, number))).collect();
        line(out, what, &ask(&payments, &new)?)?;
    }
    Ok(())
}

/// Sends a request for each proof, one after the other on one connection.
fn ask(payments: &Process, proofs: &[(&str, String)]) -> io::Result<Cost> {
    let mut connection = Connection::open(&payments.address().to_string())?;
    let before = payments.cpu_ms();
    let (result, took) = timed(|| -> io::Result<()> {
        for (name, value) in proofs {
            let answer = connection.call("GET", GUARDED, &[(name, value)], b"")?;
            assert_eq!(answer.status, 400, "the caller was authenticated: {}", answer.text());
        }
        Ok(())
    });
    result?;
    Ok(cost(payments, proofs.len(), took, before))
}

fn cost(payments: &Process, times: usize, took: Duration, cpu_ms_before: u64) -> Cost {
    let micros = usize::try_from(took.as_micros()).unwrap_or(usize::MAX).max(1);
    let cpu_ms = payments.cpu_ms() - cpu_ms_before;
    let cpu_us = cpu_ms * 1000 / u64::try_from(times).unwrap_or(u64::MAX).max(1);
    Cost { per_second: times * 1_000_000 / micros, cpu_us }
}

fn jwt(key: &SigningKey, number: usize) -> String {
    let now = Clock::system().now_ms() / 1000;
    key.token(&json!({
        "iss": "https://issuer.test", "aud": ["payments"], "sub": SUBJECT, "nbf": now, "exp": now + 3600,
        "jti": number,
    }))
}

fn payments(folder: &Path, name: &'static str, settings: &[(&str, String)]) -> Process {
    let mut spec = Spec::new(run_by(env!("CARGO_BIN_EXE_tinjis"), "payments"), name, folder);
    spec.env.insert("LOG_LEVEL".to_owned(), "warn".to_owned());
    spec.env.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Process::start(spec)
}
