//! The servers under attack, each with other settings, and their allowed callers. Knows settings and nothing of the
//! code.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use chassis::clock::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Process;
use testkit::certs::{Authority, replace};
use testkit::issuer::{SigningKey, key_set};
use testkit::process::{Spec, run_by};
use testkit::secure::Page;

use crate::presented::{AUDIENCE, CLIENT, HOST, ISSUER, SHOP, SHOP_SUBJECT, SUBJECT};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");

/// A server, named by the credentials that it requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerKind {
    /// Payments: requires a certificate.
    Mutual,
    /// Ponger: requires a certificate.
    Ponger,
    /// Billing: requires a certificate.
    Billing,
    /// Payments without TLS: requires a token or a signed token.
    Plain,
    /// Payments over TLS: requires a certificate, a token or a signed token.
    Any,
    /// Payments over TLS: requires all three.
    All,
    /// Payments: requires a token, with a low rate limit.
    Rated,
    /// Billing's writing routes: require an operator's token.
    Operators,
    /// Billing's writing routes on loopback: require no token.
    Loopback,
}

pub(crate) struct Site {
    pub(crate) ours: Authority,
    pub(crate) another: Authority,
    pub(crate) keys: Page,
    signing: BTreeMap<&'static str, SigningKey>,
    servers: BTreeMap<ServerKind, Process>,
    folder: TempDir,
    clock: Clock,
}

impl Site {
    /// Starts every server.
    pub(crate) fn start() -> Self {
        use ServerKind::{All, Any, Billing, Loopback, Mutual, Operators, Plain, Rated};
        let mut site = Self::of(&[Mutual, Plain, Any, All, Rated, Operators, Loopback, Billing]);
        let ponger = site.ponger();
        site.servers.insert(ServerKind::Ponger, ponger);
        site
    }

