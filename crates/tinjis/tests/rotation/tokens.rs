//! The credentials of callers besides their certificate, in files that are replaced, and the keys of an API server.
//! Knows settings, and no certificate but the API server's.

use std::path::Path;

use bytes::Bytes;
use chassis::clock::Clock;
use http::{Method, Request};
use serde_json::json;
use tempfile::TempDir;
use testkit::certs::{Authority, replace};
use testkit::issuer::{SigningKey, key_set};
use testkit::secure::Page;

const SUBJECT: &str = "system:serviceaccount:antaeus:antaeus";

pub(crate) struct Tokens {
    folder: TempDir,
    keys: Page,
    old: SigningKey,
    new: SigningKey,
}

/// A token for payments, a signed token, and an operator's token.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    token: &'static str,
    operator: &'static str,
    jwt: String,
}

impl Shown {
    pub(crate) fn request(&self, method: Method, url: &str, body: Bytes) -> Request<Bytes> {
        // Billing takes the operator's token in the header that holds a signed token at payments.
        let bearer = if url.contains("/v1/ledger") { &self.jwt } else { self.operator };
        let request = Request::builder().method(method).uri(url).header("x-token", self.token);
        request.header("authorization", format!("Bearer {bearer}")).body(body).expect("a request")
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let authority = Authority::new("of the API server");
        let (old, new) = (SigningKey::rsa("k-old"), SigningKey::p256("k-new"));
        let keys = Page::serve(&authority, key_set(&[old.jwk()]));
        let tokens = Self { folder: tempfile::tempdir().expect("a folder"), keys, old, new };
        tokens.write("ca.crt", &authority.pem());
        tokens.write("payments-tokens", "old-token");
        tokens.write("operator-tokens", "old-operator");
        tokens.write("billing-tokens", "old-token");
        tokens.write("billing-jwt", &tokens.old().jwt);
        tokens
    }

    pub(crate) fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(file)
    }

    fn write(&self, file: &str, text: &str) {
        replace(&self.path(file), text);
    }

    pub(crate) fn old(&self) -> Shown {
        Shown { token: "old-token", operator: "old-operator", jwt: jwt(&self.old) }
    }

    pub(crate) fn new_ones(&self) -> Shown {
        Shown { token: "new-token", operator: "new-operator", jwt: jwt(&self.new) }
    }

    /// Settings with which payments require all three proofs.
    pub(crate) fn payments_settings(&self) -> [(String, String); 7] {
        [
            ("CALLER_PROOF", "all".to_owned()),
            ("PAYMENTS_API_TOKEN_FILE", self.text("payments-tokens")),
            ("JWT_AUDIENCE", "payments".to_owned()),
            ("JWT_ISSUER", "https://issuer.test".to_owned()),
            ("JWT_SUBJECTS", SUBJECT.to_owned()),
            ("JWT_JWKS_URL", self.keys.url()),
            ("JWT_CREDENTIALS", self.folder.path().display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// Lets payments and billing accept old and new tokens; the API server has both keys.
    pub(crate) fn take_both(&self) {
        self.keys.set(Some(key_set(&[self.old.jwk(), self.new.jwk()])));
        self.write("payments-tokens", "new-token\nold-token");
        self.write("operator-tokens", "new-operator\nold-operator");
    }

    /// Lets billing send the new tokens.
    pub(crate) fn show_new(&self) {
        self.write("billing-tokens", "new-token");
        self.write("billing-jwt", &self.new_ones().jwt);
    }

    pub(crate) fn take_new(&self) {
        self.write("payments-tokens", "new-token");
        self.write("operator-tokens", "new-operator");
    }
}

fn jwt(key: &SigningKey) -> String {
    let now = Clock::system().now_ms() / 1000;
    key.token(&json!({
        "iss": "https://issuer.test", "aud": ["payments"], "sub": SUBJECT, "iat": now, "nbf": now, "exp": now + 3600,
    }))
}
