//! References by their NFC form in PostgreSQL, which can compute that form itself: how they are found, and which stored
//! ones have the same form. Knows no rule of what a reference is.

use chassis::postgres::{PoolClass, Postgres, Result, Tx, get};

use crate::store::ImportRow;

/// Whether `i` is found by the text `$1` or by the NFC form `$2`.
pub(super) const MATCHES: &str = r#"(i.reference IN ($1, $2)
    OR (i.reference IS NOT NFC NORMALIZED AND normalize(i.reference, NFC) COLLATE "C" = $2))"#;

/// Like [`MATCHES`], for arrays. Each index has its own subquery: for all conditions together the planner may read the
/// whole table in the requested order.
pub(super) const MATCHES_ANY: &str = r#"i.id = ANY(ARRAY(
    SELECT id FROM invoices WHERE reference = ANY($1)
    UNION SELECT id FROM invoices WHERE reference = ANY($2)
    UNION SELECT id FROM invoices
        WHERE reference IS NOT NFC NORMALIZED AND normalize(reference, NFC) COLLATE "C" = ANY($2)))"#;

/// The pairs that are reported at the start. The rows of the index come first, and each is looked up on its own: for a
/// single join the planner may read the whole table to find that the index is empty.
const PAIRS: &str = r#"
    WITH other_form AS MATERIALIZED (
        SELECT id, reference, normalize(reference, NFC) COLLATE "C" AS nfc FROM invoices
        WHERE reference IS NOT NFC NORMALIZED)
    SELECT b.id, b.reference, a.id, a.reference FROM other_form AS a
        CROSS JOIN LATERAL (SELECT id, reference FROM invoices WHERE reference = a.nfc OFFSET 0) AS b
    UNION ALL
    SELECT b.id, b.reference, a.id, a.reference FROM other_form AS a JOIN other_form AS b
        ON b.nfc = a.nfc AND b.id < a.id
    LIMIT 100"#;

/// Two simultaneous imports of one name in two forms would not see each other. No unique index can prevent that,
/// because older stores may hold such pairs. So batches with such names run one after the other.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtext('billing import beyond ascii'))";

/// Waits for other such batches, if this batch has such names.
pub(super) async fn wait_for_turn(tx: &Tx, batch: &[ImportRow]) -> Result<()> {
    if batch.iter().any(|row| !row.reference.as_str().is_ascii()) {
        tx.query(ONE_AT_A_TIME, &[]).await?;
    }
    Ok(())
}

/// Logs which stored references are equal by NFC.
pub(super) async fn warn_of_pairs(database: &Postgres) -> Result<()> {
    let found = async |tx: Tx| {
        // The index has few rows or none; without it each start would read the whole table.
        tx.find_by_index().await?;
        tx.query(PAIRS, &[]).await
    };
    for row in database.transaction(PoolClass::Record, found).await? {
        let (id, other_id): (i64, i64) = (get(&row, 0)?, get(&row, 2)?);
        let (reference, other): (&str, &str) = (get(&row, 1)?, get(&row, 3)?);
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
