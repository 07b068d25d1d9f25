//! Attempts by signed tokens: each wrong header, claim and shape. Knows no certificate.

use serde_json::{Value, json};

use crate::presented::{AUDIENCE, Attempt, Jwt, SUBJECT, Shape, Text};
use crate::site::ServerKind;
use crate::table::Table;

/// Allowed difference between two clocks in seconds, as in `docs/how-to/callers.md`.
const LEEWAY: i64 = 30;

const AT: ServerKind = ServerKind::Plain;

pub(crate) fn attempts(table: &mut Table<'_>) {
    let own = table.site.keys.last_bearer();
    assert_eq!(
        own.as_deref(),
        Some("Bearer the-pod-s-own-token"),
        "the keys are fetched with the pod's own token"
    );
    algorithms(table);
    keys(table);
    claims(table);
    times(table);
    shapes(table);
    same_time(table);
    replaced(table);
}

fn good(table: &Table<'_>, key: &'static str) -> Attempt {
    Attempt::bare().signed(Jwt::of(table.site, key))
}

fn algorithms(table: &mut Table<'_>) {
    let (rsa, p256) = (good(table, "rsa"), good(table, "p256"));
    for (what, algorithm) in [
        ("not signed", "none"),
        ("not signed, in another case", "nOnE"),
        ("HS256 with the public key as its secret", "HS256"),
        ("RS512", "RS512"),
        ("PS256", "PS256"),
        ("ES256 with an RSA key", "ES256"),
    ] {
        let other = rsa.but(|a| a.jwt().header["alg"] = algorithm.into());
        table.pair(AT, what, &rsa, &other, "jwt_algorithm");
    }
    let other = p256.but(|a| a.jwt().header["alg"] = "RS256".into());
    table.pair(AT, "RS256 with a key on P-256", &p256, &other, "jwt_algorithm");
    let other = rsa.but(|a| a.jwt().header["kid"] = "k-p256".into());
    table.pair(AT, "RS256 by the id of a key on P-256", &rsa, &other, "jwt_algorithm");
}

fn keys(table: &mut Table<'_>) {
    let (rsa, p256) = (good(table, "rsa"), good(table, "p256"));
    let fetches = table.site.keys.served();
    for (what, kid) in [
        ("an unknown key", json!("k-other")),
        ("an unknown key, at once again", json!("k-another")),
        ("no key's id", Value::Null),
        ("a key of the set that is for encryption", json!("k-enc")),
        ("a key of the set that is a secret", json!("k-oct")),
    ] {
        let other = rsa.but(|a| a.jwt().header["kid"] = kid);
        table.pair(AT, what, &rsa, &other, "jwt_unknown_key");
    }
    let fetched = table.site.keys.served() - fetches;
    assert_eq!(fetched, 1, "of several unknown keys within 30 s, one is looked for");
    let stranger = rsa.but(|a| a.jwt().key = "stranger");
    table.pair(AT, "a stranger's key under our id", &rsa, &stranger, "jwt_signature");
    let stranger = p256.but(|a| a.jwt().key = "stranger on p256");
    table.pair(AT, "a stranger's key on P-256 under our id", &p256, &stranger, "jwt_signature");
    // A header may contain a key or the address of one: both are ignored.
    let jwk = table.site.key("stranger").jwk();
    let theirs = rsa.but(|a| {
        a.jwt().key = "stranger";
        a.jwt().header["jwk"] = jwk;
    });
    let brought = theirs.but(|a| a.jwt().key = "rsa");
    table.pair(AT, "a stranger's key, brought along in the header", &brought, &theirs, "jwt_signature");
    let pointed = rsa.but(|a| a.jwt().header["jku"] = "https://elsewhere/keys".into());
    let theirs = pointed.but(|a| a.jwt().key = "stranger");
    table.pair(AT, "a stranger's key, and where it is to be found", &pointed, &theirs, "jwt_signature");
    let critical = rsa.but(|a| a.jwt().header["crit"] = json!(["b64"]));
    table.pair(AT, "a header that must be understood", &rsa, &critical, "jwt_malformed");
}

fn claims(table: &mut Table<'_>) {
    let good = good(table, "rsa");
    for (what, claim, value, reason) in [
        ("another issuer", "iss", json!("https://elsewhere"), "jwt_issuer"),
        ("an issuer with a slash more", "iss", json!("https://issuer.test/"), "jwt_issuer"),
        ("no issuer", "iss", Value::Null, "jwt_issuer"),
        ("another audience", "aud", json!(["others"]), "jwt_audience"),
        ("an audience that begins as ours", "aud", json!("payments.example"), "jwt_audience"),
        ("no audience", "aud", Value::Null, "jwt_audience"),
        ("an empty audience", "aud", json!([]), "jwt_audience"),
        ("another ServiceAccount", "sub", json!("system:serviceaccount:antaeus:default"), "jwt_subject"),
        ("another namespace", "sub", json!("system:serviceaccount:other:antaeus"), "jwt_subject"),
        ("another case", "sub", json!(SUBJECT.to_uppercase()), "jwt_subject"),
        ("no subject", "sub", Value::Null, "jwt_subject"),
        ("no end", "exp", Value::Null, "jwt_malformed"),
        ("an end in words", "exp", json!("2100-01-01T00:00:00Z"), "jwt_malformed"),
    ] {
        let other = good.but(|a| a.jwt().claims[claim] = value);
        table.pair(AT, what, &good, &other, reason);
    }
    let several = good.but(|a| a.jwt().claims["aud"] = json!(["others", AUDIENCE]));
    let without = several.but(|a| a.jwt().claims["aud"] = json!(["others", "more"]));
    table.pair(AT, "several audiences without ours", &several, &without, "jwt_audience");
}

