//! Attempts by their key alone, in SQLite. Only the keys of attempts that are neither CHARGED nor REFUSED are indexed:
//! keys are hashes, so with an index of all keys each insert would write to another page. Decides nothing.

use rusqlite::Connection;

use super::{Columns, list, one};
use crate::invoice::InvoiceId;
use crate::protocol::key::Key;
use crate::store::located::{Located, Wanted};

/// Conditions that find `a` by its key `$1`: by the index, then by reading all attempts.
pub(super) const BY_KEY: &[&str] =
    &["a.key = $1 AND a.state <> 'CHARGED' AND a.state <> 'REFUSED'", "a.key = $1"];

/// Finds an attempt by its key alone; [`ANY_WITH_KEY`] also finds CHARGED and REFUSED ones.
pub(super) const UNSETTLED_WITH_KEY: &str =
    "SELECT invoice_id, number FROM attempts WHERE key = ?1 AND state <> 'CHARGED' AND state <> 'REFUSED'";

/// Finds attempts in any state by reading all attempts, once for any number of keys.
const ANY_WITH_KEY: &str =
    "SELECT key, invoice_id, number FROM attempts WHERE key IN (SELECT value FROM json_each(?1))";

pub(super) const OF_INVOICE_WITH_KEY: &str = "SELECT a.invoice_id, a.number FROM invoices AS i
     CROSS JOIN attempts AS a ON a.invoice_id = i.id WHERE i.reference = ?2 AND a.key = ?1";

pub(super) fn locate(connection: &Connection, wanted: &[Wanted<'_>]) -> rusqlite::Result<Vec<Located>> {
    let (mut located, mut left) = (Vec::with_capacity(wanted.len()), Vec::new());
    for Wanted { key, reference } in wanted {
        let place = |row: &rusqlite::Row<'_>| Ok((InvoiceId(row.integer(0)?), row.count(1)?));
        let found = match reference {
            Some(name) => one(connection, OF_INVOICE_WITH_KEY, [key.as_str(), name.as_str()], place)?,
            None => one(connection, UNSETTLED_WITH_KEY, [key.as_str()], place)?,
        };
        match found {
            Some((invoice, number)) => located.push(Located { key: Key::clone(key), invoice, number }),
            None if reference.is_none() => left.push(key.as_str()),
            None => {}
        }
    }
    if !left.is_empty() {
        let left = serde_json::Value::from(left).to_string();
        located.extend(list(connection, ANY_WITH_KEY, [left], |row| {
            let (key, invoice) = (row.parsed(0, Key::parse)?, InvoiceId(row.integer(1)?));
            Ok(Located { key, invoice, number: row.count(2)? })
        })?);
    }
    Ok(located)
}

/// Adds the invoice to decisions that the previous version recorded after this one had already run.
const NAME_INVOICES: &str = "UPDATE resolutions SET invoice_id = (SELECT a.invoice_id FROM attempts AS a
     WHERE a.key = resolutions.key) WHERE invoice_id IS NULL";

/// Called at the start.
pub(super) fn name_invoices(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(NAME_INVOICES, []).map(drop)
}
