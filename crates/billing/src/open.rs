//! Opens the store that the settings name, or brings its schema up to date. The only place that knows which stores
//! there are; nothing else of the service does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::admin::Readiness;
use chassis::clock::{Clock, Random};
use chassis::config::DatabaseUrl;
use chassis::postgres::{Postgres, PostgresSettings};
use chassis::tls::TlsMetrics;

use crate::config::Config;
use crate::store::postgres::{OpenError, PostgresStore, SCHEMA};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

/// How long an opening that found the database gone waits before it looks again.
const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// Brings the schema up to date and opens the store.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match &config.common.database_url {
        DatabaseUrl::Sqlite(path) => Ok(Arc::new(sqlite(config, path).await?)),
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, None)?;
            database.migrate().await.with_context(|| format!("cannot migrate {settings:?}"))?;
            postgres(config, &database).await
        }
    }
}

/// Opens the store, watched by readiness. SQLite is brought up to date; PostgreSQL is waited for until it is, by
/// `billing migrate`, and as long as it is away.
pub(crate) async fn open(
    config: &Config,
    metrics: &TlsMetrics,
    readiness: &Readiness,
) -> anyhow::Result<Arc<dyn Store>> {
    match &config.common.database_url {
        DatabaseUrl::Sqlite(path) => {
            let store = sqlite(config, path).await?;
            readiness.check("store", store.is_writable());
            Ok(Arc::new(store))
        }
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, Some(metrics))?;
            readiness.check("store", database.is_usable());
            postgres(config, &database).await
        }
    }
}

fn connect(settings: &PostgresSettings, metrics: Option<&TlsMetrics>) -> anyhow::Result<Postgres> {
    Ok(Postgres::open(settings, SCHEMA, metrics, Random::system())?)
}

async fn sqlite(config: &Config, path: &Path) -> anyhow::Result<SqliteStore> {
    SqliteStore::open(path, config.deployment, Clock::system(), &Random::system())
        .await
        .with_context(|| format!("cannot open the store {}", path.display()))
}

async fn postgres(config: &Config, database: &Postgres) -> anyhow::Result<Arc<dyn Store>> {
    loop {
        database.wait_until_usable().await;
        match PostgresStore::open(database.clone(), config.deployment, Random::system().uuid()).await {
            Ok(store) => return Ok(Arc::new(store)),
            Err(OpenError::Store(error @ StoreError::Unavailable(_))) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the store cannot be opened yet");
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot open the store {:?}", config.common.database_url));
            }
        }
    }
}
