//! The payment service: a provider with a durable ledger that executes a key once, and with faults on demand.
//! Depends on `chassis` only; knows no other service's code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use chassis::admin::{LogLevelAccess, Readiness, admin_router};
use chassis::caller::Callers;
use chassis::clock::{Clock, Random};
use chassis::config::{DatabaseUrl, SqliteUrl};
use chassis::gate::{Usable, while_usable};
use chassis::postgres::{Postgres, PostgresSettings};
use chassis::server::{CrossSiteGuard, Limits, Shed};
use chassis::service::{self, Listeners};
use chassis::shutdown::Shutdown;
use chassis::telemetry::{LogHandle, Telemetry, observe};
use chassis::tls::TlsMetrics;

use crate::charge::Charger;
use crate::config::{Command, Config};
use crate::faults::Faults;
use crate::faults::draw::{Odds, Seed};
use crate::http::App;
use crate::ledger::Ledger;
use crate::ledger::failover::Failover;
use crate::ledger::postgres::{self, PostgresLedger};
use crate::ledger::sqlite::SqliteLedger;
use crate::metrics::Counters;

pub mod amount;
mod backup;
pub mod charge;
pub mod config;
pub mod deployments;
pub mod faults;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod metrics;

/// Source revision of the build, if known.
const REVISION: &str = match option_env!("TINJIS_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The whole program: argv (program name first) to exit code. Also behind `tinjis run payments`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let config = match Config::load(args) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if config.command == Command::Healthcheck {
        return service::healthcheck(config.common.admin_listen);
    }
    let log = config.common.log.clone();
    service::program(&log, |log| start(config, log))
}

async fn start(config: Config, log: LogHandle) -> anyhow::Result<()> {
    match config.command {
        Command::Serve => {
            let shutdown = Shutdown::new();
            shutdown.on_signals();
            launch(config, log, shutdown).await
        }
        Command::Migrate => migrate(&config).await,
        Command::NewLedgerId => {
            let id = match &config.common.database_url {
                DatabaseUrl::Sqlite(file) => attach_sqlite(file).await?.renew_id().await?,
                DatabaseUrl::Postgres(settings) => {
                    postgres::renew_id(&connect(settings, None)?, &Random::system()).await?
                }
            };
            tracing::info!(ledger.id = %id, "the ledger has a new id");
            Ok(())
        }
        Command::KeysPerAccount => {
            match &config.common.database_url {
                DatabaseUrl::Sqlite(file) => attach_sqlite(file).await?.make_keys_per_account().await?,
                DatabaseUrl::Postgres(settings) => {
                    let database = connect(settings, None)?;
                    database.migrate().await.context("cannot migrate the database")?;
                    postgres::make_keys_per_account(&database).await?;
                }
            }
            tracing::info!("keys are unique per account, earlier versions can no longer use this ledger");
            Ok(())
        }
        Command::Backup(file) => backup::command(&config.common.database_url, &file),
        Command::Healthcheck => Ok(()),
    }
}

/// Binds both ports and serves until shut down.
///
/// # Errors
/// When a port or the ledger is not available.
pub async fn launch(config: Config, log: LogHandle, shutdown: Shutdown) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config.common).await?;
    serve(config, listeners, log, shutdown).await
}

