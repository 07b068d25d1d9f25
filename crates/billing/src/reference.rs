//! The source's own name of an invoice: which texts are valid, and which are equal. Billing and the command line both
//! use these rules, so that they cannot differ. Pure: knows no store, no file format and no HTTP.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// A unique and immutable name of 1 to [`Reference::LEN_MAX`] bytes of visible text. Two references are equal when
/// their NFC forms are (UAX 15): `é` typed on Windows and on a Mac is one name. The text stays as the source gave it,
/// because keys and ledger rows were made from it.
#[derive(Clone, Debug)]
pub struct Reference {
    text: String,
    /// The NFC form, if it differs from the text; mostly it does not.
    nfc: Option<Box<str>>,
}

/// Why a text is not a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadReference {
    /// The length in bytes: zero, or over the limit.
    Length(usize),
    /// White space at the start or the end.
    Space,
    /// A character that is invisible or not text.
    Character {
        /// The character.
        character: char,
        /// The character's position, counted from 1.
        place: usize,
    },
}

impl Reference {
    /// The longest reference, in bytes.
    pub const LEN_MAX: usize = 200;

    /// Checks the text of a new reference.
    ///
    /// # Errors
    /// When it is empty, too long, has white space at an end, or holds a character of [`is_refused`].
    pub fn new(text: impl Into<String>) -> Result<Self, BadReference> {
        let text = text.into();
        if let Some((at, character)) = text.chars().enumerate().find(|(_, character)| is_refused(*character))
        {
            return Err(BadReference::Character { character, place: at + 1 });
        }
        Self::stored(text)
    }

    /// The reference in a store, a ledger or a caller's query. Stored texts never change and may be older than the rule
    /// for characters, so the rule is weaker here.
    ///
    /// # Errors
    /// When it is empty, too long, has white space at an end, or holds a control character.
    pub fn stored(text: impl Into<String>) -> Result<Self, BadReference> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::LEN_MAX {
            return Err(BadReference::Length(text.len()));
        }
        if text.trim() != text {
            return Err(BadReference::Space);
        }
        if let Some((at, character)) = text.chars().enumerate().find(|(_, character)| character.is_control())
        {
            return Err(BadReference::Character { character, place: at + 1 });
        }
        let nfc = (!is_nfc(&text)).then(|| text.nfc().collect::<String>().into_boxed_str());
        Ok(Self { text, nfc })
    }

    /// The text as the source gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The NFC form, by which references are compared.
    #[must_use]
    pub fn nfc(&self) -> &str {
        self.nfc.as_deref().unwrap_or(&self.text)
    }

    /// The NFC form where it differs from the text.
    #[must_use]
    pub fn nfc_if_other(&self) -> Option<&str> {
        self.nfc.as_deref()
    }

    /// The text without differences of case, compatibility form, white space and kind of dash. Two different references
    /// with the same skeleton are hard to distinguish, and worth a warning. Shapes of other scripts are not compared:
    /// docs/adr/0110-look-alikes-of-other-scripts.md.
    #[must_use]
    pub fn skeleton(&self) -> Cow<'_, str> {
        let is_plain = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase() && byte != b' ';
        if self.text.bytes().all(is_plain) {
            return Cow::Borrowed(&self.text);
        }
        let dash = |character: char| match character.general_category() {
            GeneralCategory::DashPunctuation => '-',
            _ if character == '\u{2212}' => '-',
            _ => character,
        };
        let seen =
            self.text.nfkc().flat_map(char::to_lowercase).filter(|character| !character.is_whitespace());
        Cow::Owned(seen.map(dash).nfkc().collect())
    }
}

impl Reference {
    /// Other spellings that people and programs use: in one case, in compatibility form, without spaces, with plain
    /// dashes. None of them equals this reference; a stored reference with such a spelling is worth a warning.
    #[must_use]
    pub fn other_spellings(&self) -> Vec<String> {
        let compatible: String = self.text.nfkc().collect();
        let dense: String = compatible.chars().filter(|character| !character.is_whitespace()).collect();
        let skeleton = self.skeleton().into_owned();
        let mut spellings = vec![
            self.text.to_lowercase(),
            self.text.to_uppercase(),
            compatible.to_lowercase(),
            compatible.to_uppercase(),
            skeleton.to_uppercase(),
            skeleton,
            dense,
            compatible,
        ];
        spellings.sort_unstable();
        spellings.dedup();
        spellings.retain(|spelling| spelling != self.nfc() && *spelling != self.text);
        spellings
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.nfc() == other.nfc()
    }
}

impl Eq for Reference {}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nfc().cmp(other.nfc())
    }
}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nfc().hash(state);
    }
}

/// Characters that no new reference may hold: control, format (bidirectional ones too), private use and unassigned
/// ones, line and paragraph separators, and those that Unicode calls ignorable by default (UAX 44).
#[must_use]
pub fn is_refused(character: char) -> bool {
    !character.is_ascii() && (is_refused_category(character) || is_ignorable(character))
        || character.is_ascii_control()
}

fn is_refused_category(character: char) -> bool {
    matches!(
        character.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::PrivateUse
            | GeneralCategory::Surrogate
            | GeneralCategory::Unassigned
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

/// Letters and marks among `Default_Ignorable_Code_Point`; the others are format characters or unassigned. Also the
/// blank of Braille, which is a symbol by category and looks like a space.
fn is_ignorable(character: char) -> bool {
    matches!(character,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}')
}

fn kind(character: char) -> &'static str {
    match character {
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "a bidirectional control"
        }
        _ => match character.general_category() {
            GeneralCategory::Control => "a control character",
            GeneralCategory::Format => "a format character",
            GeneralCategory::PrivateUse => "a private-use character",
            GeneralCategory::Unassigned => "an unassigned character",
            GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => "a line separator",
            _ => "an invisible character",
        },
    }
}

