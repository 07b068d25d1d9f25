//! Whether the database can be used now: looked at in the background, answered from memory. A look tries what callers
//! need, a durable write on each kind of connection. The database is of no use below the schema that is needed, as a
//! standby, read-only, in another encoding, or when no commit can be durable. Knows no step's meaning.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::types::Type;

use super::migrate::{applied, check_encoding, table};
use super::{Inner, PgError, PoolClass, Postgres, Result, get};
use crate::admin::Unmet;
use crate::schema::check;

/// Interval of checks of a usable database.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Interval of checks of an unusable one, and the longest time until a failure is noticed.
const LOOK_SOON: Duration = Duration::from_millis(250);

/// How long a look may take, waiting for a connection included: with [`LOOK_EVERY`] less than ten seconds.
const LOOK_WITHIN: Duration = Duration::from_millis(4500);

const LOOK: &str = "SELECT current_setting('full_page_writes'), current_setting('fsync'), \
    pg_is_in_recovery(), to_regclass($1) IS NOT NULL, current_setting('server_encoding'), \
    current_setting('default_transaction_read_only')";

const READ_ONLY: &str = "its transactions are read-only (default_transaction_read_only = on): it takes no writes until \
    that is off; a managed server sets it when its disk is nearly full";

/// A durable write that needs no table and no right, and leaves nothing behind.
const WRITE: &str =
    "SELECT current_setting('transaction_read_only'), pg_logical_emit_message(true, $1, '')::text";

/// Result of the last check; `None` before the first.
pub(super) type State = Option<std::result::Result<(), Unmet>>;

#[derive(Debug)]
pub(super) struct Health(watch::Sender<State>);

impl Health {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    fn note(&self, found: std::result::Result<(), Unmet>) {
        let before = self.0.send_replace(Some(found.clone()));
        match (before, found) {
            (Some(Ok(())) | None, Err(Unmet { text, .. })) => {
                tracing::warn!(why = text, "the database cannot be used")
            }
            (Some(Err(_)), Ok(())) => tracing::info!("the database can be used again"),
            _ => {}
        }
    }
}

/// The last result as text for operators.
pub(super) fn verdict(state: &State) -> std::result::Result<(), Unmet> {
    state.clone().unwrap_or_else(|| unmet("not-looked-at", "not checked yet"))
}

fn unmet(code: &'static str, text: impl Into<String>) -> std::result::Result<(), Unmet> {
    Err(Unmet { code, text: text.into() })
}

/// Looks until the database is dropped.
pub(super) async fn watch(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let database = Postgres(inner);
        match tokio::time::timeout(LOOK_WITHIN, look(&database)).await {
            // A pool that is in use is no sign of trouble.
            Ok(Err(PgError::Busy)) => {}
            Ok(Ok(found)) => database.0.health.note(found),
            Ok(Err(error)) => database.0.health.note(unmet(code(&error), error_chain(&error))),
            Err(_) => {
                let text = format!("the database cannot be used: no durable write within {LOOK_WITHIN:?}");
                database.0.health.note(unmet("unreachable", text));
            }
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

fn code(error: &PgError) -> &'static str {
    match error {
        PgError::NotDurable => "not-durable",
        PgError::Schema(_) | PgError::Refused(_) => "schema",
        PgError::Corrupt(_) => "corrupt",
        _ => "unreachable",
    }
}

async fn look(database: &Postgres) -> Result<std::result::Result<(), Unmet>> {
    let schema = database.0.schema;
    let table = table(schema.service);
    let rows = database.read(PoolClass::Claim, LOOK, &[(&table, Type::TEXT)]).await?;
    let [row] = rows.as_slice() else {
        return Err(PgError::Corrupt(format!("a look answered {} rows", rows.len())));
    };
    for (column, setting) in ["full_page_writes", "fsync"].into_iter().enumerate() {
        if get::<&str>(row, column)? == "off" {
            let text = format!(
                "it runs with {setting} = off, so that a crash would lose what it commits; nothing is written until \
                 {setting} is on (ALTER SYSTEM SET {setting} = on, then SELECT pg_reload_conf())"
            );
            return Ok(unmet("not-durable", text));
        }
    }
    if get(row, 2)? {
        return Ok(unmet("standby", "it is a standby and takes no writes"));
    }
    if let Err(why) = check_encoding(get(row, 4)?) {
        return Ok(unmet("encoding", why));
    }
    if get::<&str>(row, 5)? == "on" {
        return Ok(unmet("read-only", READ_ONLY));
    }
    let steps = if get(row, 3)? { applied(database).await? } else { Vec::new() };
    let needed = schema.steps.len();
    match check(&steps, schema.steps) {
        Err(why) => Ok(unmet("schema", why)),
        Ok(found) if found < needed => {
            let service = schema.service;
            let text = format!(
                "its schema is at step {found}, and this program needs step {needed}: run `{service} migrate`"
            );
            Ok(unmet("schema", text))
        }
        Ok(_) => write(database, schema.service).await,
    }
}

/// On each kind of connection: one of them may come by another way.
async fn write(database: &Postgres, service: &str) -> Result<std::result::Result<(), Unmet>> {
    let prefix = format!("{service} readiness");
    for class in [PoolClass::Claim, PoolClass::Record] {
        let rows = database.write(class, WRITE, &[(&prefix, Type::TEXT)]).await?;
        if rows.first().map_or(Ok(""), |row| get(row, 0))? == "on" {
            return Ok(unmet("read-only", READ_ONLY));
        }
    }
    Ok(Ok(()))
}
