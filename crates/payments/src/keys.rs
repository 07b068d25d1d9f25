//! Keys, fingerprints, and the answer to one more delivery of a known key. Pure; knows no store and no status codes.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::amount::Minor;
use crate::ledger::{Entry, Row, State};

/// The name under which a request is executed at most once: 1 to [`Key::LEN_MAX`] visible ASCII characters, no quote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The longest key.
    pub const LEN_MAX: usize = 64;

    /// Parses a key from a header or a path, bare or in one pair of double quotes; `None` if the text is no key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let is_key = (1..=Self::LEN_MAX).contains(&bare.len())
            && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        is_key.then(|| Self(bare.to_owned()))
    }

    /// The bare key.
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

/// How rows are compared with a request that repeats their key. A row keeps the version that it was written under, and
/// is compared by the rule of that version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintVersion {
    /// Rows are compared by the fingerprint alone. The previous version writes such rows.
    WithoutReference,
    /// Rows are compared by fingerprint and reference. The fingerprint does not include the reference: the row has it
    /// already, and the previous version, which may run beside this one, must be able to compare the fingerprint.
    WithReference,
}

impl FingerprintVersion {
    /// The version of rows that are written now.
    pub const CURRENT: Self = Self::WithReference;

    /// The version's number in SQL.
    #[must_use]
    pub fn number(self) -> i16 {
        match self {
            Self::WithoutReference => 1,
            Self::WithReference => 2,
        }
    }

    /// The version with this number.
    #[must_use]
    pub fn of_number(number: i16) -> Option<Self> {
        [Self::WithoutReference, Self::WithReference].into_iter().find(|version| version.number() == number)
    }
}

/// A digest of the requested charge, in 32 hex digits: the same key must come with the same fingerprint. Empty on the
/// tombstone of a key that no request had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Number of bytes of SHA-256 that are kept.
    const BYTES: usize = 16;

    /// Fingerprint of customer, amount and currency; the currency is last, as the only part without a fixed length. The
    /// amount is in hundredths, as in older rows and those of the previous version, independent of the row's units.
    /// Only an amount that is no whole number of hundredths is in its own units, after a byte that no currency
    /// contains.
    #[must_use]
    pub fn new(customer_id: i64, currency: &str, amount: Minor) -> Self {
        let mut hash = Sha256::new();
        hash.update(customer_id.to_be_bytes());
        if let Some(hundredths) = amount.in_hundredths() {
            hash.update(hundredths.to_be_bytes());
        } else {
            hash.update(amount.units.to_be_bytes());
            hash.update([0, amount.exponent]);
        }
        hash.update(currency.as_bytes());
        Self(hex(&hash.finalize()[..Self::BYTES]))
    }

    /// The fingerprint of a stored row.
    #[must_use]
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lower-case hex digits of some bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The answer to one more request with a known key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The same request: the recorded decision is repeated.
    Replay,
    /// The key was voided and will never be charged.
    Voided,
    /// The key came with other data before.
    Reused,
}

/// Compares a request with the row with the same account and key.
#[must_use]
pub fn judge_known_key(row: &Row, entry: &Entry) -> Known {
    if row.state == State::Voided {
        Known::Voided
    } else if !is_same_request(row, entry) {
        Known::Reused
    } else {
        Known::Replay
    }
}

/// Whether both are the same request. Two invoices under one key are two requests, even with equal amounts.
fn is_same_request(row: &Row, entry: &Entry) -> bool {
    let is_same_reference = match row.fingerprint_version {
        FingerprintVersion::WithoutReference => true,
        FingerprintVersion::WithReference => row.reference == entry.reference,
    };
    row.fingerprint == entry.fingerprint && is_same_reference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bare_or_quoted() {
        assert_eq!(Key::parse("\"abc\""), Key::parse("abc"));
        assert_eq!(Key::parse("abc").unwrap().as_str(), "abc");
        assert!(Key::parse(&"k".repeat(Key::LEN_MAX)).is_some());
    }

    #[test]
    fn what_is_empty_long_or_unprintable_is_no_key() {
        for text in ["", "\"\"", "\"", "a b", "a\"b", "\"a", "a\n", "ä", &"k".repeat(Key::LEN_MAX + 1)] {
            assert_eq!(Key::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_fingerprint_sees_each_of_its_parts() {
        let new =
            |customer_id, currency, units| Fingerprint::new(customer_id, currency, Minor::hundredths(units));
        let first = new(1, "EUR", 1215);
        assert_eq!(first, new(1, "EUR", 1215));
        assert_eq!(first.as_str().len(), 32);
        for other in [(2, "EUR", 1215), (1, "USD", 1215), (1, "EUR", 1216), (1, "", 1215)] {
            assert_ne!(first, new(other.0, other.1, other.2), "{other:?}");
        }
    }

    #[test]
    fn a_fingerprint_sees_the_value_and_not_the_units() {
        let of = |currency, units, exponent| Fingerprint::new(1, currency, Minor { units, exponent });
        assert_eq!(of("JPY", 1500, 0), of("JPY", 150_000, 2));
        assert_eq!(of("KWD", 1230, 3), of("KWD", 123, 2));
        assert_ne!(of("JPY", 1500, 0), of("JPY", 1500, 2));
        assert_ne!(of("KWD", 1234, 3), of("KWD", 1234, 2));
        assert_ne!(of("KWD", 1234, 3), of("KWD", 1235, 3));
    }
}
