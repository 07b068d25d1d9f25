//! References of one import that people can hardly distinguish: within the import by skeletons, and from stored ones by
//! other spellings. Refuses nothing. Knows no line format and no route.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::invoice::Reference;
use crate::store::{ImportRow, Result, Store};

/// The most skeletons that are remembered; later references are compared with these only.
const SKELETONS_MAX: usize = 250_000;

/// The references read so far, as digests without texts.
#[derive(Debug, Default)]
pub(super) struct LookAlikes {
    /// Line and hash of the first reference with each skeleton.
    first: HashMap<u64, (u64, u64)>,
}

fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl LookAlikes {
    /// Remembers the reference of a line; returns the earlier line whose reference can hardly be distinguished from it.
    pub(super) fn find_earlier_or_remember(&mut self, reference: &Reference, line: u64) -> Option<u64> {
        let (skeleton, own) = (digest(&reference.skeleton()), digest(reference.nfc()));
        match self.first.get(&skeleton) {
            Some(&(earlier, first)) => (first != own).then_some(earlier),
            None => {
                if self.first.len() < SKELETONS_MAX {
                    self.first.insert(skeleton, (line, own));
                }
                None
            }
        }
    }
}

/// Finds for each row a stored reference that is another spelling of the row's own.
pub(super) async fn stored_spellings(store: &dyn Store, rows: &[ImportRow]) -> Result<Vec<Option<String>>> {
    let spellings: Vec<Vec<String>> = rows.iter().map(|row| row.reference.other_spellings()).collect();
    let stored = store.stored_among(spellings.concat()).await?;
    let stored: std::collections::HashSet<String> = stored.into_iter().collect();
    let of_row = |spellings: Vec<String>| spellings.into_iter().find(|spelling| stored.contains(spelling));
    Ok(spellings.into_iter().map(of_row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_reference_is_found_by_its_skeleton_and_never_by_itself() {
        let mut seen = LookAlikes::default();
        let mut earlier =
            |text: &str, line| seen.find_earlier_or_remember(&Reference::new(text).unwrap(), line);
        assert_eq!(earlier("INV-1", 1), None);
        assert_eq!(earlier("INV-1", 2), None, "a repeat looks like itself");
        assert_eq!(earlier("inv-1", 3), Some(1));
        assert_eq!(earlier("INV\u{2011}1", 4), Some(1));
        assert_eq!(earlier("INV-01", 5), None);
        assert_eq!(earlier("caf\u{e9}", 6), None);
        assert_eq!(earlier("cafe\u{301}", 7), None, "one by NFC");
    }

    #[test]
    fn no_more_skeletons_are_remembered_than_there_are_places() {
        let mut seen = LookAlikes::default();
        for line in 0..=SKELETONS_MAX as u64 {
            seen.find_earlier_or_remember(&Reference::new(format!("R{line}")).unwrap(), line);
        }
        assert_eq!(seen.first.len(), SKELETONS_MAX);
    }
}
