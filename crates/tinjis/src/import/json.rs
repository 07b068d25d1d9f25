//! JSON arrays, also one inside an object, and NDJSON: an object at a time, in bounded memory. A streaming visitor on a
//! thread of its own reads an array, since a visitor pushes and an import pulls. Must not know what a value means.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use billing::import_row::{LONE_SURROGATE, ROW_BYTES_MAX};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::file::Start;
use super::header::{may_be_status, must_be_decided};
use super::row::{Fault, Place, Value, Values, quote_value};
use super::settings::Dialect;
use super::target::Target;

/// Maximum number of elements that are read ahead of the import; each is at most as long as a row may be.
const AHEAD_MAX: usize = 64;

/// Maximum length of an element when unknown fields are ignored.
const WIDE_ELEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Fields that are passed over and remembered: a file may have any number of names.
const IGNORED_FIELDS_MAX: usize = 1000;
const IGNORED_NAME_CHARS_MAX: usize = 200;

/// The reader's error for an element over the limit.
const TOO_LONG: &str = "is too long";

/// The raw fields of one object, with their place.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) place: Place,
    fields: Result<Fields, Fault>,
    target: &'static Target,
}

/// Raw values by the columns of the target.
type Raw = Vec<Option<Box<RawValue>>>;

/// The values of known fields, and the mistake in the other fields.
#[derive(Debug)]
struct Fields {
    raw: Raw,
    mistake: Option<String>,
}

impl Parsed {
    /// The values of one object.
    pub(crate) fn values(&self) -> Result<Values<'_>, Fault> {
        let Fields { raw, mistake } = self.fields.as_ref().map_err(Clone::clone)?;
        if let Some(mistake) = mistake {
            let reference = raw[0].as_deref().map(|raw| value(raw.get(), true));
            let reference = reference.and_then(|value| match value {
                Value::Text(text) => Some(text.into_owned()),
                _ => None,
            });
            return Err(Fault::row(self.place.line, mistake.clone()).at(self.place.index, reference));
        }
        let values = raw.iter().enumerate().map(|(field, raw)| match raw.as_deref().map(RawValue::get) {
            None => Value::Missing,
            // Some tools write true or false for whether an invoice is void.
            Some(switch @ ("true" | "false")) if self.target.status == Some(field) => {
                Value::Text(switch.into())
            }
            Some(raw) if self.target.json == Some(field) && raw != "null" => Value::Json(Cow::Borrowed(raw)),
            Some(raw) => value(raw, self.target.may_be_number(field)),
        });
        Ok(values.collect())
    }
}

fn value(raw: &str, may_be_number: bool) -> Value<'_> {
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(raw) {
            Ok(text) => Value::Text(Cow::Owned(text.into_owned())),
            Err(_) => Value::Bad(LONE_SURROGATE),
        },
        Some(b'n') => Value::Missing,
        Some(b'0'..=b'9' | b'-') if may_be_number => Value::Number(Cow::Borrowed(raw)),
        _ if may_be_number => Value::Bad("must be text or a number"),
        _ => Value::Bad("must be text"),
    }
}

/// Names and limits of the dialect for the visitors.
#[derive(Clone, Debug)]
pub(super) struct Names {
    target: &'static Target,
    sources: Vec<Option<String>>,
    ignore_unknown: bool,
    records: Option<String>,
    /// Fields that were passed over.
    ignored: Arc<Mutex<BTreeSet<String>>>,
}

impl Names {
    fn of(dialect: &Dialect) -> Self {
        let Dialect { target, ignore_unknown_columns, records, .. } = dialect;
        let sources =
            (0..target.fields.len()).map(|field| dialect.source(field).map(str::to_owned)).collect();
        let (ignore_unknown, records) = (*ignore_unknown_columns, records.clone());
        Self { target, sources, ignore_unknown, records, ignored: Arc::default() }
    }

