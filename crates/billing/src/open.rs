//! Opens the store that the settings name, or brings its schema up to date. The only place that knows which stores
//! there are; nothing else of the service does.

use std::sync::Arc;

use anyhow::Context;
use chassis::clock::{Clock, Random};
use chassis::config::DatabaseUrl;
use chassis::postgres::{Postgres, PostgresSettings};
use chassis::shutdown::Shutdown;
use chassis::tls::TlsMetrics;

use crate::config::Config;
use crate::store::Store;
use crate::store::postgres::{PostgresStore, SCHEMA};
use crate::store::sqlite::SqliteStore;

/// A store, ready for use.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// Whether it takes writes now, from memory: for readiness.
    pub(crate) is_usable: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// Brings the schema up to date and opens the store.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<Opened> {
    match &config.common.database_url {
        DatabaseUrl::Sqlite(_) => sqlite(config).await,
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, None)?;
            database.migrate().await.with_context(|| format!("cannot migrate {settings:?}"))?;
            postgres(config, database).await
        }
    }
}

/// Opens the store. SQLite is brought up to date; PostgreSQL is waited for until it is, by `billing migrate`, and as
/// long as it is away. `None` when the service is to end meanwhile.
pub(crate) async fn open(
    config: &Config,
    metrics: &TlsMetrics,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Opened>> {
    let settings = match &config.common.database_url {
        DatabaseUrl::Sqlite(_) => return sqlite(config).await.map(Some),
        DatabaseUrl::Postgres(settings) => settings,
    };
    let database = connect(settings, Some(metrics))?;
    tokio::select! {
        () = database.wait_until_usable() => {}
        () = shutdown.draining() => return Ok(None),
    }
    postgres(config, database).await.map(Some)
}

fn connect(settings: &PostgresSettings, metrics: Option<&TlsMetrics>) -> anyhow::Result<Postgres> {
    Ok(Postgres::open(settings, SCHEMA, metrics, Random::system())?)
}

async fn sqlite(config: &Config) -> anyhow::Result<Opened> {
    let DatabaseUrl::Sqlite(path) = &config.common.database_url else {
        anyhow::bail!("the data lies in no file");
    };
    let store = SqliteStore::open(path, config.deployment, Clock::system(), &Random::system())
        .await
        .with_context(|| format!("cannot open the store {}", path.display()))?;
    let is_usable = Box::new(store.is_writable());
    Ok(Opened { store: Arc::new(store), is_usable })
}

async fn postgres(config: &Config, database: Postgres) -> anyhow::Result<Opened> {
    let is_usable = Box::new(database.is_usable());
    let store = PostgresStore::open(database, config.deployment, Random::system().uuid())
        .await
        .with_context(|| format!("cannot open the store {:?}", config.common.database_url))?;
    Ok(Opened { store: Arc::new(store), is_usable })
}
