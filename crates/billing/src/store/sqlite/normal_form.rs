//! References by their NFC form in SQLite: how a reference is found, and what the start of the program prepares for
//! that. Knows no rule of what a reference is.

use rusqlite::{Connection, params};

use crate::invoice::Reference;

/// Whether `i` is found by the text `$1` or by the NFC form `$2`.
pub(super) const MATCHES: &str = "(i.reference IN ($1, $2) OR i.reference_nfc = $2)";

/// The most pairs that are reported at the start.
const PAIRS_MAX: i64 = 100;

/// The texts among these that are references, in exactly this spelling.
pub(super) fn stored_among(connection: &Connection, mut texts: Vec<String>) -> rusqlite::Result<Vec<String>> {
    let mut find = connection.prepare_cached("SELECT 1 FROM invoices WHERE reference = ?1")?;
    let mut failed = None;
    texts.retain(|text| match find.exists([text]) {
        Ok(exists) => exists,
        Err(error) => {
            failed = Some(error);
            false
        }
    });
    failed.map_or(Ok(texts), Err)
}

/// Fills the column for rows that were written without it, and logs which stored references are equal by NFC.
pub(super) fn fill_normal_forms(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT id, reference FROM invoices WHERE reference GLOB '*[^ -~]*' AND reference_nfc IS NULL";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found: Vec<(i64, String)> = Vec::new();
    while let Some(row) = rows.next()? {
        let text = row.get_ref(1)?.as_str()?;
        let reference = Reference::stored(text).ok();
        found.extend(
            reference.and_then(|reference| Some((row.get(0).ok()?, reference.nfc_if_other()?.to_owned()))),
        );
    }
    drop(rows);
    for (id, nfc) in found {
        let sql = "UPDATE invoices SET reference_nfc = ?2 WHERE id = ?1";
        connection.prepare_cached(sql)?.execute(params![id, nfc])?;
    }
    warn_of_pairs(connection)
}

fn warn_of_pairs(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "
        SELECT b.id, b.reference, a.id, a.reference FROM invoices AS a JOIN invoices AS b ON b.reference = a.reference_nfc
            WHERE a.reference_nfc IS NOT NULL
        UNION ALL
        SELECT b.id, b.reference, a.id, a.reference FROM invoices AS a JOIN invoices AS b ON b.reference_nfc = a.reference_nfc
            WHERE a.reference_nfc IS NOT NULL AND b.id < a.id
        LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([PAIRS_MAX])?;
    while let Some(row) = rows.next()? {
        let (id, other_id): (i64, i64) = (row.get(0)?, row.get(2)?);
        let (reference, other): (String, String) = (row.get(1)?, row.get(3)?);
        tracing::warn!(
            invoice.id = id,
            reference,
            other_id,
            other,
            "two stored invoices have one reference in Unicode form NFC: find out whether they are one invoice"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrations;
    use crate::store::reads::EQUAL_TEXT_FIRST;

    fn table(references: &[&str]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE invoices (id INTEGER PRIMARY KEY, reference TEXT NOT NULL UNIQUE)")
            .unwrap();
        connection.execute_batch(migrations::SQLITE[8].sql).unwrap();
        for reference in references {
            connection.execute("INSERT INTO invoices (reference) VALUES (?1)", [reference]).unwrap();
        }
        connection
    }

    #[test]
    fn rows_of_an_older_program_are_found_by_their_form_after_the_start() {
        let connection = table(&["I1", "cafe\u{301}", "\u{e5}", "\u{212a}1", "a\u{30a}"]);
        fill_normal_forms(&connection).unwrap();
        let find = |text: &str| -> Option<i64> {
            let reference = Reference::new(text).unwrap();
            let sql = format!("SELECT id FROM invoices AS i WHERE {MATCHES} {EQUAL_TEXT_FIRST}");
            connection.query_row(&sql, [reference.as_str(), reference.nfc()], |row| row.get(0)).ok()
        };
        let found = ["I1", "caf\u{e9}", "cafe\u{301}", "K1", "\u{e5}", "a\u{30a}", "I2"].map(find);
        assert_eq!(found, [Some(1), Some(2), Some(2), Some(4), Some(3), Some(5), None]);
        let stored: String = connection
            .query_row("SELECT reference FROM invoices WHERE id = 2", [], |row| row.get(0))
            .unwrap();
        assert_eq!(stored, "cafe\u{301}");
    }

    #[test]
    fn finding_a_reference_reads_no_table_from_end_to_end() {
        let connection = table(&[]);
        let sql =
            format!("EXPLAIN QUERY PLAN SELECT id FROM invoices AS i WHERE {MATCHES} {EQUAL_TEXT_FIRST}");
        let mut statement = connection.prepare(&sql).unwrap();
        let steps: Vec<String> = statement
            .query_map(["a", "b"], |row| row.get(3))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert!(steps.iter().all(|step| !step.starts_with("SCAN")), "{steps:?}");
        assert!(steps.iter().any(|step| step.contains("invoices_reference_nfc")), "{steps:?}");
    }
}
