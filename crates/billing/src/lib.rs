//! The billing service: charges every invoice exactly once.
//! Depends on `chassis` only; knows no other service's code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use chassis::caller::{CallerMetrics, Callers, Tokens};
use chassis::client::{CONNECT_TIMEOUT, ClientConfig, DEADLINE};
use chassis::clock::{Clock, Random};
use chassis::gate::while_usable;
use chassis::program::{self, Service, Work};
use chassis::service;
use chassis::shutdown::Shutdown;
use chassis::telemetry::{LogHandle, Telemetry, Tracer, observe};
use chassis::test_overrides::scaled;
use chassis::tls::{TlsConnect, TlsMetrics};

use crate::charge::{ChargeSettings, Engine, EngineParts, LEASE};
use crate::config::{Command, Config};
use crate::http::{Access, AccessRules, AppState};
use crate::provider::ProviderConfig;
use crate::scheduler::Scheduler;
use crate::store::Store;

mod backup;
pub mod charge;
pub mod config;
pub mod customer;
pub mod demo_data;
pub mod http;
pub mod import_row;
pub mod invoice;
pub mod money;
mod open;
pub mod plot;
pub mod preview;
pub mod protocol;
pub mod provider;
pub mod reference;
pub mod run_order;
pub mod schedule;
pub mod scheduler;
pub mod store;
pub mod subscription;

/// The whole program: argv (program name first) to exit code. Also behind `tinjis run billing`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    program::run(Config::load(args), |config| &config.common.log, work)
}

fn work(config: Config, log: LogHandle) -> Work {
    Box::pin(start(config, log))
}

async fn start(config: Config, log: LogHandle) -> anyhow::Result<()> {
    match config.command {
        Command::Serve => serve(config, log).await,
        Command::Migrate => {
            let deployment = open::migrate_and_open(&config).await?.deployment().await?;
            tracing::info!(deployment.id = %deployment.0, "schema is up to date");
            Ok(())
        }
        Command::DeclareDeployment { ref why, ref actor } => declare(&config, why, actor).await,
        Command::Backup(ref file) => backup::command(&config.common.database_url, file),
        Command::Healthcheck => service::healthcheck(config.common.admin_listen).await,
    }
}

/// Tells the payment service once that this store's deployment may charge.
async fn declare(config: &Config, why: &str, actor: &str) -> anyhow::Result<()> {
    let deployment = open::read_deployment_id(config).await?;
    let telemetry = program::new_telemetry("billing");
    let provider = provider(config, calls(config, &TlsMetrics::new(&telemetry.metrics), Tracer::default())?)?;
    let operators = config.access.operators.clone().map(Tokens::new).transpose()?;
    let operator = operators.and_then(|tokens| tokens.current().first().cloned());
    match provider.declare(deployment, why, actor, operator.as_ref()).await {
        provider::DeclareOutcome::Known => {
            tracing::info!(
                deployment.id = %deployment.0,
                endpoint = %config.endpoint,
                "the payment service knows this deployment"
            );
            Ok(())
        }
        provider::DeclareOutcome::Refused(why) => {
            anyhow::bail!("{} did not take deployment {}: {why}", config.endpoint, deployment.0)
        }
    }
}

/// Serves on both ports until shut down.
async fn serve(config: Config, log: LogHandle) -> anyhow::Result<()> {
    let (service, listeners) = Service::bind("billing", &config.common).await?;
    let Service { telemetry, readiness, shutdown, tls, .. } = &service;
    let opening = readiness.hold("opening the store");
    let calls = calls(&config, tls, telemetry.tracer.clone())?;
    let access = access(&config, telemetry)?;
    let admin = service.admin(log, Some(access.operators.clone()));
    let routes = async {
        let (store, usable) = open::open(&config, tls, readiness).await?;
        let invented = demo_data::load(store.as_ref(), config.demo, &Random::system()).await?;
        if invented > 0 {
            tracing::warn!(invoices = invented, "wrote demo invoices into the empty store");
        }
        let deployment = store.deployment().await?;
        tracing::info!(
            deployment.id = %deployment.0,
            endpoint = %config.endpoint,
            idempotency = ?config.idempotency,
            "charging through this provider"
        );
        let engine = engine(&config, calls, Arc::clone(&store), telemetry, shutdown).await?;
        let access = Access::new(access, service.listen);
        let scheduler = Arc::new(Scheduler::new(
            Arc::clone(&store),
            engine.clone(),
            config.schedule.clone(),
            config.common.clock.clone(),
            &telemetry.metrics,
            shutdown.clone(),
        ));
        shutdown.spawn("schedule", Arc::clone(&scheduler).run_loop());
        let halted = engine.clone();
        readiness.remark(move || halted.last_halt().map(|halt| http::stopped_line(&halt)));
        drop(opening);
        let routes = http::router(AppState { store, engine, scheduler, access });
        Ok(observe(while_usable(routes, usable, http::not_executed()), telemetry))
    };
    let limits = service.limits(http::limits());
    let shutdown = shutdown.clone();
    service::serve_when(listeners, routes, http::routes_until_open(), admin, limits, shutdown, telemetry)
        .await
}

/// The access rules for callers.
fn access(config: &Config, telemetry: &Telemetry) -> anyhow::Result<AccessRules> {
    let metrics = CallerMetrics::new(&telemetry.metrics);
    let config::access::CheckedAccess { ref operators, ref readers, anonymous_reads, legacy } = config.access;
    Ok(AccessRules {
        operators: Callers::by_token(operators.clone(), Some(metrics))?,
        readers: Callers::by_token(readers.clone(), None)?,
        anonymous_reads,
        legacy,
    })
}

/// The client for calls to the provider, with or without TLS by its URL.
fn calls(config: &Config, tls: &TlsMetrics, tracer: Tracer) -> anyhow::Result<chassis::client::Client> {
    let limits = ClientConfig {
        pool_max: config.in_flight_max.get(),
        connect_timeout: scaled(CONNECT_TIMEOUT),
        tracer,
        ..ProviderConfig::connections(config.idempotency, scaled(DEADLINE))
    };
    Ok(match &config.provider_tls {
        None => chassis::client::Client::new(limits),
        Some(files) => {
            let connect = TlsConnect::open(files.clone(), Clock::system(), tls)?;
            chassis::client::Client::with_connect(limits, connect)
        }
    })
}

fn provider(config: &Config, calls: chassis::client::Client) -> anyhow::Result<provider::Client> {
    let provider = ProviderConfig {
        endpoint: config.endpoint.clone(),
        idempotency: config.idempotency,
        dialect: config.dialect,
        tokens: config.common.tokens.clone().map(Tokens::new).transpose()?,
        bearer: config.provider_token.clone().map(Tokens::new).transpose()?,
        deadline: scaled(DEADLINE),
    };
    Ok(provider::Client::new(calls, provider))
}

async fn engine(
    config: &Config,
    calls: chassis::client::Client,
    store: Arc<dyn Store>,
    telemetry: &Telemetry,
    shutdown: &Shutdown,
) -> anyhow::Result<Engine> {
    let parts = EngineParts {
        store,
        provider: provider(config, calls)?,
        settings: ChargeSettings { in_flight_max: config.in_flight_max, lease: scaled(LEASE) },
        clock: config.common.clock.clone(),
        random: Random::system(),
        metrics: telemetry.metrics.clone(),
        shutdown: shutdown.clone(),
    };
    Ok(Engine::start(parts).await?)
}
