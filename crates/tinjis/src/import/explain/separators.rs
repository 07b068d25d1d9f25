//! How the amounts of a file are written: which mark separates decimals, and which groups thousands. Ambiguous amounts
//! are not decided here. Knows no profile and no file.

use super::super::amount;

/// What separates the digits of amounts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Separators {
    Plain {
        all_whole: bool,
    },
    Named {
        decimal_comma: bool,
        thousands: Option<String>,
        example: String,
    },
    /// All amounts could be read in two ways.
    Unclear {
        example: String,
    },
    /// Groups of another size than three, such as India's `1,23,456.00`.
    NotInThrees {
        example: String,
    },
    /// The decimal mark is a comma in some amounts and a point in others.
    Mixed {
        comma: String,
        point: String,
    },
}

impl Separators {
    pub(super) fn of(texts: &[&str]) -> Self {
        let (mut points, mut commas) = (Marks::default(), Marks::default());
        let mut group = None;
        let mut example = "";
        for text in texts {
            points.add(text, '.', ',');
            commas.add(text, ',', '.');
            let is_group = |c: &char| amount::is_space(*c) || amount::is_apostrophe(*c);
            group = group.or_else(|| text.trim().chars().find(is_group));
            if text.len() > example.len() {
                example = text;
            }
        }
        let example = example.to_owned();
        let group = group.map(|group| if amount::is_apostrophe(group) { '\'' } else { ' ' });
        let named = |decimal_comma, thousands: Option<char>| {
            let thousands = group.or(thousands);
            let other = thousands.and_then(|mark| texts.iter().find(|text| is_grouped_otherwise(text, mark)));
            if let Some(other) = other {
                return Self::NotInThrees { example: other.trim().to_owned() };
            }
            let thousands = thousands.map(|mark| if mark == ' ' { "space".to_owned() } else { mark.into() });
            Self::Named { decimal_comma, thousands, example: example.clone() }
        };
        if let (Some(comma), Some(point)) = (&commas.before_decimals, &points.before_decimals) {
            return Self::Mixed { comma: comma.clone(), point: point.clone() };
        }
        match (commas.seen, points.seen) {
            (false, _) if group.is_some() => named(false, None),
            (true, false) if group.is_some() => named(true, None),
            (false, false) => Self::Plain { all_whole: true },
            (false, true) if points.can_only_group => Self::Unclear { example },
            (false, true) => Self::Plain { all_whole: false },
            (true, false) if commas.can_only_group => Self::Unclear { example },
            (true, false) => named(true, None),
            (true, true) if points.before_decimals.is_some() => named(false, Some(',')),
            (true, true) if commas.before_decimals.is_some() => named(true, Some('.')),
            (true, true) => Self::Unclear { example },
        }
    }
}

fn is_grouped_otherwise(text: &str, mark: char) -> bool {
    let is_decimal = |character| character != mark && matches!(character, '.' | ',');
    let whole = text.trim().trim_start_matches('-').split(is_decimal).next().unwrap_or_default();
    whole.starts_with(|first: char| first.is_ascii_digit()) && amount::ungroup(whole, mark).is_none()
}

/// The use of one mark in amounts.
#[derive(Debug)]
struct Marks {
    seen: bool,
    /// Whether the mark always comes before three digits: it may group, or be a decimal mark with three places.
    can_only_group: bool,
    /// The first amount in which the mark can only be the decimal mark.
    before_decimals: Option<String>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { seen: false, can_only_group: true, before_decimals: None }
    }
}

impl Marks {
    fn add(&mut self, text: &str, mark: char, other: char) {
        let Some((before, after)) = text.rsplit_once(mark) else { return };
        self.seen = true;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let may_group = digits == 3 && !before.contains(other) || after.contains(other);
        self.can_only_group &= may_group;
        if !may_group && self.before_decimals.is_none() {
            self.before_decimals = Some(text.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_in_amounts_are_reported_apart() {
        let named = |decimal_comma, thousands: Option<&str>, example: &str| Separators::Named {
            decimal_comma,
            thousands: thousands.map(str::to_owned),
            example: example.to_owned(),
        };
        let mixed =
            |comma: &str, point: &str| Separators::Mixed { comma: comma.to_owned(), point: point.to_owned() };
        for (texts, expected) in [
            (&["1", "12"][..], Separators::Plain { all_whole: true }),
            (&["12.15", "3"], Separators::Plain { all_whole: false }),
            (&["12,15", "3"], named(true, None, "12,15")),
            (&["1.234,50", "3,00"], named(true, Some("."), "1.234,50")),
            (&["1,234.50", "3.00"], named(false, Some(","), "1,234.50")),
            (&["1 234,50"], named(true, Some("space"), "1 234,50")),
            (&["1'234.50"], named(false, Some("'"), "1'234.50")),
            (&["1,234", "5"], Separators::Unclear { example: "1,234".to_owned() }),
            (&["1.234"], Separators::Unclear { example: "1.234".to_owned() }),
            (&["1.234", "12,15"], named(true, Some("."), "1.234")),
            (&["1,234", "12.15"], named(false, Some(","), "1,234")),
            (&["1,234,567.00"], named(false, Some(","), "1,234,567.00")),
            (&["1,234", "1.234"], Separators::Unclear { example: "1,234".to_owned() }),
            (&["1,23,456.00", "3.00"], Separators::NotInThrees { example: "1,23,456.00".to_owned() }),
            (&["3,00", "1.2345,00"], Separators::NotInThrees { example: "1.2345,00".to_owned() }),
            (&["12.15", "12,15"], mixed("12,15", "12.15")),
            (&["1,234.50", "1.234,50", "5"], mixed("1.234,50", "1,234.50")),
        ] {
            assert_eq!(Separators::of(texts), expected, "{texts:?}");
        }
    }
}
