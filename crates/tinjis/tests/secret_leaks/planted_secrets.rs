//! Both services with a canary in every secret, at the most verbose log level: charges, refused callers, invalid
//! replacements of files, a shutdown. Searches logs, metrics and answers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chassis::clock::Clock;
use serde_json::json;
use testkit::certs::{Authority, Leaf, Pair, replace};
use testkit::issuer::{SigningKey, key_set};
use testkit::process::{Spec, run_by};
use testkit::secure::{Dialer, Page};
use testkit::{Process, wait_until};

use crate::Canaries;

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
const CLIENT: &str = "spiffe://test/billing";
const SUBJECT: &str = "system:serviceaccount:antaeus:antaeus";
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn no_secret_is_in_logs_figures_or_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut canaries = Canaries::default();
    let fixture = LeakFixture::furnish(folder.path(), &mut canaries);
    let mut payments = Process::start(fixture.payments());
    let mut billing = Process::start(fixture.billing(&payments));
    let mut pages = charge(&billing, &fixture);
    pages.extend(refused(&payments, &fixture, &mut canaries));
    spoil(folder.path(), &[&payments, &billing], &fixture);
    for process in [&payments, &billing] {
        pages.push(testkit::http::get(&format!("{}/metrics", process.admin_url())).body);
    }
    payments.stop();
    billing.stop();
    let logs = [("payments' log", payments.log()), ("billing's log", billing.log())];
    let mut found = Vec::new();
    for (place, log) in &logs {
        assert!(log.contains("\"DEBUG\""), "{place} is as talkative as it can be");
        found.extend(canaries.found_in(place, log.as_bytes()));
    }
    found.extend(pages.iter().flat_map(|page| canaries.found_in("an answer", page)));
    assert_eq!(found, Vec::<String>::new());
}

struct LeakFixture {
    folder: std::path::PathBuf,
    authority: Authority,
    client: Pair,
    signing: SigningKey,
    keys: Page,
    token: String,
    operator: String,
}

impl LeakFixture {
    /// Writes every secret file, with a canary in each.
    fn furnish(folder: &Path, canaries: &mut Canaries) -> Self {
        let authority = Authority::new("the test's");
        let (server, client) = (authority.server("localhost"), authority.leaf(&Leaf::client(CLIENT)));
        server.write(folder, "server");
        client.write(folder, "client");
        replace(&folder.join("ca.crt"), &authority.pem());
        for (what, pair) in [("the server's key", &server), ("the client's key", &client)] {
            for line in pair.key.lines().filter(|line| !line.starts_with('-') && line.len() > 20) {
                canaries.add(what, line);
            }
        }
        let signing = SigningKey::p256("k1");
        let keys = Page::serve(&authority, key_set(&[signing.jwk()]));
        let token = canaries.plant("the token");
        replace(&folder.join("tokens"), &format!("{token}\n{}\n", canaries.plant("the second token")));
        let operator = canaries.plant("the operator's token");
        replace(&folder.join("operators"), &operator);
        // The token that is sent to the API server.
        replace(&folder.join("token"), &canaries.plant("the pod's own token"));
        let now = Clock::system().now_ms() / 1000;
        let jwt = signing.token(&json!({
            "iss": "https://issuer.test", "aud": "payments", "sub": SUBJECT, "exp": now + 600,
            "jti": "canary-in-the-claims",
        }));
        for part in jwt.split('.').skip(1) {
            canaries.add("a part of the signed token", part);
        }
        canaries.add("a claim of the signed token", "canary-in-the-claims");
        replace(&folder.join("jwt"), &jwt);
        Self { folder: folder.to_owned(), authority, client, signing, keys, token, operator }
    }

    fn spec(&self, name: &'static str, settings: &[(&str, &str)]) -> Spec {
        let mut spec = Spec::new(run_by(TINJIS, name), name, &self.folder);
        spec.env.insert("LOG_LEVEL".to_owned(), "trace".to_owned());
        for (name, value) in settings {
            let is_file = self.folder.join(value).is_file();
            let value = if is_file { self.text(value) } else { (*value).to_owned() };
            spec.env.insert((*name).to_owned(), value);
        }
        spec
    }

