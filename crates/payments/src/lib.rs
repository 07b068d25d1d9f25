//! The payment service: a provider with a durable ledger that executes a key once, and with faults on demand.
//! Depends on `chassis` only; knows no other service's code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use chassis::admin::Readiness;
use chassis::caller::Callers;
use chassis::clock::{Clock, Random};
use chassis::config::{DatabaseUrl, SqliteUrl};
use chassis::gate::{Usable, while_usable};
use chassis::postgres::{Postgres, PostgresSettings};
use chassis::program::{self, Service, Work};
use chassis::server::{Limits, Shed};
use chassis::service;
use chassis::shutdown::Shutdown;
use chassis::telemetry::{LogHandle, observe};
use chassis::tls::TlsMetrics;

use crate::charge::Charger;
use crate::config::{Command, Config};
use crate::controls::{Controls, StartSettings};
use crate::faults::draw::Seed;
use crate::faults::rates::Rates;
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
pub mod controls;
pub mod declines;
pub mod deployments;
pub mod faults;
pub mod http;
pub mod keys;
pub mod ledger;
pub mod metrics;

/// Runs the whole program, from argv (program name first) to the exit code. Also behind `tinjis run payments`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    program::run(Config::load(args), |config| &config.common.log, work)
}

fn work(config: Config, log: LogHandle) -> Work {
    Box::pin(start(config, log))
}

async fn start(config: Config, log: LogHandle) -> anyhow::Result<()> {
    match config.command {
        Command::Serve => serve(config, log).await,
        Command::Migrate => migrate(&config).await,
        Command::NewLedgerId => {
            let id = match &config.common.database_url {
                DatabaseUrl::Sqlite(file) => {
                    attach_sqlite(file, &config.common.clock).await?.renew_id().await?
                }
                DatabaseUrl::Postgres(settings) => {
                    postgres::renew_id(&connect(settings, None)?, &Random::system()).await?
                }
            };
            tracing::info!(ledger.id = %id, "the ledger has a new id");
            Ok(())
        }
        Command::KeysPerAccount => {
            match &config.common.database_url {
                DatabaseUrl::Sqlite(file) => {
                    attach_sqlite(file, &config.common.clock).await?.make_keys_per_account().await?
                }
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
        Command::Healthcheck => service::healthcheck(config.common.admin_listen).await,
    }
}

/// Serves on both ports until shut down.
async fn serve(config: Config, log: LogHandle) -> anyhow::Result<()> {
    let (service, listeners) = Service::bind("payments", &config.common).await?;
    let Service { telemetry, readiness, shutdown, tls, .. } = &service;
    let callers = Callers::open(config.callers, &Clock::system(), tls, &telemetry.metrics)?;
    let operators = config.operators.map(|tokens| Callers::by_token(Some(tokens), None)).transpose()?;
    let seed = config.seed.unwrap_or_else(|| Seed(Random::system().u64()));
    if !config.script.rules.is_empty() {
        tracing::warn!(rules = config.script.rules.len(), "a fault script is in force");
    }
    if config.test_amounts {
        tracing::warn!("amounts of tests decide by themselves beside a key");
    }
    let start = StartSettings {
        seed,
        is_seed_set: config.is_seed_set,
        rates: Rates::of_success(config.success_rate),
        script: config.script,
        has_test_amounts: config.test_amounts,
        is_one_charge_per_reference: config.one_charge_per_reference,
        at_run_time: config.run_time_faults,
    };
    let clock = config.common.clock;
    let controls = Controls::new(start, clock.clone());
    let counters = Counters::new(&telemetry.metrics);
    let opening = readiness.hold("opening the ledger");
    let admin = service.admin(log, operators.clone());
    let routes = async {
        let (ledger, usable) =
            open_ledger(&config.common.database_url, &clock, config.failover, tls, readiness, shutdown)
                .await?;
        let ledger_id = ledger.id().await?;
        tracing::info!(%seed, ledger.id = %ledger_id, "decisions are drawn from this seed");
        if controls.is_one_charge_per_reference() {
            ledger.index_references().await.context("cannot index the ledger's references")?;
        }
        follow_operators(&controls, &ledger, shutdown).await?;
        let charger =
            Charger::new(Arc::clone(&ledger), controls, counters, shutdown.clone(), telemetry.tracer.clone());
        let app = App::new(charger, ledger, ledger_id, callers, operators, service.listen, shutdown.clone());
        drop(opening);
        Ok(observe(while_usable(http::router(app), usable, Shed::default()), telemetry))
    };
    let limits = service.limits(Limits::default());
    let shutdown = shutdown.clone();
    service::serve_when(listeners, routes, http::routes_until_open(), admin, limits, shutdown, telemetry)
        .await
}

/// Applies what operators set at run time, now and whenever another replica sets something.
async fn follow_operators(
    controls: &Controls,
    ledger: &Arc<dyn Ledger>,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    controls.load(&**ledger).await?;
    let (follow, shutdown) = (controls.clone().follow(Arc::clone(ledger) as _), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = follow => {}
            () = shutdown.draining() => {}
        }
    });
    Ok(())
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    match &config.common.database_url {
        DatabaseUrl::Sqlite(file) => {
            let id = attach_sqlite(file, &config.common.clock).await?.id().await?;
            tracing::info!(ledger.id = %id, "schema is up to date");
        }
        DatabaseUrl::Postgres(settings) => {
            let version = connect(settings, None)?.migrate().await.context("cannot migrate the database")?;
            tracing::info!(version, "schema is up to date");
        }
    }
    Ok(())
}

