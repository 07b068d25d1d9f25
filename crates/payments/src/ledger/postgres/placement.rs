//! Where the ledger is, as the server itself reports it, compared with the place that the ledger has stored. The
//! statement that writes charges contains the same comparison, so that a failover between two statements executes
//! nothing. Decides nothing: `failover` judges.

use std::sync::{Arc, Weak};
use std::time::Duration;

use chassis::postgres::{PgError, PoolClass, Postgres, Row, Type, get};
use tokio::sync::watch;

use crate::ledger::failover::{Failover, Place, Verdict, is_left_behind, judge_place};
use crate::ledger::{LedgerError, LedgerId, Result};

/// Adds the columns of the stored place to the ledger's one row in `ledger_meta`.
pub(super) const MIGRATION: &str = "ALTER TABLE ledger_meta ADD COLUMN IF NOT EXISTS system_identifier text, \
    ADD COLUMN IF NOT EXISTS timeline bigint, ADD COLUMN IF NOT EXISTS table_oid bigint";

/// The current place: three values of the server that executes the statement, which any role may read. The timeline is
/// that of the next write: after a promotion the control file has the old one until the first checkpoint.
const CURRENT: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier, \
    ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint AS timeline, \
    to_regclass('ledger')::oid::bigint AS table_oid";

/// Interval of checks whether the ledger has moved.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Interval of these checks while the ledger does not execute charges.
const LOOK_SOON: Duration = Duration::from_millis(500);

/// What this process knows about the place. Writers and readiness share it.
#[derive(Debug)]
pub(super) struct Placement {
    database: Postgres,
    id: LedgerId,
    failover: Failover,
    serving: watch::Sender<Serving>,
    id_changed: watch::Sender<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Serving {
    /// The server has not been asked yet.
    Unknown,
    At(Place),
    /// The server does not report its place, and the operator has stated that no failover loses anything.
    Unchecked,
    /// Charges are not executed; `before` is the last place where they were.
    No {
        why: String,
        before: Option<Place>,
    },
}

/// The result of a check: whether charges may be executed now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Serving,
    NotServing(String),
    IdChanged,
}

/// The comparison for a statement that reads `ledger_meta`, and its three parameters.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) condition: String,
    pub(super) place: Place,
}

impl Placement {
    /// Checks the place for the first time, and then regularly while this exists.
    pub(super) async fn open(
        database: &Postgres,
        id: LedgerId,
        failover: Failover,
    ) -> std::result::Result<Arc<Self>, PgError> {
        let (serving, id_changed) = (watch::Sender::new(Serving::Unknown), watch::Sender::new(false));
        let placement = Arc::new(Self { database: database.clone(), id, failover, serving, id_changed });
        placement.check_place().await?;
        tokio::spawn(watch_over(Arc::downgrade(&placement)));
        Ok(placement)
    }

    /// Whether charges are executed, from memory.
    pub(super) fn is_serving(&self) -> impl Fn() -> std::result::Result<(), String> + Send + Sync + use<> {
        let serving = self.serving.subscribe();
        move || match &*serving.borrow() {
            Serving::No { why, .. } => Err(why.clone()),
            Serving::Unknown | Serving::At(_) | Serving::Unchecked => Ok(()),
        }
    }

    /// Fails with the reason unless charges are executed.
    pub(super) fn serve(&self) -> Result<()> {
        self.is_serving()().map_err(LedgerError::NotServing)
    }

    /// Ends when the ledger has another id than this process knows.
    pub(super) fn id_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut id_changed = self.id_changed.subscribe();
        async move {
            if id_changed.wait_for(|id_changed| *id_changed).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The comparison for a statement, with parameters from `first` on; `None` where the server does not report its
    /// place.
    pub(super) fn gate(&self, first: usize) -> Option<Gate> {
        let place = match &*self.serving.borrow() {
            Serving::At(place) => place.clone(),
            Serving::Unknown | Serving::Unchecked | Serving::No { .. } => return None,
        };
        let (cluster, timeline, table) = (first, first + 1, first + 2);
        let condition = format!(
            " AND (system_identifier, timeline, table_oid) = (${cluster}, ${timeline}, ${table}) \
             AND (system_identifier, timeline, table_oid) = ({CURRENT})"
        );
        Some(Gate { condition, place })
    }

    /// Asks the server for the place, and stores it in the ledger if the verdict is to remember it.
    pub(super) async fn check_place(&self) -> std::result::Result<Look, PgError> {
        let (stored, current) = match stored_and_current(&self.database).await {
            Ok((stored, current)) => (stored, Ok(current)),
            Err(PgError::Refused(source) | PgError::Denied(source)) => {
                (read_stored_place(&self.database).await?, Err(source.to_string()))
            }
            Err(error) => return Err(error),
        };
        let before = self.before();
        // This check comes before that of the id: a process that ends because of the id would forget that the server is
        // left behind, and would charge there.
        let left_behind = current.as_ref().ok().and_then(|current| is_left_behind(before.as_ref(), current));
        if let Some(moved) = left_behind {
            let why = moved.advice();
            self.set_serving(Serving::No { why: why.clone(), before });
            return Ok(Look::NotServing(why));
        }
        if stored.0 != self.id.to_string() {
            self.id_changed.send_replace(true);
            return Ok(Look::IdChanged);
        }
        let current = match current {
            Ok(current) => current,
            Err(reason) => return Ok(self.decide_unchecked(&reason)),
        };
        match judge_place(before.as_ref(), stored.1.as_ref(), &current, self.failover) {
            Verdict::Serve => {}
            Verdict::Remember => {
                store_place(&self.database, self.id, &current).await?;
                tracing::info!(place = %current, "the ledger remembers where it is");
            }
            Verdict::NotServing(moved) => {
                let why = moved.advice();
                self.set_serving(Serving::No { why: why.clone(), before });
                return Ok(Look::NotServing(why));
            }
        }
        self.set_serving(Serving::At(current));
        Ok(Look::Serving)
    }

    fn decide_unchecked(&self, reason: &str) -> Look {
        if self.failover == Failover::Synchronous {
            self.set_serving(Serving::Unchecked);
            return Look::Serving;
        }
        let why = format!(
            "the ledger does not execute charges: the server does not tell its system identifier and timeline, by \
             which a restore and a promotion are known ({reason}). Grant this role EXECUTE on pg_control_system(), \
             pg_current_wal_insert_lsn() and pg_walfile_name(pg_lsn), or, only if no failover and no restore loses a \
             commit here, set --ledger-failover synchronous (LEDGER_FAILOVER)"
        );
        self.set_serving(Serving::No { why: why.clone(), before: self.before() });
        Look::NotServing(why)
    }

    fn before(&self) -> Option<Place> {
        match &*self.serving.borrow() {
            Serving::At(place) => Some(place.clone()),
            Serving::No { before, .. } => before.clone(),
            Serving::Unknown | Serving::Unchecked => None,
        }
    }

    fn set_serving(&self, now: Serving) {
        let before = self.serving.send_replace(now.clone());
        if before == now {
            return;
        }
        match (&before, &now) {
            (_, Serving::No { why, .. }) => tracing::error!(why, "the ledger does not execute charges"),
            (_, Serving::Unchecked) => {
                tracing::warn!(
                    "the server does not tell where it is: no restore and no promotion is noticed"
                );
            }
            (Serving::No { .. }, _) => tracing::info!("the ledger executes charges again"),
            _ => {}
        }
    }
}

async fn watch_over(placement: Weak<Placement>) {
    loop {
        let pause = match placement.upgrade() {
            Some(placement) if placement.serve().is_ok() => LOOK_EVERY,
            Some(_) => LOOK_SOON,
            None => return,
        };
        tokio::time::sleep(pause).await;
        let Some(placement) = placement.upgrade() else { return };
        if let Err(error) = placement.check_place().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "where the ledger is cannot be asked");
        }
    }
}

