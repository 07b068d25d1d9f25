//! A set of packed worlds that numbers them in the order of insertion: a table of numbers beside one list. Knows
//! nothing of the words' meaning.

use crate::world::Packed;

/// An empty slot.
const EMPTY: u32 = u32::MAX;
/// Number of slots at the start; doubled whenever half of them are used.
const SLOTS: usize = 1 << 12;

pub(crate) struct Index {
    pub(crate) items: Vec<Packed>,
    slots: Vec<u32>,
}

impl Index {
    /// An empty set.
    pub(crate) fn new() -> Self {
        Self { items: Vec::new(), slots: vec![EMPTY; SLOTS] }
    }

    /// The number of a world, and whether it was inserted now.
    pub(crate) fn insert(&mut self, item: Packed) -> (u32, bool) {
        let slot = self.slot(&item);
        if self.slots[slot] != EMPTY {
            return (self.slots[slot], false);
        }
        let number = u32::try_from(self.items.len()).expect("a search has fewer than 2^32 states");
        self.slots[slot] = number;
        self.items.push(item);
        if self.items.len() * 2 > self.slots.len() {
            self.grow();
        }
        (number, true)
    }

    /// The number of a world, if the set contains it.
    pub(crate) fn find(&self, item: &Packed) -> Option<u32> {
        let number = self.slots[self.slot(item)];
        (number != EMPTY).then_some(number)
    }

    /// The slot of the world, or the free slot for it.
    fn slot(&self, item: &Packed) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash(item) & mask;
        while self.slots[at] != EMPTY && self.items[self.slots[at] as usize] != *item {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        self.slots = vec![EMPTY; self.slots.len() * 2];
        let mask = self.slots.len() - 1;
        for (number, item) in (0..).zip(&self.items) {
            let mut at = hash(item) & mask;
            while self.slots[at] != EMPTY {
                at = (at + 1) & mask;
            }
            self.slots[at] = number;
        }
    }
}

/// Multiplies and folds each word; any mixing suffices, since items are compared completely.
fn hash(item: &Packed) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = item.iter().fold(0_u64, |hash, word| {
        let hash = (hash ^ word).wrapping_mul(ODD);
        hash ^ hash >> 29
    });
    usize::try_from(mixed >> 1).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::WORDS;

    #[test]
    fn each_item_keeps_its_number_however_the_table_grows() {
        let mut index = Index::new();
        let items = 3 * SLOTS as u64;
        for (expected, word) in (0..items).enumerate() {
            let (number, is_new) = index.insert([word << 40; WORDS]);
            assert_eq!((number as usize, is_new), (expected, true));
        }
        assert_eq!(index.insert([5 << 40; WORDS]), (5, false));
        assert_eq!(index.find(&[7 << 40; WORDS]), Some(7));
        assert_eq!(index.find(&[1; WORDS]), None);
    }
}
