//! The hosts: billing replicas, payment replicas and a caller that pays repeatedly. Everything is real except the
//! network and the disk. Knows no fault and no verdict.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use billing::charge::{ChargeSettings, Engine, EngineParts};
use billing::http::{Access, AccessRules, AppState};
use billing::invoice::{CustomerId, Reference};
use billing::money::{Currency, Money};
use billing::protocol::transition::Idempotency;
use billing::provider::{self, Dialect, ProviderConfig};
use billing::scheduler::{ScheduleSettings, Scheduler};
use billing::store::sqlite::SqliteStore;
use billing::store::{ImportMode, ImportRow, OperatorStore, Store};
use bytes::Bytes;
use chassis::caller::Callers;
use chassis::client::{Client, ClientConfig};
use chassis::clock::{Clock, Random};
use chassis::server::{Limits, Server};
use chassis::shutdown::Shutdown;
use chassis::sqlite::Disk;
use chassis::telemetry::{Telemetry, Tracer, observe};
use http::{Method, Request};
use payments::charge::Charger;
use payments::controls::{Controls, StartSettings};
use payments::faults::draw::{Seed, Share};
use payments::faults::rates::Rates;
use payments::faults::script::Script;
use payments::http::App;
use payments::ledger::Ledger;
use payments::ledger::sqlite::SqliteLedger;
use payments::metrics::Counters;

use crate::network::{Network, PortState};
use crate::plan::Plan;

/// Start time of a simulated world; its value does not matter.
const EPOCH_MS: i64 = 1_700_000_000_000;
const BILLING_PORT: u16 = 8000;
const PAYMENTS_PORT: u16 = 9000;
/// Deadline of one call to the provider; short, so that many calls are made.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// Duration of a lease, longer than two calls.
const LEASE: Duration = Duration::from_secs(6);
/// Maximum pause of the caller between two pay calls.
const PAY_PAUSE_MAX: Duration = Duration::from_secs(3);
/// Share of keys that are charged rather than refused.
const SUCCESS_RATE: &str = "0.85";

/// Time after which a supervisor starts a failed process again.
const START_AGAIN_IN: Duration = Duration::from_millis(300);
const IN_FLIGHT_MAX: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

type Outcome = turmoil::Result;

/// An address on which other hosts can reach the listener.
fn anywhere(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

/// The parts of a world that survive every crash.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) clock: Clock,
    pub(crate) billing: Disk,
    pub(crate) ledger: Disk,
    random: Random,
}

impl World {
    pub(crate) fn new(plan: Plan, random: &Random) -> Self {
        let clock = Clock::with_elapsed(EPOCH_MS, || turmoil::sim_elapsed().unwrap_or_default());
        let latency = || Random::seeded(random.u64());
        let billing = SqliteStore::disk(&clock, latency()).expect("the schema is sound");
        let ledger = SqliteLedger::disk(&clock, latency()).expect("the schema is sound");
        Self { plan, clock, billing, ledger, random: latency() }
    }

    pub(crate) async fn store(&self) -> Result<SqliteStore, Box<dyn std::error::Error>> {
        let is_shared = self.plan.billings > 1;
        Ok(SqliteStore::on(&self.billing, is_shared, self.clock.clone(), &self.random).await?)
    }

    pub(crate) async fn books(&self) -> Result<SqliteLedger, Box<dyn std::error::Error>> {
        Ok(SqliteLedger::on(&self.ledger, self.clock.clone(), self.random.clone()).await?)
    }

    /// Writes the invoices, before any fault.
    pub(crate) async fn fill(&self) -> Outcome {
        let row = |n: usize| ImportRow {
            reference: Reference::new(format!("S{n}")).expect("a sound reference"),
            customer_id: CustomerId(1),
            money: Money { amount_minor: 1000 + n as i64, currency: Currency::EUR },
            paid: false,
        };
        let rows: Vec<ImportRow> = (1..=self.plan.invoices).map(row).collect();
        self.store().await?.import(&rows, ImportMode::default()).await?;
        self.books().await?;
        Ok(())
    }

    /// Runs the nth billing process, and starts it again after each failure, as a supervisor does.
    pub(crate) async fn keep_billing(self, n: usize) -> Outcome {
        while let Err(error) = self.run_billing(n).await {
            tracing::warn!(n, %error, "billing ended");
            tokio::time::sleep(START_AGAIN_IN).await;
        }
        Ok(())
    }

    /// Runs the nth payment process, and starts it again after each failure.
    pub(crate) async fn keep_payments(self, n: usize) -> Outcome {
        while let Err(error) = self.run_payments().await {
            tracing::warn!(n, %error, "payments ended");
            tokio::time::sleep(START_AGAIN_IN).await;
        }
        Ok(())
    }

