//! CSV as people's programs write it: a header in any order, quotes, CRLF, a named delimiter and named columns; a row at
//! a time. Must not know what a value means; only where it stood.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use billing::import_row::ROW_BYTES_MAX;
use csv::{ByteRecord, ReaderBuilder};

use super::header::{self, Columns};
use super::row::{Fault, Value, Values};
use super::settings::Dialect;

/// Bytes that are read ahead.
const BUFFER: usize = 64 * 1024;

/// What a file of the dialect separates fields with, if nothing was said.
const COMMA: u8 = b',';

/// Rows of a CSV file.
pub(crate) struct CsvRows<R> {
    reader: csv::Reader<BoundedReader<R>>,
    record: ByteRecord,
    shared: Rc<Shared>,
    columns: Columns,
    /// Lines above the first that the parser sees.
    lines_above: u64,
    /// Whether fields without a name may follow the last column.
    may_be_wider: bool,
}

/// What the reader below the parser tells.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes handed to the parser since the last record ended.
    since: Cell<usize>,
    /// All bytes handed to the parser, once there are no more.
    all: Cell<Option<u64>>,
    /// Lines with text behind a closing quote, which the parser would glue to the value; at most what is read ahead.
    stray: RefCell<VecDeque<u64>>,
    /// The file's last line has no end.
    ends_in_mid_line: Cell<bool>,
}

/// A record's line, and its values unless it is out of shape.
pub(crate) type Record<'a> = (u64, Result<Values<'a>, Fault>);

/// A reader that refuses to feed one endless record (a quote that is never closed would swallow the file into
/// memory), and that ends every line with one line feed, so that lines can be counted: the parser stops between the
/// two bytes of CRLF. No column may hold a line break, so no value changes by this. One more line feed comes last: only
/// a record whose quote is not closed reaches so far.
#[derive(Debug)]
struct BoundedReader<R> {
    inner: R,
    shared: Rc<Shared>,
    delimiter: u8,
    count: u64,
    line: u64,
    quote: Quote,
    after_return: bool,
    last: u8,
}

/// Where the bytes stand among quotes, as the parser sees it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    FieldStart,
    Plain,
    Inside,
    /// After a quote that closes, or is the first of two.
    Closing,
}

/// What a record over the limit ends with; also recognised below.
const TOO_LONG: &str = "is a quote not closed?";

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What is read ahead may belong to records after this one.
        if self.shared.since.get() > ROW_BYTES_MAX + BUFFER {
            return Err(io::Error::other(TOO_LONG));
        }
        loop {
            let count = self.inner.read(buffer)?;
            if count == 0 && self.shared.all.get().is_none() && !buffer.is_empty() {
                self.count += 1;
                if self.last == b'\n' {
                    self.shared.all.set(Some(self.count));
                } else {
                    self.shared.ends_in_mid_line.set(true);
                }
                buffer[0] = b'\n';
                self.last = b'\n';
                return Ok(1);
            }
            let kept = self.with_line_feeds(&mut buffer[..count]);
            self.count += kept as u64;
            if kept > 0 || count == 0 {
                self.shared.since.set(self.shared.since.get() + kept);
                return Ok(kept);
            }
        }
    }
}

impl<R> BoundedReader<R> {
    /// Rewrites CRLF and lone CR to LF in place; answers how many bytes are left.
    fn with_line_feeds(&mut self, bytes: &mut [u8]) -> usize {
        let mut kept = 0;
        for at in 0..bytes.len() {
            let byte = bytes[at];
            let is_second = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            if !is_second {
                bytes[kept] = if byte == b'\r' { b'\n' } else { byte };
                self.follow_quotes(bytes[kept]);
                kept += 1;
            }
        }
        if kept > 0 {
            self.last = bytes[kept - 1];
        }
        kept
    }

    fn follow_quotes(&mut self, byte: u8) {
        let ends_field = byte == self.delimiter || byte == b'\n';
        self.quote = match (self.quote, byte) {
            (Quote::Inside, b'"') => Quote::Closing,
            (Quote::Inside, _) => Quote::Inside,
            (Quote::FieldStart | Quote::Closing, b'"') => Quote::Inside,
            _ if ends_field => Quote::FieldStart,
            (Quote::Closing, _) => {
                let mut stray = self.shared.stray.borrow_mut();
                if stray.back() != Some(&self.line) {
                    stray.push_back(self.line);
                }
                Quote::Plain
            }
            _ => Quote::Plain,
        };
        if byte == b'\n' {
            self.line += 1;
        }
    }
}