    fn ignore(&self, mut name: String) {
        if let Some((end, _)) = name.char_indices().nth(IGNORED_NAME_CHARS_MAX) {
            name.truncate(end);
        }
        let mut ignored = self.ignored.lock().unwrap_or_else(PoisonError::into_inner);
        if ignored.len() < IGNORED_FIELDS_MAX {
            ignored.insert(name);
        }
    }

    /// Fields that were passed over so far.
    pub(super) fn ignored_fields(&self) -> Vec<String> {
        self.ignored.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.sources.iter().flatten().map(String::as_str).collect();
        let known = known.join(", ");
        format!(
            "unknown field {}: the fields are {known}; --map names others, --ignore-unknown-columns passes the rest over",
            quote_value(name)
        )
    }
}

fn duplicate_field(name: &str) -> String {
    format!("duplicate field {}", quote_value(name))
}

/// Reads one object. Unknown fields are mistakes, because a misspelt `status` would charge what is paid.
struct ObjectSeed<'a>(&'a Names);

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = Fields;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object for each row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields { raw: Raw::new(), mistake: None };
        fields.raw.resize_with(self.0.sources.len(), || None);
        let mut unread_status = None;
        while let Some(name) = map.next_key::<String>()? {
            let at = self.0.sources.iter().position(|source| source.as_deref() == Some(name.as_str()));
            match at {
                Some(at) if fields.raw[at].is_none() => {
                    fields.raw[at] = Some(map.next_value()?);
                    continue;
                }
                Some(_) => _ = fields.mistake.get_or_insert_with(|| duplicate_field(&name)),
                None if self.0.ignore_unknown && self.0.target.status.is_some() && may_be_status(&name) => {
                    self.0.ignore(name.clone());
                    _ = unread_status.get_or_insert(name)
                }
                None if self.0.ignore_unknown => self.0.ignore(name),
                None => _ = fields.mistake.get_or_insert_with(|| self.0.unknown(&name)),
            }
            map.next_value::<IgnoredAny>()?;
        }
        // As in a CSV header: a field that may say what is paid is not ignored silently.
        let is_decided = self.0.target.status.is_none_or(|status| {
            let name = self.0.target.fields[status];
            let is_given = fields.raw[status].as_deref().is_some_and(|raw| raw.get() != "null");
            is_given || self.0.sources[status].as_deref() != Some(name)
        });
        if let Some(name) = unread_status.filter(|_| !is_decided) {
            fields.mistake.get_or_insert(must_be_decided(&name));
        }
        Ok(fields)
    }
}

/// Lines of NDJSON; empty lines are skipped.
pub(crate) struct NdjsonRows<R> {
    inner: R,
    pub(super) names: Names,
    line: u64,
    is_empty: bool,
}

impl<R: BufRead> NdjsonRows<R> {
    pub(crate) fn new(inner: R, dialect: &Dialect) -> Self {
        Self { inner, names: Names::of(dialect), line: 0, is_empty: true }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Parsed>, Fault> {
        loop {
            self.line += 1;
            let line = self.line;
            let fault = |error| Fault::row(line, format!("cannot be read: {error}"));
            let mut text = Vec::new();
            let max = self.names.element_bytes_max();
            let count = (&mut self.inner).take(max as u64 + 1).read_until(b'\n', &mut text).map_err(fault)?;
            if count == 0 && self.is_empty {
                return Err(Fault::row(1, "the file is empty; an object a line is needed"));
            }
            if count == 0 {
                return Ok(None);
            }
            let is_blank = text.iter().all(u8::is_ascii_whitespace);
            self.is_empty &= is_blank;
            if count > max && text.last() != Some(&b'\n') {
                self.is_empty = false;
                self.inner.skip_until(b'\n').map_err(fault)?;
                return Ok(Some(self.parsed(Err(Fault::row(line, format!("is longer than {max} bytes"))))));
            }
            if !is_blank {
                let fields = self.names.object(line, &text);
                return Ok(Some(self.parsed(fields)));
            }
        }
    }

    fn parsed(&self, fields: Result<Fields, Fault>) -> Parsed {
        Parsed { place: Place { line: self.line, index: None }, fields, target: self.names.target }
    }
}

impl Names {
    fn element_bytes_max(&self) -> usize {
        if self.ignore_unknown { WIDE_ELEMENT_BYTES_MAX } else { ROW_BYTES_MAX }
    }

