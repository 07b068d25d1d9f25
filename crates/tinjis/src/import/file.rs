//! A file as rows, in any supported format and encoding, and the number of bytes read; opened once for each pass. Must
//! not know billing.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chassis::config::open_regular;

use super::csv::CsvRows;
use super::encoding;
use super::json::{ArrayRows, NdjsonRows, Parsed};
use super::row::{Fault, FileRow, Judged, Place, Value};
use super::settings::Dialect;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A header and rows.
    Csv,
    /// One array of objects.
    Json,
    /// One object per line.
    Ndjson,
}

impl Format {
    /// The format, by the file's extension.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
        })
    }
}

/// Number of bytes read so far; shared with the progress bar.
#[derive(Clone, Debug, Default)]
pub(crate) struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    pub(crate) fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A file that counts the bytes read.
#[derive(Debug)]
pub(crate) struct Counted {
    file: File,
    count: BytesRead,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.count.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A file's text in UTF-8, without a byte order mark.
pub(crate) type Start = Box<dyn BufRead + Send>;

/// The rows of a file in one of the formats.
pub(crate) enum Rows {
    Csv(Box<CsvRows<Start>>),
    Json(ArrayRows),
    Ndjson(NdjsonRows<Start>),
}

const BUFFER: usize = 64 * 1024;

/// Identifies a file, to detect a change between the passes.
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
pub(crate) struct Opened {
    pub(crate) rows: Result<Rows, Fault>,
    pub(crate) identity: Identity,
    pub(crate) read: BytesRead,
}

/// Opens a file. The inner result is a fault at the beginning of the file.
pub(crate) fn open(path: &Path, format: Format, dialect: &Dialect) -> io::Result<Opened> {
    let mut file = open_regular(path)?;
    let identity = Identity::from(&file.metadata()?);
    let contradicted = encoding::check_encoding(&file, dialect)?;
    file.rewind()?;
    let read = BytesRead::default();
    let counted = BufReader::with_capacity(BUFFER, Counted { file, count: read.clone() });
    let start =
        encoding::decode_to_utf8(counted, dialect)?.and_then(|start| contradicted.map_or(Ok(start), Err));
    let rows = start.and_then(|start| {
        Ok(match format {
            Format::Csv => Rows::Csv(Box::new(CsvRows::open(start, dialect)?)),
            Format::Json => Rows::Json(ArrayRows::new(start, dialect)),
            Format::Ndjson => Rows::Ndjson(NdjsonRows::new(start, dialect)),
        })
    });
    Ok(Opened { rows, identity, read })
}

impl Rows {
    /// The next row; a fault when the file cannot be read on.
    pub(crate) fn next<R: FileRow>(&mut self, dialect: &Dialect) -> Result<Option<Judged<R>>, Fault> {
        let row = self.next_with(|place, values| R::judge(place, values, dialect))?;
        Ok(row.map(|row| row.unwrap_or_else(|fault| Judged::Bad { faults: vec![fault], reference: None })))
    }

    /// The next row by what `judge` makes of its values, or the fault of one that is out of shape.
    fn next_with<T>(
        &mut self,
        judge: impl FnOnce(Place, &[Value<'_>]) -> T,
    ) -> Result<Option<Result<T, Fault>>, Fault> {
        let parsed: Option<Parsed> = match self {
            Self::Csv(rows) => {
                let Some((line, values)) = rows.next()? else { return Ok(None) };
                return Ok(Some(values.map(|values| judge(Place { line, index: None }, &values))));
            }
            Self::Json(rows) => rows.next()?,
            Self::Ndjson(rows) => rows.next()?,
        };
        Ok(parsed.map(|parsed| parsed.values().map(|values| judge(parsed.place, &values))))
    }

    /// Columns that are passed over; those of JSON are known once it has been read: [`Self::ignored_fields`].
    pub(crate) fn ignored(&self) -> &[String] {
        match self {
            Self::Csv(rows) => rows.ignored(),
            Self::Json(_) | Self::Ndjson(_) => &[],
        }
    }

    /// Fields of JSON that were passed over so far.
    pub(crate) fn ignored_fields(&self) -> Vec<String> {
        match self {
            Self::Csv(_) => Vec::new(),
            Self::Json(rows) => rows.names.ignored_fields(),
            Self::Ndjson(rows) => rows.names.ignored_fields(),
        }
    }

    /// Whether a CSV file has no line end after its last line, as a truncated file.
    pub(crate) fn ends_in_mid_line(&self) -> bool {
        match self {
            Self::Csv(rows) => rows.ends_in_mid_line(),
            Self::Json(_) | Self::Ndjson(_) => false,
        }
    }
}
