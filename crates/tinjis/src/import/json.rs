//! JSON arrays, also one inside an object, and NDJSON: an object at a time, in bounded memory. An array is read by a
//! streaming visitor on a thread of its own, since a visitor pushes and an import pulls. Must not know what a value means.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use billing::import_row::{FIELDS, ROW_BYTES_MAX};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::file::Start;
use super::header::may_be_status;
use super::row::{Fault, Place, Value, Values, shown};
use super::settings::Dialect;

/// Elements that are read ahead of the import; each is at most as long as a row may be.
const AHEAD_MAX: usize = 64;

/// The longest element that holds fields which are passed over.
const WIDE_ELEMENT_BYTES_MAX: usize = 1024 * 1024;

/// What the reader ends an element over the limit with.
const TOO_LONG: &str = "is too long";

/// One object's fields, each as it came.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) place: Place,
    fields: Result<Fields, Fault>,
}

type Raw = [Option<Box<RawValue>>; FIELDS.len()];

/// The fields that are needed, and what was wrong with the others.
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
        let mut field = 0;
        Ok(raw.each_ref().map(|raw| {
            let may_be_number = matches!(FIELDS[field], "reference" | "customer_id" | "amount" | "status");
            field += 1;
            match raw.as_deref().map(RawValue::get) {
                None => Value::Missing,
                // Some tools tell by a switch whether an invoice is void.
                Some(switch @ ("true" | "false")) if FIELDS[field - 1] == "status" => {
                    Value::Text(switch.into())
                }
                Some(raw) => value(raw, may_be_number),
            }
        }))
    }
}

fn value(raw: &str, may_be_number: bool) -> Value<'_> {
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<Cow<'_, str>>(raw) {
            Ok(text) => Value::Text(Cow::Owned(text.into_owned())),
            Err(_) => Value::Bad("is no text"),
        },
        Some(b'n') => Value::Missing,
        Some(b'0'..=b'9' | b'-') if may_be_number => Value::Number(Cow::Borrowed(raw)),
        _ if may_be_number => Value::Bad("must be text or a number"),
        _ => Value::Bad("must be text"),
    }
}

/// What the visitors need to know of the dialect.
#[derive(Clone, Debug)]
struct Names {
    sources: [Option<String>; FIELDS.len()],
    ignore_unknown: bool,
    records: Option<String>,
}

impl Names {
    fn of(dialect: &Dialect) -> Self {
        let mut field = 0;
        let sources = [(); FIELDS.len()].map(|()| {
            field += 1;
            dialect.source(field - 1).map(str::to_owned)
        });
        let Dialect { ignore_unknown_columns, records, .. } = dialect;
        Self { sources, ignore_unknown: *ignore_unknown_columns, records: records.clone() }
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.sources.iter().flatten().map(String::as_str).collect();
        let known = known.join(", ");
        format!(
            "unknown field {}: the fields are {known}; --map names others, --ignore-unknown-columns passes the rest over",
            shown(name)
        )
    }
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
        let mut fields = Fields { raw: Raw::default(), mistake: None };
        let mut unread_status = None;
        while let Some(name) = map.next_key::<String>()? {
            let at = self.0.sources.iter().position(|source| source.as_deref() == Some(name.as_str()));
            match at {
                Some(at) if fields.raw[at].is_none() => {
                    fields.raw[at] = Some(map.next_value()?);
                    continue;
                }
                Some(_) => _ = fields.mistake.get_or_insert(format!("duplicate field {}", shown(&name))),
                None if self.0.ignore_unknown && may_be_status(&name) => {
                    _ = unread_status.get_or_insert(name)
                }
                None if self.0.ignore_unknown => {}
                None => _ = fields.mistake.get_or_insert_with(|| self.0.unknown(&name)),
            }
            map.next_value::<IgnoredAny>()?;
        }
        // As in a CSV header: what may tell what is paid is not passed over silently.
        let is_decided = fields.raw[4].is_some() || self.0.sources[4].as_deref() != Some(FIELDS[4]);
        if let Some(name) = unread_status.filter(|_| !is_decided) {
            let name = shown(&name);
            let why = format!(
                "{name} may tell what is paid: map it by --map status=, or give an empty source if every row is to be charged"
            );
            fields.mistake.get_or_insert(why);
        }
        Ok(fields)
    }
}

/// Lines of NDJSON; empty ones are passed over.
pub(crate) struct NdjsonRows<R> {
    inner: R,
    names: Names,
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
        Parsed { place: Place { line: self.line, index: None }, fields }
    }
}

impl Names {
    fn element_bytes_max(&self) -> usize {
        if self.ignore_unknown { WIDE_ELEMENT_BYTES_MAX } else { ROW_BYTES_MAX }
    }

