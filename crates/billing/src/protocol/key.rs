//! The idempotency key: deployment id, reference and attempt number, hashed to 32 hex digits. Pure.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::invoice::Reference;

/// The id of this installation's store. A backup includes it, so that a restored store makes the same keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeploymentId(pub Uuid);

/// 32 lower-case hex digits. The same attempt always has the same key, on every replica and after a restore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The number of digits.
    pub const LEN: usize = 32;

    /// The first 32 hex digits of SHA-256 (deployment as 16 bytes ‖ attempt number as u32 big-endian ‖ reference).
    #[must_use]
    pub fn new(deployment: DeploymentId, reference: &Reference, number: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(deployment.0.as_bytes());
        hash.update(number.to_be_bytes());
        hash.update(reference.as_str().as_bytes());
        let digest = hash.finalize();
        let digit =
            |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("half a byte is one hex digit");
        let digits = digest.iter().take(Self::LEN / 2).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        Self(digits.collect())
    }

    /// A key from a store, a path or a header; `None` if the text is not a key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_key = text.len() == Self::LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_key.then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_holds() {
        let deployment = DeploymentId(Uuid::parse_str("00000000-0000-4000-8000-000000000001").unwrap());
        let key = Key::new(deployment, &Reference::new("I1").unwrap(), 1);
        assert_eq!(key.as_str(), "bca1897f57e947286a9d2dcb4be588f1");
    }
}
