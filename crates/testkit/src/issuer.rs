//! Keys that sign tokens as an API server does, and as an attacker would: any header, any claims, any signature. Knows
//! no service; shares no code with the verifier.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key with an id.
#[derive(Debug)]
pub struct SigningKey {
    kid: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

/// JSON as a part of a token.
#[must_use]
pub fn part(json: &Value) -> String {
    encode(json.to_string().as_bytes())
}

/// Bytes as a part of a token.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key set with these keys.
#[must_use]
pub fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The first element of DER: its tag, its content, and the bytes after it.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            (der[2..2 + bytes].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), 2 + bytes)
        }
    };
    (der[0], &der[start..start + length], &der[start + length..])
}

/// The number without the leading zero byte that marks it as positive.
fn unsigned(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

impl SigningKey {
    /// A new RSA key of 2048 bits.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn rsa(kid: &str) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be made");
        Self { kid: kid.to_owned(), kind: Kind::Rsa(key) }
    }

    /// A new key on P-256.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn p256(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        Self { kid: kid.to_owned(), kind: Kind::P256(key) }
    }

    /// The key's id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Rsa(_) => "RS256",
            Kind::P256(_) => "ES256",
        }
    }

    /// The public key in the format of a key set.
    #[must_use]
    pub fn jwk(&self) -> Value {
        match &self.kind {
            Kind::Rsa(key) => {
                let public = key.public_key().as_ref();
                let (_, numbers, _) = element(public);
                let (_, modulus, rest) = element(numbers);
                let (_, exponent, _) = element(rest);
                json!({
                    "kty": "RSA", "kid": self.kid, "alg": "RS256", "use": "sig",
                    "n": encode(unsigned(modulus)), "e": encode(exponent),
                })
            }
            Kind::P256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({
                    "kty": "EC", "kid": self.kid, "alg": "ES256", "use": "sig", "crv": "P-256",
                    "x": encode(x), "y": encode(y),
                })
            }
        }
    }

    /// Signs two parts by this algorithm, even if the key is of another kind: HMAC uses the public key as its secret,
    /// and `none` signs nothing.
    ///
    /// # Panics
    /// When the algorithm is unknown here.
    #[must_use]
    #[track_caller]
    pub fn sign(&self, signed: &str, algorithm: &str) -> String {
        let random = SystemRandom::new();
        let message = signed.as_bytes();
        let signature = match (algorithm.to_ascii_lowercase().as_str(), &self.kind) {
            ("none", _) => Vec::new(),
            ("hs256", _) => {
                let public = self.jwk().to_string();
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), message).as_ref().to_vec()
            }
            (other, Kind::Rsa(key)) => {
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding = match other {
                    "rs512" => &RSA_PKCS1_SHA512,
                    "ps256" => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).expect("a key signs");
                signature
            }
            (_, Kind::P256(key)) => key.sign(&random, message).expect("a key signs").as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }

    /// A valid token with these claims.
    ///
    /// # Panics
    /// Never, with a key from this module.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm(), "kid": self.kid, "typ": "JWT" });
        self.sign(&format!("{}.{}", part(&header), part(claims)), self.algorithm())
    }
}
