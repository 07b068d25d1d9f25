//! What operators set at run time, and the counts of faults, in PostgreSQL: every replica uses the same rows. Decides
//! nothing about these settings.

use chassis::postgres::{NOW_MS, PgError, PoolClass, Row as SqlRow, Type, get};

use super::{PostgresLedger, to_ledger_error};
use crate::controls::{Control, ControlRow, ControlStore};
use crate::faults::FaultCounts;
use crate::ledger::Result;

const ALL: &str = "SELECT name, value, revision, set_at FROM run_time_settings";

#[async_trait::async_trait]
impl ControlStore for PostgresLedger {
    async fn controls(&self) -> Result<Vec<ControlRow>> {
        let rows = self.database.read(PoolClass::Claim, ALL, &[]).await.map_err(to_ledger_error)?;
        // Settings of a later version are skipped.
        let rows = rows.iter().filter_map(|row| read_row(row).transpose());
        rows.collect::<std::result::Result<_, _>>().map_err(to_ledger_error)
    }

    async fn set_control(&self, control: Control, value: Option<String>) -> Result<ControlRow> {
        self.placement.serve()?;
        let forget = match control {
            Control::Faults => "WITH forgotten AS (DELETE FROM fault_counts) ",
            Control::Rates => "",
        };
        let sql = format!(
            "{forget}INSERT INTO run_time_settings AS s (name, value, revision, set_at) VALUES ($1, $2, 1, {NOW_MS}) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, revision = s.revision + 1, \
               set_at = excluded.set_at RETURNING name, value, revision, set_at"
        );
        let set = [(&control.as_str() as _, Type::TEXT), (&value as _, Type::TEXT)];
        let rows = self.database.write(PoolClass::Claim, &sql, &set).await.map_err(to_ledger_error)?;
        let row = rows.first().map(read_row).transpose().map_err(to_ledger_error)?.flatten();
        row.ok_or_else(|| to_ledger_error(PgError::Corrupt(format!("{} was not set", control.as_str()))))
    }
}

#[async_trait::async_trait]
impl FaultCounts for PostgresLedger {
    async fn count(&self, script: &str, subject: &str, at_least: u32) -> Result<u32> {
        let sql = "INSERT INTO fault_counts AS c (script, subject, count) VALUES ($1, $2, $3) \
            ON CONFLICT (script, subject) DO UPDATE SET count = greatest(c.count + 1, excluded.count) RETURNING count";
        let at_least = i64::from(at_least);
        let counted = [(&script as _, Type::TEXT), (&subject as _, Type::TEXT), (&at_least as _, Type::INT8)];
        let rows = self.database.write(PoolClass::Claim, sql, &counted).await.map_err(to_ledger_error)?;
        let count = rows.first().map(|row| get::<i64>(row, 0)).transpose().map_err(to_ledger_error)?;
        let count =
            count.ok_or_else(|| to_ledger_error(PgError::Corrupt(format!("{subject} was not counted"))))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

fn read_row(row: &SqlRow) -> std::result::Result<Option<ControlRow>, PgError> {
    let Some(control) = Control::parse(get(row, 0)?) else { return Ok(None) };
    Ok(Some(ControlRow { control, value: get(row, 1)?, revision: get(row, 2)?, set_at_ms: get(row, 3)? }))
}
