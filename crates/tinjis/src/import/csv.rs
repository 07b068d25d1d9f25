//! CSV of spreadsheets and other programs: a header in any order, quotes, CRLF, a named delimiter and named columns; a
//! row at a time. Must not know what a value means, only its place.

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

/// Number of bytes that are read ahead.
const BUFFER: usize = 64 * 1024;

/// The default delimiter.
const COMMA: u8 = b',';

/// Rows of a CSV file.
pub(crate) struct CsvRows<R> {
    reader: csv::Reader<BoundedReader<R>>,
    record: ByteRecord,
    shared: Rc<Shared>,
    columns: Columns,
    /// Number of lines above the first line that the parser reads.
    lines_above: u64,
    /// Whether fields without a name may follow the last column.
    may_be_wider: bool,
}

/// State that the reader below the parser shares with the rows.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes handed to the parser since the last record ended.
    since: Cell<usize>,
    /// Number of all bytes, known after the last of them.
    all: Cell<Option<u64>>,
    /// Lines with text behind a closing quote, which the parser would append to the value; bounded by the read-ahead.
    stray: RefCell<VecDeque<u64>>,
    /// Whether the file's last line has no line end.
    ends_in_mid_line: Cell<bool>,
}

/// A record's line, and its values or the fault in its shape.
pub(crate) type Record<'a> = (u64, Result<Values<'a>, Fault>);

/// A reader that limits the length of a record: a quote that is never closed would read the whole file into memory. It
/// ends every line with one line feed, so that lines can be counted: the parser stops between the two bytes of CRLF. No
/// value changes by this, since CR inside quotes is left as it is. At the end it adds one line feed: only a record whose
/// quote is not closed reaches it.
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

/// The parser's state of quotes at the current byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    FieldStart,
    Plain,
    Inside,
    /// After a quote that closes the field, or is the first of two.
    Closing,
}

/// The error of a record over the limit; also recognised below.
const TOO_LONG: &str = "is a quote not closed?";

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Bytes that are read ahead may belong to later records.
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
    /// Rewrites CRLF and lone CR that end a line to LF in place; returns how many bytes remain.
    fn with_line_feeds(&mut self, bytes: &mut [u8]) -> usize {
        let mut kept = 0;
        for at in 0..bytes.len() {
            let byte = bytes[at];
            let is_second = byte == b'\n' && self.after_return;
            // Inside quotes it is a character of a value, and a message must name the one that stands there.
            self.after_return = byte == b'\r' && self.quote != Quote::Inside;
            if !is_second {
                bytes[kept] = if self.after_return { b'\n' } else { byte };
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
        rows.columns = header::find_columns(line, &names, dialect)?;
        Ok(rows)
    }

    /// The line number and the names of the header row.
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

    /// Columns that are ignored.
    pub(crate) fn ignored(&self) -> &[String] {
        &self.columns.ignored
    }

    /// Whether the file ended without a line end.
    pub(crate) fn ends_in_mid_line(&self) -> bool {
        self.shared.ends_in_mid_line.get()
    }

    /// The next row's line and values; a fault for a row with a wrong shape. `None` at the end.
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
        Ok(Some((line, Ok(self.columns.places.iter().copied().map(value).collect()))))
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

    /// Whether a line of this record has stray text; forgets stray lines up to the end of the record.
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

    /// The line on which the record began, computed from its end. The record's own position is before empty lines.
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

/// Skips one line with any line end; `false` at the end of the file.
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

/// The delimiter in a first line `sep=;`, which spreadsheets write and read.
pub(crate) fn separator_line(start: &[u8]) -> Option<u8> {
    let line = start.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    match line {
        [s, e, p, b'=', separator] if [*s, *e, *p].eq_ignore_ascii_case(b"sep") => Some(*separator),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
