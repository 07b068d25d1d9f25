//! Opens the store that the settings name, or migrates its schema. The only module that knows which databases a store
//! can be in.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::admin::Readiness;
use chassis::clock::Random;
use chassis::config::{DatabaseUrl, SqliteUrl};
use chassis::gate::Usable;
use chassis::postgres::{Postgres, PostgresSettings};
use chassis::tls::TlsMetrics;

use crate::config::Config;
use crate::protocol::key::DeploymentId;
use crate::store::postgres::{OpenError, PostgresStore, SCHEMA};
use crate::store::sqlite::SqliteStore;
use crate::store::{OtherDeployment, Store, StoreError};

/// Pause between tries to open an unavailable database.
const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// Brings the schema up to date and opens the store.
pub(crate) async fn migrate_and_open(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    match &config.common.database_url {
        DatabaseUrl::Sqlite(file) => Ok(Arc::new(open_sqlite(config, file).await?)),
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, None)?;
            database.migrate().await.with_context(|| format!("cannot migrate {settings:?}"))?;
            open_postgres(config, &database).await
        }
    }
}

/// Opens the store and registers its readiness check. Migrates SQLite. Waits for PostgreSQL until it is reachable and
/// `billing migrate` has migrated it. Also returns a check whether the store can be used at a later moment.
pub(crate) async fn open(
    config: &Config,
    metrics: &TlsMetrics,
    readiness: &Readiness,
) -> anyhow::Result<(Arc<dyn Store>, Usable)> {
    match &config.common.database_url {
        DatabaseUrl::Sqlite(file) => {
            let store = open_sqlite(config, file).await?;
            readiness.check("store", store.is_writable());
            let is_writable = store.is_writable();
            let usable: Usable = Arc::new(move || is_writable().map_err(Into::into));
            Ok((Arc::new(store), usable))
        }
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, Some(metrics))?;
            readiness.check("store", database.is_usable());
            Ok((open_postgres(config, &database).await?, Arc::new(database.is_usable())))
        }
    }
}

fn connect(settings: &PostgresSettings, metrics: Option<&TlsMetrics>) -> anyhow::Result<Postgres> {
    Ok(Postgres::open(settings, SCHEMA, metrics, Random::system())?)
}

/// Reads the deployment id of a store that a running service may use: locks and changes nothing.
pub(crate) async fn read_deployment_id(config: &Config) -> anyhow::Result<DeploymentId> {
    let stored = match &config.common.database_url {
        DatabaseUrl::Sqlite(file) => SqliteStore::peek(&file.path)
            .await
            .with_context(|| format!("cannot read the store {}", file.path.display()))?,
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, None)?;
            PostgresStore::peek(&database).await.with_context(|| format!("cannot read {settings:?}"))?
        }
    };
    let stored =
        stored.context("the store has no deployment yet: start billing on it once, then declare it")?;
    match config.deployment {
        Some(given) if given != stored => Err(OtherDeployment { stored: stored.0, given: given.0 }.into()),
        _ => Ok(stored),
    }
}

async fn open_sqlite(config: &Config, file: &SqliteUrl) -> anyhow::Result<SqliteStore> {
    let path = file.existing().map_err(anyhow::Error::msg)?;
    SqliteStore::open(path, config.deployment, config.common.clock.clone(), &Random::system())
        .await
        .with_context(|| format!("cannot open the store {}", path.display()))
}

async fn open_postgres(config: &Config, database: &Postgres) -> anyhow::Result<Arc<dyn Store>> {
    loop {
        database.wait_until_usable().await;
        let (clock, random) = (&config.common.clock, Random::system().uuid());
        match PostgresStore::open(database.clone(), config.deployment, random, clock).await {
            Ok(store) => {
                tokio::spawn(store.follow_clock(clock.clone()));
                return Ok(Arc::new(store));
            }
            Err(OpenError::Store(error @ StoreError::Unavailable(_))) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "opening the store failed, retrying"
                );
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot open the store {:?}", config.common.database_url));
            }
        }
    }
}
