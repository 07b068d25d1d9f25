//! The final state of the two databases, read by SQL of its own: it trusts no code of the services.

use billing::protocol::transition::Idempotency;
use chassis::sqlite::Disk;
use serde::{Deserialize, Serialize};

use crate::world::World;

/// Errors, and unfinished work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// References that were charged more than once.
    pub(crate) double: i64,
    /// Invoices that are charged and PENDING, PAID without a charge, or PAID with another amount than charged.
    pub(crate) lost: i64,
    /// Attempts in doubt of invoices that need no manual resolution.
    pub(crate) in_doubt: i64,
    /// Invoices that are still to be charged.
    pub(crate) unpaid: i64,
    /// Invoices that need manual resolution.
    pub(crate) attention: i64,
    /// Charges in the ledger.
    pub(crate) charges: i64,
}

impl Verdict {
    pub(crate) fn of(world: &World) -> Self {
        let charged: Vec<(String, i64, i64)> = rows(
            &world.ledger,
            "SELECT reference, count(*), max(amount_minor) FROM ledger WHERE state = 'CHARGED' GROUP BY reference",
        );
        let invoices: Vec<(String, String, i64)> =
            rows3(&world.billing, "SELECT reference, state, amount_minor FROM invoices");
        let in_doubt = count(
            &world.billing,
            "SELECT count(*) FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
             WHERE a.state IN ('INTENT', 'IN_DOUBT') AND i.state <> 'ATTENTION'",
        );
        let mut verdict = Self { in_doubt, ..Self::default() };
        for (_, charges, _) in &charged {
            verdict.charges += charges;
            verdict.double += i64::from(*charges > 1);
        }
        for (reference, state, amount) in &invoices {
            let charge = charged.iter().find(|(name, ..)| name == reference);
            match (state.as_str(), charge) {
                ("PAID", None) | ("PENDING", Some(_)) => verdict.lost += 1,
                ("PAID", Some((_, _, charged))) if charged != amount => verdict.lost += 1,
                ("ATTENTION", _) => verdict.attention += 1,
                _ => {}
            }
            verdict.unpaid += i64::from(state == "PENDING" || state == "CHARGING");
        }
        verdict
    }

    /// Whether no reference was charged twice.
    pub(crate) fn is_safe(&self) -> bool {
        self.double == 0
    }

    /// Whether everything is settled that needs no operator. With keys no invoice may need one.
    pub(crate) fn is_done(&self, idempotency: Idempotency) -> bool {
        self.unpaid == 0 && self.in_doubt == 0 && (idempotency == Idempotency::None || self.attention == 0)
    }
}

fn rows(disk: &Disk, sql: &str) -> Vec<(String, i64, i64)> {
    let look = disk.inspect(|connection| {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    });
    look.expect("the ledger can be read")
}

fn rows3(disk: &Disk, sql: &str) -> Vec<(String, String, i64)> {
    let look = disk.inspect(|connection| {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    });
    look.expect("the invoices can be read")
}

fn count(disk: &Disk, sql: &str) -> i64 {
    disk.inspect(|connection| connection.query_row(sql, [], |row| row.get(0)))
        .expect("the attempts can be read")
}