/// The id and the place that the ledger has stored.
async fn read_stored_place(database: &Postgres) -> std::result::Result<(String, Option<Place>), PgError> {
    let query = "SELECT ledger_id, system_identifier, timeline, table_oid FROM ledger_meta";
    let rows = database.read(PoolClass::Claim, query, &[]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("ledger_meta has {} rows", rows.len())));
    };
    read_stored(row)
}

/// The stored and the current place, read by one statement, so that they are of one server.
async fn stored_and_current(
    database: &Postgres,
) -> std::result::Result<((String, Option<Place>), Place), PgError> {
    let query = format!(
        "SELECT m.ledger_id, m.system_identifier, m.timeline, m.table_oid, \
         c.system_identifier, c.timeline, c.table_oid FROM ledger_meta AS m CROSS JOIN ({CURRENT}) AS c"
    );
    let rows = database.read(PoolClass::Claim, &query, &[]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("ledger_meta has {} rows", rows.len())));
    };
    let current = Place { system_identifier: get(row, 4)?, timeline: get(row, 5)?, table: get(row, 6)? };
    Ok((read_stored(row)?, current))
}

fn read_stored(row: &Row) -> std::result::Result<(String, Option<Place>), PgError> {
    let place = match (get::<Option<String>>(row, 1)?, get(row, 2)?, get(row, 3)?) {
        (Some(system_identifier), Some(timeline), Some(table)) => {
            Some(Place { system_identifier, timeline, table })
        }
        _ => None,
    };
    Ok((get(row, 0)?, place))
}

async fn read_current_place(database: &Postgres) -> std::result::Result<Place, PgError> {
    let rows = database.read(PoolClass::Claim, CURRENT, &[]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("the server is in {} places", rows.len())));
    };
    Ok(Place { system_identifier: get(row, 0)?, timeline: get(row, 1)?, table: get(row, 2)? })
}

/// Stores the place only while it is the current one: after a failover in between, the statement changes no row.
async fn store_place(database: &Postgres, id: LedgerId, place: &Place) -> std::result::Result<(), PgError> {
    let update = format!(
        "UPDATE ledger_meta SET system_identifier = $2, timeline = $3, table_oid = $4 \
         WHERE ledger_id = $1 AND ($2, $3, $4) = ({CURRENT})"
    );
    let params: &[chassis::postgres::Param<'_>] = &[
        (&id.to_string(), Type::TEXT),
        (&place.system_identifier, Type::TEXT),
        (&place.timeline, Type::INT8),
        (&place.table, Type::INT8),
    ];
    database.write(PoolClass::Record, &update, params).await.map(drop)
}

/// Gives the ledger a new id, and stores its current place.
pub(super) async fn store_new_id(database: &Postgres, id: LedgerId) -> std::result::Result<usize, PgError> {
    let place = match read_current_place(database).await {
        Ok(place) => Some(place),
        Err(PgError::Refused(_) | PgError::Denied(_)) => None,
        Err(error) => return Err(error),
    };
    let update = "UPDATE ledger_meta SET ledger_id = $1, system_identifier = $2, timeline = $3, table_oid = $4 \
        RETURNING ledger_id";
    let params: &[chassis::postgres::Param<'_>] = &[
        (&id.to_string(), Type::TEXT),
        (&place.as_ref().map(|place| place.system_identifier.as_str()), Type::TEXT),
        (&place.as_ref().map(|place| place.timeline), Type::INT8),
        (&place.as_ref().map(|place| place.table), Type::INT8),
    ];
    database.write(PoolClass::Record, update, params).await.map(|rows| rows.len())
}
