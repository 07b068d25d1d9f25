//! Availability of the database: checked in the background, returned from memory. It is not usable below
//! the schema that is needed, as a standby, or when no commit can be durable: of that each write learns by itself, and
//! at once (`begin`). Knows no step's meaning.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::types::Type;

use super::migrate::{applied, table};
use super::{Inner, PgError, PoolClass, Postgres, Result, get};
use crate::schema::check;

/// Interval of checks of a usable database.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Interval of checks of an unusable one, and the longest time until a failure is noticed.
const LOOK_SOON: Duration = Duration::from_millis(250);

const LOOK: &str = "SELECT current_setting('full_page_writes'), current_setting('fsync'), \
    pg_is_in_recovery(), to_regclass($1) IS NOT NULL";

/// Result of the last check; `None` before the first.
pub(super) type State = Option<std::result::Result<(), String>>;

#[derive(Debug)]
pub(super) struct Health(watch::Sender<State>);

impl Health {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    fn note(&self, found: std::result::Result<(), String>) {
        let before = self.0.send_replace(Some(found.clone()));
        match (before, found) {
            (Some(Ok(())) | None, Err(why)) => tracing::warn!(why, "The database cannot be used"),
            (Some(Err(_)), Ok(())) => tracing::info!("The database can be used again"),
            _ => {}
        }
    }
}

/// The last result as text for operators.
pub(super) fn verdict(state: &State) -> std::result::Result<(), String> {
    state.clone().unwrap_or_else(|| Err("not checked yet".to_owned()))
}

/// Looks until the database is dropped.
pub(super) async fn watch(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let database = Postgres(inner);
        match look(&database).await {
            // A pool that is in use is no sign of trouble.
            Err(PgError::Busy) => {}
            Ok(found) => database.0.health.note(found),
            Err(error) => database.0.health.note(Err(error_chain(&error))),
        }
        let pause = if database.is_usable()().is_ok() { LOOK_EVERY } else { LOOK_SOON };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = database.0.trouble.notified() => tokio::time::sleep(LOOK_SOON).await,
        }
    }
}

/// With the reason behind it, which names no secret.
fn error_chain(error: &PgError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        text = format!("{text}: {reason}");
        source = reason.source();
    }
    text
}

async fn look(database: &Postgres) -> Result<std::result::Result<(), String>> {
    let schema = database.0.schema;
    let table = table(schema.service);
    let rows = database.read(PoolClass::Claim, LOOK, &[(&table, Type::TEXT)]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("a look answered {} rows", rows.len())));
    };
    for (column, setting) in ["full_page_writes", "fsync"].into_iter().enumerate() {
        if get::<&str>(row, column)? == "off" {
            return Ok(Err(format!(
                "it runs with {setting} = off, so that a crash would lose what it commits; nothing is written until \
                 {setting} is on (ALTER SYSTEM SET {setting} = on, then SELECT pg_reload_conf())"
            )));
        }
    }
    if get(row, 2)? {
        return Ok(Err("it is a standby and takes no writes".to_owned()));
    }
    let steps = if get(row, 3)? { applied(database).await? } else { Vec::new() };
    let needed = schema.steps.len();
    Ok(match check(&steps, schema.steps) {
        Err(why) => Err(why),
        Ok(found) if found < needed => Err(format!(
            "its schema is at step {found}, and this program needs step {needed}: run `{} migrate`",
            schema.service
        )),
        Ok(_) => Ok(()),
    })
}
