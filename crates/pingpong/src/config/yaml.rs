//! YAML configuration files as dotted names in lower case: scalars as they are written, and lists of scalars. Everything
//! else is an error with its line. Knows no setting; the YAML grammar itself is saphyr-parser's.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::file::RawValue;

/// Maximum depth of nested mappings; the deepest setting is at depth two.
const DEPTH_MAX: usize = 8;

/// A mapping that is being read.
struct Mapping {
    /// Its own dotted name with a dot; empty for the file's top level.
    prefix: String,
    /// The dotted name whose value comes next.
    key: Option<String>,
}

/// Collects values from parser events. The file is read without recursion, and aliases are refused, so that its size
/// bounds the memory.
#[derive(Default)]
struct Loader {
    values: BTreeMap<String, RawValue>,
    names: BTreeSet<String>,
    mappings: Vec<Mapping>,
    list: Option<(String, Vec<String>)>,
    documents: usize,
}

/// Reads a whole file; an empty file has no values.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, RawValue>, String> {
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) =
            event.map_err(|error| format!("line {}: {}", error.marker().line(), error.info()))?;
        loader.accept(event).map_err(|error| format!("line {}: {error}", span.start.line()))?;
    }
    Ok(loader.values)
}

impl Loader {
    fn accept(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document starts; a file has one".to_owned());
                }
            }
            Event::Alias(_) => return Err("aliases (*name) are not supported".to_owned()),
            Event::Scalar(_, _, anchor, ref tag)
            | Event::SequenceStart(anchor, ref tag)
            | Event::MappingStart(anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                return Err("anchors (&name) and tags (!name) are not supported; quote the text".to_owned());
            }
            Event::Scalar(text, style, ..) => self.scalar(text.into_owned(), style)?,
            Event::MappingStart(..) => {
                let prefix = match self.mappings.is_empty() {
                    true => String::new(),
                    false => self.name_of_block("a mapping")? + ".",
                };
                if self.mappings.len() == DEPTH_MAX {
                    return Err(format!("mappings are nested deeper than {DEPTH_MAX} levels"));
                }
                self.mappings.push(Mapping { prefix, key: None });
            }
            Event::MappingEnd => drop(self.mappings.pop()),
            Event::SequenceStart(..) => self.list = Some((self.name_of_block("a list")?, Vec::new())),
            Event::SequenceEnd => {
                let list = self.list.take();
                self.values.extend(list.map(|(name, items)| (name, RawValue::List(items))));
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn scalar(&mut self, text: String, style: ScalarStyle) -> Result<(), String> {
        let is_null = style == ScalarStyle::Plain && matches!(text.as_str(), "" | "~" | "null");
        if let Some((_, items)) = &mut self.list {
            if is_null {
                return Err("a list item is empty".to_owned());
            }
            items.push(text);
            return Ok(());
        }
        let Some(mapping) = self.mappings.last_mut() else {
            return if is_null { Ok(()) } else { Err("expected `key: value`, found a text".to_owned()) };
        };
        let Some(name) = mapping.key.take() else {
            let name = format!("{}{}", mapping.prefix, text.to_ascii_lowercase());
            if !self.names.insert(name.clone()) {
                return Err(format!("{name} is set twice"));
            }
            mapping.key = Some(name);
            return Ok(());
        };
        if !is_null {
            self.values.insert(name, RawValue::Scalar(text));
        }
        Ok(())
    }

    /// Name of the key whose value is this block.
    fn name_of_block(&mut self, block: &str) -> Result<String, String> {
        if self.list.is_some() {
            return Err(format!("{block} inside a list; a list may contain texts only"));
        }
        let key = self.mappings.last_mut().and_then(|mapping| mapping.key.take());
        key.ok_or_else(|| format!("expected `key: value`, found {block}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(values: &BTreeMap<String, RawValue>, name: &str) -> String {
        match &values[name] {
            RawValue::Scalar(text) => text.clone(),
            RawValue::List(items) => items.join("+"),
        }
    }

    #[test]
    fn a_typical_file_is_read() {
        let values = parse(
            "---\nservice:\n  port: \"8080\"   # quoted\n  Protocol: https               # or http\n\
             \x20 tlsCertificate: /path/to/cert#1\n\n  allowedClients:\n    - pinger.ping-pong\n    - \"spiffe://a/b\"\n\
             metrics:\n    port: 2112\n    endpoint: '/metrics'\nponger: \n  url: https://pong:8080\n",
        )
        .unwrap();
        assert_eq!(value(&values, "service.port"), "8080");
        assert_eq!(value(&values, "service.protocol"), "https");
        assert_eq!(value(&values, "service.tlscertificate"), "/path/to/cert#1");
        assert_eq!(value(&values, "service.allowedclients"), "pinger.ping-pong+spiffe://a/b");
        assert_eq!(value(&values, "metrics.endpoint"), "/metrics");
        assert_eq!(value(&values, "ponger.url"), "https://pong:8080");
    }

    #[test]
    fn lists_may_be_unindented_and_blocks_may_be_empty() {
        let values = parse("metrics:\nservice:\n  allowedClients:\n  - a\n  - b\n  port: 1\n").unwrap();
        assert_eq!(value(&values, "service.allowedclients"), "a+b");
        assert_eq!(value(&values, "service.port"), "1");
        assert!(!values.contains_key("metrics"));
        assert_eq!(parse("").unwrap(), BTreeMap::new());
        assert_eq!(parse("# nothing\n---\n").unwrap(), BTreeMap::new());
    }

    #[test]
    fn flow_mappings_escapes_and_block_scalars_are_read() {
        let values = parse("a: {b: 1, c: \"x\\ty\"}\nd: |-\n  text\ne: null\nf: 'it''s'\ng: \"\"\n").unwrap();
        assert_eq!(value(&values, "a.b"), "1");
        assert_eq!(value(&values, "a.c"), "x\ty");
        assert_eq!(value(&values, "d"), "text");
        assert_eq!(value(&values, "f"), "it's");
        assert_eq!(value(&values, "g"), "");
        assert!(!values.contains_key("e"));
    }

    #[test]
    fn numbers_keep_their_spelling() {
        let values = parse("a: 0755\nb: 1e3\nc: yes\nd: 08080\n").unwrap();
        for (name, text) in [("a", "0755"), ("b", "1e3"), ("c", "yes"), ("d", "08080")] {
            assert_eq!(value(&values, name), text);
        }
    }

    #[test]
    fn errors_name_their_line() {
        for (text, line) in [
            ("a: 1\na: 2\n", "line 2"),
            ("a: 1\nA: 2\n", "line 2"),
            ("a:\n  b: 1\na:\n  c: 1\n", "line 3"),
            ("a:\n\tb: 1\n", "line 2"),
            ("b: 1\na: &x 1\n", "line 2"),
            ("b: 1\na: !!int 1\n", "line 2"),
            ("a: \"open\n", "line"),
            ("- a\n", "line 1"),
            ("just a text\n", "line 1"),
            ("a: [1, 2\n", "line"),
            ("a:\n  - [b]\n", "line 2"),
            ("a:\n  - b: c\n", "line 2"),
            ("a: 1\n---\nb: 2\n", "line 2"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(line), "{text:?}: {error}");
        }
    }

    #[test]
    fn aliases_and_deep_nesting_are_refused() {
        let laughs = "a: &a [x]\nb: [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n";
        assert!(parse(laughs).unwrap_err().contains("not supported"));
        assert!(parse("a: *b\n").is_err());
        let deep = "{a: ".repeat(DEPTH_MAX + 1);
        assert!(parse(&deep).unwrap_err().contains("deeper than"), "{:?}", parse(&deep));
        let brackets = format!("a: {}", "[".repeat(60_000));
        assert!(parse(&brackets).is_err());
        assert!(parse("a: [[b]]\n").unwrap_err().contains("inside a list"));
    }

    /// No contents of a file cause a panic.
    #[test]
    fn fuzz_configuration_files() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
        testkit::fuzz::Corpus::read("configuration files", corpus).run(|input| {
            let _values = std::str::from_utf8(input).map(parse);
        });
    }
}
