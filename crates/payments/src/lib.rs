//! The payment service: a provider with a durable ledger that executes a key once, and with faults on demand.
//! Depends on `chassis` only; knows no other service's code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use chassis::admin::{Readiness, admin_router};
use chassis::caller::Callers;
use chassis::clock::{Clock, Random};
use chassis::config::DatabaseUrl;
use chassis::server::Limits;
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
use crate::ledger::sqlite::SqliteLedger;
use crate::metrics::Counters;

pub mod amount;
pub mod charge;
pub mod config;
pub mod faults;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod metrics;

/// Of which source this is, if the build says so.
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
        Command::Migrate => {
            let id = open_ledger(&config).await?.id().await?;
            tracing::info!(ledger.id = %id, "The schema is up to date");
            Ok(())
        }
        Command::NewLedgerId => {
            let id = open_ledger(&config).await?.renew_id().await?;
            tracing::info!(ledger.id = %id, "The ledger has a new id");
            Ok(())
        }
        Command::Healthcheck => Ok(()),
    }
}

/// Binds both ports and serves until shut down.
///
/// # Errors
/// When a port or the ledger cannot be had.
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
    let readiness = Readiness::new(&shutdown);
    let ledger = open_ledger(&config).await?;
    readiness.check("ledger", ledger.is_writable());
    let ledger: Arc<dyn Ledger> = ledger;
    let ledger_id = ledger.id().await?;
    let telemetry = Telemetry::new("payments", env!("CARGO_PKG_VERSION"), REVISION);
    let tls = TlsMetrics::new(&telemetry.metrics);
    let listeners = listeners.secure(config.common.tls.as_ref(), &tls)?;
    let callers = Callers::open(config.callers, &Clock::system(), &tls, &telemetry.metrics)?;
    let seed = config.seed.unwrap_or_else(|| Seed(Random::system().u64()));
    tracing::info!(%seed, ledger.id = %ledger_id, "Every decision follows from this seed");
    if !config.script.rules.is_empty() {
        tracing::warn!(rules = config.script.rules.len(), "A fault script is in force");
    }
    let odds = Odds { seed, success: config.success_rate };
    let faults = Faults::new(seed, config.script);
    let counters = Counters::new(&telemetry.metrics);
    let charger = Charger::new(Arc::clone(&ledger), odds, faults, counters, shutdown.clone());
    let app = App::new(charger, ledger, ledger_id, callers, shutdown.clone());
    let routes = observe(http::router(app), &telemetry);
    let admin = admin_router(&telemetry, readiness, log);
    service::serve(listeners, routes, admin, Limits::default(), shutdown, &telemetry).await
}

async fn open_ledger(config: &Config) -> anyhow::Result<Arc<SqliteLedger>> {
    let DatabaseUrl::Sqlite(path) = &config.common.database_url else {
        anyhow::bail!("this version keeps its ledger in SQLite only");
    };
    let ledger = SqliteLedger::open(path, Clock::system(), Random::system())
        .await
        .with_context(|| format!("cannot open the ledger {}", path.display()))?;
    Ok(Arc::new(ledger))
}