/// Opens the ledger and adds it to readiness. Also returns a check whether the ledger can be used. With PostgreSQL this
/// takes until the database is usable.
async fn open_ledger(
    url: &DatabaseUrl,
    clock: &Clock,
    failover: Failover,
    tls: &TlsMetrics,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> anyhow::Result<(Arc<dyn Ledger>, Usable)> {
    match url {
        DatabaseUrl::Sqlite(file) => {
            let ledger = open_sqlite(file, clock).await?;
            readiness.check("ledger", ledger.is_writable());
            // A failing file gives each caller an error at once.
            Ok((Arc::new(ledger), Arc::new(|| Ok(()))))
        }
        DatabaseUrl::Postgres(settings) => {
            let database = connect(settings, Some(tls))?;
            readiness.check("database", database.is_usable());
            let usable = Arc::new(database.is_usable());
            let ledger = PostgresLedger::open(database, &Random::system(), failover).await?;
            readiness.check("ledger", ledger.is_serving());
            let (id_changed, shutdown) = (ledger.id_changed(), shutdown.clone());
            tokio::spawn(async move {
                id_changed.await;
                tracing::error!("the ledger has a new id, this process ends so that it restarts with it");
                shutdown.trigger();
            });
            Ok((Arc::new(ledger), usable))
        }
    }
}

async fn open_sqlite(file: &SqliteUrl, clock: &Clock) -> anyhow::Result<SqliteLedger> {
    let path = file.existing().map_err(anyhow::Error::msg)?;
    let ledger = SqliteLedger::open(path, clock.clone(), Random::system()).await;
    ledger.with_context(|| format!("cannot open the ledger {}", path.display()))
}

async fn attach_sqlite(file: &SqliteUrl, clock: &Clock) -> anyhow::Result<SqliteLedger> {
    let path = file.existing().map_err(anyhow::Error::msg)?;
    let ledger = SqliteLedger::attach(path, clock.clone(), Random::system()).await;
    ledger.with_context(|| format!("cannot open the ledger {}", path.display()))
}

fn connect(settings: &PostgresSettings, tls: Option<&TlsMetrics>) -> anyhow::Result<Postgres> {
    Ok(Postgres::open(settings, postgres::SCHEMA, tls, Random::system())?)
}
