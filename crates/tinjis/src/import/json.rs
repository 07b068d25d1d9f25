//! JSON arrays and NDJSON, an object at a time: cut by a scanner that knows strings and brackets, so that one bad
//! object is one bad row. Must not know what a value means.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::row::{COLUMNS, Fault, ROW_BYTES_MAX, Value, Values};

/// One object's text and where it began.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) line: u64,
    /// `None` when it was longer than [`ROW_BYTES_MAX`].
    pub(crate) text: Option<Vec<u8>>,
}

/// Lines of NDJSON; empty ones are passed over.
#[derive(Debug)]
pub(crate) struct NdjsonRows<R> {
    inner: R,
    line: u64,
    is_empty: bool,
}

impl<R: BufRead> NdjsonRows<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, line: 0, is_empty: true }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Piece>, Fault> {
        loop {
            self.line += 1;
            let line = self.line;
            let fault = |error| Fault::row(line, format!("cannot be read: {error}"));
            let mut text = Vec::new();
            let limit = ROW_BYTES_MAX as u64 + 1;
            let count = (&mut self.inner).take(limit).read_until(b'\n', &mut text).map_err(fault)?;
            if count == 0 && self.is_empty {
                return Err(Fault::row(1, "the file is empty; an object a line is needed"));
            }
            if count == 0 {
                return Ok(None);
            }
            self.is_empty &= text.iter().all(u8::is_ascii_whitespace);
            if count > ROW_BYTES_MAX && text.last() != Some(&b'\n') {
                self.is_empty = false;
                self.inner.skip_until(b'\n').map_err(fault)?;
                return Ok(Some(Piece { line, text: None }));
            }
            if !text.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(Piece { line, text: Some(text) }));
            }
        }
    }
}

/// Elements of one JSON array.
#[derive(Debug)]
pub(crate) struct ArrayRows<R> {
    inner: R,
    line: u64,
    /// Bytes of this line so far.
    column: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    /// After `[`: an element or the end.
    First,
    /// After a comma: an element.
    Next,
    End,
}

/// A scanner's state inside an element.
#[derive(Default)]
struct Inside {
    depth: usize,
    in_string: bool,
    escaped: bool,
    is_begun: bool,
    /// Nothing more can be of it.
    is_over: bool,
}

impl Inside {
    /// Whether this byte can only be of another element, so that a comma is missing before it.
    fn is_astray(&self, byte: u8) -> bool {
        let begins = self.is_begun && matches!(byte, b'"' | b'[' | b'{');
        let follows = self.is_over && !byte.is_ascii_whitespace() && !matches!(byte, b',' | b']');
        self.depth == 0 && !self.in_string && (begins || follows)
    }

    /// Whether this byte ends the element (and is not of it).
    fn is_end(&mut self, byte: u8) -> bool {
        self.is_begun = true;
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    self.is_over = self.depth == 0;
                }
                _ => {}
            }
            return false;
        }
        match byte {
            b',' | b']' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.is_over = self.depth == 0;
            }
            _ => self.is_over |= self.depth == 0 && byte.is_ascii_whitespace(),
        }
        false
    }
}

