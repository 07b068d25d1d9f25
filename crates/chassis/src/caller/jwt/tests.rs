//! Signed tokens, one property at a time: which token is accepted, and the rejection reason of every other token.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::caller::keyset::KeySet;

const NOW: i64 = 1_800_000_000;
const SUBJECT: &str = "system:serviceaccount:antaeus:antaeus";

struct Issuer {
    key: EcdsaKeyPair,
    set: KeySet,
}

fn issuer() -> Issuer {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let encode = |bytes| URL_SAFE_NO_PAD.encode(bytes);
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "x": encode(x), "y": encode(y)},
        {"kty": "EC", "crv": "P-256", "kid": "k2", "use": "enc", "x": encode(x), "y": encode(y)},
        {"kty": "oct", "kid": "k3", "k": "c2VjcmV0"},
    ]});
    Issuer { key, set: KeySet::read(set.to_string().as_bytes()).unwrap() }
}

fn rules() -> JwtRules {
    JwtRules {
        issuer: "https://issuer".to_owned(),
        audience: "payments".to_owned(),
        subjects: Accounts::parse(&format!("{SUBJECT}, shop=corner-shop")).unwrap(),
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k1"})
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "aud": ["payments"], "sub": SUBJECT, "exp": NOW + 600, "nbf": NOW, "iat": NOW})
}

impl Issuer {
    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn judge(&self, token: &str) -> Result<Proven, Refusal> {
        let unverified = Unverified::read(token)?;
        let key = self.set.find(&unverified.kid).ok_or(Refusal::JwtUnknownKey)?;
        unverified.verify(key, &rules(), NOW)
    }

    fn with(&self, change: impl Fn(&mut Value)) -> Result<Proven, Refusal> {
        let mut claims = claims();
        change(&mut claims);
        self.judge(&self.token(&header(), &claims))
    }
}

#[test]
fn a_sound_token_proves_its_subject_s_account() {
    let issuer = issuer();
    assert_eq!(issuer.with(|_| {}).unwrap().account, Account::default());
    assert_eq!(issuer.with(|claims| claims["sub"] = json!("shop")).unwrap().account.as_str(), "corner-shop");
    assert!(issuer.with(|claims| claims["aud"] = json!("payments")).is_ok());
}

#[test]
fn each_claim_that_is_not_ours_has_its_reason() {
    let issuer = issuer();
    for (claim, value, why) in [
        ("iss", json!("https://issuer/"), Refusal::JwtIssuer),
        ("iss", Value::Null, Refusal::JwtIssuer),
        ("aud", json!(["others"]), Refusal::JwtAudience),
        ("aud", json!([]), Refusal::JwtAudience),
        ("aud", Value::Null, Refusal::JwtAudience),
        ("sub", json!("system:serviceaccount:antaeus:default"), Refusal::JwtSubject),
        ("sub", Value::Null, Refusal::JwtSubject),
        ("exp", json!(NOW - LEEWAY_SECONDS), Refusal::JwtExpired),
        ("nbf", json!(NOW + LEEWAY_SECONDS + 1), Refusal::JwtNotYetValid),
        ("exp", Value::Null, Refusal::JwtMalformed),
        ("exp", json!("2100-01-01"), Refusal::JwtMalformed),
    ] {
        assert_eq!(issuer.with(|claims| claims[claim] = value.clone()), Err(why), "{claim} {value}");
    }
}

#[test]
fn two_clocks_may_stand_a_leeway_apart() {
    let issuer = issuer();
    assert!(issuer.with(|claims| claims["exp"] = json!(NOW - LEEWAY_SECONDS + 1)).is_ok());
    assert!(issuer.with(|claims| claims["nbf"] = json!(NOW + LEEWAY_SECONDS)).is_ok());
}

#[test]
fn dates_may_have_a_fraction_or_an_exponent() {
    let issuer = issuer();
    let with = |claim: &str, number: String| {
        let claims = claims().to_string();
        let valid = format!("\"{claim}\":{}", if claim == "exp" { NOW + 600 } else { NOW });
        assert!(claims.contains(&valid), "{claims}");
        let claims = claims.replace(&valid, &format!("\"{claim}\":{number}"));
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let signed = format!("{}.{}", part(header().to_string()), part(claims));
        let signature = issuer.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        issuer.judge(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))).map(|_| ())
    };
    let expired = NOW - LEEWAY_SECONDS;
    for (claim, number, expected) in [
        ("exp", format!("{}.75", NOW + 600), Ok(())),
        ("exp", "1.9e9".to_owned(), Ok(())),
        ("nbf", format!("{}.5", NOW - 1), Ok(())),
        ("iat", format!("{NOW}.25"), Ok(())),
        // Fractions round up: within the last second of the leeway a token is still valid, or not yet valid.
        ("exp", format!("{expired}.5"), Ok(())),
        ("exp", format!("{}.5", expired - 1), Err(Refusal::JwtExpired)),
        ("nbf", format!("{}.5", NOW + LEEWAY_SECONDS), Err(Refusal::JwtNotYetValid)),
        ("nbf", format!("{}.5", NOW + LEEWAY_SECONDS - 1), Ok(())),
        ("exp", "-0.5".to_owned(), Err(Refusal::JwtExpired)),
        ("exp", "1e300".to_owned(), Err(Refusal::JwtMalformed)),
        ("exp", "1e400".to_owned(), Err(Refusal::JwtMalformed)),
        ("exp", "true".to_owned(), Err(Refusal::JwtMalformed)),
    ] {
        assert_eq!(with(claim, number.clone()), expected, "{claim} {number}");
    }
}

