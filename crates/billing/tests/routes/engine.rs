//! A real engine over a store, with a provider at a URL or without one.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use billing::charge::{ChargeSettings, Engine, EngineParts, LEASE};
use billing::protocol::transition::Idempotency;
use billing::provider::{Client, Dialect, ProviderConfig};
use billing::store::Store;
use chassis::client::ClientConfig;
use chassis::clock::{Clock, Random};
use chassis::shutdown::Shutdown;
use chassis::telemetry::Telemetry;

/// URL of an unreachable provider: no process listens there.
pub(crate) const UNREACHABLE: &str = "http://127.0.0.1:1";

/// The maximum number of calls in flight.
const IN_FLIGHT_MAX: NonZeroUsize = NonZeroUsize::new(8).unwrap();

pub(crate) async fn engine(
    store: Arc<dyn Store>,
    clock: Clock,
    endpoint: &str,
    idempotency: Idempotency,
) -> Engine {
    let deadline = Duration::from_secs(2);
    let provider = ProviderConfig {
        endpoint: endpoint.parse().unwrap(),
        idempotency,
        dialect: Dialect::Default,
        tokens: None,
        bearer: None,
        deadline,
    };
    let parts = EngineParts {
        store,
        provider: Client::new(chassis::client::Client::new(ClientConfig::default()), provider),
        settings: ChargeSettings { in_flight_max: IN_FLIGHT_MAX, lease: LEASE },
        clock,
        random: Random::seeded(1),
        metrics: Telemetry::new("billing", "0", "test").metrics,
        shutdown: Shutdown::new(),
    };
    Engine::start(parts).await.unwrap()
}
