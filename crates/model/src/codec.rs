//! Packs small values into 64-bit words and reads them back. One visitor serves both directions, so that they cannot
//! disagree. Knows no state.

use crate::world::{Packed, WORDS};

/// Number of bytes of a number that is usually zero.
const WORD_BYTES: usize = 6;

/// Visits the parts of a value: a writer stores each part, a reader replaces it.
pub(crate) trait Codec: Sized {
    /// A number below `2^width`.
    fn bits(&mut self, value: &mut u8, width: u32);

    /// A number below `2^48`, usually zero.
    fn word(&mut self, value: &mut u64);

    /// A boolean.
    fn flag(&mut self, value: &mut bool) {
        let mut bit = u8::from(*value);
        self.bits(&mut bit, 1);
        *value = bit == 1;
    }

    /// One of a few values.
    fn one_of<T: Copy + PartialEq>(&mut self, value: &mut T, all: &[T]) {
        let place = all.iter().position(|one| one == value).expect("a value is one of all values");
        let mut place = u8::try_from(place).expect("an enum is small");
        self.bits(&mut place, usize::BITS - (all.len() - 1).leading_zeros());
        *value = all[usize::from(place)];
    }

    /// A value that may be missing; reading starts from `blank`.
    fn option<T: Copy>(&mut self, value: &mut Option<T>, blank: T, visit: impl Fn(&mut T, &mut Self)) {
        let mut is_some = value.is_some();
        self.flag(&mut is_some);
        *value = is_some.then(|| {
            let mut inner = value.unwrap_or(blank);
            visit(&mut inner, self);
            inner
        });
    }
}

/// Writes values end to end, none of them across two words.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) words: Packed,
    at: usize,
    used: u32,
}

impl Codec for Writer {
    fn bits(&mut self, value: &mut u8, width: u32) {
        debug_assert!(u32::from(*value) < 1 << width, "a value fits its width");
        if self.used + width > u64::BITS {
            (self.at, self.used) = (self.at + 1, 0);
        }
        self.words[self.at] |= u64::from(*value) << self.used;
        self.used += width;
    }

    fn word(&mut self, value: &mut u64) {
        if *value == 0 {
            return self.flag(&mut false);
        }
        self.flag(&mut true);
        let bytes = value.to_le_bytes();
        debug_assert_eq!(bytes[WORD_BYTES..], [0; 8 - WORD_BYTES], "a set of copies fits its bytes");
        for mut byte in bytes.into_iter().take(WORD_BYTES) {
            self.bits(&mut byte, 8);
        }
    }
}

/// Reads the values that a [`Writer`] wrote.
pub(crate) struct Reader<'a> {
    words: &'a Packed,
    at: usize,
    used: u32,
}

impl<'a> Reader<'a> {
    /// Reads from the first word.
    pub(crate) fn new(words: &'a Packed) -> Self {
        debug_assert_eq!(words.len(), WORDS);
        Self { words, at: 0, used: 0 }
    }
}

impl Codec for Reader<'_> {
    fn bits(&mut self, value: &mut u8, width: u32) {
        if self.used + width > u64::BITS {
            (self.at, self.used) = (self.at + 1, 0);
        }
        let mask = (1_u64 << width) - 1;
        *value = (self.words[self.at] >> self.used & mask).to_le_bytes()[0];
        self.used += width;
    }

    fn word(&mut self, value: &mut u64) {
        let mut is_some = false;
        self.flag(&mut is_some);
        let mut bytes = [0; 8];
        if is_some {
            for byte in bytes.iter_mut().take(WORD_BYTES) {
                self.bits(byte, 8);
            }
        }
        *value = u64::from_le_bytes(bytes);
    }
}
