//! CSV as people's programs write it: a header in any order, quotes, CRLF, a byte order mark; a row at a time.
//! Must not know what a value means; only where it stood.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};

use super::row::{COLUMNS, COLUMNS_REQUIRED, Fault, ROW_BYTES_MAX, Value, Values, shown};

/// Bytes that are read ahead.
const BUFFER: usize = 64 * 1024;

/// Rows of a CSV file.
#[derive(Debug)]
pub(crate) struct CsvRows<R> {
    reader: csv::Reader<Leash<R>>,
    record: ByteRecord,
    /// Bytes handed to the parser since the last record ended.
    since: Rc<Cell<usize>>,
    /// All bytes handed to the parser, once there are no more.
    all: Rc<Cell<Option<u64>>>,
    /// For each of [`COLUMNS`], its place in a record.
    places: [Option<usize>; COLUMNS.len()],
    width: usize,
}

/// A record's line, and its values unless it is out of shape.
pub(crate) type Record<'a> = (u64, Result<Values<'a>, Fault>);

/// A reader that refuses to feed one endless record (a quote that is never closed would swallow the file into
/// memory), and that ends every line with one line feed, so that lines can be counted: the parser stops between the
/// two bytes of CRLF. No column may hold a line break, so no value changes by this. One more line feed comes last: only
/// a record whose quote is not closed reaches so far.
#[derive(Debug)]
struct Leash<R> {
    inner: R,
    since: Rc<Cell<usize>>,
    all: Rc<Cell<Option<u64>>>,
    count: u64,
    after_return: bool,
    last: u8,
}

/// What a record over the limit ends with; also recognised below.
const TOO_LONG: &str = "is a quote not closed?";

impl<R: Read> Read for Leash<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What is read ahead may belong to records after this one.
        if self.since.get() > ROW_BYTES_MAX + BUFFER {
            return Err(io::Error::other(TOO_LONG));
        }
        loop {
            let count = self.inner.read(buffer)?;
            if count == 0 && self.all.get().is_none() && !buffer.is_empty() {
                self.count += 1;
                if self.last == b'\n' {
                    self.all.set(Some(self.count));
                }
                buffer[0] = b'\n';
                self.last = b'\n';
                return Ok(1);
            }
            let kept = self.with_line_feeds(&mut buffer[..count]);
            self.count += kept as u64;
            if kept > 0 || count == 0 {
                self.since.set(self.since.get() + kept);
                return Ok(kept);
            }
        }
    }
}

impl<R> Leash<R> {
    /// Rewrites CRLF and lone CR to LF in place; answers how many bytes are left.
    fn with_line_feeds(&mut self, bytes: &mut [u8]) -> usize {
        let mut kept = 0;
        for at in 0..bytes.len() {
            let byte = bytes[at];
            let is_second = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            if !is_second {
                bytes[kept] = if byte == b'\r' { b'\n' } else { byte };
                kept += 1;
            }
        }
        if kept > 0 {
            self.last = bytes[kept - 1];
        }
        kept
    }
}

impl<R: Read> CsvRows<R> {
    /// Reads the header.
    pub(crate) fn open(inner: R) -> Result<Self, Fault> {
        let since = Rc::new(Cell::new(0));
        let all = Rc::new(Cell::new(None));
        let (handed, whole) = (since.clone(), all.clone());
        let leash = Leash { inner, since: handed, all: whole, count: 0, after_return: false, last: b'\n' };
        let reader =
            ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(BUFFER).from_reader(leash);
        let record = ByteRecord::new();
        let mut rows = Self { reader, record, since, all, places: [None; COLUMNS.len()], width: 0 };
        if !rows.read()? {
            return Err(Fault::row(1, "the file is empty; a header row with column names is needed"));
        }
        let names: Vec<String> = rows
            .record
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
            .collect();
        rows.places = places(&names)?;
        rows.width = names.len();
        Ok(rows)
    }