    async fn run_billing(&self, n: usize) -> Outcome {
        let random = Random::seeded(self.random.u64());
        let store: Arc<dyn Store> = Arc::new(self.store().await?);
        let (shutdown, telemetry) = (Shutdown::new(), telemetry("billing", &random));
        let provider = format!("http://{}:{PAYMENTS_PORT}/", payments_name(n % self.plan.payments));
        let provider = ProviderConfig {
            endpoint: provider.parse().expect("a sound URL"),
            idempotency: self.plan.idempotency,
            dialect: Dialect::Default,
            tokens: None,
            bearer: None,
            deadline: CALL_DEADLINE,
        };
        let parts = EngineParts {
            store: Arc::clone(&store),
            provider: provider::Client::new(charging(&random, self.plan.idempotency), provider),
            settings: ChargeSettings { in_flight_max: IN_FLIGHT_MAX, lease: LEASE },
            clock: self.clock.clone(),
            random: random.clone(),
            metrics: telemetry.metrics.clone(),
            shutdown: shutdown.clone(),
        };
        let engine = Engine::start(parts).await?;
        let access = Access::new(AccessRules::open(), anywhere(BILLING_PORT));
        let scheduler = Scheduler::new(
            Arc::clone(&store),
            engine.clone(),
            ScheduleSettings::default(),
            self.clock.clone(),
            &telemetry.metrics,
            shutdown.clone(),
        );
        let scheduler = Arc::new(scheduler);
        let routes = billing::http::router(AppState { store, engine, scheduler, access });
        let door = Box::new(PortState::open(BILLING_PORT).await?);
        Server::with_listener(door, observe(routes, &telemetry), billing::http::limits())
            .serve(shutdown)
            .await;
        Ok(())
    }

    async fn run_payments(&self) -> Outcome {
        let random = Random::seeded(self.random.u64());
        let (shutdown, telemetry) = (Shutdown::new(), telemetry("payments", &random));
        let ledger: Arc<dyn Ledger> = Arc::new(self.books().await?);
        let ledger_id = ledger.id().await?;
        let start = StartSettings {
            seed: Seed(self.plan.seed),
            is_seed_set: true,
            rates: Rates::of_success(Share::parse(SUCCESS_RATE).expect("a sound share")),
            script: Script::parse(&self.plan.script)?,
            has_test_amounts: false,
            is_one_charge_per_reference: false,
            at_run_time: false,
        };
        let controls = Controls::new(start, self.clock.clone());
        let counters = Counters::new(&telemetry.metrics);
        let charger =
            Charger::new(Arc::clone(&ledger), controls, counters, shutdown.clone(), Tracer::default());
        let callers = Callers::by_token(None, None)?;
        let listen = anywhere(PAYMENTS_PORT);
        let app = App::new(charger, ledger, ledger_id, callers, None, listen, shutdown.clone());
        let routes = observe(payments::http::router(app), &telemetry);
        let door = Box::new(PortState::open(PAYMENTS_PORT).await?);
        Server::with_listener(door, routes, Limits::default()).serve(shutdown).await;
        Ok(())
    }

    /// Calls pay of each billing in turn, for ever, and ignores the answers.
    pub(crate) async fn run_caller(self) -> Outcome {
        let random = Random::seeded(self.random.u64());
        let client = client(&random);
        loop {
            let n = usize::try_from(random.below(self.plan.billings as u64)).unwrap_or(0);
            let url = format!("http://{}:{BILLING_PORT}/rest/v1/invoices/pay", billing_name(n));
            let call = Request::builder().method(Method::POST).uri(url).body(Bytes::new())?;
            let answered = client.send(call).await.map(|answer| answer.status().as_u16());
            tracing::debug!(n, answered = ?answered.ok(), "pay");
            tokio::time::sleep(random.jitter(PAY_PAUSE_MAX)).await;
        }
    }
}

pub(crate) fn billing_name(n: usize) -> String {
    format!("billing-{n}")
}

pub(crate) fn payments_name(n: usize) -> String {
    format!("payments-{n}")
}

fn telemetry(service: &'static str, random: &Random) -> Telemetry {
    Telemetry::new(service, "0", "simulation").with_random(random.clone())
}

fn client(random: &Random) -> Client {
    let config = ClientConfig { deadline: CALL_DEADLINE, random: random.clone(), ..ClientConfig::default() };
    Client::with_connect(config, Network)
}

/// A client with the settings of billing's calls to its provider.
fn charging(random: &Random, idempotency: Idempotency) -> Client {
    let config = ProviderConfig::connections(idempotency, CALL_DEADLINE);
    Client::with_connect(ClientConfig { random: random.clone(), ..config }, Network)
}

/// The provider's idempotency as a setting.
pub(crate) fn word(idempotency: Idempotency) -> &'static str {
    match idempotency {
        Idempotency::Keys => "keys",
        Idempotency::None => "none",
    }
}
