//! Reads a signed token and decides whether it authenticates a caller: RS256 or ES256, our issuer and audience, an
//! accepted subject, within its validity. Must not know where keys come from, nor how a token travels.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::accounts::{Account, Accounts};
use super::keyset::{Algorithm, Key};
use super::refusal::Refusal;

/// Longer than any token that an API server makes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Tolerated clock skew.
pub const LEEWAY_SECONDS: i64 = 30;

/// Requirements of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRules {
    /// Required issuer.
    pub issuer: String,
    /// Required audience.
    pub audience: String,
    /// Accepted subjects, each with its account.
    pub subjects: Accounts,
}

/// A parsed token before verification.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    sub: Option<String>,
    exp: NumericDate,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
}

/// Seconds since 1970. RFC 7519 (section 2) permits fractions, and JSON exponents. The value is rounded up: the clock
/// counts whole seconds, and `now < ceil(date)` holds exactly when `now < date`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "serde_json::Number")]
struct NumericDate(i64);

impl TryFrom<serde_json::Number> for NumericDate {
    type Error = &'static str;

    fn try_from(number: serde_json::Number) -> Result<Self, Self::Error> {
        const OUT_OF_RANGE: &str = "a date out of range";
        if let Some(seconds) = number.as_i64() {
            return Ok(Self(seconds));
        }
        let seconds = number.as_f64().ok_or(OUT_OF_RANGE)?.ceil();
        // Converted by its digits: a cast would turn a value out of range into a date.
        format!("{seconds:.0}").parse().map(Self).map_err(|_| OUT_OF_RANGE)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A verified subject and its validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    pub(super) account: Account,
    pub(super) window: Window,
}

/// The validity of a token, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    from: i64,
    to: i64,
}

impl Window {
    pub(super) fn check(self, now: i64) -> Result<(), Refusal> {
        if now >= self.to.saturating_add(LEEWAY_SECONDS) {
            return Err(Refusal::JwtExpired);
        }
        if now < self.from.saturating_sub(LEEWAY_SECONDS) {
            return Err(Refusal::JwtNotYetValid);
        }
        Ok(())
    }
}

impl<'a> Unverified<'a> {
    /// Parses a compact token. Rejects a critical header that is not understood.
    pub(super) fn read(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::JwtMalformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::JwtMalformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::JwtMalformed)?;
        let header: Header = decode_part(header)?;
        if header.crit.is_some() || claims.contains('.') {
            return Err(Refusal::JwtMalformed);
        }
        let algorithm = Algorithm::named(&header.alg).ok_or(Refusal::JwtAlgorithm)?;
        let kid = header.kid.ok_or(Refusal::JwtUnknownKey)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refusal::JwtMalformed)?;
        Ok(Self { algorithm, kid, signed, claims, signature })
    }

    /// The proven subject, if this is the key that the token names. No claim is read before the signature is verified.
    pub(super) fn verify(&self, key: &Key, rules: &JwtRules, now: i64) -> Result<Proven, Refusal> {
        if key.algorithm() != self.algorithm {
            return Err(Refusal::JwtAlgorithm);
        }
        if !key.has_signed(self.signed.as_bytes(), &self.signature) {
            return Err(Refusal::JwtSignature);
        }
        let claims: Claims = decode_part(self.claims)?;
        if claims.iss.as_deref() != Some(&rules.issuer) {
            return Err(Refusal::JwtIssuer);
        }
        let is_for_us = match &claims.aud {
            Some(Audience::One(audience)) => *audience == rules.audience,
            Some(Audience::Several(audiences)) => audiences.contains(&rules.audience),
            None => false,
        };
        if !is_for_us {
            return Err(Refusal::JwtAudience);
        }
        let account = claims.sub.as_deref().and_then(|subject| rules.subjects.of(subject));
        let account = account.ok_or(Refusal::JwtSubject)?.clone();
        // Without `nbf` the validity begins when the token was issued.
        let from = claims.nbf.or(claims.iat).map_or(i64::MIN, |date| date.0);
        let window = Window { from, to: claims.exp.0 };
        window.check(now)?;
        Ok(Proven { account, window })
    }
}

fn decode_part<T: DeserializeOwned>(part: &str) -> Result<T, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::JwtMalformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::JwtMalformed)
}

#[cfg(test)]
mod tests;
