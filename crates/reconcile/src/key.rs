//! The idempotency key that an attempt must have, derived here again on purpose: a verification with billing's own
//! derivation would confirm billing's mistakes. Must not share code with billing. Billing, payments and this crate each
//! test their derivation against the test vector of docs/reference/api.md.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A key's 16 bytes; as text 32 hex digits.
pub(crate) type KeyBytes = [u8; 16];

/// The key of attempt `number` of the invoice with this reference: the first half of SHA-256 over deployment, number
/// and reference.
pub(crate) fn derive(deployment: Uuid, number: u32, reference: &str) -> KeyBytes {
    let hash =
        Sha256::new().chain_update(deployment).chain_update(number.to_be_bytes()).chain_update(reference);
    let mut bytes = KeyBytes::default();
    bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, digest)| *byte = digest);
    bytes
}

/// The bytes of a key in billing's format; `None` for any other text.
pub(crate) fn parse(text: &str) -> Option<KeyBytes> {
    let digits = text.as_bytes();
    let mut bytes = KeyBytes::default();
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(bytes)
}

/// A key as text.
pub(crate) fn text(bytes: &KeyBytes) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_holds() {
        let deployment = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        assert_eq!(text(&derive(deployment, 1, "I1")), "bca1897f57e947286a9d2dcb4be588f1");
    }

    #[test]
    fn only_32_hex_digits_are_a_key() {
        let digits = "bca1897f57e947286a9d2dcb4be588f1";
        assert_eq!(parse(digits).map(|bytes| text(&bytes)).as_deref(), Some(digits));
        for other in ["", "k1", "bca1897f57e947286a9d2dcb4be588f", "gca1897f57e947286a9d2dcb4be588f1"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
