//! Converts amounts of other tools to the one text that the validator accepts. Accepts only separators that the
//! settings name, and refuses any other with the setting that would help. Pure: knows no file.

use std::borrow::Cow;

use super::settings::Dialect;

/// The plain decimal text of an amount.
pub(crate) fn to_decimal_text<'a>(
    text: &'a str,
    dialect: &Dialect,
    exponent: u8,
) -> Result<Cow<'a, str>, String> {
    if dialect.minor_units {
        return minor_units(text, exponent.into()).map(Cow::Owned);
    }
    if let Some(why) = explain_foreign(text) {
        return Err(why);
    }
    if !dialect.decimal_comma && dialect.thousands.is_none() {
        return explain_separator(text).map_or(Ok(Cow::Borrowed(text)), Err);
    }
    let (whole, decimals) = split(text, dialect)?;
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", whole),
    };
    let digits = match dialect.thousands {
        Some(separator) => ungroup(whole, separator)
            .ok_or_else(|| format!("is not grouped in threes by {separator:?} (--thousands)"))?,
        None => whole.to_owned(),
    };
    let text =
        decimals.map_or_else(|| format!("{sign}{digits}"), |decimals| format!("{sign}{digits}.{decimals}"));
    explain_separator(&text).map_or(Ok(Cow::Owned(text)), Err)
}

/// Splits at the decimal separator; the other separator is an error unless it groups thousands.
fn split<'a>(text: &'a str, dialect: &Dialect) -> Result<(&'a str, Option<&'a str>), String> {
    let (decimal, other) = if dialect.decimal_comma { (',', '.') } else { ('.', ',') };
    if text.contains(other) && dialect.thousands != Some(other) {
        let flag = if dialect.decimal_comma { "--decimal-comma" } else { "a decimal point" };
        return Err(format!(
            "has {other:?} beside {flag}: if it groups thousands, give --thousands '{other}'"
        ));
    }
    Ok(match text.split_once(decimal) {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (text, None),
    })
}

/// Removes the separators: `1.234.567` to `1234567`; an ungrouped number stays. `None` for groups of another size.
pub(super) fn ungroup(whole: &str, separator: char) -> Option<String> {
    let is_separator = |character: char| match separator {
        ' ' => is_space(character),
        '\'' => is_apostrophe(character),
        other => character == other,
    };
    let groups: Vec<&str> = whole.split(is_separator).collect();
    let (first, rest) = groups.split_first()?;
    let fits = rest.is_empty() || (1..=3).contains(&first.len()) && rest.iter().all(|group| group.len() == 3);
    fits.then(|| groups.concat())
}

/// A space of any width: spreadsheets write one that does not break, and ISO 31-0 asks for a thin one.
pub(super) fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

pub(super) fn is_apostrophe(character: char) -> bool {
    matches!(character, '\'' | '\u{2019}')
}

fn minor_units(text: &str, exponent: usize) -> Result<String, String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be a whole number of minor units (--minor-units)".to_owned());
    }
    let digits = format!("{:0>1$}", digits.trim_start_matches('0'), exponent + 1);
    let (whole, decimals) = digits.split_at(digits.len() - exponent);
    let point = if decimals.is_empty() { "" } else { "." };
    Ok(format!("{sign}{whole}{point}{decimals}"))
}

/// What to do about an amount that is none in any way of writing.
fn explain_foreign(text: &str) -> Option<String> {
    let is_separator = |character| is_space(character) || is_apostrophe(character);
    let is_negative =
        text.starts_with('(') && text.ends_with(')') || text.ends_with('-') || text.starts_with('\u{2212}');
    let is_known = |character: char| character.is_numeric() || " .,'-+()eE_".contains(character);
    let foreign = text.chars().find(|character| !is_known(*character) && !is_separator(*character));
    match foreign {
        _ if !text.bytes().any(|byte| byte.is_ascii_digit()) => None,
        _ if is_negative => Some(
            "is negative, and an invoice is not: leave credit notes out, by --status or --skip-bad"
                .to_owned(),
        ),
        Some(character) => Some(format!(
            "holds {character:?}: export amounts without currency or unit, and name the currency in a column or by --currency"
        )),
        None if text.trim() != text => Some("has a space at an end: remove it".to_owned()),
        None if text.ends_with(['.', ',']) => {
            Some("ends with a separator: write the decimals behind it, or remove it".to_owned())
        }
        None => None,
    }
}

