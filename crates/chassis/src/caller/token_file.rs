//! The format of a credential file: `TOKEN` or `TOKEN ACCOUNT` per line, with comments, blank lines and a byte order
//! mark skipped. The only parser of this format, for tokens that a service accepts and for those that it sends. Must
//! not know where the text comes from, nor what a token gives access to; no message shows a token.

use std::fmt;

use super::Account;
use super::tokens::Token;
use crate::config::unquote;
use crate::printable::is_hidden;

/// The byte order mark that some editors put before the first line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The first character of a comment.
const COMMENT: char = '#';

/// What begins a comment elsewhere, and would be a token that is easily guessed here.
const COMMENTS_ELSEWHERE: [&str; 2] = [";", "//"];

/// Schemes of the header `Authorization`.
const SCHEMES: [&str; 2] = ["Bearer", "Basic"];

/// Mistakes that are listed; more of them are one file of another kind.
const LISTED_MAX: usize = 10;

/// What is wrong with one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The line has this many words.
    Words(usize),
    /// The token has a character that no header can carry, so that no caller could present it.
    NotVisibleAscii,
    /// The token has fewer bytes than it needs here.
    Short(usize, usize),
    /// The second word is a comment, or holds characters that are not seen.
    Account,
    /// A comment as other files have it.
    CommentElsewhere,
    /// A token as a header, a file of variables or a shell has it.
    NotBare,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => write!(
                f,
                "has {words} words; a line is TOKEN or TOKEN ACCOUNT, and a comment is a line that begins with #"
            ),
            Self::NotVisibleAscii => f.write_str("the token has characters other than visible ASCII"),
            Self::Short(bytes, bytes_min) => {
                write!(
                    f,
                    "the token has {bytes} bytes; at least {bytes_min} are needed when --listen is not loopback"
                )
            }
            Self::Account => f.write_str(
                "the account begins with # or has control or format characters; a comment needs a line of its own",
            ),
            Self::CommentElsewhere => {
                f.write_str("begins with ; or //; a token begins with neither, and a comment is a line that begins with #")
            }
            Self::NotBare => f.write_str(
                "has Bearer, Basic, NAME: or NAME= before the token, or quotes around it; a line is TOKEN or TOKEN ACCOUNT \
                 and nothing else",
            ),
        }
    }
}

/// Every faulty line, with its number from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<(usize, Fault)>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (line, fault)) in self.0.iter().take(LISTED_MAX).enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}line {line}: {fault}")?;
        }
        match self.0.len().checked_sub(LISTED_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "; and {more} more lines"),
        }
    }
}

/// The tokens of a file in its order, each of at least `bytes_min` bytes.
pub(super) fn parse(text: &str, bytes_min: usize) -> Result<Vec<Token>, Faults> {
    let (mut tokens, mut faults) = (Vec::new(), Vec::new());
    for (at, line) in text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).lines().enumerate() {
        match parse_token(line, bytes_min) {
            Ok(found) => tokens.extend(found),
            Err(fault) => faults.push((at + 1, fault)),
        }
    }
    if faults.is_empty() { Ok(tokens) } else { Err(Faults(faults)) }
}

fn parse_token(line: &str, bytes_min: usize) -> Result<Option<Token>, Fault> {
    // Only spaces and tabs separate words: splitting at a lone carriage return would make an account of a second token.
    let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let (text, account) = match words[..] {
        [] => return Ok(None),
        [first, ..] if first.starts_with(COMMENT) => return Ok(None),
        [first, ..] if COMMENTS_ELSEWHERE.iter().any(|mark| first.starts_with(mark)) => {
            return Err(Fault::CommentElsewhere);
        }
        _ if has_label_or_quotes(&words) => return Err(Fault::NotBare),
        [text] => (text, Account::default()),
        [text, account] if is_account(account) => (text, Account::named(account)),
        [_, _] => return Err(Fault::Account),
        _ => return Err(Fault::Words(words.len())),
    };
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::NotVisibleAscii);
    }
    if text.len() < bytes_min {
        return Err(Fault::Short(text.len(), bytes_min));
    }
    Ok(Some(Token::new(text, account)))
}

/// Whether the token has its surroundings of elsewhere: they would be a token that is easily guessed, and the real one an
/// account, which is shown.
fn has_label_or_quotes(words: &[&str]) -> bool {
    let is_label =
        |word: &str| word.ends_with(':') || SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
    let is_quoted = |text: &str| unquote(text) != text;
    (words.len() > 1 && is_label(words[0]))
        || is_quoted(&words.join(" "))
        || words.iter().any(|word| is_quoted(word) || is_assignment(word))
}

/// `NAME=value`, but not a token whose padding is `=`.
fn is_assignment(word: &str) -> bool {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    word.split_once('=')
        .is_some_and(|(name, value)| is_name(name) && !value.trim_start_matches('=').is_empty())
}

