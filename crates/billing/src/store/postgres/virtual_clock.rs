//! A simulation's clock in PostgreSQL: the mark of a store that was created with such a clock, and its time, which each
//! process copies from the simulation's file into the database. Knows no row that has a time.

use std::time::Duration;

use chassis::clock::{Clock, VirtualClock};
use chassis::postgres::{PgError, PoolClass, Postgres, Result, Tx, Type, get};
use chassis::schema::check_clock;

/// The longest lag of the database behind the file.
const CARRY_EVERY: Duration = Duration::from_millis(10);

/// Replaces the function of the first step only in such stores, because it reads a table. The row is found by its key:
/// a scan would make claims so expensive for the planner that each call would be compiled, which takes a fifth of a
/// second.
const NOW: &str = "CREATE OR REPLACE FUNCTION billing_now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + (SELECT ahead_ms FROM virtual_clock WHERE one = 1) $$";

const MARK: &str = "INSERT INTO virtual_clock (one, ahead_ms)
    SELECT 1, $1 WHERE NOT EXISTS (SELECT 1 FROM deployment) ON CONFLICT DO NOTHING";

const MARKS: &str = "SELECT count(*) FROM virtual_clock";

/// Never sets the time back: a process that was paused may write an old time.
const CARRY: &str = "UPDATE virtual_clock SET ahead_ms = $1 WHERE ahead_ms < $1 RETURNING 1";

/// Marks a new store if the clock is virtual, before the store gets its deployment id. The error text says that the
/// store has the other kind of clock.
pub(super) async fn prepare(database: &Postgres, clock: &Clock) -> Result<std::result::Result<(), String>> {
    if let Some(clock) = clock.as_virtual() {
        let ahead_ms = clock.ahead_ms();
        let mark = |tx: Tx| async move {
            if tx.execute(MARK, &[(&ahead_ms, Type::INT8)]).await? > 0 {
                tx.execute(NOW, &[]).await?;
            }
            Ok(())
        };
        database.transaction(PoolClass::Record, mark).await?;
        carry(database, clock).await?;
    }
    let rows = database.read(PoolClass::Record, MARKS, &[]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt("a count is one row".to_owned()));
    };
    let marks: i64 = get(row, 0)?;
    Ok(check_clock(marks > 0, clock.as_virtual().is_some()))
}

async fn carry(database: &Postgres, clock: &VirtualClock) -> Result<()> {
    database.write(PoolClass::Record, CARRY, &[(&clock.ahead_ms(), Type::INT8)]).await.map(drop)
}

/// Copies the simulation's time into the database for ever.
pub(super) async fn follow(database: Postgres, clock: Clock) {
    let Some(clock) = clock.as_virtual() else { return };
    let mut carried_ms = None;
    loop {
        tokio::time::sleep(CARRY_EVERY).await;
        let ahead_ms = clock.ahead_ms();
        if carried_ms == Some(ahead_ms) {
            continue;
        }
        match carry(&database, clock).await {
            Ok(()) => carried_ms = Some(ahead_ms),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "carrying the virtual clock into the database failed, retrying");
            }
        }
    }
}
