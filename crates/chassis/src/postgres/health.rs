//! Whether the database can be used now: looked at in the background, answered from memory. A look tries what callers
//! need, a durable write on each kind of connection. The database is of no use below the schema that is needed, as a
//! standby, read-only, in another encoding, or when no commit can be durable. Rights are looked for once a statement was
//! denied, since a role may hold fewer than it was granted. Knows no step's meaning.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::types::Type;

use super::migrate::{check_encoding, read_applied, table};
use super::{Inner, PgError, PoolClass, Postgres, Result, get};
use crate::admin::Unmet;
use crate::error_chain;
use crate::schema::{check, relations};

/// Interval of checks of a usable database.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Interval of checks of an unusable database, and the longest time until a failure is noticed.
const LOOK_SOON: Duration = Duration::from_millis(250);

/// Time limit of a check, waiting for a connection included; together with [`LOOK_EVERY`] less than ten seconds.
const LOOK_WITHIN: Duration = Duration::from_millis(4500);

const LOOK: &str = "SELECT current_setting('full_page_writes'), current_setting('fsync'), \
    pg_is_in_recovery(), to_regclass($1) IS NOT NULL, current_setting('server_encoding'), \
    current_setting('default_transaction_read_only')";

const READ_ONLY: &str = "its transactions are read-only (default_transaction_read_only = on): it takes no writes until \
    that is off; a managed server sets it when its disk is nearly full";

/// A durable write that needs no table and no right, and leaves nothing behind.
const WRITE: &str =
    "SELECT current_setting('transaction_read_only'), pg_logical_emit_message(true, $1, '')::text";

/// What the role may not do with the tables and sequences `$1`, and its name.
const LACKING: &str = "SELECT current_user::text, string_agg(privilege || ' on ' || name, ', ' ORDER BY name, privilege) \
    FROM (SELECT c.oid, c.relname::text AS name, c.relkind = 'S' AS is_sequence, unnest(CASE c.relkind \
        WHEN 'S' THEN '{USAGE}'::text[] ELSE '{SELECT,INSERT,UPDATE,DELETE}'::text[] END) AS privilege \
        FROM unnest($1) AS wanted (name) JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)) AS needed \
    WHERE NOT CASE WHEN is_sequence THEN has_sequence_privilege(oid, privilege) \
        ELSE has_table_privilege(oid, privilege) END";

/// Result of the last check; `None` before the first.
pub(super) type State = Option<std::result::Result<(), Unmet>>;

#[derive(Debug)]
pub(super) struct Health {
    states: watch::Sender<State>,
    /// A statement was denied, and no look has found every right since.
    is_denied: AtomicBool,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { states: watch::Sender::new(None), is_denied: AtomicBool::new(false) }
    }

    pub(super) fn states(&self) -> watch::Receiver<State> {
        self.states.subscribe()
    }

    /// A statement was denied: the next look names the rights that are missing.
    pub(super) fn deny(&self) {
        self.is_denied.store(true, Ordering::Relaxed);
    }

    fn note(&self, found: std::result::Result<(), Unmet>) {
        let before = self.states.send_replace(Some(found.clone()));
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

/// Checks the database until it is dropped.
pub(super) async fn run_health_loop(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let database = Postgres(inner);
        match tokio::time::timeout(LOOK_WITHIN, probe_database(&database)).await {
            // A pool that is fully in use is no sign of trouble.
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

fn code(error: &PgError) -> &'static str {
    match error {
        PgError::NotDurable => "not-durable",
        PgError::Schema(_) | PgError::Refused(_) => "schema",
        PgError::Denied(_) => "rights",
        PgError::Corrupt(_) => "corrupt",
        _ => "unreachable",
    }
}

async fn probe_database(database: &Postgres) -> Result<std::result::Result<(), Unmet>> {
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
    let steps = if get(row, 3)? { read_applied(database).await? } else { Vec::new() };
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
        Ok(_) => match missing_rights(database).await? {
            Some(text) => Ok(unmet("rights", text)),
            None => write(database, schema.service).await,
        },
    }
}

/// After a denied statement: which rights are missing, until none is.
async fn missing_rights(database: &Postgres) -> Result<Option<String>> {
    if !database.0.health.is_denied.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let wanted: Vec<&str> = relations(database.0.schema.steps).collect();
    let rows = database.read(PoolClass::Claim, LACKING, &[(&wanted, Type::TEXT_ARRAY)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let Some(rights) = get::<Option<&str>>(row, 1)? else {
        database.0.health.is_denied.store(false, Ordering::Relaxed);
        return Ok(None);
    };
    let role: &str = get(row, 0)?;
    Ok(Some(format!("its role {role} lacks {rights}: grant it, or connect with the role that has it")))
}

/// Tries a write on each kind of connection, since their routes to the server may differ.
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