    /// The object that one line is.
    fn object(&self, line: u64, text: &[u8]) -> Result<Fields, Fault> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let fields = ObjectSeed(self).deserialize(&mut deserializer);
        fields.and_then(|fields| deserializer.end().map(|()| fields)).map_err(|error| {
            let hint = match text.trim_ascii() {
                [b'{', ..] if error.is_eof() => {
                    ": an object stands on one line; objects over several lines are a JSON array, in [ ] and with commas"
                }
                [.., b'}', b','] => ": lines have no comma between them; with commas and [ ] it is a JSON array",
                [b'[', ..] => ": an object a line is needed; name an array's file .json or give --format json",
                [b'{', ..] => "",
                _ => ": a JSON object is needed on each line",
            };
            Fault::new(line, format!("byte {}", error.column()), format!("{}{hint}", what(&error)))
        })
    }
}

/// What is wrong, without the place.
fn what(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.split(" at line ").next().unwrap_or(&said).to_owned()
}

/// Elements of one JSON array.
pub(crate) struct ArrayRows {
    elements: Receiver<Result<Parsed, Fault>>,
}

impl ArrayRows {
    pub(crate) fn new(start: Start, dialect: &Dialect) -> Self {
        let names = Names::of(dialect);
        let (sender, elements) = sync_channel(AHEAD_MAX);
        // It ends with the file, with the first mistake, or when nobody receives any more.
        std::thread::spawn(move || {
            if let Err(fault) = read_array(start, &names, &sender) {
                let _gone = sender.send(Err(fault));
            }
        });
        Self { elements }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Parsed>, Fault> {
        self.elements.recv().ok().transpose()
    }
}

/// Counts lines and refuses to feed an endless element. The parser takes a byte at a time, so that its place is known.
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
        let what = what(&error);
        let hint = match what.as_str() {
            _ if error.is_eof() => ": the file ends in the middle of the array; is it whole?",
            "trailing characters" => {
                ": the array has ended, but the file goes on; objects on lines of their own are .ndjson"
            }
            "trailing comma" => ": remove it: no comma stands behind the last element or field",
            _ if what.contains("unicode") => ": if the file is not UTF-8, name its encoding by --encoding",
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
    /// The next element's.
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
            if self.names.records.as_ref() == Some(&name) && !found {
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
                Err(A::Error::custom(format!("the object has no field {} (--records)", shown(records))))
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

/// One element, sent on.
struct Element<'a, 'b>(&'a Document<'b>);

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let document = self.0;
        let index = document.index.get();
        document.index.set(index + 1);
        document.place.since.set(0);
        // Its first byte has just been read.
        let place = Place { line: document.place.line.get(), index: Some(index) };
        let fields = ObjectSeed(document.names).deserialize(deserializer)?;
        document.place.since.set(0);
        let parsed = Parsed { place, fields: Ok(fields) };
        document.elements.send(Ok(parsed)).map_err(|_| D::Error::custom("nobody reads on"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::settings::dialect;
    use super::*;

    type Element = (u64, Option<u64>, Result<Option<String>, String>);

    /// Each element's line, index, and reference or fault; and the fault that ended the file.
    fn all(mut next: impl FnMut() -> Result<Option<Parsed>, Fault>) -> (Vec<Element>, Option<Fault>) {
        let mut found = Vec::new();
        loop {
            match next() {
                Ok(None) => return (found, None),
                Err(fault) => return (found, Some(fault)),
                Ok(Some(parsed)) => {
                    let reference =
                        parsed.values().map_err(|fault| fault.reason).map(|values| match &values[0] {
                            Value::Text(text) | Value::Number(text) => Some(text.to_string()),
                            _ => None,
                        });
                    found.push((parsed.place.line, parsed.place.index, reference));
                }
            }
        }
    }

    fn array(file: &str, profile: &str) -> (Vec<Element>, Option<Fault>) {
        let start: Start = Box::new(io::Cursor::new(file.as_bytes().to_vec()));
        let mut rows = ArrayRows::new(start, &dialect(profile));
        all(|| rows.next())
    }

    fn lines(file: &str, profile: &str) -> (Vec<Element>, Option<Fault>) {
        let mut rows = NdjsonRows::new(file.as_bytes(), &dialect(profile));
        all(|| rows.next())
    }

    fn named(line: u64, index: Option<u64>, reference: &str) -> Element {
        (line, index, Ok(Some(reference.to_owned())))
    }

    #[test]
    fn an_array_is_read_by_element_with_lines_and_indexes() {
        let file = "\n[ {\"reference\": \"],}\\\"\"},\n\n {\"reference\":\n\"b\"} , {\"reference\":\"c\"}]\n";
        let expected = [named(2, Some(0), "],}\""), named(4, Some(1), "b"), named(5, Some(2), "c")];
        assert_eq!(array(file, ""), (expected.to_vec(), None));
        assert_eq!(array(" [ ] ", ""), (Vec::new(), None));
    }

    #[test]
    fn an_array_may_stand_in_a_named_field_of_an_object() {
        let file = r#"{"meta":{"data":[1]},"data":[{"reference":"a"}],"more":[2]}"#;
        assert_eq!(array(file, "records = 'data'"), (vec![named(1, Some(0), "a")], None));
        for (file, profile, part) in [
            (r#"{"data":[]}"#, "", "--records data"),
            (r#"{"reference":"a"}"#, "", "--format ndjson"),
            (r#"{"rows":[]}"#, "records = 'data'", "no field"),
            ("[]", "records = 'data'", "is an array"),
            (r#"{"data":{}}"#, "records = 'data'", "in the field of --records"),
            ("7", "", "an array of objects"),
        ] {
            let why = array(file, profile).1.unwrap().reason;
            assert!(why.contains(part), "{file}: {why}");
        }
    }

    #[test]
    fn a_broken_array_ends_with_its_place_and_what_to_do() {
        for (file, line, part) in [
            ("", 1, "is it whole?"),
            ("[{},\n,{}]", 2, "expected"),
            ("[{},\n]", 2, "trailing comma: remove it"),
            ("[\n{\"a\":", 2, "is it whole?"),
            ("[{}]\n2", 2, ".ndjson"),
            ("[{}\n{}]", 2, "expected `,` or `]`"),
            ("[1]", 1, "a JSON object for each row"),
            ("[{\"a\":NaN}]", 1, "expected value"),
        ] {
            let fault = array(file, "ignore-unknown-columns = true").1.unwrap();
            assert_eq!(fault.line, line, "{file:?}: {fault:?}");
            assert!(fault.reason.contains(part), "{file:?}: {fault:?}");
        }
    }

    #[test]
    fn objects_with_unknown_or_doubled_fields_are_single_faults() {
        let file = r#"[{"stauts":"PAID","reference":"a"},{"amount":1,"amount":2},{"reference":"c"}]"#;
        let (found, fault) = array(file, "");
        assert_eq!((found.len(), &fault), (3, &None));
        assert!(found[0].2.as_ref().unwrap_err().contains("unknown field \"stauts\""), "{found:?}");
        assert!(found[1].2.as_ref().unwrap_err().contains("duplicate field"), "{found:?}");
        assert_eq!(found[2], named(1, Some(2), "c"));
        let wide = array(
            r#"[{"lines":[{"a":[]}],"No":"x","reference":"y"}]"#,
            "ignore-unknown-columns = true\nmap = { reference = 'No' }",
        );
        assert_eq!(wide, (vec![named(1, Some(0), "x")], None));
    }

    #[test]
    fn a_field_that_may_tell_what_is_paid_is_not_passed_over() {
        let line = r#"{"reference":"a","Status":"PAID"}"#;
        let fault = lines(line, "ignore-unknown-columns = true").0.remove(0).2;
        assert!(fault.unwrap_err().contains("may tell what is paid"));
        for map in ["map = { status = '' }", "map = { status = 'Status' }"] {
            let found = lines(line, &format!("ignore-unknown-columns = true\n{map}")).0;
            assert_eq!(found, [named(1, None, "a")], "{map}");
        }
    }

    #[test]
    fn lines_say_what_other_json_they_look_like() {
        for (line, part) in [
            ("{\"reference\":\"P1\",", "over several lines are a JSON array"),
            ("{\"reference\":\"P1\"},", "no comma between"),
            ("[{\"reference\":\"P1\"}]", "--format json"),
            ("x", "a JSON object is needed"),
        ] {
            let (found, _) = lines(&format!("{line}\n{{\"reference\":\"good\"}}\n"), "");
            assert!(found[0].2.as_ref().unwrap_err().contains(part), "{line}: {found:?}");
            assert_eq!(found[1], named(2, None, "good"));
        }
    }

    #[test]
    fn a_file_of_lines_without_any_is_empty() {
        for file in ["", "\n", " \r\n\n"] {
            assert!(lines(file, "").1.unwrap().reason.contains("empty"), "{file:?}");
        }
    }

    #[test]
    fn an_element_or_a_line_over_the_limit_is_reported() {
        let long = format!("{{\"reference\":\"{}\"}}", "1".repeat(ROW_BYTES_MAX));
        let (found, fault) = array(&format!("[{{\"reference\":\"a\"}},\n{long}]"), "");
        let fault = fault.unwrap();
        assert_eq!((found.len(), fault.line, fault.index), (1, 2, Some(1)), "{fault:?}");
        assert!(fault.reason.contains("is longer than 16384 bytes"), "{fault:?}");
        let (found, fault) = lines(&format!("{long}\n{{\"reference\":\"b\"}}"), "");
        assert_eq!((found.len(), fault), (2, None));
        assert!(found[0].2.as_ref().unwrap_err().contains("is longer"), "{found:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rows = ArrayRows::new(Box::new(io::Cursor::new(bytes.clone())), &Dialect::default());
            let mut count = 0;
            while let Ok(Some(parsed)) = rows.next() {
                let _ = parsed.values();
                count += 1;
            }
            prop_assert!(count <= bytes.len());
        }
    }
}