/// What to do about a separator that was not named.
fn explain_separator(text: &str) -> Option<String> {
    if !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if text.contains(|character| is_space(character) || is_apostrophe(character)) {
        return Some("is grouped: give --thousands space (or the character)".to_owned());
    }
    text.contains(',').then(|| {
        "has a comma: give --decimal-comma if it comes before the decimals, --thousands ',' if it groups thousands"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::super::settings::dialect;
    use super::*;

    const GERMAN: &str = "decimal-comma = true\nthousands = '.'";
    const FRENCH: &str = "decimal-comma = true\nthousands = 'space'";
    const ENGLISH: &str = "thousands = ','";
    const SWISS: &str = "thousands = \"'\"";

    #[test]
    fn named_separators_are_taken() {
        for (profile, text, expected) in [
            ("", "12.15", "12.15"),
            (GERMAN, "1.234,50", "1234.50"),
            (GERMAN, "1.234.567", "1234567"),
            (GERMAN, "12,15", "12.15"),
            (GERMAN, "1234,5", "1234.5"),
            (GERMAN, "-1.234,50", "-1234.50"),
            (FRENCH, "1 234,50", "1234.50"),
            (FRENCH, "1\u{a0}234,50", "1234.50"),
            (FRENCH, "1\u{202f}234,50", "1234.50"),
            (FRENCH, "1\u{2009}234,50", "1234.50"),
            ("thousands = '\u{2009}'", "1 234.50", "1234.50"),
            (ENGLISH, "1,234.50", "1234.50"),
            (SWISS, "1\u{2019}234.50", "1234.50"),
            ("decimal-comma = true", "12,15", "12.15"),
            ("minor-units = true", "1215", "12.15"),
            ("minor-units = true", "5", "0.05"),
            ("minor-units = true", "0", "0.00"),
            ("minor-units = true", "-1215", "-12.15"),
        ] {
            assert_eq!(to_decimal_text(text, &dialect(profile), 2).unwrap(), expected, "{profile:?}: {text}");
        }
        for (exponent, text, expected) in [
            (0, "1215", "1215"),
            (0, "0", "0"),
            (3, "1215", "1.215"),
            (3, "-5", "-0.005"),
            (4, "0", "0.0000"),
        ] {
            assert_eq!(
                to_decimal_text(text, &dialect("minor-units = true"), exponent).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_was_not_named_is_refused_with_the_setting_that_helps() {
        for (profile, text, part) in [
            ("", "1,234.50", "--thousands"),
            ("", "12,15", "--decimal-comma"),
            ("", "1 234.50", "--thousands space"),
            ("", "\u{20ac}12.15", "--currency"),
            ("", "12.15 EUR", "--currency"),
            ("", "(12.15)", "negative"),
            ("", "12.15-", "negative"),
            ("", "10.00 ", "space at an end"),
            (GERMAN, "1.23,50", "in threes"),
            (GERMAN, "12.15", "in threes"),
            ("decimal-comma = true", "1.234,50", "--thousands '.'"),
            ("decimal-comma = true", "12.15", "--decimal-comma"),
            (ENGLISH, "1,2345", "in threes"),
            (ENGLISH, "1234,50", "in threes"),
            (ENGLISH, "1,,234", "in threes"),
            (GERMAN, "12.15CR", "--currency"),
            (GERMAN, "\u{20ac}12.15", "--currency"),
            (GERMAN, "5.", "ends with a separator"),
            ("decimal-comma = true", "12,15 EUR", "--currency"),
            ("", "5.", "ends with a separator"),
            ("", "1\u{2009}234.50", "--thousands space"),
            ("minor-units = true", "12.15", "--minor-units"),
            ("minor-units = true", "", "--minor-units"),
        ] {
            let why = to_decimal_text(text, &dialect(profile), 2).unwrap_err();
            assert!(why.contains(part), "{profile:?}: {text}: {why}");
        }
    }
}
