//! The result lines of proofs, and the table of them. Runs nothing.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// How often a kind of error occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// This many times.
    Of(u64),
    /// The proof counts no invoices; it succeeded.
    None,
    /// The proof failed before it could count.
    Unknown,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(number) => number.fmt(f),
            Self::None => "–".fmt(f),
            Self::Unknown => "?".fmt(f),
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) how_many: String,
    pub(crate) double: Count,
    pub(crate) lost: Count,
    pub(crate) took: Duration,
}

impl Row {
    fn read(text: &str) -> Option<Self> {
        let row: Value = serde_json::from_str(text).ok()?;
        Some(Self {
            what: row["what"].as_str()?.to_owned(),
            how_many: row["how_many"].as_str()?.to_owned(),
            double: Count::Of(row["double"].as_u64()?),
            lost: Count::Of(row["lost"].as_u64()?),
            took: Duration::from_millis(row["took_ms"].as_u64()?),
        })
    }

    /// The row of a proof that failed, or that wrote no line.
    pub(crate) fn failed(what: &str, took: Duration) -> Self {
        Self {
            what: what.to_owned(),
            how_many: "RED".to_owned(),
            double: Count::Unknown,
            lost: Count::Unknown,
            took,
        }
    }

    /// The row of a proof without numbers of its own.
    pub(crate) fn passed(what: &str, how_many: &str, took: Duration) -> Self {
        Self {
            what: what.to_owned(),
            how_many: how_many.to_owned(),
            double: Count::None,
            lost: Count::None,
            took,
        }
    }

    /// Whether the row reports success.
    pub(crate) fn is_right(&self) -> bool {
        [self.double, self.lost].iter().all(|count| matches!(count, Count::Of(0) | Count::None))
    }
}

/// Reads and removes the lines in a folder, ordered by name.
pub(crate) fn take(folder: &Path) -> io::Result<Vec<Row>> {
    let mut files: Vec<_> = fs::read_dir(folder)?.filter_map(Result::ok).map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        rows.extend(Row::read(&fs::read_to_string(&file)?));
        fs::remove_file(&file)?;
    }
    Ok(rows)
}

/// The rows with their heading.
pub(crate) fn print(rows: &[Row]) -> String {
    let heading = ["what", "how many", "double", "lost", "seconds"].map(String::from);
    let cells = rows.iter().map(|row| {
        let seconds = format!("{}.{}", row.took.as_secs(), row.took.subsec_millis() / 100);
        [row.what.clone(), row.how_many.clone(), row.double.to_string(), row.lost.to_string(), seconds]
    });
    columns(&std::iter::once(heading).chain(cells).collect::<Vec<_>>(), 2)
}

/// Lines of cells, each column as wide as its widest cell; columns from `right` on are right-aligned, for numbers.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]], right: usize) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells: [String; N] = std::array::from_fn(|at| {
            let (cell, width) = (&row[at], widths[at]);
            if at < right { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_a_table_and_a_proof_without_one_has_failed() {
        let folder = tempfile::tempdir().unwrap();
        let line = r#"{"what":"pauses","how_many":"50 pauses","double":0,"lost":1,"took_ms":61234}"#;
        fs::write(folder.path().join("pauses.json"), line).unwrap();
        fs::write(folder.path().join("pauses.log"), "words").unwrap();
        let mut rows = take(folder.path()).unwrap();
        assert!(take(folder.path()).unwrap().is_empty(), "a line is taken once");
        rows.push(Row::failed("model", Duration::ZERO));
        rows.push(Row::passed("walks", "all agree", Duration::ZERO));
        assert_eq!(rows.iter().map(Row::is_right).collect::<Vec<_>>(), [false, false, true]);
        let table = print(&rows);
        assert_eq!(table.lines().nth(1), Some("pauses  50 pauses       0     1     61.2"));
        assert_eq!(table.lines().nth(2), Some("model   RED             ?     ?      0.0"));
        assert_eq!(table.lines().nth(3), Some("walks   all agree       –     –      0.0"));
    }
}
