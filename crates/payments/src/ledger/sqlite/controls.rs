//! What operators set at run time, and the counts of faults, in SQLite. Decides nothing about these settings.

use chassis::clock::Clock;
use rusqlite::{Connection, Row as SqlRow, params};

use super::{SqliteLedger, to_ledger_error};
use crate::controls::{Control, ControlRow, ControlStore};
use crate::faults::FaultCounts;
use crate::ledger::Result;

const COUNT: &str = "INSERT INTO fault_counts (script, subject, count) VALUES (?1, ?2, ?3) \
    ON CONFLICT (script, subject) DO UPDATE SET count = max(count + 1, excluded.count) RETURNING count";

const SET: &str = "INSERT INTO run_time_settings (name, value, revision, set_at) VALUES (?1, ?2, 1, ?3) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, revision = revision + 1, set_at = excluded.set_at \
    RETURNING name, value, revision, set_at";

#[async_trait::async_trait]
impl ControlStore for SqliteLedger {
    async fn controls(&self) -> Result<Vec<ControlRow>> {
        self.sqlite.read_short(read).await.map_err(to_ledger_error)
    }

    async fn set_control(&self, control: Control, value: Option<String>) -> Result<ControlRow> {
        self.notes()?;
        let clock = self.clock.clone();
        let set = move |sql: &Connection| set(sql, control, value.as_deref(), &clock);
        self.sqlite.write(set).await.map_err(to_ledger_error)
    }
}

#[async_trait::async_trait]
impl FaultCounts for SqliteLedger {
    async fn count(&self, script: &str, subject: &str, at_least: u32) -> Result<u32> {
        let (script, subject) = (script.to_owned(), subject.to_owned());
        let count = move |sql: &Connection| {
            let counted = params![script, subject, at_least];
            sql.prepare_cached(COUNT)?.query_row(counted, |row| row.get::<_, i64>(0))
        };
        let count = self.sqlite.write_one_statement(count).await.map_err(to_ledger_error)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

fn set(
    sql: &Connection,
    control: Control,
    value: Option<&str>,
    clock: &Clock,
) -> rusqlite::Result<ControlRow> {
    if control == Control::Faults {
        sql.execute("DELETE FROM fault_counts", [])?;
    }
    let set = params![control.as_str(), value, clock.now_ms()];
    sql.prepare_cached(SET)?.query_row(set, |row| read_row(control, row))
}

fn read(sql: &Connection) -> rusqlite::Result<Vec<ControlRow>> {
    let mut statement = sql.prepare_cached("SELECT name, value, revision, set_at FROM run_time_settings")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // Settings of a later version are skipped.
        if let Some(control) = Control::parse(&row.get::<_, String>(0)?) {
            found.push(read_row(control, row)?);
        }
    }
    Ok(found)
}

fn read_row(control: Control, row: &SqlRow<'_>) -> rusqlite::Result<ControlRow> {
    Ok(ControlRow { control, value: row.get(1)?, revision: row.get(2)?, set_at_ms: row.get(3)? })
}