    /// The next row's line and values; a fault for a row that is out of shape. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>, Fault> {
        if !self.read()? {
            return Ok(None);
        }
        let line = self.line();
        if self.record.len() != self.width {
            let reason = format!("has {} fields where the header has {}", self.record.len(), self.width);
            return Ok(Some((line, Err(Fault::row(line, reason)))));
        }
        if self.record.as_slice().len() > ROW_BYTES_MAX {
            return Ok(Some((line, Err(Fault::row(line, format!("is longer than {ROW_BYTES_MAX} bytes"))))));
        }
        let value = |place: Option<usize>| match place.and_then(|place| self.record.get(place)) {
            None => Value::Missing,
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(Cow::Borrowed(text)),
                Err(_) => Value::Bad("is not UTF-8 text"),
            },
        };
        Ok(Some((line, Ok(self.places.map(value)))))
    }

    /// Where the record began: each of its lines has ended by now. (Its own position is before empty lines.)
    fn line(&self) -> u64 {
        self.reader.position().line().saturating_sub(self.breaks() + 1)
    }

    /// Line breaks inside the record's values.
    fn breaks(&self) -> u64 {
        let breaks = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count();
        u64::try_from(breaks).unwrap_or_default()
    }

    fn read(&mut self) -> Result<bool, Fault> {
        let line = self.reader.position().line();
        let read =
            self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(error) if error.to_string() == TOO_LONG => {
                    Fault::row(line, format!("is longer than {ROW_BYTES_MAX} bytes: {TOO_LONG}"))
                }
                csv::ErrorKind::Io(error) => Fault::row(line, format!("cannot be read: {error}")),
                other => Fault::row(line, format!("is no CSV: {other:?}")),
            })?;
        self.since.set(0);
        if read && self.all.get() == Some(self.reader.position().byte()) {
            let line = self.reader.position().line().saturating_sub(self.breaks());
            return Err(Fault::row(line, "has a quote that is not closed before the file ends"));
        }
        Ok(read)
    }
}

