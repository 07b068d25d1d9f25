//! Files of subscriptions, CSV or NDJSON, as lines of NDJSON with their places. Knows the names of the columns, and no
//! value.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use billing::import_row::ROW_BYTES_MAX;
use billing::subscription::FIELDS;
use serde_json::{Map, Value};

/// The longest file: a quote that is never closed makes one record of the rest.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Ndjson,
}

impl Format {
    /// By the end of its name.
    pub(crate) fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("ndjson" | "jsonl") => Ok(Self::Ndjson),
            _ => Err(format!("{} must end in .csv, .ndjson or .jsonl", path.display())),
        }
    }
}

/// The rows of an open file.
pub(crate) enum Records {
    Csv { reader: csv::Reader<File>, header: csv::StringRecord },
    Ndjson { reader: BufReader<File>, line: u64 },
}

impl Records {
    pub(crate) fn open(path: &Path, delimiter: u8) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        if file.metadata()?.len() > FILE_BYTES_MAX {
            bail!("{} is longer than {FILE_BYTES_MAX} bytes: split it", path.display());
        }
        match Format::of(path).map_err(anyhow::Error::msg)? {
            Format::Ndjson => Ok(Self::Ndjson { reader: BufReader::new(file), line: 0 }),
            Format::Csv => {
                let mut reader =
                    csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::Headers).from_reader(file);
                let header = reader.headers().context("the header cannot be read")?.clone();
                let mut columns = FIELDS.into_iter().filter(|field| *field != "prices");
                if let Some(unknown) = header.iter().find(|name| !columns.clone().any(|known| known == *name))
                {
                    let known = columns.by_ref().collect::<Vec<_>>().join(", ");
                    bail!("line 1: no column is named {unknown:?}; the columns are {known}");
                }
                Ok(Self::Csv { reader, header })
            }
        }
    }

    /// The next row that is not blank: its line, and one JSON object.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(u64, Vec<u8>)>> {
        match self {
            Self::Csv { reader, header } => {
                let mut record = csv::StringRecord::new();
                if !reader.read_record(&mut record).context("the file cannot be read")? {
                    return Ok(None);
                }
                let line = record.position().map_or(0, csv::Position::line);
                check_length(line, record.as_slice().len())?;
                let fields = header.iter().zip(&record).filter(|(_, value)| !value.is_empty());
                let object: Map<String, Value> =
                    fields.map(|(name, value)| (name.to_owned(), value.into())).collect();
                Ok(Some((line, Value::Object(object).to_string().into_bytes())))
            }
            Self::Ndjson { reader, line } => loop {
                let mut bytes = Vec::new();
                if reader.read_until(b'\n', &mut bytes).context("the file cannot be read")? == 0 {
                    return Ok(None);
                }
                *line += 1;
                check_length(*line, bytes.len())?;
                let row = bytes.trim_ascii();
                if !row.is_empty() {
                    return Ok(Some((*line, row.to_vec())));
                }
            },
        }
    }
}

fn check_length(line: u64, bytes: usize) -> anyhow::Result<()> {
    if bytes > ROW_BYTES_MAX {
        bail!("line {line} is longer than {ROW_BYTES_MAX} bytes");
    }
    Ok(())
}