impl<R: BufRead> ArrayRows<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, line: 1, column: 0, place: Place::Start }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Piece>, Fault> {
        if self.place == Place::Start {
            match self.after_space()? {
                Some(b'[') => self.place = Place::First,
                _ => return Err(self.fault("a JSON file must be an array: [ is expected here")),
            }
        }
        if self.place == Place::End {
            return Ok(None);
        }
        let line_before = self.line;
        match self.after_space()? {
            Some(b']') if self.place == Place::First => self.end(),
            Some(b']' | b',') => Err(self.fault("an element is missing here")),
            Some(first) => self.element(first),
            None => Err(Fault::row(line_before, "the file ends in the middle of the array")),
        }
    }

    /// The element that begins with this byte, and what follows it.
    fn element(&mut self, first: u8) -> Result<Option<Piece>, Fault> {
        let line = self.line;
        let mut inside = Inside::default();
        let mut text = Vec::new();
        let mut length = 0;
        let mut byte = first;
        while !inside.is_end(byte) {
            length += 1;
            if length <= ROW_BYTES_MAX {
                text.push(byte);
            }
            byte = self
                .byte()?
                .ok_or_else(|| Fault::row(line, "the file ends in the middle of this element"))?;
            if inside.is_astray(byte) {
                let column = format!("byte {}", self.column);
                return Err(Fault::new(self.line, column, "a comma or ] is expected here"));
            }
        }
        if byte == b']' {
            self.end()?;
        } else {
            self.place = Place::Next;
        }
        let text = (length <= ROW_BYTES_MAX).then_some(text);
        Ok(Some(Piece { line, text }))
    }

    fn end(&mut self) -> Result<Option<Piece>, Fault> {
        self.place = Place::End;
        match self.after_space()? {
            None => Ok(None),
            Some(_) => Err(self.fault("the array has ended, but the file goes on")),
        }
    }

    fn after_space(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                other => return Ok(other),
            }
        }
    }

    fn byte(&mut self) -> Result<Option<u8>, Fault> {
        let line = self.line;
        let buffer =
            self.inner.fill_buf().map_err(|error| Fault::row(line, format!("cannot be read: {error}")))?;
        let byte = buffer.first().copied();
        if byte.is_some() {
            self.inner.consume(1);
        }
        self.column += 1;
        if byte == Some(b'\n') {
            self.line += 1;
            self.column = 0;
        }
        Ok(byte)
    }

    fn fault(&self, reason: &str) -> Fault {
        Fault::row(self.line, reason)
    }
}

/// The fields as they came. Unknown ones are refused, because a misspelt `status` would charge what is paid.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow, default)]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    customer_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    currency: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

/// The values of one object.
pub(crate) fn values(piece: &Piece) -> Result<Values<'_>, Fault> {
    let line = piece.line;
    let Some(text) = &piece.text else {
        return Err(Fault::row(line, format!("is longer than {ROW_BYTES_MAX} bytes")));
    };
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(Fault::row(line, "must be a JSON object"));
    }
    let fields: Fields<'_> = serde_json::from_slice(text).map_err(|error| {
        let said = error.to_string();
        let what = said.split(" at line ").next().unwrap_or(&said);
        let below = u64::try_from(error.line().saturating_sub(1)).unwrap_or_default();
        Fault::new(line + below, format!("byte {}", error.column()), what)
    })?;
    let all = [fields.reference, fields.customer_id, fields.currency, fields.amount, fields.status];
    let mut at = COLUMNS.iter();
    Ok(all.map(|raw| {
        let may_be_number = matches!(at.next(), Some(&("customer_id" | "amount")));
        raw.map_or(Value::Missing, |raw| value(raw.get(), may_be_number))
    }))
}

