//! A set of public keys (JWKS): read whole, with keys of accepted algorithms and sizes. Must not know where a set comes
//! from, nor what is signed.

use std::collections::HashMap;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Maximum number of keys in one set; an API server has two or three.
const KEYS_MAX: usize = 64;

/// Length of one coordinate of the curve.
const P256_BYTES: usize = 32;

/// The accepted algorithms. The token's own claim does not extend them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Key {
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl Key {
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

/// The keys by their ids.
#[derive(Debug, Default)]
pub(super) struct KeySet(HashMap<String, Key>);

/// Why a text is no JWKS.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("it is no set of keys: {0}")]
    Malformed(#[source] serde_json::Error),
    #[error("it has no RSA key of 2048 bits or more for RS256, nor one on P-256 for ES256")]
    NoKey,
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set; keys of other kinds are skipped, since a set may serve other clients too.
    pub(super) fn read(text: &[u8]) -> Result<Self, KeySetError> {
        let set: Set = serde_json::from_slice(text).map_err(KeySetError::Malformed)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let entries = set.keys.into_iter().filter_map(|entry| serde_json::from_value::<Entry>(entry).ok());
        let keys: HashMap<String, Key> =
            entries.filter_map(|entry| entry.key().map(|key| (entry.kid, key))).collect();
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self(keys)) }
    }

    pub(super) fn find(&self, kid: &str) -> Option<&Key> {
        self.0.get(kid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Entry {
    fn key(&self) -> Option<Key> {
        if self.used_for.as_deref().is_some_and(|used_for| used_for != "sig") {
            return None;
        }
        let is_for = |algorithm: &str| self.alg.as_deref().is_none_or(|alg| alg == algorithm);
        match self.kty.as_str() {
            "RSA" if is_for("RS256") => {
                let components = PublicKeyComponents { n: decode(&self.n)?, e: decode(&self.e)? };
                let key = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
                Some(Key { algorithm: Algorithm::Rs256, key })
            }
            "EC" if is_for("ES256") && self.crv.as_deref() == Some("P-256") => {
                let (x, y) = (decode(&self.x)?, decode(&self.y)?);
                if x.len() != P256_BYTES || y.len() != P256_BYTES {
                    return None;
                }
                let point = [&[4][..], &x, &y].concat();
                let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
                Some(Key { algorithm: Algorithm::Es256, key })
            }
            _ => None,
        }
    }
}

fn decode(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_deref()?).ok()
}
