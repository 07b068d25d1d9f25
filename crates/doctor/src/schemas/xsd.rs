//! XML Schema, limited to the features of the JUnit schema in this folder: elements with attributes, and sequences of
//! references. Reads the schema with the same small parser as the document. Knows no format.

use std::collections::BTreeMap;

/// An element with its attributes and children, and whether it contains text.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    children: Vec<Element>,
    has_text: bool,
}

impl Element {
    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The first element of this name, at any depth.
    fn find(&self, name: &str) -> Option<&Self> {
        self.children.iter().find_map(|child| if child.name == name { Some(child) } else { child.find(name) })
    }
}

/// All errors of a document whose root must have this name.
pub(super) fn validate(schema: &str, root: &str, document: &str) -> Vec<String> {
    let (schema, document) = match (parse(schema), parse(document)) {
        (Ok(schema), Ok(document)) => (schema, document),
        (Err(error), _) | (_, Err(error)) => return vec![error],
    };
    let mut errors = Vec::new();
    if document.name != root {
        errors.push(format!("the root is {}", document.name));
    }
    check(&schema, &document, &mut errors);
    errors
}

fn check(schema: &Element, element: &Element, errors: &mut Vec<String>) {
    let name = &element.name;
    let declared = schema.children.iter().find(|declared| declared.attribute("name") == name);
    let Some(declared) = declared else {
        errors.push(format!("<{name}> is not declared"));
        return;
    };
    let complex = declared.find("xs:complexType");
    let text = complex.is_none_or(|complex| complex.attribute("mixed") == "true");
    if element.has_text && !text {
        errors.push(format!("<{name}> holds text"));
    }
    let attributes = complex.map(|complex| complex.children.as_slice()).unwrap_or_default();
    let attributes: Vec<&Element> = attributes.iter().filter(|child| child.name == "xs:attribute").collect();
    for attribute in element.attributes.keys() {
        if !attributes.iter().any(|declared| declared.attribute("name") == attribute) {
            errors.push(format!("<{name}> has no attribute {attribute}"));
        }
    }
    for required in attributes.iter().filter(|declared| declared.attribute("use") == "required") {
        if !element.attributes.contains_key(required.attribute("name")) {
            errors.push(format!("<{name}> lacks {}", required.attribute("name")));
        }
    }
    let mut children = element.children.iter().peekable();
    for part in
        complex.and_then(|complex| complex.find("xs:sequence")).map_or(&[][..], |sequence| &sequence.children)
    {
        let limit = |field: &str| match part.attribute(field) {
            "unbounded" => usize::MAX,
            number => number.parse().unwrap_or(1),
        };
        let mut count = 0;
        while count < limit("maxOccurs")
            && children.next_if(|child| child.name == part.attribute("ref")).is_some()
        {
            count += 1;
        }
        if count < limit("minOccurs") {
            errors.push(format!("<{name}> lacks <{}>", part.attribute("ref")));
        }
    }
    if let Some(child) = children.next() {
        errors.push(format!("<{}> may not stand here in <{name}>", child.name));
    }
    for child in &element.children {
        check(schema, child, errors);
    }
}

/// Parses elements, attributes, text, comments and declarations; entities count as text.
fn parse(text: &str) -> Result<Element, String> {
    let mut open = vec![Element::default()];
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let inside = open.last_mut().ok_or("an element too many is closed")?;
        inside.has_text |= !rest[..start].trim().is_empty();
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.split_once("-->").ok_or("a comment does not end")?.1;
            continue;
        }
        let (tag, after) = rest[1..].split_once('>').ok_or("a tag does not end")?;
        rest = after;
        if tag.starts_with('?') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            let closed = open.pop().filter(|element| element.name == name.trim());
            let closed = closed.ok_or_else(|| format!("</{name}> closes another element"))?;
            open.last_mut().ok_or("the root is closed twice")?.children.push(closed);
            continue;
        }
        let is_empty = tag.ends_with('/');
        let element = element(tag.trim_end_matches('/'))?;
        if is_empty {
            open.last_mut().ok_or("no root")?.children.push(element);
        } else {
            open.push(element);
        }
    }
    let mut document = open.pop().ok_or("no document")?;
    match (open.is_empty(), document.children.len()) {
        (true, 1) => document.children.pop().ok_or_else(|| "no root".to_owned()),
        _ => Err("not one closed root".to_owned()),
    }
}

fn element(tag: &str) -> Result<Element, String> {
    let (name, mut rest) = tag.trim().split_once(char::is_whitespace).unwrap_or((tag.trim(), ""));
    let mut element = Element { name: name.to_owned(), ..Element::default() };
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"').ok_or_else(|| format!("<{tag}>: a value does not end"))?;
        element.attributes.insert(name.trim().to_owned(), value.to_owned());
        rest = after;
    }
    Ok(element)
}
