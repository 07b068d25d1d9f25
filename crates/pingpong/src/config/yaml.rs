//! The part of YAML that configuration files are written in: mappings by indentation, texts, lists of texts. All else
//! is refused with its line, never guessed. Knows no setting.

use std::collections::BTreeMap;

use super::file::Said;

type Everything = BTreeMap<String, Said>;

/// A mapping that is open: how far its key is indented, and its dotted name.
struct Open {
    indent: usize,
    name: String,
}

/// Everything that a text says, by dotted names in small letters.
pub(super) fn parse(text: &str) -> Result<Everything, String> {
    let mut said = Everything::new();
    let mut open: Vec<Open> = Vec::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        read_line(line, &mut open, &mut said).map_err(|why| format!("line {number}: {why}"))?;
    }
    Ok(said)
}

fn read_line(line: &str, open: &mut Vec<Open>, said: &mut Everything) -> Result<(), String> {
    let line = without_comment(line)?.trim_end();
    let content = line.trim_start_matches(' ');
    let indent = line.len() - content.len();
    if content.is_empty() || content == "---" || content == "..." {
        return Ok(());
    }
    if content.starts_with('\t') {
        return Err("is indented by a tab".to_owned());
    }
    if let Some(item) = content.strip_prefix('-').filter(|rest| rest.is_empty() || rest.starts_with(' ')) {
        let of = open.last().filter(|key| key.indent <= indent).ok_or("is an item of no list")?;
        let item = text(item.trim())?.ok_or("is an empty item")?;
        return match said.entry(of.name.clone()).or_insert_with(|| Said::Many(Vec::new())) {
            Said::Many(items) => {
                items.push(item);
                Ok(())
            }
            Said::One(_) => Err("is an item below a value".to_owned()),
        };
    }
    let (key, value) = split_key(content)?;
    open.retain(|key| key.indent < indent);
    if indent > 0 && open.is_empty() {
        return Err("is indented, and nothing stands above it".to_owned());
    }
    let name = match open.last() {
        Some(above) => format!("{}.{}", above.name, key.to_ascii_lowercase()),
        None => key.to_ascii_lowercase(),
    };
    if said.contains_key(&name) {
        return Err(format!("{name} is there twice"));
    }
    if value.is_empty() {
        open.push(Open { indent, name });
    } else if let Some(items) = value.strip_prefix('[') {
        let items = items.strip_suffix(']').ok_or("opens a list that it does not close")?;
        let items = items.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items = items.map(|item| text(item)?.ok_or_else(|| "has an empty item".to_owned()));
        said.insert(name, Said::Many(items.collect::<Result<_, _>>()?));
    } else if let Some(value) = text(value)? {
        said.insert(name, Said::One(value));
    }
    Ok(())
}

fn split_key(content: &str) -> Result<(&str, &str), String> {
    let (key, value) = match content.split_once(": ") {
        Some((key, value)) => (key, value),
        None => (content.strip_suffix(':').ok_or("is no \"key: value\"")?, ""),
    };
    let key = key.trim();
    let key = quoted(key).unwrap_or(key);
    match !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
        true => Ok((key, value.trim())),
        false => Err(format!("\"{key}\" is no key")),
    }
}

/// A value as a text; nothing for an empty or null one.
fn text(value: &str) -> Result<Option<String>, String> {
    if let Some(inner) = quoted(value) {
        return match value.starts_with('"') && inner.contains('\\') {
            true => Err("has an escape; write the text without".to_owned()),
            false => Ok(Some(inner.replace("''", "'"))),
        };
    }
    if value.starts_with(['&', '*', '!', '|', '>', '{', '[', '%', '@', '`', '"', '\''])
        || value.contains(": ")
    {
        return Err(format!("\"{value}\" is more than a plain text; put it in quotes"));
    }
    Ok(Some(value.to_owned()).filter(|value| !matches!(value.as_str(), "" | "~" | "null")))
}

fn quoted(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

/// The line up to a `#` that stands at the beginning or behind a space, and in no quotes.
fn without_comment(line: &str) -> Result<&str, String> {
    let mut inside: Option<char> = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match inside {
            Some(quote) if c == quote => inside = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return Ok(&line[..at]),
            None if (c == '"' || c == '\'') && (before.is_whitespace() || "[,".contains(before)) => {
                inside = Some(c);
            }
            None => {}
        }
        before = c;
    }
    if inside.is_some() { Err("opens a quote that it does not close".to_owned()) } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(said: &Everything, name: &str) -> String {
        match &said[name] {
            Said::One(text) => text.clone(),
            Said::Many(texts) => texts.join("+"),
        }
    }

    #[test]
    fn a_file_as_users_write_it_is_read() {
        let said = parse(
            "---\nservice:\n  port: \"8080\"   # quoted\n  Protocol: https               # or http\n\
             \x20 tlsCertificate: /path/to/cert#1\n\n  allowedClients:\n    - pinger.ping-pong\n    - \"spiffe://a/b\"\n\
             metrics:\n    port: 2112\n    endpoint: '/metrics'\nponger: \n  url: https://pong:8080\n",
        )
        .unwrap();
        assert_eq!(one(&said, "service.port"), "8080");
        assert_eq!(one(&said, "service.protocol"), "https");
        assert_eq!(one(&said, "service.tlscertificate"), "/path/to/cert#1");
        assert_eq!(one(&said, "service.allowedclients"), "pinger.ping-pong+spiffe://a/b");
        assert_eq!(one(&said, "metrics.endpoint"), "/metrics");
        assert_eq!(one(&said, "ponger.url"), "https://pong:8080");
    }

    #[test]
    fn a_list_may_stand_as_far_left_as_its_key_and_a_block_may_be_empty() {
        let said = parse("metrics:\nservice:\n  allowedClients:\n  - a\n  - b\n  port: 1\n").unwrap();
        assert_eq!(one(&said, "service.allowedclients"), "a+b");
        assert_eq!(one(&said, "service.port"), "1");
        assert!(!said.contains_key("metrics"));
    }

    #[test]
    fn what_is_not_read_is_refused_with_its_line() {
        for (text, line) in [
            ("a: 1\na: 2\n", "line 2"),
            ("a:\n\tb: 1\n", "line 2"),
            ("a: &x 1\n", "line 1"),
            ("a: |\n  text\n", "line 1"),
            ("a: \"open\n", "line 1"),
            ("- a\n", "line 1"),
            ("  a: 1\n", "line 1"),
            ("just a text\n", "line 1"),
            ("a: [1, 2\n", "line 1"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.starts_with(line), "{text:?}: {why}");
        }
    }

    /// Whatever a file holds: no panic.
    #[test]
    fn fuzz_configuration_files() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
        harness::fuzz::Corpus::read("configuration files", corpus).run(|input| {
            let _said = std::str::from_utf8(input).map(parse);
        });
    }
}