/// Serves on these ports until shut down.
///
/// # Errors
/// When the ledger cannot be opened.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    log: LogHandle,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let (listen, admin_listen) = listeners.addresses()?;
    let telemetry = Telemetry::new("payments", env!("CARGO_PKG_VERSION"), REVISION);
    let tls = TlsMetrics::new(&telemetry.metrics);
    let listeners = listeners.secure(config.common.tls.as_ref(), &tls)?;
    let callers = Callers::open(config.callers, &Clock::system(), &tls, &telemetry.metrics)?;
    let operators = config.operators.map(|tokens| Callers::by_token(Some(tokens), None)).transpose()?;
    let seed = config.seed.unwrap_or_else(|| Seed(Random::system().u64()));
    if !config.script.rules.is_empty() {
        tracing::warn!(rules = config.script.rules.len(), "a fault script is in force");
    }
    let odds = Odds { seed, success: config.success_rate };
    let faults = Faults::new(seed, config.script);
    let counters = Counters::new(&telemetry.metrics);
    let readiness = Readiness::new(&shutdown);
    let opening = readiness.hold("opening the ledger");
    let access = LogLevelAccess::new(admin_listen, operators.clone());
    let admin = admin_router(&telemetry, readiness.clone(), log, access);
    let routes = async {
        let (ledger, usable) =
            open_ledger(&config.common.database_url, config.failover, &tls, &readiness, &shutdown).await?;
        let ledger_id = ledger.id().await?;
        tracing::info!(%seed, ledger.id = %ledger_id, "decisions are drawn from this seed");
        let charger = Charger::new(Arc::clone(&ledger), odds, faults, counters, shutdown.clone());
        let cross_site = CrossSiteGuard::new(listen);
        let app = App::new(charger, ledger, ledger_id, callers, operators, cross_site, shutdown.clone());
        drop(opening);
        Ok(observe(while_usable(http::router(app), usable, Shed::default()), &telemetry))
    };
    service::serve_when(
        listeners,
        routes,
        http::meanwhile(),
        admin,
        Limits { connections_per_peer: config.common.connections_per_peer, ..Limits::default() },
        shutdown.clone(),
        &telemetry,
    )
    .await
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    match &config.common.database_url {
        DatabaseUrl::Sqlite(file) => {
            let id = attach_sqlite(file).await?.id().await?;
            tracing::info!(ledger.id = %id, "schema is up to date");
        }
        DatabaseUrl::Postgres(settings) => {
            let version = connect(settings, None)?.migrate().await.context("cannot migrate the database")?;
            tracing::info!(version, "schema is up to date");
        }
    }
    Ok(())
}

/// The ledger, watched by readiness, and whether it can be used at any later moment. With PostgreSQL it takes as long as the database takes to be usable.
async fn open_ledger(
    url: &DatabaseUrl,
    failover: Failover,
    tls: &TlsMetrics,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> anyhow::Result<(Arc<dyn Ledger>, Usable)> {
    match url {
        DatabaseUrl::Sqlite(file) => {
            let ledger = open_sqlite(file).await?;
            readiness.check("ledger", ledger.is_writable());
            // A file that fails says so to each caller at once.
            Ok((Arc::new(ledger), Arc::new(|| Ok(()))))
        }
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, Some(tls))?;
            readiness.check("database", database.is_usable());
            let usable = Arc::new(database.is_usable());
            let ledger = PostgresLedger::open(database, &Random::system(), failover).await?;
            readiness.check("ledger", ledger.is_serving());
            let (renamed, shutdown) = (ledger.renamed(), shutdown.clone());
            tokio::spawn(async move {
                renamed.await;
                tracing::error!("the ledger has a new id, this process ends so that it restarts with it");
                shutdown.trigger();
            });
            Ok((Arc::new(ledger), usable))
        }
    }
}

async fn open_sqlite(file: &SqliteUrl) -> anyhow::Result<SqliteLedger> {
    let path = file.existing().map_err(anyhow::Error::msg)?;
    let ledger = SqliteLedger::open(path, Clock::system(), Random::system()).await;
    ledger.with_context(|| format!("cannot open the ledger {}", path.display()))
}

async fn attach_sqlite(file: &SqliteUrl) -> anyhow::Result<SqliteLedger> {
    let path = file.existing().map_err(anyhow::Error::msg)?;
    let ledger = SqliteLedger::attach(path, Clock::system(), Random::system()).await;
    ledger.with_context(|| format!("cannot open the ledger {}", path.display()))
}

fn connect(settings: &PostgresSettings, tls: Option<&TlsMetrics>) -> anyhow::Result<Postgres> {
    Ok(Postgres::open(settings, postgres::SCHEMA, tls, Random::system())?)
}