fn is_account(word: &str) -> bool {
    !word.starts_with(COMMENT) && !word.chars().any(is_hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let tokens = parse(text, 0).unwrap();
        tokens.iter().map(|token| (token.secret.expose().to_owned(), token.account.to_string())).collect()
    }

    fn faults(text: &str, bytes_min: usize) -> Vec<(usize, Fault)> {
        parse(text, bytes_min).unwrap_err().0
    }

    fn pair(token: &str, account: &str) -> (String, String) {
        (token.to_owned(), account.to_owned())
    }

    #[test]
    fn comments_blank_lines_and_a_byte_order_mark_are_no_tokens() {
        let text = "\u{feff}# antaeus rotated 2026-11-01\r\n\n \t \n  # indented\n#\ntok1-long-secret\nshop\tcorner-shop\r\n";
        assert_eq!(read(text), [pair("tok1-long-secret", "antaeus"), pair("shop", "corner-shop")]);
        assert_eq!(read("\u{feff}first\nsecond"), [pair("first", "antaeus"), pair("second", "antaeus")]);
        assert_eq!(read("# nothing else\n"), []);
        assert_eq!(read("a#b"), [pair("a#b", "antaeus")]);
    }

    #[test]
    fn every_line_that_is_no_token_is_named_by_its_number() {
        let text = "good\n\none two three\ntoken # comment of it\ntoken #account\nt\u{f6}ken\none\rtwo\n\u{feff}late\n";
        let expected = [
            (3, Fault::Words(3)),
            (4, Fault::Words(5)),
            (5, Fault::Account),
            (6, Fault::NotVisibleAscii),
            (7, Fault::NotVisibleAscii),
            (8, Fault::NotVisibleAscii),
        ];
        assert_eq!(faults(text, 0), expected);
        let shown = parse(text, 0).unwrap_err().to_string();
        assert!(shown.starts_with("line 3: has 3 words; a line is TOKEN or TOKEN ACCOUNT"), "{shown}");
        assert!(!shown.contains("good") && !shown.contains("three"), "{shown}");
    }

    #[test]
    fn a_comment_of_another_format_is_no_token() {
        for line in [
            "; comment",
            ";",
            ";comment",
            "; old token of the shop",
            "// comment",
            "//comment",
            " \t// x y z",
        ] {
            assert_eq!(faults(&format!("good\n{line}\n"), 0), [(2, Fault::CommentElsewhere)], "{line}");
        }
        let shown = parse("; comment", 0).unwrap_err().to_string();
        assert_eq!(
            shown,
            "line 1: begins with ; or //; a token begins with neither, and a comment is a line that begins with #"
        );
        assert_eq!(read("a;b\na//b shop"), [pair("a;b", "antaeus"), pair("a//b", "shop")]);
    }

    #[test]
    fn a_token_as_a_header_or_a_variable_has_it_is_no_token() {
        for line in [
            "Bearer SECRET",
            "bearer SECRET shop",
            "Basic c2hvcDpzZWNyZXQ=",
            "Authorization: Bearer SECRET",
            "X-Token: SECRET",
            "TOKEN=SECRET",
            "PAYMENTS_API_TOKEN=SECRET shop",
            "_T0=SECRET==",
            "export TOKEN=SECRET",
            "\"SECRET\"",
            "'SECRET' shop",
            "SECRET 'shop'",
            "\"SECRET shop\"",
        ] {
            let wrong = parse(line, 0).unwrap_err();
            assert_eq!(wrong.0, [(1, Fault::NotBare)], "{line}");
            assert!(!wrong.to_string().contains("SECRET"), "{wrong}");
        }
    }

    #[test]
    fn a_token_may_be_padded_and_hold_any_visible_character() {
        for token in
            ["QUJD=", "QUJDRA==", "QUJD", "a:b", "token=SECRET", "Ab=c", "\"", "\"a", "a\"b'", "1A=b"]
        {
            assert_eq!(read(token), [pair(token, "antaeus")]);
            assert_eq!(read(&format!("SECRET\n{token} shop"))[1], pair(token, "shop"));
        }
        assert_eq!(read("Bearer"), [pair("Bearer", "antaeus")]);
    }

    #[test]
    fn an_account_has_no_character_that_is_not_seen() {
        for account in ["a\u{202e}b", "\u{200b}", "a\u{feff}", "a\u{7f}", "a\u{9b}b", "\u{ad}", "#a"] {
            assert_eq!(faults(&format!("token {account}"), 0), [(1, Fault::Account)], "{account:?}");
        }
        assert_eq!(read("token kr\u{e4}mer"), [pair("token", "kr\u{e4}mer")]);
    }

    #[test]
    fn a_token_needs_the_bytes_that_are_asked_for_and_no_more() {
        assert_eq!(faults("123456789012345\n1234567890123456", 16), [(1, Fault::Short(15, 16))]);
        assert_eq!(parse("1234567890123456 shop", 16).unwrap().len(), 1);
    }

    #[test]
    fn a_file_of_another_kind_is_reported_in_ten_lines() {
        let shown = parse(&"this is prose\n".repeat(12), 0).unwrap_err().to_string();
        assert!(shown.contains("line 10: ") && !shown.contains("line 11: "), "{shown}");
        assert!(shown.ends_with("; and 2 more lines"), "{shown}");
    }
}