    /// Starts these servers.
    pub(crate) fn of(servers: &[ServerKind]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, another) = (Authority::new("ours"), Authority::new("another"));
        let signing = [
            ("rsa", SigningKey::rsa("k-rsa")),
            ("p256", SigningKey::p256("k-p256")),
            ("next", SigningKey::rsa("k-next")),
            ("stranger", SigningKey::rsa("k-rsa")),
            ("stranger on p256", SigningKey::p256("k-p256")),
        ];
        let signing = BTreeMap::from(signing);
        let keys = Page::serve(&ours, first_set(&signing));
        let mut site =
            Self { ours, another, keys, signing, servers: BTreeMap::new(), folder, clock: Clock::system() };
        site.write_files();
        for at in servers {
            let process = Process::start(site.spec(*at));
            site.servers.insert(*at, process);
        }
        site
    }

    pub(crate) fn server(&self, at: ServerKind) -> &Process {
        &self.servers[&at]
    }

    pub(crate) fn key(&self, name: &str) -> &SigningKey {
        &self.signing[name]
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.clock.now_ms() / 1000
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    /// Replaces the lines of the token file, which the services reload by themselves.
    pub(crate) fn write_tokens(&self, lines: &str) {
        replace(&self.path("tokens"), lines);
    }

    /// Replaces the API server's keys: only the next key is left.
    pub(crate) fn replace_keys(&self) {
        self.keys.set(Some(key_set(&[self.key("next").jwk()])));
    }

    fn write_files(&self) {
        replace(&self.path("ca.pem"), &self.ours.pem());
        self.ours.server("localhost").write(self.folder.path(), "server");
        self.write_tokens("new-token\nold-token\nshop-token corner-shop\n");
        replace(&self.path("operators"), "operator-new\noperator-old\n");
        fs::create_dir(self.path("account")).expect("a folder");
        replace(&self.path("account/ca.crt"), &self.ours.pem());
        replace(&self.path("account/token"), "the-pod-s-own-token\n");
    }

    /// Settings with which payments accept signed tokens.
    pub(crate) fn jwt_settings(&self) -> [(&'static str, String); 5] {
        [
            ("JWT_AUDIENCE", AUDIENCE.to_owned()),
            ("JWT_ISSUER", ISSUER.to_owned()),
            ("JWT_SUBJECTS", format!("{SUBJECT},{SHOP_SUBJECT}=corner-shop")),
            ("JWT_JWKS_URL", self.keys.url()),
            ("JWT_CREDENTIALS", self.text("account")),
        ]
    }

    fn spec(&self, at: ServerKind) -> Spec {
        let is_billing = matches!(at, ServerKind::Billing | ServerKind::Operators | ServerKind::Loopback);
        let program = run_by(TINJIS, if is_billing { "billing" } else { "payments" });
        let mut spec = Spec::new(program, name(at), self.folder.path());
        let mut set = |name: &str, value: String| spec.env.insert(name.to_owned(), value);
        set("LOG_LEVEL", "warn".to_owned());
        if matches!(at, ServerKind::Mutual | ServerKind::Any | ServerKind::All | ServerKind::Billing) {
            set("TLS_CERT", self.text("server.pem"));
            set("TLS_KEY", self.text("server.key"));
            set("TLS_CLIENT_CA", self.text("ca.pem"));
            set("TLS_ALLOWED_CLIENTS", format!("{CLIENT},{HOST},{SHOP}=corner-shop"));
        }
        if matches!(at, ServerKind::Plain | ServerKind::Any | ServerKind::All | ServerKind::Rated) {
            set("PAYMENTS_API_TOKEN_FILE", self.text("tokens"));
        }
        if matches!(at, ServerKind::Plain | ServerKind::Any | ServerKind::All) {
            for (name, value) in self.jwt_settings() {
                set(name, value);
            }
        }
        match at {
            ServerKind::All => drop(set("CALLER_PROOF", "all".to_owned())),
            ServerKind::Rated => drop(set("CALLER_RATE_MAX", "1".to_owned())),
            ServerKind::Operators => drop(set("OPERATOR_TOKEN_FILE", self.text("operators"))),
            _ => {}
        }
        if !is_billing {
            set("SUCCESS_RATE", "1".to_owned());
        }
        spec
    }

    fn ponger(&self) -> Process {
        let mut spec = Spec::new(run_by(TINJIS, "ponger"), "ponger", self.folder.path());
        spec.flags = vec!["-c".to_owned(), self.text("ponger.yaml")];
        let mut process = Process::new(spec);
        let admin = process.admin_url().rsplit_once(':').map(|(_, port)| port.to_owned()).expect("a port");
        let configuration = format!(
            "service:\n  port: {}\n  address: 127.0.0.1\n  tlsCertificate: {}\n  tlsPrivateKey: {}\n  clientCA: {}\n  \
             allowedClients: ['{CLIENT}', '{HOST}']\nmetrics:\n  port: {admin}\n  address: 127.0.0.1\n",
            process.address().port(),
            self.text("server.pem"),
            self.text("server.key"),
            self.text("ca.pem")
        );
        fs::write(self.path("ponger.yaml"), configuration).expect("a file");
        process.start_again();
        process
    }
}

/// Both signing keys, and two keys that are not for signing.
fn first_set(signing: &BTreeMap<&'static str, SigningKey>) -> String {
    let mut for_encryption: Value = signing["rsa"].jwk();
    for_encryption["kid"] = json!("k-enc");
    for_encryption["use"] = json!("enc");
    let secret = json!({ "kty": "oct", "kid": "k-oct", "alg": "HS256", "k": "c2VjcmV0" });
    key_set(&[signing["rsa"].jwk(), signing["p256"].jwk(), for_encryption, secret])
}

fn name(at: ServerKind) -> &'static str {
    match at {
        ServerKind::Mutual => "mutual",
        ServerKind::Ponger => "ponger",
        ServerKind::Billing => "billing",
        ServerKind::Plain => "plain",
        ServerKind::Any => "any",
        ServerKind::All => "all",
        ServerKind::Rated => "rated",
        ServerKind::Operators => "operators",
        ServerKind::Loopback => "loopback",
    }
}
