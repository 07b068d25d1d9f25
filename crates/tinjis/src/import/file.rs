//! A file as rows, whatever its format, and how far it has been read; opened once for each pass.
//! Must not know billing.

use std::cell::Cell;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use super::csv::CsvRows;
use super::json::{self, ArrayRows, NdjsonRows, Piece};
use super::row::{self, Fault, Row};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A header and rows.
    Csv,
    /// One array of objects.
    Json,
    /// An object a line.
    Ndjson,
}

impl Format {
    /// By the file's ending.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// The next thing in a file.
#[derive(Debug)]
pub(crate) enum Item {
    /// A row that is right by itself.
    Row(Row),
    /// A row that is not.
    Bad(Vec<Fault>),
}

/// Bytes read so far; shared with whoever shows progress.
#[derive(Clone, Debug, Default)]
pub(crate) struct BytesRead(Rc<Cell<u64>>);

impl BytesRead {
    pub(crate) fn so_far(&self) -> u64 {
        self.0.get()
    }
}

/// A file that tells how far it has been read.
#[derive(Debug)]
pub(crate) struct Counted {
    file: File,
    count: BytesRead,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.count.0.set(self.count.0.get() + count as u64);
        Ok(count)
    }
}

/// A file's rows.
#[derive(Debug)]
pub(crate) enum Rows {
    Csv(Box<CsvRows<Start>>),
    Json(ArrayRows<Start>),
    Ndjson(NdjsonRows<Start>),
}

/// A buffered file without the byte order mark that some editors put first.
pub(crate) type Start = BufReader<Counted>;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const BUFFER: usize = 64 * 1024;

/// What tells that a file is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) bytes: u64,
    modified: Option<std::time::SystemTime>,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) rows: Result<Rows, Fault>,
    pub(crate) identity: Identity,
    pub(crate) read: BytesRead,
}

/// Opens a file. The inner result is what is wrong with its beginning.
pub(crate) fn open(path: &Path, format: Format) -> io::Result<Opened> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is read twice, so it must be a plain file"));
    }
    let identity = Identity::from(&metadata);
    let read = BytesRead::default();
    let mut start = BufReader::with_capacity(BUFFER, Counted { file, count: read.clone() });
    if start.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        start.consume(BYTE_ORDER_MARK.len());
    }
    let rows = match format {
        Format::Csv => CsvRows::open(start).map(|rows| Rows::Csv(Box::new(rows))),
        Format::Json => Ok(Rows::Json(ArrayRows::new(start))),
        Format::Ndjson => Ok(Rows::Ndjson(NdjsonRows::new(start))),
    };
    Ok(Opened { rows, identity, read })
}

impl Rows {
    /// The next row; a fault when the file cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, Fault> {
        match self {
            Self::Csv(rows) => {
                let Some((line, values)) = rows.next()? else { return Ok(None) };
                let row = values.map_err(|fault| vec![fault]).and_then(|values| row::row(line, &values));
                Ok(Some(Item::of(row)))
            }
            Self::Json(rows) => Ok(rows.next()?.map(|piece| Item::of_json(&piece))),
            Self::Ndjson(rows) => Ok(rows.next()?.map(|piece| Item::of_json(&piece))),
        }
    }
}

impl Item {
    fn of(row: Result<Row, Vec<Fault>>) -> Self {
        row.map_or_else(Self::Bad, Self::Row)
    }

    fn of_json(piece: &Piece) -> Self {
        let values = json::values(piece).map_err(|fault| vec![fault]);
        Self::of(values.and_then(|values| row::row(piece.line, &values)))
    }
}