impl fmt::Display for BadReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length(len) => {
                write!(f, "a reference has 1 to {} bytes, this one has {len}", Reference::LEN_MAX)
            }
            Self::Space => f.write_str("a reference has no space at either end: remove it"),
            Self::Character { character, place } => write!(
                f,
                "a reference must not contain U+{:04X}, {}, here as character {place}: remove it at the source",
                u32::from(character),
                kind(character)
            ),
        }
    }
}

impl std::error::Error for BadReference {}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        Reference::new(text).unwrap_err().to_string()
    }

    #[test]
    fn plain_text_of_any_script_is_a_reference() {
        for text in ["INV-1", "a b", "Größe/7", "счёт 5", "発票-3", "=1+1", "ก็", "I", &"x".repeat(200)]
        {
            assert_eq!(Reference::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn invisible_characters_are_refused_by_code_point_and_place() {
        for (text, code_point, kind, place) in [
            ("INV\u{202e}5", "U+202E", "bidirectional", 4),
            ("\u{feff}INV", "U+FEFF", "format", 1),
            ("INV-1\u{200b}", "U+200B", "format", 6),
            ("a\u{ad}b", "U+00AD", "format", 2),
            ("a\u{34f}", "U+034F", "invisible", 2),
            ("L\u{2028}x", "U+2028", "line separator", 2),
            ("C\u{85}x", "U+0085", "control", 2),
            ("a\0", "U+0000", "control", 2),
            ("a\u{e000}", "U+E000", "private-use", 2),
            ("a\u{378}", "U+0378", "unassigned", 2),
            ("a\u{10ffff}", "U+10FFFF", "unassigned", 2),
            ("a\u{3164}b", "U+3164", "invisible", 2),
            ("a\u{e0041}", "U+E0041", "format", 2),
        ] {
            let reason = reason(text);
            assert!(
                reason.contains(&format!("{code_point}, ")) && reason.contains(kind),
                "{text:?}: {reason}"
            );
            assert!(reason.contains(&format!("as character {place}:")), "{text:?}: {reason}");
        }
    }

    #[test]
    fn lengths_and_spaces_at_an_end_are_refused() {
        assert!(reason("").contains("has 0"));
        assert!(reason(&"x".repeat(201)).contains("has 201"));
        for text in [" a", "a ", "a\u{a0}", "\u{3000}a"] {
            assert!(reason(text).contains("space"), "{text:?}");
        }
    }

    #[test]
    fn one_name_in_two_normal_forms_is_one_reference() {
        use std::collections::HashSet;
        let [composed, decomposed] =
            ["caf\u{e9}-1", "cafe\u{301}-1"].map(|text| Reference::new(text).unwrap());
        assert_eq!(composed, decomposed);
        assert_eq!(composed.cmp(&decomposed), Ordering::Equal);
        assert_eq!(HashSet::from([composed.clone(), decomposed.clone()]).len(), 1);
        assert_eq!(decomposed.as_str(), "cafe\u{301}-1", "the text stays");
        assert_eq!((composed.nfc_if_other(), decomposed.nfc_if_other()), (None, Some("caf\u{e9}-1")));
        assert_eq!(Reference::new("\u{212a}1").unwrap(), Reference::new("K1").unwrap(), "the Kelvin sign");
        assert_ne!(Reference::new("K1").unwrap(), Reference::new("k1").unwrap());
    }

    #[test]
    fn what_a_store_holds_is_read_even_if_no_new_one_may_be_so() {
        assert_eq!(Reference::stored("INV-1\u{200b}").unwrap().as_str(), "INV-1\u{200b}");
        assert!(Reference::stored("a\u{7}").is_err() && Reference::stored("").is_err());
    }

    #[test]
    fn other_spellings_are_none_of_its_own() {
        let spellings = |text: &str| Reference::new(text).unwrap().other_spellings();
        assert_eq!(spellings("2026-001"), [""; 0]);
        assert_eq!(spellings("INV-1"), ["inv-1"]);
        assert_eq!(spellings("inv-1"), ["INV-1"]);
        for text in ["Inv - 1", "INV\u{a0}-1", "\u{ff29}NV-1", "INV\u{2011}1"] {
            assert!(spellings(text).contains(&"INV-1".to_owned()), "{text}: {:?}", spellings(text));
        }
        assert_eq!(spellings("\u{e5}"), ["\u{c5}"]);
    }

    #[test]
    fn references_that_people_cannot_tell_apart_have_one_skeleton() {
        let skeleton = |text: &str| Reference::new(text).unwrap().skeleton().into_owned();
        for text in
            ["inv-1", "INV-1", "Inv - 1", "INV\u{a0}-1", "\u{ff29}NV-1", "\u{2139}nv-1", "INV\u{2011}1"]
        {
            assert_eq!(skeleton(text), "inv-1", "{text}");
        }
        assert_ne!(skeleton("INV-01"), "inv-1");
    }

    // Decision 0110: a similar shape does not make a similar text.
    #[test]
    fn letters_of_another_script_make_another_reference_with_another_skeleton() {
        for (latin, other) in [("AB-1", "\u{410}\u{412}-1"), ("AB-1", "\u{391}\u{392}-1"), ("O-1", "0-1")] {
            let [latin, other] = [latin, other].map(|text| Reference::new(text).unwrap());
            assert_ne!(latin, other);
            assert_ne!(latin.skeleton(), other.skeleton());
        }
    }
}