impl<R: BufRead> CsvRows<R> {
    /// Reads the header row, unless the dialect names the columns.
    pub(crate) fn open(mut inner: R, dialect: &Dialect) -> Result<Self, Fault> {
        let broken = |error: io::Error| Fault::row(1, format!("cannot be read: {error}"));
        let mut lines_above = 0;
        for _ in 0..dialect.skip_lines {
            lines_above += u64::from(skip_line(&mut inner).map_err(broken)?);
        }
        if let Some(separator) = separator_line(inner.fill_buf().map_err(broken)?) {
            if dialect.delimiter != Some(separator) {
                let character = char::from(separator);
                let reason = format!(
                    "is a spreadsheet's line that names the separator: give --delimiter {character:?} to say the same"
                );
                return Err(Fault::new(lines_above + 1, "header", reason));
            }
            lines_above += u64::from(skip_line(&mut inner).map_err(broken)?);
        }
        let shared = Rc::new(Shared::default());
        let delimiter = dialect.delimiter.unwrap_or(COMMA);
        let bounded = BoundedReader {
            inner,
            shared: shared.clone(),
            delimiter,
            count: 0,
            line: 1,
            quote: Quote::FieldStart,
            after_return: false,
            last: b'\n',
        };
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).delimiter(delimiter).buffer_capacity(BUFFER);
        let reader = builder.from_reader(bounded);
        let may_be_wider = dialect.ignore_unknown_columns;
        let (record, columns) = (ByteRecord::new(), Columns::default());
        let mut rows = Self { reader, record, shared, columns, lines_above, may_be_wider };
        let (line, names) = match &dialect.header {
            Some(names) => (lines_above + 1, names.clone()),
            None => rows.header()?,
        };
        rows.columns = header::columns(line, &names, dialect)?;
        Ok(rows)
    }

    /// The line and the names of the header row.
    fn header(&mut self) -> Result<(u64, Vec<String>), Fault> {
        if !self.read()? {
            return Err(Fault::row(
                1,
                "the file is empty; a header row with column names is needed, or --header names them",
            ));
        }
        let names = self.record.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        Ok((self.line(), names.collect()))
    }

    /// Columns that are passed over.
    pub(crate) fn ignored(&self) -> &[String] {
        &self.columns.ignored
    }

    /// Whether the file ended without a line end.
    pub(crate) fn ends_in_mid_line(&self) -> bool {
        self.shared.ends_in_mid_line.get()
    }

    /// The next row's line and values; a fault for a row that is out of shape. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'_>>, Fault> {
        if !self.read()? {
            return Ok(None);
        }
        let line = self.line();
        if let Some(reason) = self.out_of_shape() {
            return Ok(Some((line, Err(Fault::row(line, reason)))));
        }
        let value = |place: Option<usize>| match place.and_then(|place| self.record.get(place)) {
            None => Value::Missing,
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(Cow::Borrowed(text)),
                Err(_) => {
                    Value::Bad("is not UTF-8 text: name the file's encoding by --encoding, like windows-1252")
                }
            },
        };
        Ok(Some((line, Ok(self.columns.places.map(value)))))
    }

    fn out_of_shape(&self) -> Option<String> {
        let (width, columns) = (self.record.len(), self.columns.width);
        let is_wider = width > columns && self.record.iter().skip(columns).any(|value| !value.is_empty());
        let fits = width == columns || self.may_be_wider && width > columns && !is_wider;
        if self.has_stray_text() {
            return Some(
                "has text behind a closing quote: a quote inside a value is written twice".to_owned(),
            );
        }
        if self.record.len() == 1 && self.record.get(0) == Some(b"\x1a") {
            return Some(
                "is a Ctrl-Z, an end mark of old programs: remove the line, or give --skip-bad".to_owned(),
            );
        }
        if self.record.iter().all(|value| value.trim_ascii().is_empty()) {
            return Some("is empty in every column: remove the line, or give --skip-bad".to_owned());
        }
        if !fits {
            let hint = if is_wider || width < columns {
                ""
            } else {
                "; --ignore-unknown-columns passes empty ones over"
            };
            let fields = if width == 1 { "field" } else { "fields" };
            return Some(format!("has {width} {fields} where the header has {columns}{hint}"));
        }
        let is_long = self.record.as_slice().len() > ROW_BYTES_MAX;
        is_long.then(|| format!("is longer than {ROW_BYTES_MAX} bytes"))
    }

    /// Whether a line of this record is among the stray ones; forgets those up to its end.
    fn has_stray_text(&self) -> bool {
        let end = self.reader.position().line().saturating_sub(1);
        let mut stray = self.shared.stray.borrow_mut();
        let mut found = false;
        while stray.front().is_some_and(|line| *line <= end) {
            stray.pop_front();
            found = true;
        }
        found
    }

    /// Where the record began: each of its lines has ended by now. (Its own position is before empty lines.)
    fn line(&self) -> u64 {
        self.lines_above + self.reader.position().line().saturating_sub(self.breaks() + 1)
    }

    /// Line breaks inside the record's values.
    fn breaks(&self) -> u64 {
        let breaks = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count();
        u64::try_from(breaks).unwrap_or_default()
    }

    fn read(&mut self) -> Result<bool, Fault> {
        let line = self.lines_above + self.reader.position().line();
        let read =
            self.reader.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(error) if error.to_string() == TOO_LONG => {
                    Fault::row(line, format!("is longer than {ROW_BYTES_MAX} bytes: {TOO_LONG}"))
                }
                csv::ErrorKind::Io(error) => Fault::row(line, format!("cannot be read: {error}")),
                other => Fault::row(line, format!("is no CSV: {other:?}")),
            })?;
        self.shared.since.set(0);
        if read && self.shared.all.get() == Some(self.reader.position().byte()) {
            let line = self.lines_above + self.reader.position().line().saturating_sub(self.breaks());
            return Err(Fault::row(line, "has a quote that is not closed before the file ends"));
        }
        Ok(read)
    }
}