    fn text(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    fn payments(&self) -> Spec {
        let folder = self.folder.display().to_string();
        self.spec(
            "payments",
            &[
                ("TLS_CERT", "server.pem"),
                ("TLS_KEY", "server.key"),
                ("TLS_CLIENT_CA", "ca.crt"),
                ("TLS_ALLOWED_CLIENTS", CLIENT),
                ("CALLER_PROOF", "all"),
                ("PAYMENTS_API_TOKEN_FILE", "tokens"),
                ("JWT_AUDIENCE", "payments"),
                ("JWT_ISSUER", "https://issuer.test"),
                ("JWT_SUBJECTS", SUBJECT),
                ("JWT_JWKS_URL", &self.keys.url()),
                ("JWT_CREDENTIALS", &folder),
                ("SUCCESS_RATE", "1"),
            ],
        )
    }

    fn billing(&self, payments: &Process) -> Spec {
        let endpoint = format!("https://localhost:{}", payments.address().port());
        self.spec(
            "billing",
            &[
                ("PAYMENT_PROVIDER_ENDPOINT", &endpoint),
                ("PAYMENT_PROVIDER_IDEMPOTENCY", "keys"),
                ("PROVIDER_CA", "ca.crt"),
                ("PROVIDER_CERT", "client.pem"),
                ("PROVIDER_KEY", "client.key"),
                ("PROVIDER_TOKEN_FILE", "jwt"),
                ("PAYMENTS_API_TOKEN_FILE", "tokens"),
                ("OPERATOR_TOKEN_FILE", "operators"),
                ("DEMO", "antaeus"),
            ],
        )
    }
}

/// Charges every demo invoice after some calls of an operator; returns the bodies.
fn charge(billing: &Process, fixture: &LeakFixture) -> Vec<Vec<u8>> {
    let bearer = format!("Bearer {}", fixture.operator);
    let call = |headers: &[(&str, &str)], path: &str| {
        testkit::http::call("POST", &format!("{}{path}", billing.url()), headers, b"")
    };
    let mut pages = vec![
        call(&[("Authorization", &bearer)], "/v1/runs").body,
        call(&[("Authorization", "Bearer wrong")], "/v1/runs").body,
    ];
    wait_until("every invoice to be paid", WITHIN, || {
        let answer = call(&[], "/rest/v1/invoices/pay");
        let is_paid = answer.body == b"true";
        pages.push(answer.body);
        is_paid
    });
    pages
}

/// Calls with wrong secrets, some of them nearly right; returns the bodies.
fn refused(payments: &Process, fixture: &LeakFixture, canaries: &mut Canaries) -> Vec<Vec<u8>> {
    let wrong = canaries.plant("a wrong token");
    let dialer = Dialer::new(&fixture.authority.pem(), Some(&fixture.client));
    let jwt =
        fixture.signing.token(&json!({ "iss": "elsewhere", "jti": "canary-in-a-refused-claim", "exp": 1 }));
    canaries.add("a claim of a refused token", "canary-in-a-refused-claim");
    for part in jwt.split('.').skip(1) {
        canaries.add("a part of a refused token", part);
    }
    let bearer = format!("Bearer {jwt}");
    let nonsense = format!("Bearer {}", canaries.plant("no token at all"));
    let attempts: [&[(&str, &str)]; 4] = [
        &[("X-Token", &wrong)],
        &[("X-Token", &fixture.token), ("Authorization", &bearer)],
        &[("X-Token", &fixture.token), ("Authorization", &nonsense)],
        &[("X-Token", &fixture.token), ("Authorization", &wrong)],
    ];
    let call = |headers: &&[(&str, &str)]| {
        let mut connection = dialer.open(payments.address(), "localhost").expect("a connection");
        let answer = connection.call("POST", "/", headers, b"{}").expect("an answer");
        assert_eq!(answer.status, 403);
        answer.body
    };
    attempts.iter().map(call).collect()
}

/// Makes each secret file invalid, which is logged.
fn spoil(folder: &Path, processes: &[&Process], fixture: &LeakFixture) {
    let half = |pem: &str| pem[..pem.len() / 2].to_owned();
    let read = |file: &str| fs::read_to_string(folder.join(file)).expect("a file of the test");
    replace(&folder.join("server.key"), &half(&read("server.key")));
    replace(&folder.join("client.key"), &half(&fixture.client.key));
    replace(&folder.join("tokens"), &format!("{}\n", fixture.token).repeat(300));
    for process in processes {
        wait_until("the invalid file to be logged", WITHIN, || {
            process.log().contains("reloading the TLS material failed")
        });
    }
}
