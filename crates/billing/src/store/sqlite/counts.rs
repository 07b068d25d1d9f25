//! Invoices by state, kept while they change, so that a million rows need no counting.
//!
//! Triggers keep `invoice_counts` for statements typed by hand. The store's own writer turns them off, for they make
//! each single-row statement copy the pages that it touches, and adds up a job's moves to one statement instead.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};

use super::rows;
use crate::invoice::InvoiceState;
use crate::store::Counts;

/// From here on this connection's jobs record their own [`Moves`].
pub(super) fn take_over(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map(drop)
}

pub(super) fn read(connection: &Connection) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    let mut statement = connection.prepare_cached("SELECT state, invoices FROM invoice_counts")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        *of_state(&mut counts, rows::word(row, 0, |text| text.parse::<InvoiceState>().ok())?) = row.get(1)?;
    }
    Ok(counts)
}

fn of_state(counts: &mut Counts, state: InvoiceState) -> &mut i64 {
    match state {
        InvoiceState::Pending => &mut counts.pending,
        InvoiceState::Charging => &mut counts.charging,
        InvoiceState::Paid => &mut counts.paid,
        InvoiceState::Attention => &mut counts.attention,
    }
}

/// How many invoices one job moved into (or, negative, out of) each state.
#[derive(Default)]
pub(super) struct Moves(Counts);

impl Moves {
    pub(super) fn create(&mut self, state: InvoiceState) {
        *of_state(&mut self.0, state) += 1;
    }

    pub(super) fn change(&mut self, from: InvoiceState, to: InvoiceState, invoices: i64) {
        *of_state(&mut self.0, from) -= invoices;
        *of_state(&mut self.0, to) += invoices;
    }

    /// At the end of the job, in its transaction.
    pub(super) fn record(mut self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE invoice_counts SET invoices = invoices + ?2 WHERE state = ?1";
        for &state in InvoiceState::ALL {
            let moved = *of_state(&mut self.0, state);
            if moved != 0 {
                let changed = connection.prepare_cached(sql)?.execute(params![state.as_str(), moved])?;
                rows::one_row(changed, "each state has its count")?;
            }
        }
        Ok(())
    }
}
