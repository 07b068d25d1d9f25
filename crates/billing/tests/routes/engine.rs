//! A real engine whose provider is not there: for tests of routes, which need a run and no charge.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use billing::charge::transition::Idempotency;
use billing::charge::{ChargeSettings, Engine, EngineParts, LEASE};
use billing::provider::{Client, ProviderConfig};
use billing::store::Store;
use chassis::client::ClientConfig;
use chassis::clock::{Clock, Random};
use chassis::shutdown::Shutdown;
use chassis::telemetry::Telemetry;
use http::Uri;

pub(crate) async fn engine(store: Arc<dyn Store>) -> Engine {
    let provider = ProviderConfig {
        endpoint: Uri::from_static("http://127.0.0.1:1"),
        idempotency: Idempotency::Keys,
        tokens: None,
        deadline: Duration::from_secs(1),
    };
    let parts = EngineParts {
        store,
        provider: Client::new(chassis::client::Client::new(ClientConfig::default()), provider),
        settings: ChargeSettings { in_flight_max: NonZeroUsize::MIN, lease: LEASE },
        clock: Clock::system(),
        random: Random::seeded(1),
        metrics: Telemetry::new("billing", "0", "test").metrics,
        shutdown: Shutdown::new(),
    };
    Engine::start(parts).await.unwrap()
}
