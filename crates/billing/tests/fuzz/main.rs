//! Almost valid requests to every route of billing, and almost valid responses of a provider: none breaks billing, and
//! no response other than a success counts as a charge. Runs briefly here; `make fuzz` is the full size.
#![cfg(test)]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use billing::charge::{ChargeSettings, Engine, EngineParts, LEASE};
use billing::http::{Access, AccessRules, AppState};
use billing::protocol::transition::{AnswerClass, Idempotency};
use billing::provider::answer::{RequestFacts, ResponseFacts, judge};
use billing::provider::{Client, Dialect, ProviderConfig};
use billing::scheduler::{ScheduleSettings, Scheduler};
use billing::store::Store;
use billing::store::sqlite::SqliteStore;
use chassis::client::ClientConfig;
use chassis::clock::{Clock, Random};
use chassis::shutdown::Shutdown;
use chassis::telemetry::Telemetry;
use http::Request;
use testkit::fuzz::{Corpus, quick_folder};
use tower::ServiceExt;

const KEY: &str = "bca1897f57e947286a9d2dcb4be588f1";

fn corpus(name: &'static str, folder: &str) -> Corpus {
    Corpus::read(name, Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder))
}

/// The router, with an unreachable provider.
async fn router(path: &Path) -> Router {
    let (clock, random) = (Clock::system(), Random::seeded(1));
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(path, None, clock.clone(), &random).await.unwrap());
    let provider = ProviderConfig {
        endpoint: "http://127.0.0.1:1".parse().unwrap(),
        idempotency: Idempotency::Keys,
        dialect: Dialect::Default,
        tokens: None,
        bearer: None,
        deadline: Duration::from_secs(1),
    };
    let parts = EngineParts {
        store: Arc::clone(&store),
        provider: Client::new(chassis::client::Client::new(ClientConfig::default()), provider),
        settings: ChargeSettings { in_flight_max: NonZeroUsize::new(8).unwrap(), lease: LEASE },
        clock,
        random,
        metrics: Telemetry::new("billing", "0", "test").metrics.clone(),
        shutdown: Shutdown::new(),
    };
    let engine = Engine::start(parts).await.unwrap();
    let access = Access::new(AccessRules::open(), "127.0.0.1:8000".parse().unwrap());
    let metrics = Telemetry::new("billing", "0", "test").metrics;
    let settings = ScheduleSettings::default();
    let (copy, time) = (Arc::clone(&store), Clock::system());
    let scheduler = Scheduler::new(copy, engine.clone(), settings, time, &metrics, Shutdown::new());
    billing::http::router(AppState { store, engine, scheduler: Arc::new(scheduler), access })
}

/// The words of the first line, and the other bytes.
fn split(input: &[u8]) -> Option<(Vec<&str>, &[u8])> {
    let at = input.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&input[..at]).ok()?.split(' ').collect(), &input[at + 1..]))
}

#[test]
fn fuzz_requests_to_every_route() {
    let folder = quick_folder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let router = runtime.block_on(router(&folder.path().join("billing.db")));
    corpus("billing's requests", "bodies").run(|input| {
        let Some((words, body)) = split(input) else { return };
        let [method, path, ..] = words[..] else { return };
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_vec()));
        // Pay calls would wait for the unreachable provider.
        let Some(request) = request.ok().filter(|_| !path.contains("pay") && path != "/v1/runs") else {
            return;
        };
        let answer = runtime.block_on(router.clone().oneshot(request)).unwrap();
        // This route asks the unreachable provider for its ledger.
        let of_the_provider = path == "/v1/ledger/accept" && answer.status() == 502;
        assert!(answer.status().as_u16() < 500 || of_the_provider, "{path}: {}", answer.status());
    });
}

/// Whether the text could contain `true` in any case, as providers write it, or the invoice's reference, also escaped.
fn could_say_so(text: &str) -> bool {
    text.to_ascii_lowercase().contains("true") || text.contains("I1") || text.contains("\\u")
}

#[test]
fn fuzz_answers_of_a_provider() {
    corpus("a provider's answers", "answers").run(|input| {
        let Some((words, body)) = split(input) else { return };
        let [status, content_type, key, ledger, mark] = words[..] else { return };
        let Ok(status) = status.parse() else { return };
        let given = |word| Some(word).filter(|word| *word != "-");
        let heard = ResponseFacts {
            status,
            content_type: given(content_type),
            body,
            key: given(key),
            ledger: given(ledger),
            not_executed: mark == "true",
        };
        for idempotency in [Idempotency::Keys, Idempotency::None] {
            let asked = RequestFacts {
                key: KEY,
                reference: "I1",
                idempotency,
                ledger: Some("L1"),
                dialect: Dialect::Default,
            };
            let class = judge(&asked, &heard).class;
            if class == AnswerClass::Charged {
                assert!(matches!(status, 200 | 201), "{status} is taken for a charge");
                assert!(std::str::from_utf8(body).is_ok_and(could_say_so), "no word of it");
            }
            if class == AnswerClass::Charged && idempotency == Idempotency::Keys {
                assert_eq!((heard.key, heard.ledger), (Some(KEY), Some("L1")), "another's charge");
            }
        }
    });
}
