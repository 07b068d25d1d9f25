//! Nearly right requests to every route of payments, and nearly right fault scripts: none makes the service fail. Runs
//! for a moment here, `make fuzz` is the full size. Each file of a corpus is a request: method, path, content type, key
//! (`-` for none), then the body.
#![cfg(test)]

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use chassis::caller::Callers;
use chassis::clock::{Clock, Random};
use chassis::shutdown::Shutdown;
use chassis::telemetry::{Telemetry, Tracer};
use http::Request;
use payments::charge::Charger;
use payments::controls::{Controls, StartSettings};
use payments::faults::draw::{Seed, Share};
use payments::faults::rates::Rates;
use payments::faults::script::Script;
use payments::http::App;
use payments::ledger::Ledger;
use payments::ledger::sqlite::SqliteLedger;
use payments::metrics::Counters;
use testkit::fuzz::{Corpus, quick_folder};
use tower::ServiceExt;

fn corpus(name: &'static str, folder: &str) -> Corpus {
    Corpus::read(name, Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder))
}

async fn router(path: &Path) -> Router {
    let ledger = SqliteLedger::open(path, Clock::system(), Random::seeded(1)).await.unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(ledger);
    let ledger_id = ledger.id().await.unwrap();
    let start = StartSettings {
        seed: Seed(8213),
        is_seed_set: true,
        rates: Rates::of_success(Share::parse("0.5").unwrap()),
        script: Script::default(),
        has_test_amounts: true,
        is_one_charge_per_reference: false,
        at_run_time: true,
    };
    let controls = Controls::new(start, Clock::system());
    let (telemetry, shutdown) = (Telemetry::new("payments", "0", "test"), Shutdown::new());
    let counters = Counters::new(&telemetry.metrics);
    let charger = Charger::new(Arc::clone(&ledger), controls, counters, shutdown.clone(), Tracer::default());
    let callers = Callers::by_token(None, None).unwrap();
    let listen = "127.0.0.1:9000".parse().unwrap();
    payments::http::router(App::new(charger, ledger, ledger_id, callers, None, listen, shutdown))
}

/// The request in these bytes, if there is one.
fn request(input: &[u8]) -> Option<Request<Body>> {
    let at = input.iter().position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&input[..at]).ok()?.split(' ');
    let mut request = Request::builder().method(words.next()?).uri(words.next()?);
    for (name, word) in ["content-type", "idempotency-key"].into_iter().zip(words) {
        if word != "-" {
            request = request.header(name, word);
        }
    }
    request.body(Body::from(input[at + 1..].to_vec())).ok()
}

#[test]
fn fuzz_requests_to_every_route() {
    let folder = quick_folder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let router = runtime.block_on(router(&folder.path().join("payments.db")));
    corpus("payments' requests", "bodies").run(|input| {
        let Some(request) = request(input) else { return };
        let answer = runtime.block_on(router.clone().oneshot(request)).unwrap();
        assert!(answer.status().as_u16() < 500, "{}", answer.status());
    });
}

#[test]
fn fuzz_fault_scripts() {
    corpus("fault scripts", "scripts").run(|input| {
        // Whether the input is a valid script does not matter.
        let _script = (std::str::from_utf8(input).ok().map(Script::parse), Script::parse_json(input));
    });
}
