//! References by their NFC form in PostgreSQL, which knows that form itself: how they are found, and which stored ones
//! are one by it. Knows no rule of what a reference is.

use chassis::postgres::{Lane, Postgres, Result, Tx, get};

use crate::store::ImportRow;

/// The step that adds what this needs. An index of an expression, not a column: programs of the version before write
/// rows as well, and know no such column.
pub(super) const MIGRATION: &str = "
CREATE INDEX invoices_reference_nfc ON invoices ((normalize(reference, NFC) COLLATE \"C\"))
    WHERE reference IS NOT NFC NORMALIZED
";

/// Whether `i` is found by one of these texts or by one of these NFC forms: parameters 1 and 2, which are arrays.
pub(super) const MATCHES_ANY: &str = r#"(i.reference = ANY($1) OR i.reference = ANY($2)
    OR (i.reference IS NOT NFC NORMALIZED AND normalize(i.reference, NFC) COLLATE "C" = ANY($2)))"#;

/// Pairs that are told at the start.
const PAIRS: &str = r#"
    SELECT b.id, b.reference, a.id, a.reference FROM invoices AS a JOIN invoices AS b
        ON b.id <> a.id AND (b.reference = normalize(a.reference, NFC) COLLATE "C"
            OR (b.id < a.id AND b.reference IS NOT NFC NORMALIZED
                AND normalize(b.reference, NFC) COLLATE "C" = normalize(a.reference, NFC) COLLATE "C"))
    WHERE a.reference IS NOT NFC NORMALIZED LIMIT 100"#;

/// Two imports that write one name in two forms at once would not see each other, and no unique index can hold what
/// older stores may hold already: those with such names go one after the other.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtext('billing import beyond ascii'))";

/// Takes a batch's turn, if it needs one.
pub(super) async fn wait_for_turn(tx: &Tx, batch: &[ImportRow]) -> Result<()> {
    if batch.iter().any(|row| !row.reference.as_str().is_ascii()) {
        tx.query(ONE_AT_A_TIME, &[]).await?;
    }
    Ok(())
}

/// Tells which stored references are one by NFC.
pub(super) async fn warn_of_pairs(database: &Postgres) -> Result<()> {
    let found = async |tx: Tx| {
        // The index holds few rows or none; without it the whole table would be read at each start.
        tx.find_by_index().await?;
        tx.query(PAIRS, &[]).await
    };
    for row in database.transaction(Lane::Record, found).await? {
        let (id, other_id): (i64, i64) = (get(&row, 0)?, get(&row, 2)?);
        let (reference, other): (&str, &str) = (get(&row, 1)?, get(&row, 3)?);
        tracing::warn!(
            invoice.id = id,
            reference,
            other_id,
            other,
            "two stored invoices have one reference in Unicode form NFC; find out whether they are one invoice"
        );
    }
    Ok(())
}