fn value(raw: &str, may_be_number: bool) -> Value<'_> {
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(raw) {
            Ok(text) => Value::Text(Cow::Owned(text.into_owned())),
            Err(_) => Value::Bad("is no text"),
        },
        Some(b'n') => Value::Missing,
        Some(b'0'..=b'9' | b'-') if may_be_number => Value::Text(Cow::Borrowed(raw)),
        _ if may_be_number => Value::Bad("must be text or a number"),
        _ => Value::Bad("must be text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn array(file: &str) -> Result<Vec<(u64, Option<String>)>, Fault> {
        let mut rows = ArrayRows::new(file.as_bytes());
        let mut all = Vec::new();
        while let Some(piece) = rows.next()? {
            let text = piece.text.map(|text| String::from_utf8(text).unwrap().trim().to_owned());
            all.push((piece.line, text));
        }
        Ok(all)
    }

    fn piece(text: &str) -> Piece {
        Piece { line: 3, text: Some(text.as_bytes().to_vec()) }
    }

    #[test]
    fn an_array_is_cut_into_its_elements_with_their_lines() {
        let file = "\n[ {\"a\": \"],}\\\"\"},\n\n {\"b\":\n[1,{}]} , 7]\n";
        let expected = [(2, "{\"a\": \"],}\\\"\"}"), (4, "{\"b\":\n[1,{}]}"), (5, "7")]
            .map(|(line, text)| (line, Some(text.to_owned())));
        assert_eq!(array(file).unwrap(), expected);
        assert_eq!(array(" [ ] ").unwrap(), []);
    }

    #[test]
    fn a_broken_array_ends_with_its_line() {
        for (file, line, part) in [
            ("{}", 1, "[ is expected"),
            ("", 1, "[ is expected"),
            ("[1,\n,2]", 2, "missing"),
            ("[1,\n]", 2, "missing"),
            ("[\n{\"a\":", 2, "middle"),
            ("[1]\n2", 2, "goes on"),
        ] {
            let fault = array(file).unwrap_err();
            assert_eq!(fault.line, line, "{file:?}: {fault:?}");
            assert!(fault.reason.contains(part), "{file:?}: {fault:?}");
        }
    }

    #[test]
    fn a_missing_comma_breaks_the_file_and_names_the_byte() {
        for (file, line, column) in [
            (r#"[{"a":1} {"b":2}]"#, 1, "byte 10"),
            (r#"[{"a":1}{"b":2}]"#, 1, "byte 9"),
            ("[{},\n {}\n  {}]", 3, "byte 3"),
            ("[1 2]", 1, "byte 4"),
            ("[1\"a\"]", 1, "byte 3"),
            ("[\"a\" \"b\"]", 1, "byte 6"),
            ("[{}}]", 1, "byte 4"),
        ] {
            let fault = array(file).unwrap_err();
            assert_eq!((fault.line, &*fault.column), (line, column), "{file:?}: {fault:?}");
            assert!(fault.reason.contains("comma"), "{file:?}: {fault:?}");
        }
    }

    #[test]
    fn a_file_of_lines_without_any_is_empty() {
        for file in ["", "\n", " \r\n\n"] {
            let fault = NdjsonRows::new(file.as_bytes()).next().unwrap_err();
            assert!(fault.reason.contains("empty"), "{file:?}: {fault:?}");
        }
        let mut rows = NdjsonRows::new(&b"1\n\n"[..]);
        assert!(rows.next().unwrap().is_some() && rows.next().unwrap().is_none());
    }

    #[test]
    fn an_element_or_a_line_over_the_limit_is_one_bad_row() {
        let long = "1".repeat(ROW_BYTES_MAX + 1);
        let lines = |texts: Vec<(u64, Option<String>)>| {
            texts.iter().map(|(line, text)| (*line, text.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(lines(array(&format!("[1,{long},\n3]")).unwrap()), [(1, true), (1, false), (2, true)]);

        let file = format!("1\n\n{long}\n4\r\n5");
        let mut rows = NdjsonRows::new(file.as_bytes());
        let mut found = Vec::new();
        while let Some(piece) = rows.next().unwrap() {
            found.push((piece.line, piece.text.is_some()));
        }
        assert_eq!(found, [(1, true), (3, false), (4, true), (5, true)]);
    }

    #[test]
    fn amounts_may_be_text_or_numbers_and_keep_their_digits() {
        let texts = |json: &str| match values(&piece(json)).unwrap() {
            [_, Value::Text(customer), _, Value::Text(amount), _] => {
                (customer.into_owned(), amount.into_owned())
            }
            other => panic!("{other:?}"),
        };
        let both = ("7".to_owned(), "1.10".to_owned());
        assert_eq!(texts(r#"{"customer_id":7,"amount":1.10}"#), both);
        assert_eq!(texts(r#"{"customer_id":"7","amount":"1.10"}"#), both);
    }

    #[test]
    fn objects_with_unknown_or_doubled_fields_or_of_another_type_are_faults() {
        for (json, part) in [
            (r#"{"stauts":"PAID"}"#, "unknown field"),
            (r#"{"amount":1,"amount":2}"#, "duplicate field"),
            ("[1]", "object"),
            ("{\"a\":NaN}", "unknown field"),
            ("{\"reference\":\"x\"", "EOF"),
        ] {
            let fault = values(&piece(json)).unwrap_err();
            assert!(fault.reason.contains(part), "{json}: {fault:?}");
        }
        assert!(matches!(values(&piece(r#"{"reference":1}"#)).unwrap()[0], Value::Bad(_)));
        assert!(matches!(values(&piece(r#"{"amount":true}"#)).unwrap()[3], Value::Bad(_)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_scanner_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rows = ArrayRows::new(&bytes[..]);
            let mut count = 0;
            while let Ok(Some(piece)) = rows.next() {
                let _ = values(&piece);
                count += 1;
            }
            prop_assert!(count <= bytes.len());
        }
    }
}