/// Tests times: the positive control is within the leeway.
fn times(table: &mut Table<'_>) {
    let (good, now) = (good(table, "p256"), table.site.now());
    let within = good.but(|a| a.jwt().claims["exp"] = json!(now - LEEWAY / 2));
    let beyond = within.but(|a| a.jwt().claims["exp"] = json!(now - LEEWAY - 1));
    table.pair(AT, "expired", &within, &beyond, "jwt_expired");
    let within = good.but(|a| a.jwt().claims["nbf"] = json!(now + LEEWAY / 2));
    let beyond = within.but(|a| a.jwt().claims["nbf"] = json!(now + LEEWAY * 2));
    table.pair(AT, "from the future", &within, &beyond, "jwt_not_yet_valid");
    let no_nbf = good.but(|a| a.jwt().claims["nbf"] = Value::Null);
    let later = no_nbf.but(|a| a.jwt().claims["iat"] = json!(now + LEEWAY * 2));
    table.pair(AT, "issued in the future", &no_nbf, &later, "jwt_not_yet_valid");
}

fn shapes(table: &mut Table<'_>) {
    let good = good(table, "rsa");
    for (what, shape, reason) in [
        ("the signature left out", Shape::NoSignature, "jwt_signature"),
        ("half a signature", Shape::HalfSignature, "jwt_signature"),
        ("claims changed after signing", Shape::OtherClaims, "jwt_signature"),
        ("header changed after signing", Shape::OtherHeader, "jwt_signature"),
        ("two parts", Shape::TwoParts, "jwt_malformed"),
        ("four parts", Shape::FourParts, "jwt_malformed"),
        ("padding", Shape::Padded, "jwt_malformed"),
    ] {
        table.pair(AT, what, &good, &good.but(|a| a.jwt().shape = shape), reason);
    }
    let word = |text: &str| vec![Text::Word(text.to_owned())];
    for (what, text) in [
        ("a static token where a signed one goes", "new-token".to_owned()),
        ("nothing but dots", "..".to_owned()),
        ("more than any token is long", "e".repeat(9000)),
    ] {
        table.pair(AT, what, &good, &good.but(|a| a.authorization = word(&text)), "jwt_malformed");
    }
    table.pair(AT, "another scheme", &good, &good.but(|a| a.scheme = "Basic"), "no_credential");
    let twice = good.but(|a| {
        let again = a.authorization[0].clone();
        a.authorization.push(again);
    });
    table.pair(AT, "the signed token twice", &good, &twice, "no_credential");
    let static_token = Attempt::bare().token("new-token");
    let jwt = Text::Signed(Jwt::of(table.site, "rsa"));
    let misplaced = static_token.but(|a| a.tokens = vec![jwt]);
    table.pair(AT, "a signed token where a static one goes", &static_token, &misplaced, "token_unknown");
}

fn same_time(table: &mut Table<'_>) {
    let good = good(table, "rsa");
    let attempts = [
        ("no_credential", Attempt::bare()),
        ("token_unknown", Attempt::bare().token("guess")),
        ("jwt_malformed", Attempt::bare().bearer("guess")),
        ("jwt_unknown_key", good.but(|a| a.jwt().header["kid"] = "k-other".into())),
        ("jwt_signature", good.but(|a| a.jwt().key = "stranger")),
        ("jwt_audience", good.but(|a| a.jwt().claims["aud"] = "others".into())),
    ];
    table.take_the_same_time(AT, &attempts);
}

/// The API server replaces its keys, and is later unreachable. Uses a server that has not yet fetched an unknown key,
/// so that its fetch is not delayed.
fn replaced(table: &mut Table<'_>) {
    let at = ServerKind::Any;
    let old = Attempt::bare().over_tls().signed(Jwt::of(table.site, "rsa"));
    table.succeeds(at, crate::table::route(at), "before the change", &old);
    table.site.replace_keys();
    let next = Attempt::bare().over_tls().signed(Jwt::of(table.site, "next"));
    let fetches = table.site.keys.served();
    table.succeeds(at, crate::table::route(at), "a key that is new", &next);
    assert_eq!(table.site.keys.served(), fetches + 1, "the new key was looked for once");
    let kid = table.site.key("rsa").kid().to_owned();
    let by_old = next.but(|a| a.jwt().header["kid"] = kid.into());
    table.pair(at, "a key that was taken out of the set", &next, &by_old, "jwt_unknown_key");
    table.site.keys.set(None);
    let stranger = next.but(|a| a.jwt().key = "stranger");
    table.pair(at, "while the API server is away", &next, &stranger, "jwt_signature");
}
