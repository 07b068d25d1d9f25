//! Seeded decisions: the same seed and the same subject always give the same draw, on any machine and in any order.
//! Pure; knows no request and no fault.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::amount::Decimal;

/// The seed from which every draw follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The subject of a draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    /// A keyed request: every delivery of the key draws the same.
    Key(&'a str),
    /// An unkeyed request with a reference: each delivery draws for itself.
    Reference(&'a str),
    /// An unkeyed request without a reference, by its fingerprint: each delivery draws for itself.
    Fingerprint(&'a str),
}

/// One delivery of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    pub subject: Subject<'a>,
    /// The delivery's number, from 1; it does not affect the draws of a key.
    pub nth: u32,
}

impl Delivery<'_> {
    /// A number that looks random and follows from seed, purpose and delivery.
    #[must_use]
    pub fn draw(self, seed: Seed, purpose: &str) -> u64 {
        let (kind, text, nth) = match self.subject {
            Subject::Key(text) => (b'k', text, 0),
            Subject::Reference(text) => (b'r', text, self.nth),
            Subject::Fingerprint(text) => (b'f', text, self.nth),
        };
        let mut hash = Sha256::new();
        hash.update(seed.0.to_be_bytes());
        hash.update(purpose.as_bytes());
        hash.update([0, kind]);
        hash.update(nth.to_be_bytes());
        hash.update(text.as_bytes());
        let digest = hash.finalize();
        digest.iter().take(8).fold(0, |sum, &byte| (sum << 8) | u64::from(byte))
    }
}

/// A share of all draws, from none to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The share in units of 1/[`Self::ONE`].
    parts: u64,
}

impl Share {
    /// All draws.
    pub const ALL: Self = Self { parts: Self::ONE };
    /// No draw.
    pub const NONE: Self = Self { parts: 0 };

    const PLACES: i32 = 12;
    const ONE: u64 = 1_000_000_000_000;

    /// Parses a decimal number from 0 to 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts = u64::try_from(Decimal::parse(text)?.truncated(Self::PLACES)?).ok()?;
        (parts <= Self::ONE).then_some(Self { parts })
    }

    /// Parses as [`Self::parse`] does, but accepts no smaller digits.
    #[must_use]
    pub fn parse_exact(text: &str) -> Option<Self> {
        let is_exact = Decimal::parse(text)?.minor_exact(u8::try_from(Self::PLACES).ok()?).is_ok();
        Self::parse(text).filter(|_| is_exact)
    }

    /// The sum of both shares; `None` if it is more than all.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let parts = self.parts.checked_add(other.parts).filter(|parts| *parts <= Self::ONE)?;
        Some(Self { parts })
    }

    /// Whether a draw is within the share: below the same part of 2^64.
    #[must_use]
    pub fn holds(self, draw: u64) -> bool {
        u128::from(draw) < (u128::from(self.parts) << 64) / u128::from(Self::ONE)
    }
}

impl fmt::Display for Share {
    /// Writes the decimal number that [`Self::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.parts / Self::ONE, self.parts % Self::ONE);
        let digits = format!("{rest:012}");
        match digits.trim_end_matches('0') {
            "" => write!(f, "{whole}"),
            digits => write!(f, "{whole}.{digits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charged(rate: &str, subjects: &[String]) -> usize {
        let success = Share::parse(rate).unwrap();
        let draw = |text| Delivery { subject: Subject::Reference(text), nth: 1 }.draw(Seed(8213), "charge");
        subjects.iter().filter(|text| success.holds(draw(text))).count()
    }

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        for text in ["0", "1", "0.5", "0.05", "1.0", "5e-1"] {
            assert!(Share::parse(text).is_some(), "{text}");
        }
        for text in ["-0.1", "1.01", "2", "50%", "", "half", "1e30"] {
            assert!(Share::parse(text).is_none(), "{text}");
        }
        assert_eq!(Share::parse("1"), Some(Share::ALL));
        for (text, shown) in
            [("0.50", "0.5"), ("5e-1", "0.5"), ("1.0", "1"), ("0", "0"), ("1e-12", "0.000000000001")]
        {
            assert_eq!(Share::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn none_and_all_have_no_exception() {
        for draw in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(Share::ALL.holds(draw));
            assert!(!Share::parse("0").unwrap().holds(draw));
        }
    }

    #[test]
    fn about_the_asked_share_is_charged() {
        let subjects: Vec<String> = (0..4000).map(|n| format!("I{n}")).collect();
        for (rate, around) in [("0.5", 2000), ("0.05", 200), ("0.9", 3600)] {
            let count = charged(rate, &subjects);
            assert!(count.abs_diff(around) < 150, "{rate}: {count}");
        }
    }

    #[test]
    fn a_key_draws_the_same_at_each_delivery_and_a_reference_does_not() {
        let keyed = |nth| Delivery { subject: Subject::Key("k"), nth }.draw(Seed(1), "charge");
        let unkeyed = |nth| Delivery { subject: Subject::Reference("k"), nth }.draw(Seed(1), "charge");
        assert_eq!(keyed(1), keyed(2));
        assert_ne!(unkeyed(1), unkeyed(2));
        assert_ne!(keyed(1), unkeyed(1));
    }

    #[test]
    fn a_seed_gives_these_draws_in_every_version() {
        let draw = |seed| Delivery { subject: Subject::Key("bca1897f"), nth: 1 }.draw(Seed(seed), "charge");
        assert_eq!([draw(8213), draw(8214)], [8_544_684_421_867_786_859, 3_354_323_033_061_776_281]);
    }
}