/// Where each column stands; every name must be known, because a misspelt `status` would charge what is paid.
fn places(names: &[String]) -> Result<[Option<usize>; COLUMNS.len()], Fault> {
    let mut places = [None; COLUMNS.len()];
    let mut mistakes = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match COLUMNS.iter().position(|column| column == name) {
            None => mistakes.push(format!("{} is no column", shown(name))),
            Some(column) if places[column].is_some() => mistakes.push(format!("{name} stands twice")),
            Some(column) => places[column] = Some(at),
        }
    }
    let missing = |at: usize| places[at].is_none();
    mistakes.extend(
        (0..COLUMNS_REQUIRED).filter(|at| missing(*at)).map(|at| format!("{} is missing", COLUMNS[at])),
    );
    if mistakes.is_empty() {
        return Ok(places);
    }
    let hint = match names {
        [first, ..] if first.contains('\0') => " (save the file as UTF-8)",
        [_] => " (fields are separated by commas)",
        _ => "",
    };
    let columns = COLUMNS.join(", ");
    Err(Fault::new(1, "header", format!("{}; the columns are {columns}{hint}", mistakes.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "reference,customer_id,currency,amount\n";

    /// Lines and first columns, or the fault, of each row.
    fn read(file: impl AsRef<[u8]>) -> Vec<(u64, Result<String, Fault>)> {
        let file = file.as_ref();
        let mut rows = CsvRows::open(file).unwrap();
        let mut all = Vec::new();
        loop {
            match rows.next() {
                Ok(None) => return all,
                Ok(Some((line, row))) => all.push((line, row.map(|values| format!("{:?}", values[0])))),
                Err(fault) => {
                    all.push((fault.line, Err(fault)));
                    return all;
                }
            }
        }
    }

    fn text(value: &str) -> Result<String, Fault> {
        Ok(format!("{:?}", Value::Text(Cow::Borrowed(value))))
    }

    #[test]
    fn quotes_crlf_and_line_breaks_in_fields_keep_the_line_right() {
        let file = "Reference , customer_id,currency,amount\r\n\"a,\"\"b\"\"\",1,EUR,1\r\n\"x\ny\",1,EUR,1\r\nlast,1,EUR,1";
        let expected = [(2, text("a,\"b\"")), (3, text("x\ny")), (5, text("last"))];
        assert_eq!(read(file), expected);
        assert_eq!(read(file.replace("\r\n", "\n")), expected);
        assert_eq!(read(file.replace("\r\n", "\r")), expected);
        assert_eq!(read(format!("\u{feff}{file}\r\n")), expected);
    }

    #[test]
    fn empty_lines_are_passed_over_and_counted() {
        let file = format!("{HEADER}\n\nI1,1,EUR,1\r\n\r\n\r\nI2,1,EUR,1\n\n");
        assert_eq!(read(file), [(4, text("I1")), (7, text("I2"))]);
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let mut rows =
            CsvRows::open(&b"amount,status,currency,reference,customer_id\n1,PAID,EUR,I1,7\n"[..]).unwrap();
        let (_, values) = rows.next().unwrap().unwrap();
        let expected = ["I1", "7", "EUR", "1", "PAID"].map(|text| Value::Text(Cow::Borrowed(text)));
        assert_eq!(values.unwrap(), expected);
    }

    #[test]
    fn a_header_with_mistakes_names_all_of_them() {
        let reason = |file: &str| CsvRows::open(file.as_bytes()).unwrap_err().reason;
        let several = reason("reference,customer_id,stauts,reference\n");
        for part in
            ["\"stauts\" is no column", "reference stands twice", "currency is missing", "amount is missing"]
        {
            assert!(several.contains(part), "{several}");
        }
        assert!(reason("reference;customer_id;currency;amount\n").contains("separated by commas"));
        assert!(reason("r\0e\0f\0").contains("UTF-8"));
        assert!(reason("").contains("empty"));
    }

    #[test]
    fn rows_of_another_width_and_bad_utf_8_are_single_faults() {
        let mut file = format!("{HEADER}short,1\nI2,1,EUR,1,more\n").into_bytes();
        file.extend_from_slice(b"\xff\xfe,1,EUR,1\ngood,1,EUR,1\n");
        let rows = read(file);
        assert_eq!(rows[0].1.as_ref().unwrap_err().reason, "has 2 fields where the header has 4");
        assert_eq!(rows[1].1.as_ref().unwrap_err().line, 3);
        assert_eq!(rows[2].1.as_ref().unwrap(), "Bad(\"is not UTF-8 text\")");
        assert_eq!(rows[3], (5, text("good")));
    }

    #[test]
    fn a_huge_field_is_one_fault_and_an_unclosed_quote_ends_the_file() {
        let huge = "x".repeat(ROW_BYTES_MAX + 1);
        let rows = read(format!("{HEADER}{huge},1,EUR,1\ngood,1,EUR,1\n"));
        assert!(rows[0].1.as_ref().unwrap_err().reason.contains("longer"));
        assert_eq!(rows[1], (3, text("good")));

        let open = format!("{HEADER}good,1,EUR,1\n\"open,1,EUR,1\n{}", "more,1,EUR,1\n".repeat(100_000));
        let rows = read(open);
        assert_eq!(rows.len(), 2);
        let fault = rows[1].1.as_ref().unwrap_err();
        assert_eq!(fault.line, 3);
        assert!(fault.reason.contains(TOO_LONG), "{fault:?}");
    }

    #[test]
    fn a_quote_that_is_open_at_the_end_is_told_with_the_line_where_its_row_began() {
        for (rest, good, line) in [
            ("\"open", 0, 2),
            ("\"open,1,EUR,1\n", 0, 2),
            ("I1,1,EUR,1\n\n\"open,1,EUR,1\r\nmore,1,EUR,1\r\n", 1, 4),
            ("I1,1,EUR,1\n\"x\ny\",1,EUR,\"1", 1, 3),
        ] {
            let rows = read(format!("{HEADER}{rest}"));
            assert_eq!(rows.len(), good + 1, "{rest:?}: {rows:?}");
            let fault = rows[good].1.as_ref().unwrap_err();
            assert_eq!(fault.line, line, "{rest:?}: {fault:?}");
            assert!(fault.reason.contains("not closed before"), "{rest:?}: {fault:?}");
        }
        assert_eq!(CsvRows::open(&b"reference,\"customer"[..]).unwrap_err().line, 1);
        assert_eq!(read(format!("{HEADER}\"x\n\",1,EUR,1")), [(2, text("x\n"))]);
        assert_eq!(read(format!("{HEADER}I1,1,EUR,\"x\n\"\n")), [(2, text("I1"))]);
    }

    /// Whatever a file holds: no panic, and it ends.
    #[test]
    fn fuzz_csv_files() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/src/import/corpus");
        harness::fuzz::Corpus::read("files to import", corpus).run(|input| {
            if let Ok(mut rows) = CsvRows::open(input) {
                while let Ok(Some((line, values))) = rows.next() {
                    let _row = values.map(|values| crate::import::row::row(line, &values));
                }
            }
            let mut pieces = crate::import::json::ArrayRows::new(input);
            while let Ok(Some(piece)) = pieces.next() {
                let _row =
                    crate::import::json::values(&piece).map(|values| crate::import::row::row(1, &values));
            }
        });
    }
}
