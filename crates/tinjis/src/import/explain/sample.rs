//! The beginning of a file as names and values, with each assumption about its form and the reason. Knows no meaning.

use std::collections::BTreeMap;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use serde_json::value::RawValue;

use super::super::csv::separator_line;
use super::super::encoding::{UTF_32, is_utf_32};
use super::super::file::Format;

/// Maximum number of rows that are read.
const ROWS_MAX: usize = 500;

/// Number of records from which the place of the header is inferred.
const HEAD_MAX: usize = 20;

/// Names, rows and assumed settings of a file's beginning.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) names: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Settings without which the file cannot be read: name, value, reason.
    pub(super) settings: Vec<(&'static str, toml::Value, String)>,
}

impl Sample {
    /// Reads the beginning of a file, or returns why it cannot be read.
    pub(super) fn of(bytes: &[u8], is_cut: bool, format: Format) -> Result<Self, String> {
        if is_utf_32(bytes) {
            return Err(UTF_32.to_owned());
        }
        let mut sample = Self::default();
        let text = sample.decode(bytes);
        match format {
            Format::Csv => sample.csv(&text, is_cut)?,
            Format::Ndjson => sample.ndjson(&text)?,
            Format::Json if is_cut => {
                return Err(
                    "is too long to be explained: export a few rows of the same kind and explain them"
                        .to_owned(),
                );
            }
            Format::Json => sample.json(&text)?,
        }
        if sample.names.is_empty() { Err("no columns were found".to_owned()) } else { Ok(sample) }
    }

    /// The values of a column, without empty ones.
    pub(super) fn values(&self, column: usize) -> impl Iterator<Item = &str> {
        let values = self.rows.iter().filter_map(move |row| row.get(column));
        values.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a row has no value in a column.
    pub(super) fn has_empty(&self, column: usize) -> bool {
        self.rows.iter().any(|row| row.get(column).is_none_or(String::is_empty))
    }

    fn set(&mut self, name: &'static str, value: impl Into<toml::Value>, why: impl Into<String>) {
        self.settings.push((name, value.into(), why.into()));
    }

    fn decode(&mut self, bytes: &[u8]) -> String {
        let nul = |from: usize| bytes.iter().skip(from).step_by(2).take(16).any(|byte| *byte == 0);
        let bad = std::str::from_utf8(bytes).err().filter(|error| error.error_len().is_some());
        let (encoding, why) = match Encoding::for_bom(bytes) {
            Some((marked, _)) if marked == UTF_8 => (UTF_8, String::new()),
            Some((marked, _)) => (marked, "the byte order mark says so".to_owned()),
            None if nul(0) && !nul(1) => (UTF_16BE, "every other byte is NUL, the first one too".to_owned()),
            None if nul(1) && !nul(0) => (UTF_16LE, "every other byte is NUL, the second one too".to_owned()),
            None => match bad {
                None => (UTF_8, String::new()),
                Some(error) => {
                    let at = error.valid_up_to();
                    let byte = bytes.get(at).copied().unwrap_or_default();
                    let why = format!(
                        "byte {} is 0x{byte:02X}, which is no UTF-8; spreadsheets of western Europe and America write \
                         windows-1252: are the names right?",
                        at + 1
                    );
                    (WINDOWS_1252, why)
                }
            },
        };
        if encoding != UTF_8 {
            self.set("encoding", encoding.name().to_ascii_lowercase(), why);
        }
        encoding.decode(bytes).0.into_owned()
    }

    fn csv(&mut self, text: &str, is_cut: bool) -> Result<(), String> {
        let named = separator_line(text.as_bytes());
        let body =
            if named.is_some() { text.split_once(['\n', '\r']).map_or("", |(_, body)| body) } else { text };
        let (delimiter, mut records) = match named {
            Some(delimiter) => (delimiter, records(body, delimiter)),
            None => {
                let tried = [b',', b';', b'\t', b'|'].map(|delimiter| (delimiter, records(body, delimiter)));
                let widest = tried.into_iter().rev().max_by_key(|(_, records)| usual_width(records));
                widest.ok_or("is no CSV")?
            }
        };
        if is_cut {
            records.pop();
        }
        let shown = if delimiter == b'\t' { "tab".to_owned() } else { char::from(delimiter).to_string() };
        match named {
            Some(_) => self.set("delimiter", shown, "the first line names it"),
            None if delimiter != b',' => self.set("delimiter", shown, "it gives the most columns"),
            None => {}
        }
        let width = usual_width(&records);
        let header = records.iter().position(|record| record.len() == width).unwrap_or(0);
        if header > 0 {
            let lines = i64::try_from(header).unwrap_or(i64::MAX);
            self.set(
                "skip-lines",
                lines,
                format!("the lines above the header have another number of fields than its {width}"),
            );
        }
        let mut records = records.into_iter().skip(header);
        self.names = records.next().unwrap_or_default();
        self.rows = records.take(ROWS_MAX).collect();
        Ok(())
    }

    fn ndjson(&mut self, text: &str) -> Result<(), String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let objects: Vec<Object> =
            lines.take(ROWS_MAX).filter_map(|line| serde_json::from_str(line).ok()).collect();
        self.objects(&objects).ok_or_else(|| "no line is a JSON object".to_owned())
    }

    fn json(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim_start_matches('\u{feff}');
        if let Ok(objects) = serde_json::from_str::<Vec<Object>>(text) {
            return self.objects(&objects).ok_or_else(|| "the array is empty".to_owned());
        }
        let outer: Object = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        for (name, value) in &outer {
            if let Ok(objects) = serde_json::from_str::<Vec<Object>>(value.get())
                && self.objects(&objects).is_some()
            {
                self.set("records", name.as_str(), "this field holds an array of objects");
                return Ok(());
            }
        }
        Err("no field holds an array of objects".to_owned())
    }

    fn objects(&mut self, objects: &[Object]) -> Option<()> {
        objects.first()?;
        for object in objects.iter().take(ROWS_MAX) {
            let more = object.keys().filter(|name| !self.names.contains(name)).cloned().collect::<Vec<_>>();
            self.names.extend(more);
        }
        let text = |value: &RawValue| match value.get() {
            "null" => String::new(),
            text => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        };
        let row = |object: &Object| {
            self.names
                .iter()
                .map(|name| object.get(name).map(|value| text(value)).unwrap_or_default())
                .collect()
        };
        self.rows = objects.iter().take(ROWS_MAX).map(row).collect();
        Some(())
    }
}

type Object = BTreeMap<String, Box<RawValue>>;

fn records(text: &str, delimiter: u8) -> Vec<Vec<String>> {
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true).delimiter(delimiter);
    let mut reader = builder.from_reader(text.as_bytes());
    let records = reader.records().map_while(Result::ok).take(ROWS_MAX + HEAD_MAX);
    records.map(|record| record.iter().map(str::to_owned).collect()).collect()
}

/// The most frequent number of fields among the first records; of several the greatest.
fn usual_width(records: &[Vec<String>]) -> usize {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for record in records.iter().take(HEAD_MAX) {
        *counts.entry(record.len()).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(width, count)| (*count, *width)).map_or(0, |(width, _)| width)
}
