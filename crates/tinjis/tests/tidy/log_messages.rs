//! A log message is a constant sentence in one style: it starts in lower case, is one sentence, and variable parts are
//! fields. Reads the macros of `tracing` in shipped code. Must not know any other rule.

use crate::tree::{File, none, rust};

const MACROS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Exceptions: lines that users of the replaced systems search for, the pinger's lines, the body of a charge, and the
/// error with which a program ends.
const NAMED_BY_OTHERS: &[&str] = &[
    "Authenticated user {account}",
    "Unauthenticated user",
    "{}",
    "{error:#}",
    "Starting to ping",
    "Sent ping",
    "Got pong",
    "Received {} /ping",
    "Request failed: {failure}: {}",
    "Request failed: the answer is {}",
    "Request failed: the answer is no pong",
];

/// The literal arguments of a call whose argument list begins here.
fn literals(arguments: &str) -> Vec<String> {
    let (mut found, mut depth, mut is_first) = (Vec::new(), 1, true);
    let mut rest = arguments.chars();
    while let Some(character) = rest.next() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                let text = literal(&mut rest);
                if is_first && depth == 1 {
                    found.push(text);
                }
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        is_first = character == ',' || is_first && character.is_whitespace();
    }
    found
}

/// The rest of a literal, with continued lines joined.
fn literal(rest: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(character) = rest.next() {
        match character {
            '"' => break,
            '\\' => match rest.next() {
                Some('\n') => *rest = rest.as_str().trim_start().chars(),
                escaped => text.extend(escaped),
            },
            other => text.push(other),
        }
    }
    text
}

/// Every message of a file, with the line of its macro.
fn messages(file: &File) -> Vec<(usize, String)> {
    let shipped = file.text.find("\n#[cfg(test)]\nmod ").map_or(file.text.as_str(), |end| &file.text[..end]);
    let of_macro = |name: &&str| {
        let begin = format!("tracing::{name}!(");
        let calls = shipped.match_indices(&begin).map(|(at, _)| at);
        let of_call = |at: usize| {
            let line = shipped[..at].lines().count();
            literals(&shipped[at + begin.len()..])
                .into_iter()
                .map(move |text| (line, text))
                .collect::<Vec<_>>()
        };
        calls.flat_map(of_call).collect::<Vec<_>>()
    };
    MACROS.iter().flat_map(of_macro).collect()
}

fn is_in_style(message: &str) -> bool {
    message.starts_with(|first: char| first.is_lowercase())
        && !message.contains([';', '{', '?'])
        && !message.contains(". ")
        && !message.ends_with('.')
}

fn findings(file: &File) -> Vec<String> {
    let wrong = |(_, text): &(usize, String)| !is_in_style(text) && !NAMED_BY_OTHERS.contains(&text.as_str());
    let say = |(line, text)| {
        format!("{}:{line}: \"{text}\": one sentence, in lower case, without values", file.path)
    };
    messages(file).into_iter().filter(wrong).map(say).collect()
}

fn shipped() -> Vec<File> {
    let mut files = rust();
    files.retain(|file| file.path.contains("/src/"));
    files
}

#[test]
fn log_messages_are_constant_sentences_in_one_style() {
    none("log messages", &shipped().iter().flat_map(findings).collect::<Vec<_>>());
}

#[test]
fn each_line_that_is_named_by_others_is_logged() {
    let logged: Vec<String> = shipped().iter().flat_map(messages).map(|(_, text)| text).collect();
    assert!(logged.len() > NAMED_BY_OTHERS.len(), "messages are found: {logged:?}");
    let gone = NAMED_BY_OTHERS.iter().filter(|text| !logged.iter().any(|message| message == *text));
    none("no longer logged", &gone.map(ToString::to_string).collect::<Vec<_>>());
}

#[test]
fn a_planted_message_is_found() {
    let planted = |text: &str| findings(&File { path: "a.rs".to_owned(), text: text.to_owned() }).len();
    assert_eq!(planted(r#"tracing::info!("Listening");"#), 1);
    assert_eq!(planted("tracing::warn!(\n    why = \"X\",\n    \"it failed; \\\n     look\"\n);"), 1);
    assert_eq!(planted(r#"tracing::warn!(id = of("Y", 1), "row {id} is gone");"#), 1);
    assert_eq!(planted(r#"tracing::warn!(id = of("Y", 1), "a row is gone");"#), 0);
}
