//! The lines that proofs leave, and the table of them. Runs nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) how_many: String,
    pub(crate) double: String,
    pub(crate) lost: String,
    pub(crate) took: Duration,
}

impl Row {
    fn read(text: &str) -> Option<Self> {
        let row: Value = serde_json::from_str(text).ok()?;
        Some(Self {
            what: row["what"].as_str()?.to_owned(),
            how_many: row["how_many"].as_str()?.to_owned(),
            double: row["double"].as_u64()?.to_string(),
            lost: row["lost"].as_u64()?.to_string(),
            took: Duration::from_millis(row["took_ms"].as_u64()?),
        })
    }

    /// A proof that failed, or that left no line.
    pub(crate) fn red(what: &str, took: Duration) -> Self {
        let unknown = || "?".to_owned();
        Self { what: what.to_owned(), how_many: "RED".to_owned(), double: unknown(), lost: unknown(), took }
    }

    /// A proof without numbers of its own.
    pub(crate) fn green(what: &str, how_many: &str, took: Duration) -> Self {
        let none = || "–".to_owned();
        Self { what: what.to_owned(), how_many: how_many.to_owned(), double: none(), lost: none(), took }
    }

    /// Whether it says that nothing went wrong.
    pub(crate) fn is_right(&self) -> bool {
        self.double == "0" && self.lost == "0"
    }
}

/// Takes the lines that lie in a folder, by name.
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
        [row.what.clone(), row.how_many.clone(), row.double.clone(), row.lost.clone(), seconds]
    });
    columns(&std::iter::once(heading).chain(cells).collect::<Vec<_>>(), 2)
}

/// Lines of cells, each column as wide as its widest; those from `right` on are flush right, as numbers are.
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
    fn lines_become_a_table_and_a_proof_without_one_is_red() {
        let folder = tempfile::tempdir().unwrap();
        let line = r#"{"what":"pauses","how_many":"50 pauses","double":0,"lost":1,"took_ms":61234}"#;
        fs::write(folder.path().join("pauses.json"), line).unwrap();
        fs::write(folder.path().join("pauses.log"), "words").unwrap();
        let mut rows = take(folder.path()).unwrap();
        assert!(take(folder.path()).unwrap().is_empty(), "a line is taken once");
        assert!(!rows[0].is_right());
        rows.push(Row::red("model", Duration::ZERO));
        let table = print(&rows);
        assert_eq!(table.lines().nth(1), Some("pauses  50 pauses       0     1     61.2"));
        assert_eq!(table.lines().nth(2), Some("model   RED             ?     ?      0.0"));
    }
}