#[test]
fn a_header_cannot_choose_how_it_is_verified() {
    let issuer = issuer();
    for (field, value, why) in [
        ("alg", json!("none"), Refusal::JwtAlgorithm),
        ("alg", json!("HS256"), Refusal::JwtAlgorithm),
        ("alg", json!("RS256"), Refusal::JwtAlgorithm),
        ("kid", json!("k2"), Refusal::JwtUnknownKey),
        ("kid", json!("k3"), Refusal::JwtUnknownKey),
        ("kid", Value::Null, Refusal::JwtUnknownKey),
        ("crit", json!(["exp"]), Refusal::JwtMalformed),
    ] {
        let mut header = header();
        header[field] = value.clone();
        assert_eq!(issuer.judge(&issuer.token(&header, &claims())), Err(why), "{field} {value}");
    }
}

#[test]
fn malformed_and_changed_tokens_are_rejected() {
    let issuer = issuer();
    let token = issuer.token(&header(), &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let other = issuer.token(&header(), &json!({"sub": "shop"}));
    let other = other.split('.').nth(1).unwrap();
    for (text, why) in [
        (String::new(), Refusal::JwtMalformed),
        ("..".to_owned(), Refusal::JwtMalformed),
        (format!("{}.{}", parts[0], parts[1]), Refusal::JwtMalformed),
        (format!("{token}.x"), Refusal::JwtMalformed),
        (format!("{token}="), Refusal::JwtMalformed),
        (format!("{}.{}.", parts[0], parts[1]), Refusal::JwtSignature),
        (format!("{}.{other}.{}", parts[0], parts[2]), Refusal::JwtSignature),
        ("x".repeat(TOKEN_BYTES_MAX + 1), Refusal::JwtMalformed),
    ] {
        assert_eq!(issuer.judge(&text), Err(why), "{text}");
    }
    assert!(issuer.judge(&token).is_ok());
}

/// No input panics, and only the token that was signed authenticates its subject.
#[test]
fn fuzz_signed_tokens() {
    let issuer = issuer();
    let mut header = header();
    header["typ"] = json!("JWT");
    let sound = [issuer.token(&super::tests::header(), &claims()), issuer.token(&header, &claims())];
    let mut entries: Vec<Vec<u8>> = sound.iter().map(|token| token.clone().into_bytes()).collect();
    entries.extend([&b"eyJhbGciOiJub25lIn0.e30."[..], b"..", b"a.b.c"].map(<[u8]>::to_vec));
    testkit::fuzz::Corpus::of("signed tokens", entries).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if issuer.judge(text).is_ok() {
            assert!(sound.iter().any(|token| token == text), "{text} is taken");
        }
    });
}

/// Random claims and headers, which are then signed, and random key sets cause no panic.
#[test]
fn fuzz_claims_and_sets_of_keys() {
    let issuer = issuer();
    let set = json!({"keys": [
        {"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode([255; 256]), "e": "AQAB", "alg": "RS256"},
        {"kty": "EC", "crv": "P-256", "kid": "e", "x": URL_SAFE_NO_PAD.encode([1; 32]), "y": URL_SAFE_NO_PAD.encode([2; 32])},
    ]});
    let entries =
        [claims().to_string(), header().to_string(), set.to_string(), "shop=corner-shop, a b=c".to_owned()];
    let entries = entries.map(String::into_bytes).to_vec();
    let signed = |header: &[u8], claims: &[u8]| {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = issuer.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let (sound_header, sound_claims) = (header().to_string(), claims().to_string());
    testkit::fuzz::Corpus::of("claims, headers, sets of keys", entries).run(|input| {
        let _set = KeySet::read(input);
        let _accounts = std::str::from_utf8(input).map(Accounts::parse);
        let _by_header = issuer.judge(&signed(input, sound_claims.as_bytes()));
        let proven = issuer.judge(&signed(sound_header.as_bytes(), input));
        assert!(
            proven.is_err() || String::from_utf8_lossy(input).contains("payments"),
            "without our audience"
        );
    });
}