    /// Parses the object in one line.
    fn object(&self, line: u64, text: &[u8]) -> Result<Fields, Fault> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let fields = ObjectSeed(self).deserialize(&mut deserializer);
        fields.and_then(|fields| deserializer.end().map(|()| fields)).map_err(|error| {
            let what = without_place(&error);
            let hint = match text.trim_ascii() {
                _ if what.contains("unicode") => NOT_UTF_8,
                [0x1e, ..] => ": U+001E before an object belongs to JSON text sequences (RFC 7464): remove it",
                [0xef, 0xbb, 0xbf, ..] => {
                    ": a byte order mark stands only at the beginning of a file: remove it"
                }
                text if what == "trailing characters" && text.contains(&b'\r') => {
                    ": lines end with LF or CRLF, not with CR alone: save the file so"
                }
                [b'{', .., b'}'] if what == "trailing characters" => {
                    ": one object stands on each line: begin a line with each"
                }
                [b'{', ..] if error.is_eof() => {
                    ": an object stands on one line; objects over several lines are a JSON array, in [ ] and with commas"
                }
                [.., b'}', b','] => ": lines have no comma between them; with commas and [ ] it is a JSON array",
                [b'[', ..] => ": an object a line is needed; name an array's file .json or give --format json",
                [b'{', ..] => "",
                _ => ": a JSON object is needed on each line",
            };
            Fault::new(line, format!("byte {}", error.column()), format!("{what}{hint}"))
        })
    }
}

const NOT_UTF_8: &str = ": if the file is not UTF-8, name its encoding by --encoding";

/// What is wrong, without the place.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.split(" at line ").next().unwrap_or(&said).to_owned()
}

/// Elements of one JSON array.
pub(crate) struct ArrayRows {
    elements: Receiver<Result<Parsed, Fault>>,
    pub(super) names: Names,
}

impl ArrayRows {
    pub(crate) fn new(start: Start, dialect: &Dialect) -> Self {
        let names = Names::of(dialect);
        let (sender, elements) = sync_channel(AHEAD_MAX);
        let rows = Self { elements, names: names.clone() };
        // The thread ends with the file, with the first mistake, or when the receiver is gone.
        std::thread::spawn(move || {
            if let Err(fault) = read_array(start, &names, &sender) {
                let _gone = sender.send(Err(fault));
            }
        });
        rows
    }

    pub(crate) fn next(&mut self) -> Result<Option<Parsed>, Fault> {
        self.elements.recv().ok().transpose()
    }
}

/// A reader that counts lines and limits an element's length. The parser takes a byte at a time, so that its place is
/// known.
struct PlacedReader {
    inner: Start,
    place: Rc<ReaderPlace>,
}

#[derive(Default)]
struct ReaderPlace {
    line: Cell<u64>,
    /// Bytes since the last element began.
    since: Cell<usize>,
    max: usize,
}

impl Read for PlacedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.place.since.get() > self.place.max {
            return Err(io::Error::other(TOO_LONG));
        }
        let Some(first) = buffer.first_mut() else { return Ok(0) };
        let Some(byte) = self.inner.fill_buf()?.first().copied() else { return Ok(0) };
        self.inner.consume(1);
        *first = byte;
        self.place.since.set(self.place.since.get() + 1);
        if byte == b'\n' {
            self.place.line.set(self.place.line.get() + 1);
        }
        Ok(1)
    }
}

