//! The sums charged on each day, in SQLite: the writer adds to them, and the start of the program counts again if
//! charges are missing.

use rusqlite::{Connection, params};

use super::{Columns, one};
use crate::invoice::AttemptState;
use crate::store::changeset::Changeset;
use crate::store::charged_days::{ChargedSums, DAY_MS};

const MONEY: &str = "SELECT currency, amount_minor FROM attempts WHERE invoice_id = ?1 AND number = ?2";

/// An amount stops at the limit of the column instead of failing.
pub(super) const ADD: &str = "INSERT INTO charged_days (day, currency, charges, amount_minor) VALUES (?1, ?2, ?3, ?4)
     ON CONFLICT (day, currency) DO UPDATE SET charges = charges + excluded.charges,
         amount_minor = min(max(amount_minor + excluded.amount_minor, -9223372036854775808), 9223372036854775807)";

/// Adds to the sums, because the writer's connection has its triggers off. All settlements of one changeset are on one
/// day.
pub(super) fn add(connection: &Connection, changes: &Changeset, now: i64) -> rusqlite::Result<()> {
    let mut sums = ChargedSums::default();
    for adopted in changes.adopted.iter().filter(|adopted| adopted.state == AttemptState::Charged) {
        sums.add(adopted.money);
    }
    for change in changes.attempts.iter().filter(|change| change.charges()) {
        let place = params![change.read.invoice.0, change.read.number];
        if let Some(money) = one(connection, MONEY, place, |row| row.money(0))? {
            sums.add(money);
        }
    }
    for (currency, charges, amount_minor) in sums.iter() {
        let day = now.div_euclid(DAY_MS);
        connection.prepare_cached(ADD)?.execute(params![day, currency.code(), charges, amount_minor])?;
    }
    Ok(())
}

/// Whether each CHARGED attempt is counted, by the index of CHARGED attempts alone.
const ARE_WHOLE: &str = "SELECT (SELECT count(*) FROM attempts WHERE state = 'CHARGED')
     = (SELECT coalesce(sum(charges), 0) FROM charged_days)";

/// Counts all charges again if an older version, which did not know the sums, has charged.
pub(super) fn recount_if_behind(connection: &Connection) -> rusqlite::Result<()> {
    if connection.query_row(ARE_WHOLE, [], |row| row.get(0))? {
        return Ok(());
    }
    connection.execute("DELETE FROM charged_days", [])?;
    let mut attempts = connection
        .prepare("SELECT currency, amount_minor, settled_at FROM attempts WHERE state = 'CHARGED'")?;
    let mut found = attempts.query([])?;
    let mut add = connection.prepare(ADD)?;
    while let Some(row) = found.next()? {
        let (currency, amount_minor): (String, i64) = (row.get(0)?, row.get(1)?);
        let settled_at: i64 = row.get(2)?;
        add.execute(params![settled_at.div_euclid(DAY_MS), currency, 1, amount_minor])?;
    }
    Ok(())
}
