//! The credentials of an attempt, one property each, so that two attempts can be compared. Knows no server.

use serde_json::{Value, json};
use testkit::certs::Leaf;
use testkit::issuer;

use crate::site::Site;

/// The client that payments know by certificate or token.
pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/antaeus/sa/antaeus";
pub(crate) const HOST: &str = "billing.antaeus.svc";
pub(crate) const SHOP: &str = "spiffe://cluster.local/ns/shop/sa/shop";
pub(crate) const SUBJECT: &str = "system:serviceaccount:antaeus:antaeus";
pub(crate) const SHOP_SUBJECT: &str = "system:serviceaccount:shop:shop";
pub(crate) const ISSUER: &str = "https://issuer.test";
pub(crate) const AUDIENCE: &str = "payments";

/// The protocol of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    Tls12,
    Tls13,
}

/// The signer of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signer {
    Ours,
    Another,
    Itself,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) signer: Signer,
    pub(crate) leaf: Leaf,
}

/// The change to a token after it was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    NoSignature,
    TwoParts,
    FourParts,
    Padded,
    OtherClaims,
    OtherHeader,
    HalfSignature,
}

/// The parts of a signed token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Jwt {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    /// The key of the site that signs, independent of the header.
    pub(crate) key: &'static str,
    pub(crate) shape: Shape,
}

/// The text of a header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Text {
    Word(String),
    Signed(Jwt),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) wire: Wire,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) scheme: &'static str,
    pub(crate) authorization: Vec<Text>,
    pub(crate) tokens: Vec<Text>,
    pub(crate) origin: Option<&'static str>,
    pub(crate) key: Option<&'static str>,
}

impl Attempt {
    /// No credentials, over plain TCP.
    pub(crate) fn bare() -> Self {
        Self {
            wire: Wire::Plain,
            certificate: None,
            scheme: "Bearer",
            authorization: Vec::new(),
            tokens: Vec::new(),
            origin: None,
            key: None,
        }
    }

    pub(crate) fn over_tls(mut self) -> Self {
        self.wire = Wire::Tls13;
        self
    }

    /// Adds a valid certificate with this name.
    pub(crate) fn certified(mut self, name: &str) -> Self {
        self.certificate = Some(Certificate { signer: Signer::Ours, leaf: Leaf::client(name) });
        self
    }

    pub(crate) fn token(mut self, token: &str) -> Self {
        self.tokens.push(Text::Word(token.to_owned()));
        self
    }

    pub(crate) fn bearer(mut self, token: &str) -> Self {
        self.authorization.push(Text::Word(token.to_owned()));
        self
    }

    pub(crate) fn signed(mut self, jwt: Jwt) -> Self {
        self.authorization.push(Text::Signed(jwt));
        self
    }

    /// A copy with one change.
    pub(crate) fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// The certificate, to be changed.
    pub(crate) fn leaf(&mut self) -> &mut Certificate {
        self.certificate.as_mut().expect("the attempt shows a certificate")
    }

    /// The signed token, to be changed.
    pub(crate) fn jwt(&mut self) -> &mut Jwt {
        match self.authorization.first_mut() {
            Some(Text::Signed(jwt)) => jwt,
            _ => panic!("the attempt shows a signed token"),
        }
    }

    /// The properties in which the other attempt differs, each as `name: value`.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut note = |name: &str, ours: String, theirs: String| {
            if ours != theirs {
                found.push(format!("{name}: {theirs}"));
            }
        };
        note("wire", format!("{:?}", self.wire), format!("{:?}", other.wire));
        note("scheme", self.scheme.to_owned(), other.scheme.to_owned());
        note("origin", format!("{:?}", self.origin), format!("{:?}", other.origin));
        match (&self.certificate, &other.certificate) {
            (Some(ours), Some(theirs)) => {
                note("signer", format!("{:?}", ours.signer), format!("{:?}", theirs.signer));
                let (ours, theirs) = (&ours.leaf, &theirs.leaf);
                note("names", ours.names.join("+"), theirs.names.join("+"));
                note("years", format!("{:?}", ours.years), format!("{:?}", theirs.years));
                note("usages", format!("{:?}", ours.usages), format!("{:?}", theirs.usages));
            }
            (ours, theirs) => note("certificate", present(ours.is_some()), present(theirs.is_some())),
        }
        texts("token", &self.tokens, &other.tokens, &mut note);
        texts("bearer", &self.authorization, &other.authorization, &mut note);
        found
    }
}