fn read_array(
    inner: Start,
    names: &Names,
    elements: &SyncSender<Result<Parsed, Fault>>,
) -> Result<(), Fault> {
    let max = names.element_bytes_max();
    let place = Rc::new(ReaderPlace { line: Cell::new(1), since: Cell::new(0), max });
    let mut deserializer =
        serde_json::Deserializer::from_reader(PlacedReader { inner, place: place.clone() });
    let document = Document { names, elements, place, index: Cell::new(0) };
    let read = (&document).deserialize(&mut deserializer);
    read.and_then(|()| deserializer.end()).map_err(|error| {
        let index = document.index.get().checked_sub(1);
        let line = document.place.line.get();
        if error.to_string().starts_with(TOO_LONG) {
            let hint = if names.ignore_unknown { "" } else { ", without --ignore-unknown-columns" };
            return Fault::row(line, format!("is longer than {max} bytes{hint}")).at(index, None);
        }
        if error.is_io() {
            return Fault::row(line, format!("cannot be read: {error}")).at(index, None);
        }
        let what = without_place(&error);
        let hint = match what.as_str() {
            _ if error.is_eof() => ": the file ends in the middle of the array; is it whole?",
            "trailing characters" => {
                ": the array has ended, but the file goes on; objects on lines of their own are .ndjson"
            }
            "trailing comma" => ": remove it: no comma stands behind the last element or field",
            _ if what.contains("unicode") => NOT_UTF_8,
            _ => "",
        };
        Fault::new(error.line() as u64, format!("byte {}", error.column()), format!("{what}{hint}"))
            .at(index, None)
    })
}

/// The array, or the object that holds it.
struct Document<'a> {
    names: &'a Names,
    elements: &'a SyncSender<Result<Parsed, Fault>>,
    place: Rc<ReaderPlace>,
    /// The index of the next element.
    index: Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for &Document<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects, one a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        if self.names.records.is_some() {
            return Err(A::Error::custom("the file is an array, and --records names a field of an object"));
        }
        while array.next_element_seed(Element(self))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut found = false;
        let mut first = None;
        while let Some(name) = object.next_key::<String>()? {
            if self.names.records.as_ref() == Some(&name) {
                // Which of two arrays holds the rows cannot be known.
                if found {
                    return Err(A::Error::custom(duplicate_field(&name)));
                }
                found = true;
                object.next_value_seed(Records(self))?;
            } else {
                first.get_or_insert(name);
                if self.names.records.is_none() {
                    break;
                }
                object.next_value::<IgnoredAny>()?;
            }
            self.place.since.set(0);
        }
        match (&self.names.records, found) {
            (Some(_), true) => Ok(()),
            (Some(records), false) => {
                Err(A::Error::custom(format!("the object has no field {} (--records)", quote_value(records))))
            }
            (None, _)
                if first
                    .as_ref()
                    .is_some_and(|first| self.names.sources.iter().flatten().any(|name| name == first)) =>
            {
                let why = "a JSON file must be an array of objects: objects on lines of their own are .ndjson, or --format ndjson";
                Err(A::Error::custom(why))
            }
            (None, _) => Err(A::Error::custom(format!(
                "a JSON file must be an array of objects: if the array stands in a field of this object, name it, like --records {}",
                first.as_deref().unwrap_or("data")
            ))),
        }
    }
}

/// The array inside an object.
struct Records<'a, 'b>(&'a Document<'b>);

impl<'de> DeserializeSeed<'de> for Records<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects in the field of --records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Element(self.0))?.is_some() {}
        Ok(())
    }
}

/// One element, which is sent to the import.
struct Element<'a, 'b>(&'a Document<'b>);

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let document = self.0;
        let index = document.index.get();
        document.index.set(index + 1);
        document.place.since.set(0);
        // The first byte of the element has just been read.
        let place = Place { line: document.place.line.get(), index: Some(index) };
        let fields = ObjectSeed(document.names).deserialize(deserializer)?;
        document.place.since.set(0);
        let parsed = Parsed { place, fields: Ok(fields), target: document.names.target };
        document.elements.send(Ok(parsed)).map_err(|_| D::Error::custom("the reader is gone"))
    }
}

#[cfg(test)]
mod tests;