/// Passes over one line, whatever ends it; `false` at the end of the file.
fn skip_line(inner: &mut impl BufRead) -> io::Result<bool> {
    let mut has_begun = false;
    loop {
        let bytes = inner.fill_buf()?;
        if bytes.is_empty() {
            return Ok(has_begun);
        }
        has_begun = true;
        let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            let count = bytes.len();
            inner.consume(count);
            continue;
        };
        let is_return = bytes[end] == b'\r';
        inner.consume(end + 1);
        if is_return && inner.fill_buf()?.first() == Some(&b'\n') {
            inner.consume(1);
        }
        return Ok(true);
    }
}

/// The character of a first line `sep=;`, which spreadsheets write and read.
pub(crate) fn separator_line(start: &[u8]) -> Option<u8> {
    let line = start.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    match line {
        [s, e, p, b'=', separator] if [*s, *e, *p].eq_ignore_ascii_case(b"sep") => Some(*separator),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "reference,customer_id,currency,amount\n";

    /// Lines and first columns, or the fault, of each row.
    fn read(file: impl AsRef<[u8]>) -> Vec<(u64, Result<String, Fault>)> {
        let file = file.as_ref();
        let mut rows = CsvRows::open(file, &Dialect::default()).unwrap();
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
        let mut rows = CsvRows::open(
            &b"amount,status,currency,reference,customer_id\n1,PAID,EUR,I1,7\n"[..],
            &Dialect::default(),
        )
        .unwrap();
        let (_, values) = rows.next().unwrap().unwrap();
        let expected = ["I1", "7", "EUR", "1", "PAID"].map(|text| Value::Text(Cow::Borrowed(text)));
        assert_eq!(values.unwrap(), expected);
    }

    #[test]
    fn a_header_with_mistakes_names_all_of_them() {
        let reason = |file: &str| CsvRows::open(file.as_bytes(), &Dialect::default()).err().unwrap().reason;
        let several = reason("reference,customer_id,stauts,reference\n");
        for part in
            ["\"stauts\" is no column", "reference stands twice", "currency is missing", "amount is missing"]
        {
            assert!(several.contains(part), "{several}");
        }
        assert!(reason("reference;customer_id;currency;amount\n").contains("separated by commas"));
        assert!(reason("").contains("empty"));
    }

    #[test]
    fn rows_of_another_width_and_bad_utf_8_are_single_faults() {
        let mut file = format!("{HEADER}short,1\nI2,1,EUR,1,more\n").into_bytes();
        file.extend_from_slice(b"\xff\xfe,1,EUR,1\ngood,1,EUR,1\n");
        let rows = read(file);
        assert_eq!(rows[0].1.as_ref().unwrap_err().reason, "has 2 fields where the header has 4");
        assert_eq!(rows[1].1.as_ref().unwrap_err().line, 3);
        assert!(rows[2].1.as_ref().unwrap().starts_with("Bad(\"is not UTF-8 text"), "{rows:?}");
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
    fn a_quote_that_is_open_at_the_end_is_reported_with_the_line_where_its_row_began() {
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
        assert_eq!(CsvRows::open(&b"reference,\"customer"[..], &Dialect::default()).err().unwrap().line, 1);
        assert_eq!(read(format!("{HEADER}\"x\n\",1,EUR,1")), [(2, text("x\n"))]);
        assert_eq!(read(format!("{HEADER}I1,1,EUR,\"x\n\"\n")), [(2, text("I1"))]);
    }

    #[test]
    fn text_behind_a_closing_quote_is_a_fault_of_its_row_alone() {
        let file = format!(
            "{HEADER}\"a\"\"b\",1,EUR,1\nmid\"dle,1,EUR,1\n\"abc\"x,1,EUR,1\r\n\"x\ny\" ,1,EUR,1\nlast,1,EUR,1\n"
        );
        let rows = read(file);
        let good: Vec<_> = rows.iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(good, [(2, true), (3, true), (4, false), (5, false), (7, true)], "{rows:?}");
        assert_eq!(rows[1].1, text("mid\"dle"));
        assert!(rows[2].1.as_ref().unwrap_err().reason.contains("written twice"));
    }

    #[test]
    fn lines_above_the_header_and_the_separator_line_are_passed_over_and_counted() {
        let read = |file: &str, profile: &str| {
            let mut rows = CsvRows::open(file.as_bytes(), &super::super::settings::dialect(profile))
                .map_err(|fault| fault.reason)?;
            let row = rows.next().unwrap().map(|(line, row)| (line, row.is_ok()));
            Ok::<_, String>(row)
        };
        let rows = HEADER.replace(',', ";") + "a;1;EUR;1\n";
        assert_eq!(read(&format!("sep=;\r\n{rows}"), "delimiter = ';'"), Ok(Some((3, true))));
        assert_eq!(read(&format!("\"sep=;\"\r{rows}"), "delimiter = ';'"), Ok(Some((3, true))));
        assert_eq!(
            read(&format!("x\r\ny\r\n{rows}"), "delimiter = ';'\nskip-lines = 2"),
            Ok(Some((4, true)))
        );
        assert!(read(&format!("sep=;\n{rows}"), "").unwrap_err().contains("--delimiter ';'"));
        assert!(read(&format!("sep=\t\n{rows}"), "delimiter = ';'").unwrap_err().contains("'\\t'"));
        assert!(read("x\n", "skip-lines = 5").unwrap_err().contains("is empty"));
    }

    #[test]
    fn a_file_without_a_header_row_has_the_columns_that_are_named_for_it() {
        let profile = "header = ['No', 'Account', 'Date', 'Total', 'Cur']\nignore-unknown-columns = true\n[map]\n\
                       reference = 'No'\ncustomer_id = 'Account'\namount = 'Total'\ncurrency = 'Cur'";
        let dialect = super::super::settings::dialect(profile);
        let mut rows = CsvRows::open(&b"a,1,20261101,12.15,EUR\nb,1,EUR\n"[..], &dialect).unwrap();
        assert_eq!(rows.ignored(), ["Date"]);
        let (line, values) = rows.next().unwrap().unwrap();
        let shown = values.map(|values| format!("{:?} {:?}", values[0], values[3]));
        assert_eq!((line, shown), (1, Ok("Text(\"a\") Text(\"12.15\")".to_owned())));
        let (line, short) = rows.next().unwrap().unwrap();
        assert_eq!((line, short.is_err()), (2, true));
        let misspelt =
            super::super::settings::dialect("header = ['reference', 'customer', 'currency', 'amount']");
        let why = CsvRows::open(&b"a,1,EUR,1\n"[..], &misspelt).err().unwrap().reason;
        assert!(why.contains("\"customer\" is no column"), "{why}");
    }

    #[test]
    fn a_file_without_a_last_line_end_is_noticed() {
        for (end, expected) in [("", true), ("\n", false), ("\r\n", false), ("\r", false)] {
            let file = format!("{HEADER}I1,1,EUR,1{end}");
            let mut rows = CsvRows::open(file.as_bytes(), &Dialect::default()).unwrap();
            while rows.next().unwrap().is_some() {}
            assert_eq!(rows.ends_in_mid_line(), expected, "{end:?}");
        }
    }

    /// Whatever a file holds: no panic, and it ends.
    #[test]
    fn fuzz_csv_files() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/src/import/corpus");
        testkit::fuzz::Corpus::read("files to import", corpus).run(|input| {
            if let Ok(mut rows) = CsvRows::open(input, &Dialect::default()) {
                while let Ok(Some((line, values))) = rows.next() {
                    let place = super::super::row::Place { line, index: None };
                    let _row =
                        values.map(|values| super::super::row::judge(place, &values, &Dialect::default()));
                }
            }
            let start: super::super::file::Start = Box::new(std::io::Cursor::new(input.to_vec()));
            let mut elements = super::super::json::ArrayRows::new(start, &Dialect::default());
            while let Ok(Some(element)) = elements.next() {
                let _values = element.values();
            }
        });
    }
}