fn present(is_there: bool) -> String {
    if is_there { "shown".to_owned() } else { "none".to_owned() }
}

fn texts(name: &str, ours: &[Text], theirs: &[Text], note: &mut impl FnMut(&str, String, String)) {
    if let ([Text::Signed(ours)], [Text::Signed(theirs)]) = (ours, theirs) {
        for (part, ours, theirs) in
            [("header", &ours.header, &theirs.header), ("claims", &ours.claims, &theirs.claims)]
        {
            for field in fields(ours, theirs) {
                note(&format!("{part}.{field}"), ours[&field].to_string(), theirs[&field].to_string());
            }
        }
        note("signed with", ours.key.to_owned(), theirs.key.to_owned());
        note("shape", format!("{:?}", ours.shape), format!("{:?}", theirs.shape));
        return;
    }
    let words = |texts: &[Text]| {
        let words = texts.iter().map(|text| match text {
            Text::Word(word) if word.len() > 40 => format!("{} bytes", word.len()),
            Text::Word(word) => word.clone(),
            Text::Signed(_) => "a signed token".to_owned(),
        });
        words.collect::<Vec<_>>().join(" and ")
    };
    let shown = |texts: &[Text]| if texts.is_empty() { "none".to_owned() } else { words(texts) };
    note(name, shown(ours), shown(theirs));
}

fn fields(ours: &Value, theirs: &Value) -> std::collections::BTreeSet<String> {
    [ours, theirs].into_iter().filter_map(Value::as_object).flat_map(|map| map.keys().cloned()).collect()
}

impl Jwt {
    /// A valid token signed by this key.
    pub(crate) fn of(site: &Site, key: &'static str) -> Self {
        let now = site.now();
        Self {
            header: json!({ "alg": site.key(key).algorithm(), "kid": site.key(key).kid(), "typ": "JWT" }),
            claims: json!({
                "iss": ISSUER, "aud": [AUDIENCE], "sub": SUBJECT,
                "iat": now - 5, "nbf": now - 5, "exp": now + 600,
            }),
            key,
            shape: Shape::Whole,
        }
    }

    pub(crate) fn text(&self, site: &Site) -> String {
        let signed = format!("{}.{}", issuer::part(&self.header), issuer::part(&self.claims));
        let token = site.key(self.key).sign(&signed, self.header["alg"].as_str().unwrap_or("RS256"));
        let (body, signature) = token.rsplit_once('.').expect("a token has parts");
        let (header, claims) = body.split_once('.').expect("a token has parts");
        match self.shape {
            Shape::Whole => token,
            Shape::NoSignature => format!("{body}."),
            Shape::TwoParts => body.to_owned(),
            Shape::FourParts => format!("{token}.{signature}"),
            Shape::Padded => format!("{token}=="),
            Shape::HalfSignature => format!("{body}.{}", &signature[..signature.len() / 8 * 4]),
            Shape::OtherClaims => {
                let mut other = self.claims.clone();
                other["sub"] = json!(SHOP_SUBJECT);
                format!("{header}.{}.{signature}", issuer::part(&other))
            }
            Shape::OtherHeader => {
                let mut other = self.header.clone();
                other["typ"] = json!("jwt");
                format!("{}.{claims}.{signature}", issuer::part(&other))
            }
        }
    }
}

impl Text {
    pub(crate) fn text(&self, site: &Site) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Signed(jwt) => jwt.text(site),
        }
    }
}
