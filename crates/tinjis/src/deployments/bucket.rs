//! The bucket of a reference: the one rule that spreads invoices and subscriptions over deployments. It never changes:
//! otherwise an import could send a known reference to another deployment. Pure; knows no deployment.

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Number of buckets, the unit of a share: many more than deployments, so that a share can be small.
pub(crate) const BUCKETS: u16 = 1024;

/// Keeps these hashes distinct from those of keys.
const PURPOSE: &[u8] = b"tinjis bucket 1\n";

/// The NFC form, in which references are compared. Independent of billing's own code, because verification uses it too.
pub(crate) fn nfc(reference: &str) -> Cow<'_, str> {
    if is_nfc(reference) { Cow::Borrowed(reference) } else { Cow::Owned(reference.nfc().collect()) }
}

/// The bucket of a reference's NFC form; a period has the bucket of its subscription.
pub(crate) fn bucket(reference: &str) -> u16 {
    let name = nfc(reference);
    let name = subscription_of(&name).unwrap_or(&name);
    let hash = Sha256::new().chain_update(PURPOSE).chain_update(name).finalize();
    u16::from_be_bytes([hash[0], hash[1]]) / (u16::MAX / BUCKETS + 1)
}

/// The subscription in the reference of a period's invoice: the text before `@YYYY-MM-DD`.
pub(crate) fn subscription_of(reference: &str) -> Option<&str> {
    let (subscription, date) = reference.rsplit_once('@')?;
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    (is_date && !subscription.is_empty()).then_some(subscription)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed by another implementation of SHA-256; never changes.
    #[test]
    fn the_bucket_of_a_reference_is_fixed() {
        let references = ["I1", "INV-2026-0001", "Größe/7", "S1", "発票-3", "a@b"];
        assert_eq!(references.map(bucket), [377, 208, 184, 822, 73, 752]);
    }

    #[test]
    fn a_period_has_the_bucket_of_its_subscription() {
        assert_eq!(bucket("S1@2026-01-31"), bucket("S1"));
        for text in ["S1@2026-1-31", "S1@2026-01-31x", "@2026-01-31", "S1@2026/01/31", "S1@", "S1"] {
            assert_eq!(subscription_of(text), None, "{text}");
        }
        assert_eq!(subscription_of("a@b@2026-01-31"), Some("a@b"));
    }

    #[test]
    fn one_name_in_two_normal_forms_has_one_bucket() {
        assert_eq!(bucket("caf\u{e9}-1"), bucket("cafe\u{301}-1"));
    }

    #[test]
    fn references_are_spread_evenly() {
        let mut halves = [0; 2];
        (0..10_000)
            .for_each(|number| halves[usize::from(bucket(&format!("I{number}")) / (BUCKETS / 2))] += 1);
        assert!(halves.iter().all(|half| (4800..5200).contains(half)), "{halves:?}");
        assert!((0..10_000).any(|number| bucket(&format!("I{number}")) == BUCKETS - 1));
    }
}
